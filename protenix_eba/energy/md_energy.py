"""The energy function of an MD's own force field: its System, or that in an implicit solvent.

Water and ions are taken out of the System that OpenMM makes of the file. An implicit solvent has
OpenMM's parameters for the model by element and bond (mbondi3 radii for GBn2, mbondi2 for OBC2), as
in all labels; radii in a prmtop of a simulation in water are nobody's choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import openmm
from openmm import app
from openmm.app.internal.customgbforces import GBSAGBn2Force, GBSAOBC2Force

from protenix_eba.core.errors import UserError
from protenix_eba.energy.functions import ENERGIES, GROUPS, MD
from protenix_eba.energy.md_files import MdFile
from protenix_eba.energy.protocol import SOLVENTS, EnergyProtocol

__all__ = ["MdTopology", "is_solvent", "part_of"]

# Of the salt in a simulation's box. Other metals may be bound, and stay.
_SALT: Final = frozenset({"Li", "Na", "K", "Rb", "Cs", "F", "Cl", "Br", "I"})
_WATER: Final = ["H", "H", "O"]
_ATOM: Final = re.compile(r"[pab]\d+|index")  # attributes of OpenMM's XML that number atoms
_BY_OTHER_NUMBERS: Final = ("InteractionGroup", "Offset")
_SOLVENT_FORCES: Final = {
    SOLVENTS["gbn2"]: GBSAGBn2Force,
    SOLVENTS["obc2"]: GBSAOBC2Force,
}


class MdTopology(app.Topology):
    """The topology of a solute whose force field stands in a file.

    Args:
        file: The file.
        atoms: Index there of each atom here.
    """

    def __init__(self, file: Path, atoms: Sequence[int]) -> None:
        super().__init__()
        self.file = file
        self.atoms_in_file = list(atoms)


def is_solvent(residue: Any) -> bool:
    """Tell whether a residue is water, with virtual sites perhaps, or an ion of a salt."""
    symbols = sorted(atom.element.symbol for atom in residue.atoms() if atom.element is not None)
    return symbols == _WATER or (len(symbols) == 1 and symbols[0] in _SALT)


@ENERGIES.register(MD)
def _md_system(
    topology: app.Topology, protocol: EnergyProtocol, constrained: bool
) -> openmm.System:
    """Make the System of the solute; a serialised one keeps the rigid bonds that it has."""
    if not isinstance(topology, MdTopology):
        raise UserError(
            "the force field of an MD is needed, and no file of it was given",
            "give it by `label --system`",
        )
    system = part_of(MdFile(topology.file).system(constrained), topology.atoms_in_file)
    for name, kind in _SOLVENT_FORCES.items():
        if name in protocol.force_field:
            _add_solvent(system, topology, kind, protocol.kappa_per_nm)
    return system


def _add_solvent(system: openmm.System, topology: app.Topology, kind: Any, kappa: float) -> None:
    if any(type(force).__name__ in GROUPS["solvent"] for force in system.getForces()):
        raise UserError(
            "the System has an implicit solvent of its own", "keep it by --solvent none"
        )
    charges = [f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)]
    if len(charges) != 1:
        raise UserError(
            f"an implicit solvent needs the charges of one NonbondedForce, found {len(charges)}",
            "give --solvent none",
        )
    force = kind(SA="ACE", kappa=kappa)
    for atom, parameters in enumerate(kind.getStandardParameters(topology)):
        force.addParticle([charges[0].getParticleParameters(atom)[0], *parameters])
    force.finalize()
    system.addForce(force)


def part_of(system: openmm.System, atoms: Sequence[int]) -> openmm.System:
    """Return the System of some of its atoms, with the terms that are among them alone.

    Args:
        system: The System of all atoms.
        atoms: Their indices there, in their order in the new System.

    Raises:
        UserError: A force that is not known to be a sum over atoms and small groups of them.
    """
    if list(atoms) == list(range(system.getNumParticles())):
        return system
    known = {*(kind for kinds in GROUPS.values() for kind in kinds), "CustomExternalForce"}
    other = {type(force).__name__ for force in system.getForces()} - known
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    other |= {element.tag for element in root.iter() if element.tag in _BY_OTHER_NUMBERS}
    if other:
        raise UserError(
            f"no solvent can be taken out of a System with {', '.join(sorted(other))}",
            "give the force field of the solute alone",
        )
    for particles in root.iter("Particles"):
        if not any("index" in particle.attrib for particle in particles):
            particles[:] = [particles[atom] for atom in atoms]
    number = {str(old): str(new) for new, old in enumerate(atoms)}
    for parent in root.iter():
        inside = [child for child in parent if _atoms(child) <= number.keys()]
        parent[:] = inside
        for child in inside:
            child.attrib |= {key: number[child.attrib[key]] for key in _keys(child)}
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))


def _keys(element: ElementTree.Element) -> list[str]:
    return [key for key in element.attrib if _ATOM.fullmatch(key)]


def _atoms(element: ElementTree.Element) -> set[str]:
    return {element.attrib[key] for key in _keys(element)}
