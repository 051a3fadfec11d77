"""Values that an ensemble predicts for all measurements of a protein, with any weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.experiment.averages import averaged
from protenix_eba.eval.experiment.bonds import (
    alignment_tensor,
    dipolar_constant_hz,
    dipolar_couplings,
    order_parameters,
    second_moments,
)
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.measurements import AVERAGED, Measurement
from protenix_eba.eval.experiment.shifts import random_coil, shift_remarks

__all__ = ["Prediction", "residuals"]

Float64s = NDArray[np.float64]


class Prediction:
    """The values that conformations predict for measurements.

    Attributes:
        measurements: M of them.
        coil: `[M]` shifts without structure, ppm; NaN where there are none, and of other kinds.
        remarks: What predictors take for something else.

    Args:
        frames: The conformations.
        measurements: M of them, of any kind.

    Raises:
        UserError: Atoms that are not there, or too few couplings of a medium.
    """

    def __init__(self, frames: Frames, measurements: Sequence[Measurement]) -> None:
        self.measurements = list(measurements)
        kinds = [m.kind for m in self.measurements]
        self._plain = [n for n, kind in enumerate(kinds) if kind in AVERAGED]
        self._averaged = averaged(frames, self._take(self._plain)) if self._plain else None
        self._bonds = [n for n, kind in enumerate(kinds) if kind not in AVERAGED]
        if self._bonds:
            self._moments, self._lengths = second_moments(frames, self._take(self._bonds))
        self.coil = np.array(
            [random_coil(frames, m) if m.kind == "SHIFT" else np.nan for m in self.measurements]
        )
        self.remarks = shift_remarks(frames, self.measurements)

    def _take(self, rows: Sequence[int]) -> list[Measurement]:
        return [self.measurements[n] for n in rows]

    def __call__(self, weights: Float64s) -> Float64s:
        """Return predicted values `[..., M]` for weights `[..., S]` that sum to 1."""
        found = np.empty((*weights.shape[:-1], len(self.measurements)))
        if self._averaged:
            averages = weights @ self._averaged.signals
            found[..., self._plain] = self._averaged.as_measured(averages)
        if self._bonds:
            moments = np.tensordot(weights, self._moments, axes=1)
            flat = moments.reshape(-1, *moments.shape[-3:])
            each = np.array([self._of_bonds(one) for one in flat])
            found[..., self._bonds] = each.reshape(*weights.shape[:-1], len(self._bonds))
        return found

    def offsets(self, weights: Float64s) -> Float64s:
        """Return what referencing added to the predicted values, `[M]` ppm, for weights `[S]`."""
        found = np.zeros(len(self.measurements))
        if self._averaged:
            found[self._plain] = weights @ self._averaged.offsets
        return found

    def _of_bonds(self, moments: Float64s) -> Float64s:
        """Return values `[B]` for the bonds, from their averaged second moments `[B, 3, 3]`."""
        own = self._take(self._bonds)
        found = order_parameters(moments)
        for medium in {m.group for m in own if m.kind == "RDC"}:
            rows = [n for n, m in enumerate(own) if m.kind == "RDC" and m.group == medium]
            constants = np.array([_constant(own[n], float(self._lengths[n])) for n in rows])
            values, errors = (np.array([getattr(own[n], what) for n in rows])
                              for what in ("value", "error"))  # fmt: skip
            tensor = alignment_tensor(moments[rows], constants, values, errors)
            found[rows] = dipolar_couplings(moments[rows], constants, tensor)
        return found


def _constant(measurement: Measurement, length: float) -> float:
    # The element is the first letter of a heavy atom's or hydrogen's name in amino acids.
    elements = [group[0].name.lstrip("0123456789")[0] for group in measurement.groups]
    return dipolar_constant_hz(elements[0], elements[1], length)


def residuals(measurements: Sequence[Measurement], predicted: Float64s) -> Float64s:
    """Return predicted less measured in standard deviations, `[..., M]`; 0 within a bound.

    Args:
        measurements: M of them.
        predicted: `[..., M]`.
    """
    value = np.array([m.value for m in measurements])
    error = np.array([m.error for m in measurements])
    found: Float64s = (predicted - value) / error
    upper = np.array([m.bound == "upper" for m in measurements])
    lower = np.array([m.bound == "lower" for m in measurements])
    found = np.where(upper, np.maximum(found, 0.0), found)
    return np.where(lower, np.minimum(found, 0.0), found)
