"""Minimisation of one conformation in OpenMM, watched: iterations, time limit, forces left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from protenix_eba.energy.functions import GROUPS
from protenix_eba.energy.protocol import EnergyProtocol

__all__ = ["Minimised", "Minimiser", "OutOfTime", "SystemInContext", "system_in_context"]


class OutOfTime(Exception):
    """The time limit of a frame was reached during its minimisation."""


# Friction and time steps of a quench; X-H bonds are not rigid in every energy function. They are
# part of what `EnergyProtocol.quench_ps` means: other values need another field there.
_FRICTION_PER_PS: Final = 5.0
_STEP_FS: Final = 2.0
_STEP_WITHOUT_CONSTRAINTS_FS: Final = 1.0
# Steps between two looks at the clock.
_STEPS: Final = 50
# Before a quench, forces are brought down to those of a thermal conformation, kJ/mol/nm.
_STRAINED_KJ_MOL_NM: Final = 200.0


class Minimised(NamedTuple):
    """The result of a minimisation.

    Attributes:
        energy_kj_mol: Energy of the minimised conformation.
        xyz_nm: `[M, 3]` its positions.
        iterations: L-BFGS iterations and quench steps of all stages.
    """

    energy_kj_mol: float
    xyz_nm: NDArray[np.float64]
    iterations: int


@dataclass(frozen=True)
class SystemInContext:
    """A System in an OpenMM context; `constraints` are its pairs of particles `[C, 2]`."""

    context: Any
    integrator: Any = field(repr=False)
    constraints: NDArray[np.int64] = field(repr=False)

    def energy_kj_mol(self, xyz_nm: NDArray[np.floating]) -> float:
        """Set positions `[M, 3]` and return their potential energy."""
        self.context.setPositions(xyz_nm)
        return self._energy(self.context.getState(getEnergy=True))

    def group_energies_kj_mol(self) -> dict[str, float]:
        """Return the energies of the set positions by term; NaN for terms the System lacks."""
        present = {force.getForceGroup() for force in self.context.getSystem().getForces()}
        return {
            name: self._energy(self.context.getState(getEnergy=True, groups={number}))
            if number in present
            else math.nan
            for number, name in enumerate(GROUPS)
        }

    def largest_force_kj_mol_nm(self, among: NDArray[np.bool_] | None = None) -> tuple[int, float]:
        """Return the atom with the largest force at the set positions, and the force.

        Args:
            among: `[M]` the atoms to look at; all when None.
        """
        norms = np.linalg.norm(self.forces_kj_mol_nm(), axis=1)
        atom = int((norms if among is None else np.where(among, norms, 0.0)).argmax())
        return atom, float(norms[atom]) if among is None or among[atom] else 0.0

    def forces_kj_mol_nm(self) -> NDArray[np.float64]:
        """Return the forces `[M, 3]` at the set positions."""
        state = self.context.getState(getForces=True)
        per_nm = unit.kilojoule_per_mole / unit.nanometer
        return np.array(state.getForces(asNumpy=True).value_in_unit(per_nm))

    def rms_force_kj_mol_nm(self) -> float:
        """Root mean square force component at the set positions, less what constraints balance."""
        unbalanced = self._unbalanced(self.forces_kj_mol_nm(), self.positions_nm())
        return float(np.sqrt(np.mean(unbalanced**2)))

    def _unbalanced(
        self, forces: NDArray[np.float64], xyz_nm: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return forces `[3M]` without their part along constrained distances (least squares)."""
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
        """Return the set positions `[M, 3]`."""
        return _positions_nm(self.context)

    @staticmethod
    def _energy(state: Any) -> float:
        return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


def system_in_context(
    system: openmm.System, platform: str, constraint_tolerance: float
) -> SystemInContext:
    """Put a System into a context, with one thread and double-precision sums."""
    integrator = openmm.VerletIntegrator(0.001)
    integrator.setConstraintTolerance(constraint_tolerance)
    context = _context(system, integrator, platform)
    pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    return SystemInContext(context, integrator, np.array(pairs, dtype=np.int64).reshape(-1, 2))


def _context(system: openmm.System, integrator: Any, platform: str) -> Any:
    # One thread: more threads add forces in another order at each call, and the rounding decides
    # which minimum is found. The same reason asks for double-precision sums on CUDA.
    properties = {"CPU": {"Threads": "1"}, "CUDA": {"Precision": "mixed"}}.get(platform, {})
    return openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)


def _positions_nm(context: Any) -> NDArray[np.float64]:
    positions = context.getState(getPositions=True).getPositions(asNumpy=True)
    return np.array(positions.value_in_unit(unit.nanometer))


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


class Quench:
    """Damped dynamics at 0 K: nearly the path of steepest descent, at the price of dynamics.

    Args:
        system: System whose X-H bonds are rigid, if the energy function allows it.
        platform: Name of the OpenMM platform.
        length_ps: Length of the path in ps.
    """

    def __init__(self, system: openmm.System, platform: str, length_ps: float) -> None:
        rigid = system.getNumConstraints() > 0
        self._step_ps = (_STEP_FS if rigid else _STEP_WITHOUT_CONSTRAINTS_FS) * 1e-3
        self._steps = max(1, round(length_ps / self._step_ps))
        self._integrator = openmm.LangevinMiddleIntegrator(0.0, _FRICTION_PER_PS, self._step_ps)
        self._context = _context(system, self._integrator, platform)

    def run(
        self, xyz_nm: NDArray[np.floating], deadline: float, shorter: int = 1
    ) -> tuple[NDArray[np.float64], int]:
        """Follow the path from `[M, 3]`; return its end and steps. `shorter` divides their length.

        Raises:
            OutOfTime: The deadline came first.
            openmm.OpenMMException: The positions became infinite.
        """
        self._integrator.setStepSize(self._step_ps / shorter)
        self._context.setPositions(xyz_nm)
        self._context.setVelocities(np.zeros_like(xyz_nm))
        self._context.applyConstraints(self._integrator.getConstraintTolerance())
        left = steps = self._steps * shorter
        while left > 0:
            self._integrator.step(min(left, _STEPS))
            left -= _STEPS
            if time.monotonic() > deadline:
                raise OutOfTime
        return _positions_nm(self._context), steps


class Minimiser:
    """The minimisation of a protocol for one System.

    Args:
        rigid: System whose X-H bonds are rigid.
        free: The same without constraints, for the stages that come first; None to do without.
        platform: Name of the OpenMM platform.
        protocol: Tolerances and stages.
    """

    def __init__(
        self,
        rigid: openmm.System,
        free: openmm.System | None,
        platform: str,
        protocol: EnergyProtocol,
    ) -> None:
        self.final = system_in_context(rigid, platform, protocol.constraint_tolerance)
        self._protocol = protocol
        self._stages = [self.final]
        if free is not None:
            self._stages.insert(0, system_in_context(free, platform, protocol.constraint_tolerance))
        length_ps = protocol.quench_ps
        self._quench = Quench(rigid, platform, length_ps) if length_ps else None

    def run(self, xyz_nm: NDArray[np.floating], deadline: float, shorter: int = 1) -> Minimised:
        """Minimise: what strains, the quench, then each stage from where the last one ended.

        Args:
            xyz_nm: `[M, 3]` start.
            deadline: Time of `time.monotonic` at which to give up.
            shorter: Divides the time steps of the quench.

        Raises:
            OutOfTime: The deadline came first.
            openmm.OpenMMException: OpenMM cannot evaluate the positions.
        """
        protocol, total = self._protocol, 0
        if self._quench is not None:
            xyz_nm, iterations = _lbfgs(self._stages[0], xyz_nm, _STRAINED_KJ_MOL_NM, 0, deadline)
            xyz_nm, steps = self._quench.run(xyz_nm, deadline, shorter)
            total = iterations + steps
        for one in self._stages:
            xyz_nm, iterations = _lbfgs(
                one, xyz_nm, protocol.tolerance_kj_mol_nm, protocol.max_iterations, deadline
            )
            total += iterations
        return Minimised(self.final.energy_kj_mol(xyz_nm), np.asarray(xyz_nm), total)


def _lbfgs(
    one: SystemInContext,
    xyz_nm: NDArray[np.floating],
    tolerance_kj_mol_nm: float,
    max_iterations: int,
    deadline: float,
) -> tuple[NDArray[np.float64], int]:
    """Run OpenMM's minimiser; return its end and iterations, or raise OutOfTime."""
    watch = _Watch(deadline)
    one.context.setPositions(xyz_nm)
    openmm.LocalEnergyMinimizer.minimize(one.context, tolerance_kj_mol_nm, max_iterations, watch)
    if time.monotonic() > deadline:
        raise OutOfTime
    return one.positions_nm(), watch.iterations
