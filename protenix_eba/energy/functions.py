"""Energy functions by name: the force fields of OpenMM, and any other that a package registers.

An energy function is a builder of an `openmm.System`, so that everything else (minimisation,
checks, labels) is the same for all of them. One that is not made of OpenMM's own forces, a machine
learning potential or xTB, is a Python function wrapped by `python_system`:

    @register_energy("harmonic")
    def harmonic(topology, protocol, constrained):
        def compute(xyz_nm):
            return float((xyz_nm**2).sum()), -2 * xyz_nm
        return python_system(topology, compute)

A package offers it to the command by an entry point in the group `protenix_eba.energies`:
`harmonic = "my_package.energies:harmonic"`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.protonation import protonation_of
from protenix_eba.errors import UserError
from protenix_eba.plugin_api import Registry

__all__ = [
    "ENERGY_ENTRY_POINTS",
    "GROUPS",
    "SystemBuilder",
    "create_system",
    "energy_function",
    "energy_functions",
    "python_system",
    "register_energy",
]

ENERGY_ENTRY_POINTS: Final = "protenix_eba.energies"
# Topology, protocol and whether X-H bonds are rigid -> System. A builder may ignore the last.
SystemBuilder = Callable[[app.Topology, EnergyProtocol, bool], openmm.System]
Compute = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]

# Terms of a force field by which its energy is told apart, and OpenMM's forces for each. Urey-
# Bradley terms are harmonic bonds, the 1-4 Lennard-Jones terms of CHARMM a CustomBondForce.
GROUPS: Final = {
    "bonds": ("HarmonicBondForce",),
    "angles": ("HarmonicAngleForce",),
    "torsions": ("PeriodicTorsionForce", "CustomTorsionForce", "CMAPTorsionForce"),
    "nonbonded": ("NonbondedForce", "CustomNonbondedForce", "CustomBondForce"),
    "solvent": ("CustomGBForce", "GBSAOBCForce"),
}

_REGISTRY: Final[Registry[SystemBuilder]] = Registry("energy function")


def register_energy(name: str) -> Callable[[SystemBuilder], SystemBuilder]:
    """A decorator that makes a builder known under `name`; its numbers must not change later.

    The name stands for the numbers in a protocol's hash: give another version another name.
    """
    return _REGISTRY.register(name)


def energy_functions() -> list[str]:
    """Names of all energy functions: registered ones and those of installed packages."""
    return sorted({*_REGISTRY, *(point.name for point in _entry_points())})


def create_system(
    topology: app.Topology, protocol: EnergyProtocol, *, constrained: bool
) -> openmm.System:
    """The protocol's energy function for a complete topology, its terms in groups of `GROUPS`.

    Args:
        topology: With every atom.
        protocol: Energy function, force field and salt.
        constrained: Whether X-H bonds are rigid.

    Raises:
        UserError: No such function, or it does not know a residue.
    """
    builder = energy_function(protocol.function)
    try:
        system = builder(topology, protocol, constrained)
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
    """A System whose energy is a Python function.

    Args:
        topology: With every atom.
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


def _entry_points() -> Any:
    return entry_points(group=ENERGY_ENTRY_POINTS)


def energy_function(name: str) -> SystemBuilder:
    """The builder that is registered under a name, or offered by an installed package.

    Raises:
        UserError: There is none, or it cannot be imported.
    """
    if name not in _REGISTRY:
        points = {point.name: point for point in _entry_points()}
        if name not in points:
            raise UserError(
                f"no energy function {name!r}: known are {', '.join(energy_functions())}",
                f"register it, or install its package (entry point group {ENERGY_ENTRY_POINTS})",
            )
        try:
            builder = points[name].load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"energy function {name!r} ({points[name].value}) cannot be imported: {error}",
                "repair or reinstall the package that offers it",
            ) from error
        register_energy(name)(builder)
    return _REGISTRY.get(name)


@register_energy("force_field")
def _force_field_system(
    topology: app.Topology, protocol: EnergyProtocol, constrained: bool
) -> openmm.System:
    options = {}
    if protocol.kappa_per_nm:
        options["implicitSolventKappa"] = protocol.kappa_per_nm / unit.nanometer
    return _force_field(protocol.force_field).createSystem(
        topology,
        nonbondedMethod=app.NoCutoff,
        constraints=app.HBonds if constrained else None,
        removeCMMotion=False,
        **options,
    )


def _unmatched(topology: app.Topology, protocol: EnergyProtocol, message: str) -> str:
    """The residue that OpenMM's message names by its index, as the file has it."""
    found = re.match(r"No template found for residue (\d+)", message)
    if protocol.function != "force_field" or not found:
        return message
    residue = next(r for r in topology.residues() if r.index == int(found[1]))
    name = f"{residue.name} {residue.id}{residue.insertionCode.strip()} of chain {residue.chain.id}"
    state = protonation_of(residue)
    return f"{protocol.force_field[0]} has no template for {name} " + (
        f"with {state}" if state else f"({message})"
    )


@functools.cache
def _force_field(files: tuple[str, ...]) -> Any:
    try:
        return app.ForceField(*files)  # a second of parsing
    except ValueError as error:
        raise UserError(
            f"OpenMM {openmm.__version__} has no force field {' + '.join(files)}: {error}",
            "install a newer OpenMM, or choose another force field",
        ) from error
