"""The energy of one target's conformations by one OpenMM System, built once for all frames."""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

import numpy as np
import openmm
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.energy import (  # those that are not used register energy functions
    fast,
    learned,  # noqa: F401
    md_energy,  # noqa: F401
    xtb,  # noqa: F401
)
from protenix_eba.energy.checks import (
    Geometry,
    absurd_energy,
    absurd_force,
    moved_angstrom,
    moved_bond,
    problem_after,
    problem_before,
    torn_bond,
)
from protenix_eba.energy.functions import BONDED, create_system, doubt_of
from protenix_eba.energy.minimise import Minimiser, OutOfTime
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.self_check import checked
from protenix_eba.energy.structure import CompleteStructure

__all__ = ["FrameEnergy", "TargetEnergy"]

_MAX_MOVE_ANGSTROM: Final = 5.0
# Starts of repeats differ by what rounding could do; that of the second attempt by enough to
# leave a place where the minimiser got stuck.
_ROUNDING_NM: Final = 1e-6
_JITTER_NM: Final = 1e-4
_SECOND_ATTEMPT: Final = "second attempt, atoms moved by 0.001 angstrom, steps 4 times shorter"


class FrameEnergy(NamedTuple):
    """One frame's label; energies in kJ/mol, NaN where they do not exist.

    With repeats, energies, RMSD and forces are means over them and iterations their sum.

    Attributes:
        initial_energy_kj_mol: Energy of the conformation before minimisation.
        energy_kj_mol: Energy after minimisation; the initial one if the protocol has none.
        rmsd_angstrom: All-atom RMSD that the minimisation moved it, after superposition.
        status: "ok", "outlier" (has an energy, but look at it), "skipped" (its coordinates have
            no meaningful energy) or "failed" (the evaluation or the minimisation did).
        reason: Why not ok, or how it became ok.
        energy_bonds_kj_mol: Part of the energy: bonds and Urey-Bradley terms.
        energy_angles_kj_mol: Angles.
        energy_torsions_kj_mol: Torsions, impropers and CMAP.
        energy_nonbonded_kj_mol: Coulomb and Lennard-Jones.
        energy_solvent_kj_mol: Implicit solvent.
        iterations: L-BFGS iterations; 0 without minimisation, -1 where there is no energy.
        rms_force_kj_mol_nm: RMS force after minimisation, without what constraints balance.
        repeats: Minimisations that the energy is the mean of.
        noise_kj_mol: Standard deviation of a single minimisation; NaN for fewer than two.
    """

    initial_energy_kj_mol: float
    energy_kj_mol: float
    rmsd_angstrom: float
    status: str
    reason: str
    energy_bonds_kj_mol: float = math.nan
    energy_angles_kj_mol: float = math.nan
    energy_torsions_kj_mol: float = math.nan
    energy_nonbonded_kj_mol: float = math.nan
    energy_solvent_kj_mol: float = math.nan
    iterations: int = -1
    rms_force_kj_mol_nm: float = math.nan
    repeats: int = 1
    noise_kj_mol: float = math.nan

    @classmethod
    def without(cls, status: str, reason: str, initial: float = math.nan) -> FrameEnergy:
        """Return the label of a frame that has no energy."""
        return cls(initial, math.nan, math.nan, status, reason)


class _Attempt(NamedTuple):
    """One minimisation: the label's numbers, and the reason if it took a second attempt."""

    numbers: dict[str, float]
    reason: str


class _Failed(Exception):
    """A minimisation that ended in nothing usable."""


class TargetEnergy:
    """Computes energies under one protocol for conformations of one complete structure.

    Args:
        structure: The completed structure, from `complete_structure`.
        protocol: Force field and minimisation.
        platform: OpenMM platform name, or "auto": CUDA where there is a device, else CPU.
        generated: The conformations are a model's: its backbone bonds may be stretched, and their
            cost is part of its energy. In MD a gap means a residue that is missing.
        timeout_s: Time for one frame with all its repeats; None for no limit.

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
        timeout_s: float | None = None,
    ) -> None:
        self.structure = structure
        self.generated = generated
        self.protocol = protocol
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._geometry = Geometry.of(structure.topology)
        self._undisturbed = structure.undisturbed()
        name = _platform_name(platform)
        rigid = create_system(structure.topology, protocol, constrained=True)
        self._doubt = doubt_of(structure.topology, protocol)
        compiled = checked(rigid, structure, protocol) if name == "CPU" else None
        self.platform = "CPU, gbn2.c" if compiled is not None else name
        free = None
        if protocol.minimise and protocol.free_stage and rigid.getNumConstraints():
            free = create_system(structure.topology, protocol, constrained=False)
            if free.getNumConstraints():  # a System of a file, whose rigid bonds have no other term
                free = None
        if compiled is not None:
            rigid = compiled
            free = fast.accelerate(free) if free is not None else None
        self._minimiser = Minimiser(rigid, free, name, protocol)
        self._final = self._minimiser.final

    def label(self, xyz_nm: NDArray[np.floating]) -> FrameEnergy:
        """Label one complete conformation `[M, 3]`, nm; never raises for bad coordinates."""
        problem = problem_before(xyz_nm, self._geometry, generated=self.generated)
        if problem:
            return FrameEnergy.without("skipped", problem)
        try:
            initial = self._final.energy_kj_mol(xyz_nm)
        except openmm.OpenMMException as error:
            return FrameEnergy.without("failed", _first_line(error))
        if not math.isfinite(initial):
            return FrameEnergy.without("failed", "initial energy is not finite")
        if absurd := self._absurd(initial, len(xyz_nm)):
            return FrameEnergy.without("failed", f"initial energy: {absurd}", initial)
        if not self.protocol.minimise:
            if doubt := self._doubt(xyz_nm):
                return FrameEnergy.without("failed", doubt, initial)
            as_is = FrameEnergy(initial, initial, 0.0, "ok", "", iterations=0)
            return as_is._replace(**self._parts())  # type: ignore[arg-type]
        deadline = time.monotonic() + self._timeout_s
        try:
            attempts = [
                self._minimised(_moved(xyz_nm, _ROUNDING_NM * bool(repeat), repeat), deadline)
                for repeat in range(self.protocol.repeats)
            ]
        except OutOfTime:
            reason = f"not minimised within {self._timeout_s:g} s"
            return FrameEnergy.without("failed", reason, initial)
        except _Failed as failure:
            return FrameEnergy.without("failed", str(failure), initial)
        return _mean_label(initial, attempts)

    def _absurd(self, initial: float, n_atoms: int) -> str:
        """Return what is absurd at the set positions; empty where nothing is.

        Overlaps may be where a minimisation follows: forces are then looked at behind it. Energies
        of frames as they are have no such second look. Hydrogens that are built may stand in line
        with a bond, which is a large force for no energy, on atoms up to three bonds away; an
        overlap of others is no less absurd where a terminal oxygen is built elsewhere.
        """
        built = self.structure.built_fraction > 0
        clashes = self.protocol.minimise and (built or self.generated)
        absurd = absurd_energy(initial, n_atoms, clashes=clashes)
        return absurd if absurd or clashes else self._absurd_force(self._undisturbed)

    def _unlike_a_force_field(
        self, before_nm: NDArray[np.floating], after_nm: NDArray[np.floating]
    ) -> str:
        """Return what no bonded terms explain at the end of a minimisation; empty if nothing."""
        if absurd := self._absurd_force():
            return absurd
        bonded = self.protocol.function in BONDED and not self.generated
        return moved_bond(before_nm, after_nm, self._geometry) if bonded else ""

    def _absurd_force(self, among: NDArray[np.bool_] | None = None) -> str:
        if self.protocol.function not in BONDED:  # others need no bonds
            return ""
        atom, force = self._final.largest_force_kj_mol_nm(among)
        return absurd_force(force, self._geometry.atoms[atom])

    def _minimised(self, xyz_nm: NDArray[np.floating], deadline: float) -> _Attempt:
        """Minimise once, and where that fails, again: moved a little and with softer steps."""
        try:
            return _Attempt(self._attempt(xyz_nm, deadline), "")
        except _Failed as failure:
            first = str(failure)
        try:
            numbers = self._attempt(_moved(xyz_nm, _JITTER_NM, 0), deadline, shorter=4)
        except _Failed as failure:
            raise _Failed(f"{first}; {_SECOND_ATTEMPT}: {failure}") from None
        return _Attempt(numbers, f"{_SECOND_ATTEMPT}; at first {first}")

    def _attempt(
        self, xyz_nm: NDArray[np.floating], deadline: float, shorter: int = 1
    ) -> dict[str, float]:
        try:
            before = self._final.energy_kj_mol(xyz_nm)
            end = self._minimiser.run(xyz_nm, deadline, shorter)
        except openmm.OpenMMException as error:
            raise _Failed(_first_line(error)) from error
        problem = (
            problem_after(before, end.energy_kj_mol, end.xyz_nm)
            or torn_bond(end.xyz_nm, self._geometry)
            or absurd_energy(end.energy_kj_mol, len(xyz_nm), clashes=False)
            or self._unlike_a_force_field(xyz_nm, end.xyz_nm)
            or self._doubt(end.xyz_nm)
        )
        if problem:
            raise _Failed(problem)
        return {
            "energy_kj_mol": end.energy_kj_mol,
            "rmsd_angstrom": moved_angstrom(xyz_nm, end.xyz_nm),
            "iterations": end.iterations,
            "rms_force_kj_mol_nm": self._final.rms_force_kj_mol_nm(),
            **self._parts(),
        }

    def _parts(self) -> dict[str, float]:
        energies = self._final.group_energies_kj_mol()
        return {f"energy_{name}_kj_mol": energy for name, energy in energies.items()}


def _mean_label(initial: float, attempts: list[_Attempt]) -> FrameEnergy:
    energies = [attempt.numbers["energy_kj_mol"] for attempt in attempts]
    numbers = {
        name: float(np.mean([attempt.numbers[name] for attempt in attempts]))
        for name in attempts[0].numbers
    }
    iterations = int(sum(attempt.numbers["iterations"] for attempt in attempts))
    reason = next((attempt.reason for attempt in attempts if attempt.reason), "")
    label = FrameEnergy(
        initial,
        status="ok",
        reason=reason,
        repeats=len(attempts),
        noise_kj_mol=float(np.std(energies, ddof=1)) if len(energies) > 1 else math.nan,
        **{**numbers, "iterations": iterations},  # type: ignore[arg-type]
    )
    if label.rmsd_angstrom > _MAX_MOVE_ANGSTROM:
        reason = "; ".join(filter(None, [f"moved by {label.rmsd_angstrom:.1f} angstrom", reason]))
        return label._replace(status="outlier", reason=reason)
    return label


def _moved(xyz_nm: NDArray[np.floating], by_nm: float, seed: int) -> NDArray[np.floating]:
    if not by_nm:
        return xyz_nm
    return xyz_nm + by_nm * np.random.default_rng(seed).standard_normal(xyz_nm.shape)


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


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
