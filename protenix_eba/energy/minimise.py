"""Minimisation of one conformation in OpenMM, watched: iterations, time limit, forces left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from protenix_eba.energy.functions import GROUPS

__all__ = ["Minimised", "OutOfTime", "Stage", "minimise", "stage"]


class OutOfTime(Exception):
    """The time limit of a frame was reached during its minimisation."""


class Minimised(NamedTuple):
    """The end of a minimisation.

    Attributes:
        energy_kj_mol: Of the minimised conformation.
        xyz_nm: `[M, 3]` its positions.
        iterations: L-BFGS iterations of all stages.
    """

    energy_kj_mol: float
    xyz_nm: NDArray[np.float64]
    iterations: int


@dataclass(frozen=True)
class Stage:
    """One System ready for evaluation; `constraints` are its pairs of particles `[C, 2]`."""

    context: Any
    integrator: Any = field(repr=False)
    constraints: NDArray[np.int64] = field(repr=False)

    def energy_kj_mol(self, xyz_nm: NDArray[np.floating]) -> float:
        """Potential energy of positions `[M, 3]`, which stay set."""
        self.context.setPositions(xyz_nm)
        return self._energy(self.context.getState(getEnergy=True))

    def group_energies_kj_mol(self) -> dict[str, float]:
        """Energies of the set positions by term; NaN for terms that the System has not."""
        present = {force.getForceGroup() for force in self.context.getSystem().getForces()}
        return {
            name: self._energy(self.context.getState(getEnergy=True, groups={number}))
            if number in present
            else math.nan
            for number, name in enumerate(GROUPS)
        }

    def rms_force_kj_mol_nm(self) -> float:
        """Root mean square force component at the set positions, less what constraints balance."""
        state = self.context.getState(getForces=True, getPositions=True)
        per_nm = unit.kilojoule_per_mole / unit.nanometer
        forces = np.array(state.getForces(asNumpy=True).value_in_unit(per_nm))
        xyz_nm = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        return float(np.sqrt(np.mean(self._unbalanced(forces, xyz_nm) ** 2)))

    def _unbalanced(
        self, forces: NDArray[np.float64], xyz_nm: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """`[3M]` forces without their part along the constrained distances (least squares)."""
        if not len(self.constraints):
            return forces.ravel()
        first, second = self.constraints.T
        along = xyz_nm[first] - xyz_nm[second]
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        rows = np.concatenate([3 * first[:, None] + range(3), 3 * second[:, None] + range(3)])
        columns = np.tile(np.repeat(np.arange(len(first)), 3), 2)
        values = np.concatenate([along, -along]).ravel()
        shape = (forces.size, len(first))
        gradient = csr_array((values, (rows.ravel(), columns)), shape=shape)
        balanced = gradient @ lsqr(gradient, forces.ravel(), atol=1e-8, btol=1e-8)[0]
        return np.asarray(forces.ravel() - balanced)

    def positions_nm(self) -> NDArray[np.float64]:
        """`[M, 3]` the set positions."""
        positions = self.context.getState(getPositions=True).getPositions(asNumpy=True)
        return np.array(positions.value_in_unit(unit.nanometer))

    @staticmethod
    def _energy(state: Any) -> float:
        return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


def stage(system: openmm.System, platform: str, constraint_tolerance: float) -> Stage:
    """A System made ready on a platform, with one thread and double-precision sums."""
    integrator = openmm.VerletIntegrator(0.001)
    integrator.setConstraintTolerance(constraint_tolerance)
    # One thread: more threads add forces in another order at each call, and the rounding decides
    # which minimum is found. The same reason asks for double-precision sums on CUDA.
    properties = {"CPU": {"Threads": "1"}, "CUDA": {"Precision": "mixed"}}.get(platform, {})
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    return Stage(context, integrator, np.array(pairs, dtype=np.int64).reshape(-1, 2))


class _Watch(openmm.MinimizationReporter):
    """Counts iterations, and ends the minimisation when the time is over."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.iterations = 0

    def report(self, iteration: int, x: Any, grad: Any, args: Any) -> bool:
        """Called by OpenMM after each iteration; True stops."""
        self.iterations += 1
        return time.monotonic() > self.deadline


def minimise(
    stages: list[Stage],
    xyz_nm: NDArray[np.floating],
    tolerance_kj_mol_nm: float,
    max_iterations: int,
    deadline: float,
) -> Minimised:
    """Minimise stage after stage, each from where the last one ended.

    Args:
        stages: At least one.
        xyz_nm: `[M, 3]` start.
        tolerance_kj_mol_nm: Root mean square force at which each stage ends.
        max_iterations: Of each stage, 0 for no limit.
        deadline: Time of `time.monotonic` at which to give up.

    Raises:
        OutOfTime: The deadline came first.
        openmm.OpenMMException: OpenMM cannot evaluate the positions.
    """
    iterations = 0
    for one in stages:
        watch = _Watch(deadline)
        one.context.setPositions(xyz_nm)
        openmm.LocalEnergyMinimizer.minimize(
            one.context, tolerance_kj_mol_nm, max_iterations, watch
        )
        iterations += watch.iterations
        if time.monotonic() > deadline:
            raise OutOfTime
        xyz_nm = one.positions_nm()
    energy = one._energy(one.context.getState(getEnergy=True))
    return Minimised(energy, np.asarray(xyz_nm, dtype=np.float64), iterations)
