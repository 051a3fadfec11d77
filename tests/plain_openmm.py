"""Energies of OpenMM alone, without this package: whole force fields, double precision."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

# Heavy atoms of the alanine dipeptide, extended.
DIPEPTIDE = """\
ATOM      1  CH3 ACE A   1       2.000   2.090   0.000  1.00  0.00           C
ATOM      2  C   ACE A   1       3.427   2.641   0.000  1.00  0.00           C
ATOM      3  O   ACE A   1       4.391   1.877   0.000  1.00  0.00           O
ATOM      4  N   ALA A   2       3.555   3.970   0.000  1.00  0.00           N
ATOM      5  CA  ALA A   2       4.853   4.614   0.000  1.00  0.00           C
ATOM      6  CB  ALA A   2       5.661   4.221   1.232  1.00  0.00           C
ATOM      7  C   ALA A   2       5.623   4.186  -1.244  1.00  0.00           C
ATOM      8  O   ALA A   2       6.748   3.700  -1.143  1.00  0.00           O
ATOM      9  N   NME A   3       5.012   4.370  -2.418  1.00  0.00           N
ATOM     10  C   NME A   3       5.642   4.008  -3.684  1.00  0.00           C
END
"""

force_field = functools.cache(app.ForceField)
_systems: dict[Any, openmm.System] = {}


def plain_system(topology: app.Topology, files: tuple[str, ...]) -> openmm.System:
    """X-H bonds rigid, as in the labels; made once for the same atoms and bonds."""
    atoms = tuple((atom.residue.index, atom.name) for atom in topology.atoms())
    bonds = frozenset((first.index, second.index) for first, second in topology.bonds())
    key = atoms, bonds, files
    if key not in _systems:
        field = force_field(*files)
        _systems[key] = field.createSystem(topology, constraints=app.HBonds, removeCMMotion=False)
    return _systems[key]


def plain_energies(
    topology: app.Topology, frames_nm: np.ndarray, files: tuple[str, ...]
) -> list[float]:
    """kJ/mol of conformations `[F, M, 3]`."""
    system = plain_system(topology, files)
    reference = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    energies = []
    for xyz_nm in frames_nm:
        context.setPositions(xyz_nm)
        energy = context.getState(getEnergy=True).getPotentialEnergy()
        energies.append(float(energy.value_in_unit(unit.kilojoule_per_mole)))
    return energies


def evaluated(system: openmm.System, xyz_nm: np.ndarray) -> tuple[float, np.ndarray]:
    """Return energy and forces at a conformation, in double precision."""
    reference = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(xyz_nm)
    state = context.getState(getEnergy=True, getForces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
