"""The energy of one target's conformations: one OpenMM System, built once, used for all frames."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from scipy.spatial import cKDTree

from protenix_eba.energy import fast
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.structure import CompleteStructure
from protenix_eba.errors import UserError
from protenix_eba.units import ANGSTROM_PER_NM

__all__ = ["FrameEnergy", "TargetEnergy"]

_MAX_PEPTIDE_BOND_NM: Final = 0.2
_MIN_DISTANCE_NM: Final = 0.01
_MAX_MOVE_ANGSTROM: Final = 5.0
# The compiled evaluation must give OpenMM's own energy this closely, kJ/mol.
_SAME_ENERGY_KJ_MOL: Final = 0.05


class FrameEnergy(NamedTuple):
    """One frame's label; energies in kJ/mol, NaN where they do not exist.

    Attributes:
        initial_energy_kj_mol: Of the conformation as it is.
        energy_kj_mol: After minimisation; the initial one if the protocol has none.
        rmsd_angstrom: All-atom RMSD that the minimisation moved it, after superposition.
        status: "ok", "outlier" (has an energy, but look at it) or "failed".
        reason: Why not ok.
    """

    initial_energy_kj_mol: float
    energy_kj_mol: float
    rmsd_angstrom: float
    status: str
    reason: str


def _failed(reason: str, initial: float = math.nan) -> FrameEnergy:
    return FrameEnergy(initial, math.nan, math.nan, "failed", reason)


@dataclass(frozen=True)
class _Stage:
    context: Any
    integrator: Any


class TargetEnergy:
    """Energies under one protocol for conformations of one complete structure.

    Args:
        structure: From `complete_structure`.
        protocol: Force field and minimisation.
        platform: OpenMM platform name, or "auto": CUDA where there is a device, else CPU.
        generated: The conformations are a model's: its backbone bonds may be stretched, and their
            cost is part of its energy. In MD a gap means a residue that is missing.

    Attributes:
        platform: What evaluates: "CUDA", "CPU", or "CPU, gbn2.c" where the compiled GBn2 of
            `energy.fast` is used, which gives the same energies.

    Raises:
        UserError: The force field does not know a residue, or no such platform.
    """

    def __init__(
        self,
        structure: CompleteStructure,
        protocol: EnergyProtocol,
        platform: str = "auto",
        *,
        generated: bool = False,
    ) -> None:
        self.structure = structure
        self.generated = generated
        self.protocol = protocol
        name = _platform_name(platform)
        self._peptide_bonds = _peptide_bonds(structure.topology)
        constrained = _create_system(structure, protocol, app.HBonds)
        accelerated = name == "CPU" and _accelerates(constrained, structure)
        self.platform = "CPU, gbn2.c" if accelerated else name
        self._final = _stage(constrained, protocol, name, accelerated)
        self._free: _Stage | None = None
        if protocol.minimise and protocol.free_stage:
            unconstrained = _create_system(structure, protocol, None)
            self._free = _stage(unconstrained, protocol, name, accelerated)

    def label(self, xyz_nm: NDArray[np.floating]) -> FrameEnergy:
        """The label of one complete conformation `[M, 3]`, nm; never raises for bad coordinates."""
        problem = self._problem_before(xyz_nm)
        if problem:
            return _failed(problem)
        try:
            self._final.context.setPositions(xyz_nm)
            initial = _energy(self._final.context)
            if not math.isfinite(initial):
                return _failed("initial energy is not finite")
            if not self.protocol.minimise:
                return FrameEnergy(initial, initial, 0.0, "ok", "")
            return self._checked(xyz_nm, initial, *self._minimise(xyz_nm))
        except openmm.OpenMMException as error:
            return _failed(str(error).split("\n")[0])

    def _minimise(self, xyz_nm: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
        tolerance, limit = self.protocol.tolerance_kj_mol_nm, self.protocol.max_iterations
        if self._free is not None:
            self._free.context.setPositions(xyz_nm)
            openmm.LocalEnergyMinimizer.minimize(self._free.context, tolerance, limit)
            xyz_nm = _positions(self._free.context)
        context = self._final.context
        context.setPositions(xyz_nm)
        openmm.LocalEnergyMinimizer.minimize(context, tolerance, limit)
        return _energy(context), _positions(context)

    def _problem_before(self, xyz_nm: NDArray[np.floating]) -> str:
        if not np.isfinite(xyz_nm).all():
            return "coordinates are not finite"
        gaps = np.linalg.norm(
            xyz_nm[self._peptide_bonds[:, 0]] - xyz_nm[self._peptide_bonds[:, 1]], axis=1
        )
        if not self.generated and (gaps > _MAX_PEPTIDE_BOND_NM).any():
            return f"C-N distance of {gaps.max() * ANGSTROM_PER_NM:.1f} angstrom in the backbone"
        if cKDTree(xyz_nm).query_pairs(_MIN_DISTANCE_NM):
            return "two atoms in one place"
        return ""

    def _checked(
        self,
        before_nm: NDArray[np.floating],
        initial: float,
        final: float,
        after_nm: NDArray[np.float64],
    ) -> FrameEnergy:
        if not math.isfinite(final) or not np.isfinite(after_nm).all():
            return _failed("minimised energy is not finite", initial)
        if final > initial:
            rise = f"minimisation raised the energy by {final - initial:.1f} kJ/mol"
            return _failed(rise, initial)
        rmsd = _rmsd_angstrom(before_nm, after_nm)
        if rmsd > _MAX_MOVE_ANGSTROM:
            return FrameEnergy(initial, final, rmsd, "outlier", f"moved by {rmsd:.1f} angstrom")
        return FrameEnergy(initial, final, rmsd, "ok", "")


def _platform_name(platform: str) -> str:
    known = [
        openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())
    ]
    if platform == "auto":
        return "CUDA" if "CUDA" in known else "CPU"
    if platform not in known:
        raise UserError(
            f"OpenMM has no platform {platform!r} here: it has {', '.join(known)}",
            "use --platform auto, or install OpenMM's plugin for it",
        )
    return platform


@functools.cache
def _force_field(files: tuple[str, ...]) -> Any:
    return app.ForceField(*files)  # a second of parsing


def _create_system(
    structure: CompleteStructure, protocol: EnergyProtocol, constraints: Any
) -> openmm.System:
    options = {}
    if protocol.kappa_per_nm:
        options["implicitSolventKappa"] = protocol.kappa_per_nm / unit.nanometer
    try:
        return _force_field(protocol.force_field).createSystem(
            structure.topology,
            nonbondedMethod=app.NoCutoff,
            constraints=constraints,
            removeCMMotion=False,
            **options,
        )
    except ValueError as error:
        raise UserError(f"the force field cannot describe this structure: {error}") from error


def _stage(
    system: openmm.System, protocol: EnergyProtocol, platform: str, accelerated: bool
) -> _Stage:
    if accelerated:
        system = fast.accelerate(system)
    integrator = openmm.VerletIntegrator(0.001)
    integrator.setConstraintTolerance(protocol.constraint_tolerance)
    # One thread: more threads add forces in another order at each call, and the rounding decides
    # which minimum is found. The same reason asks for double-precision sums on CUDA.
    properties = {"CPU": {"Threads": "1"}, "CUDA": {"Precision": "mixed"}}.get(platform, {})
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    return _Stage(context, integrator)


def _accelerates(system: openmm.System, structure: CompleteStructure) -> bool:
    """Whether the compiled evaluation works here and agrees with OpenMM on the reference."""
    if not fast.can_accelerate():
        return False
    energies = []
    try:
        for candidate in (system, fast.accelerate(system)):
            platform = openmm.Platform.getPlatform("CPU")
            context = openmm.Context(
                candidate, openmm.VerletIntegrator(0.001), platform, {"Threads": "1"}
            )
            context.setPositions(structure.reference_nm)
            energies.append(_energy(context))
    except (ValueError, openmm.OpenMMException):
        return False
    return abs(energies[0] - energies[1]) < _SAME_ENERGY_KJ_MOL


def _peptide_bonds(topology: Any) -> NDArray[np.int64]:
    pairs = [
        (first.index, second.index)
        for first, second in topology.bonds()
        if {first.name, second.name} == {"C", "N"} and first.residue is not second.residue
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _energy(context: Any) -> float:
    energy = context.getState(getEnergy=True).getPotentialEnergy()
    return float(energy.value_in_unit(unit.kilojoule_per_mole))


def _positions(context: Any) -> NDArray[np.float64]:
    positions = context.getState(getPositions=True).getPositions(asNumpy=True)
    return np.array(positions.value_in_unit(unit.nanometer))


def _rmsd_angstrom(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    before, after = (
        mdtraj.Trajectory(np.asarray(xyz, dtype=np.float32)[None], None) for xyz in (first, second)
    )
    return float(mdtraj.rmsd(after, before)[0] * ANGSTROM_PER_NM)
