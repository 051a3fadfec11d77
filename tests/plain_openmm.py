"""Energies of OpenMM alone, without this package: whole force fields, double precision."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

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
