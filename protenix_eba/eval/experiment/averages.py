"""Observables that are averages over conformations, and each conformation's contribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.karplus import COUPLINGS, karplus
from protenix_eba.eval.experiment.measurements import AVERAGED, AtomName, Measurement
from protenix_eba.eval.experiment.shifts import fitted_offsets, shift_signals

__all__ = ["Averaged", "averaged"]

Float64s = NDArray[np.float64]

# Cross-relaxation falls with the sixth power of the distance; the third power is for motions that
# are faster than the tumbling of the molecule (Tropp, J. Chem. Phys. 72, 6035 (1980)).
_POWERS: Final = {"NOE": 6, "NOE3": 3}
_FLIPPED: Final = {"upper": "lower", "lower": "upper", "": ""}


@dataclass(frozen=True)
class Averaged:
    """M observables as plain averages; distances of NOEs are averaged as powers.

    Attributes:
        signals: `[S, M]` of each conformation, `offsets` included.
        offsets: `[S, M]` the share of signals that refers shifts to the measured ones, else 0.
        values: `[M]` measured.
        errors: `[M]`.
        bounds: `M` words "", "upper" or "lower"; a power turns a bound around.
        powers: `[M]` the power -p that turns an average into a distance, 0 where it is one already.
    """

    signals: Float64s
    offsets: Float64s
    values: Float64s
    errors: Float64s
    bounds: tuple[str, ...]
    powers: NDArray[np.int64]

    def as_measured(self, averages: Float64s) -> Float64s:
        """Convert averages `[..., M]` to the unit of the measurements."""
        power = np.where(self.powers == 0, -1, self.powers)
        result: Float64s = np.where(self.powers == 0, averages, averages ** (-1.0 / power))
        return result


def averaged(frames: Frames, measurements: Sequence[Measurement]) -> Averaged:
    """Compute what each conformation contributes to some measured values.

    Raises:
        UserError: A kind that is no average of conformations, or atoms that are not there.
    """
    for measurement in measurements:
        if measurement.kind not in AVERAGED:
            raise UserError(
                f"{measurement.label}: {measurement.kind} is no average over conformations",
                f"use {', '.join(AVERAGED)}",
            )
    powers = np.array([_POWERS.get(m.kind, 0) for m in measurements], dtype=np.int64)
    value = np.array([m.value for m in measurements])
    error = np.array([m.error for m in measurements])
    # The error of d^-p is p d^-(p + 1) times that of d.
    base = np.where(powers == 0, 1.0, value)
    scaled = np.where(powers == 0, 1.0, powers * base ** -(powers + 1.0)) * error
    signals = np.empty((len(frames), len(measurements)))
    shifts = [n for n, m in enumerate(measurements) if m.kind == "SHIFT"]
    signals[:, shifts] = shift_signals(frames, [measurements[n] for n in shifts])
    for n in set(range(len(measurements))) - set(shifts):
        signals[:, n] = _signal(frames, measurements[n])
    offsets = fitted_offsets(measurements, signals)
    bounds = [_FLIPPED[m.bound] if m.kind in _POWERS else m.bound for m in measurements]
    return Averaged(
        signals + offsets, offsets, np.where(powers == 0, value, base**-powers.astype(float)),
        scaled, tuple(bounds), powers,
    )  # fmt: skip


def _signal(frames: Frames, measurement: Measurement) -> Float64s:
    """Return the contribution of each conformation to one measurement, `[S]`."""
    if measurement.kind in COUPLINGS:
        curve = karplus(measurement.kind, measurement.group)
        return np.asarray(curve.couplings(frames.phi(measurement.groups[0][0])))
    if measurement.kind == "RG":
        return _radius_of_gyration(frames)
    first, second = measurement.groups
    distances = _distances(frames, first, second)
    if measurement.kind == "DISTANCE":
        return distances[:, 0]
    # Of equivalent or not assigned hydrogens: the mean over pairs, so that n protons of a methyl
    # group at one distance give that distance.
    result: Float64s = (distances ** -_POWERS[measurement.kind]).mean(axis=1)
    return result


def _distances(frames: Frames, first: Sequence[AtomName], second: Sequence[AtomName]) -> Float64s:
    """Return distances between two groups of atoms, `[S, pairs]` in angstrom."""
    one = np.stack([frames.position(atom) for atom in first], axis=1)
    other = np.stack([frames.position(atom) for atom in second], axis=1)
    distances = np.linalg.norm(one[:, :, None] - other[:, None], axis=-1)
    return np.asarray(distances.reshape(len(frames), -1), dtype=np.float64)


def _radius_of_gyration(frames: Frames) -> Float64s:
    """Return the radius of gyration of all atoms by mass, `[S]` in angstrom."""
    mass = np.array([atom.element.mass for atom in frames.topology.atoms])
    xyz = np.asarray(frames.xyz, dtype=np.float64)
    centre = np.einsum("a,sai->si", mass, xyz) / mass.sum()
    squares = np.square(xyz - centre[:, None]).sum(axis=-1)
    result: Float64s = np.sqrt(squares @ mass / mass.sum())
    return result
