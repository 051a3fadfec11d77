"""Energy functions by name: the force fields of OpenMM, and any other that a plugin registers.

An energy function builds an `openmm.System`, so that everything else (minimisation, checks, labels)
is the same for all of them. One that is not made of OpenMM's own forces, a machine learning
potential or xTB, is a Python function wrapped by `python_system`:

    @ENERGIES.register("harmonic")
    def harmonic(topology, protocol, constrained):
        def compute(xyz_nm):
            return float((xyz_nm**2).sum()), -2 * xyz_nm
        return python_system(topology, compute)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from protenix_eba.core.errors import UserError
from protenix_eba.energy.caps import within_residues
from protenix_eba.energy.force_fields import force_field, is_charmm
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.protonation import protonation_of
from protenix_eba.plugin_api import Registry
from protenix_eba.protein.residue_names import CAP_ATOMS

__all__ = [
    "BONDED",
    "ENERGIES",
    "FORCE_FIELD",
    "GROUPS",
    "MD",
    "EnergyFunction",
    "check_energy",
    "create_system",
    "doubt_of",
    "python_system",
    "refuse_solvent",
]

Compute = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]

# Terms of a force field by which its energy is told apart, and OpenMM's forces for each. Urey-
# Bradley terms are harmonic bonds, the 1-4 Lennard-Jones terms of CHARMM a CustomBondForce.
GROUPS: Final = {
    "bonds": ("HarmonicBondForce",),
    "angles": ("HarmonicAngleForce",),
    "torsions": (
        *("PeriodicTorsionForce", "RBTorsionForce"),
        *("CustomTorsionForce", "CMAPTorsionForce"),
    ),
    "nonbonded": ("NonbondedForce", "CustomNonbondedForce", "CustomBondForce"),
    "solvent": ("CustomGBForce", "GBSAOBCForce"),
}


class EnergyFunction(Protocol):
    """Builds the energy of a molecule; `--energy` of `label` names it.

    Its name stands for its numbers in the hash that keeps labels of two protocols apart, so it
    reads no configuration, and a changed one has another name.

    One that needs a package, or cannot follow all choices of a protocol, may have a method
    `check(protocol)` besides, which raises UserError before any frame is labelled. One that can
    tell where its energy means nothing may have a method `doubt(topology)`: what it returns takes
    positions `[M, 3]` in nm and gives the reason for a failed row, or "".
    """

    def __call__(
        self, topology: app.Topology, protocol: EnergyProtocol, constrained: bool, /
    ) -> openmm.System:
        """Build the System of a molecule.

        Args:
            topology: Topology with every atom, including hydrogens.
            protocol: Force field and salt, for functions that have a part of them.
            constrained: Whether X-H bonds are to be rigid, as in the last stage of a minimisation;
                may be ignored.

        Returns:
            A particle for each atom, in the order of the topology, and forces whose energy is in
            kJ/mol.

        Raises:
            ValueError: It does not know a residue: the target is then left out with this reason.
        """


FORCE_FIELD: Final = "force_field"
"""The energy function of the package's own."""

MD: Final = "md"
"""The energy function of an MD's own files, see `energy.md_energy`; `label --system` chooses it."""

BONDED: Final = frozenset({FORCE_FIELD, MD})
"""Energy functions with bonds as the topology has them."""

ENERGIES: Final[Registry[EnergyFunction]] = Registry("energy function")


def check_energy(protocol: EnergyProtocol) -> None:
    """Refuse an energy function that cannot be computed here, whatever the molecule.

    Raises:
        UserError: No such function, or its own reason.
    """
    check = getattr(ENERGIES.get(protocol.function), "check", None)
    if check is not None:
        check(protocol)


def refuse_solvent(protocol: EnergyProtocol, what: str) -> None:
    """Refuse a force field, solvent or salt where the energy has none of the protocol's.

    Args:
        protocol: The choices.
        what: Says of the energy what it has instead.

    Raises:
        UserError: So it is.
    """
    if protocol.kappa_per_nm or protocol.force_field != EnergyProtocol().force_field:
        raise UserError(
            f"{what}: --solvent and salt have no part in it",
            "leave them out, and take a protocol without salt",
        )


def doubt_of(
    topology: app.Topology, protocol: EnergyProtocol
) -> Callable[[NDArray[np.floating]], str]:
    """Return what says why the energy of positions `[M, 3]` in nm means nothing, or "".

    Args:
        topology: Topology with every atom.
        protocol: Its energy function may be one that can tell.
    """
    doubt = getattr(ENERGIES.get(protocol.function), "doubt", None)
    return doubt(topology) if doubt else lambda _: ""


def create_system(
    topology: app.Topology, protocol: EnergyProtocol, *, constrained: bool
) -> openmm.System:
    """Create the protocol's System for a complete topology, its terms in groups of `GROUPS`.

    Args:
        topology: Topology with every atom.
        protocol: Energy function, force field and salt.
        constrained: Whether X-H bonds are rigid.

    Raises:
        UserError: No such function, or it does not know a residue.
    """
    build = ENERGIES.get(protocol.function)
    try:
        system = build(topology, protocol, constrained)
    except ValueError as error:
        found = _unmatched(topology, protocol, str(error))
        raise UserError(
            f"the force field cannot describe this structure: {found}",
            "choose another force field, or leave this protein out",
        ) from error
    numbers = {kind: i for i, kinds in enumerate(GROUPS.values()) for kind in kinds}
    for force in system.getForces():
        force.setForceGroup(numbers.get(type(force).__name__, len(GROUPS)))
    return system


def python_system(topology: app.Topology, compute: Compute) -> openmm.System:
    """Create a System whose energy is a Python function.

    Args:
        topology: Topology with every atom.
        compute: `[M, 3]` positions in nm -> energy in kJ/mol and `[M, 3]` forces in kJ/mol/nm.

    Raises:
        UserError: An OpenMM without PythonForce.
    """
    if not hasattr(openmm, "PythonForce"):
        raise UserError(
            f"OpenMM {openmm.__version__} cannot evaluate a Python function", "install 8.4 or later"
        )
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)

    def evaluate(state: Any) -> tuple[float, NDArray[np.float64]]:
        return compute(np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)))

    system.addForce(openmm.PythonForce(evaluate))
    return system


@ENERGIES.register(FORCE_FIELD)
def _force_field_system(
    topology: app.Topology, protocol: EnergyProtocol, constrained: bool
) -> openmm.System:
    options = {}
    if protocol.kappa_per_nm:
        options["implicitSolventKappa"] = protocol.kappa_per_nm / unit.nanometer
    return force_field(protocol.force_field).createSystem(
        _as_templates_have_it(topology, protocol),
        nonbondedMethod=app.NoCutoff,
        constraints=app.HBonds if constrained else None,
        removeCMMotion=False,
        **options,
    )


def _as_templates_have_it(topology: app.Topology, protocol: EnergyProtocol) -> app.Topology:
    capped = any(residue.name in CAP_ATOMS for residue in topology.residues())
    patched = capped and is_charmm(protocol.force_field[0])
    return within_residues(topology) if patched else topology


def _unmatched(topology: app.Topology, protocol: EnergyProtocol, message: str) -> str:
    """Name the residue that OpenMM's message gives by its index, as the file has it."""
    found = re.match(r"No template found for residue (\d+)", message)
    if protocol.function != FORCE_FIELD or not found:
        return message
    residues = list(_as_templates_have_it(topology, protocol).residues())
    residue = residues[int(found[1])]
    name = f"{residue.name} {residue.id}{residue.insertionCode.strip()} of chain {residue.chain.id}"
    state = protonation_of(residue)
    return f"{protocol.force_field[0]} has no template for {name} " + (
        f"with {state}" if state else f"({message})"
    )
