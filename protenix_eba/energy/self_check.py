"""Is the compiled evaluation of `energy.fast` OpenMM's own, for this molecule on this machine?

OpenMM takes 34 CPU s for one energy of 3,286 atoms, where the compiled evaluation takes 0.1 s. So
only a part of the molecule is compared, in its forces as well, which tell more than an energy; and
where they agree, the answer is remembered beside the compiled routine.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import openmm
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import cache_folder, fingerprint, sha256_of_file, write_json
from protenix_eba.energy import fast
from protenix_eba.energy.minimise import system_in_context
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.structure import CompleteStructure

__all__ = ["checked", "part_of", "same_forces"]

# Enough for a buried core, where all terms of the solvent act.
_ATOMS: Final = 500
# Single precision leaves 0.005 kJ/mol, and 5e-6 of the RMS force.
_SAME_ENERGY_KJ_MOL: Final = 0.05
_SAME_FORCES: Final = 1e-4
_ENDS: Final = ("p1", "p2")  # of a pair, in OpenMM's XML
_REPLACED: Final = (openmm.NonbondedForce, openmm.CustomNonbondedForce, openmm.CustomGBForce)


def checked(
    system: openmm.System, structure: CompleteStructure, protocol: EnergyProtocol
) -> openmm.System | None:
    """Return `fast.accelerate(system)`, or None where it cannot be had or differs from OpenMM.

    Args:
        system: The protocol's System for the structure.
        structure: Its reference conformation is compared, the atoms next to its centre.
        protocol: What an energy means.
    """
    if not fast.can_accelerate():
        return None
    record = _record(structure, protocol)
    try:
        candidate = fast.accelerate(system)
        if not record.is_file():
            atoms = _core(structure.reference_nm)
            part, xyz_nm = part_of(system, atoms.tolist()), structure.reference_nm[atoms]
            if not same_forces(part, fast.accelerate(part), xyz_nm):
                return None
            with suppress(UserError, OSError):  # without a cache it costs a second each time
                write_json(record, {"cpu": _cpu(), "atoms": len(atoms)})
    except (ValueError, openmm.OpenMMException):
        return None
    return candidate


def _record(structure: CompleteStructure, protocol: EnergyProtocol) -> Path:
    """Return the file that is there once this molecule was found right on such a machine."""
    routine = fast.routine_file()
    made_by = sha256_of_file(routine) if routine else ""
    what = [structure.topology_hash, protocol.hash, openmm.__version__, made_by, _cpu()]
    return cache_folder() / "gbn2-checked" / f"{fingerprint(what)}.json"


def _cpu() -> str:
    """Return the CPU's name, or that of its architecture where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _core(xyz_nm: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the indices of the atoms next to the centre, in their order."""
    distances = np.linalg.norm(xyz_nm - xyz_nm.mean(axis=0), axis=1)
    return np.sort(np.argsort(distances, kind="stable")[:_ATOMS])


def same_forces(one: openmm.System, other: openmm.System, xyz_nm: NDArray[np.floating]) -> bool:
    """Tell whether a System has the energy and forces of another at positions `[M, 3]`, nm.

    Args:
        one: Evaluated by OpenMM in double precision.
        other: Evaluated on the CPU, in single precision.
        xyz_nm: The positions.
    """
    energies, forces = [], []
    for system, name in ((one, "Reference"), (other, "CPU")):
        placed = system_in_context(system, name, 1e-5)
        energies.append(placed.energy_kj_mol(xyz_nm))
        forces.append(placed.forces_kj_mol_nm())
    off = np.linalg.norm(forces[1] - forces[0]) / np.linalg.norm(forces[0])
    return bool(abs(energies[1] - energies[0]) < _SAME_ENERGY_KJ_MOL and off < _SAME_FORCES)


def part_of(system: openmm.System, atoms: Sequence[int]) -> openmm.System:
    """Return the System of some atoms alone, with those of its forces that `fast` replaces.

    Args:
        system: The System of all atoms.
        atoms: Their indices there, in their order in the new System.
    """
    part = openmm.System()
    for atom in atoms:
        part.addParticle(system.getParticleMass(atom))
    for force in system.getForces():
        if isinstance(force, _REPLACED):
            part.addForce(_among(force, atoms))
    return part


def _among(force: Any, atoms: Sequence[int]) -> Any:
    """Return a force with the parameters, exceptions and exclusions of some atoms alone."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    index = {str(old): str(new) for new, old in enumerate(atoms)}
    particles = root.find("Particles")
    if particles is not None:
        particles[:] = [particles[atom] for atom in atoms]
    for pairs in (root.find("Exceptions"), root.find("Exclusions")):
        if pairs is not None:
            pairs[:] = [pair for pair in pairs if all(pair.attrib[end] in index for end in _ENDS)]
            for pair in pairs:
                pair.attrib |= {end: index[pair.attrib[end]] for end in _ENDS}
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
