"""Means over targets with bootstrap intervals, from the rows of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from ebmfold_benchmark import Row

__all__ = ["Interval", "best_of_first", "decoy_means", "interval", "paired", "selected"]

_RESAMPLES: Final = 4000
_PERCENT: Final = (2.5, 97.5)
_FEWEST: Final = 3


@dataclass(frozen=True)
class Interval:
    """A mean over targets, with its interval.

    Attributes:
        mean: Of the targets.
        low: Lower end of the 95% percentile bootstrap interval; NaN below three targets.
        high: Upper end.
        n: How many targets.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(values: ArrayLike, seed: int = 0) -> Interval:
    """Return the mean of `[T]` values with its interval.

    Raises:
        ValueError: No values.
    """
    found = np.asarray(values, dtype=np.float64)
    if len(found) == 0:
        raise ValueError("expected values of at least one target, got none")
    if len(found) < _FEWEST:
        return Interval(float(found.mean()), float("nan"), float("nan"), len(found))
    drawn = np.random.default_rng(seed).integers(len(found), size=(_RESAMPLES, len(found)))
    low, high = np.percentile(found[drawn].mean(1), _PERCENT)
    return Interval(float(found.mean()), float(low), float(high), len(found))


def selected(row: Row, key: str, first: int | None = None) -> float:
    """Return the value of the likeliest decoy among all, or among the first few."""
    likeliest = int(np.argmin(row["negative_log_likelihood"][:first]))
    return float(row[key][likeliest])


def best_of_first(row: Row, key: str, first: int | None = None) -> float:
    """Return the largest value among all decoys, or among the first few."""
    return float(max(row[key][:first]))


def decoy_means(rows: Iterable[Row], key: str) -> list[float]:
    """Return for each target the mean over its decoys."""
    return [float(np.mean(row[key])) for row in rows]


def paired(rows: Sequence[Row], others: Sequence[Row], key: str) -> Interval:
    """Return the mean difference over common targets, of their means over decoys.

    Raises:
        ValueError: They have no target in common.
    """
    of_other = dict(
        zip((row["target"] for row in others), decoy_means(others, key), strict=True),
    )
    ours = zip((row["target"] for row in rows), decoy_means(rows, key), strict=True)
    return interval([value - of_other[name] for name, value in ours if name in of_other])
