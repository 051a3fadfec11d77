"""Coverage and k-recall: how often, and how nearly, samples reach reference states.

The published numbers are means over 20 draws of 1,000 conformations with replacement, by a
generator that is not seeded. Here they are the expectation of the same draws, which has a closed
form for any weights: no noise, and the same number each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from protenix_eba.eval.suites.registry import Float64s

__all__ = ["DRAWN", "Summary", "coverage", "recall", "summary"]

DRAWN: Final = 1000
_GRID: Final = 100


def coverage(
    distances: Float64s, weights: Float64s, thresholds: Float64s, *, above: bool = False
) -> Float64s:
    """Return the expected share of references that one of 1,000 draws reaches, `[T]`.

    A draw misses a reference with probability 1 - p, all of them with (1 - p)^1000.

    Args:
        distances: `[S, R]` of conformations to references.
        weights: `[S]`, which sum to 1.
        thresholds: `[T]`; a distance below reaches a reference.
        above: Whether one above does, as for fractions of contacts.
    """
    if above:
        distances, thresholds = -distances, -thresholds
    hit = np.empty((len(thresholds), distances.shape[1]))
    for column in range(distances.shape[1]):
        order = np.argsort(distances[:, column])
        share = np.concatenate([[0.0], np.cumsum(weights[order])])
        hit[:, column] = share[np.searchsorted(distances[order, column], thresholds, side="left")]
    result: Float64s = (1.0 - np.clip(1.0 - hit, 0.0, 1.0) ** DRAWN).mean(axis=1)
    return result


def recall(distances: Float64s, weights: Float64s, *, above: bool = False) -> float:
    """Return the expected distance of the nearest of 1,000 draws, mean over references.

    Args:
        distances: `[S, R]`.
        weights: `[S]`, which sum to 1.
        above: Whether the largest is the nearest.
    """
    sign = -1.0 if above else 1.0
    expected = []
    for column in (sign * distances).T:
        order = np.argsort(column)
        # The n-th in order is the nearest of the draws if none is before it and one is it.
        missed = np.clip(1.0 - np.concatenate([[0.0], np.cumsum(weights[order])]), 0.0, 1.0)
        missed = missed**DRAWN
        expected.append(column[order] @ (missed[:-1] - missed[1:]) / (1.0 - missed[-1]))
    return float(sign * np.mean(expected))


@dataclass(frozen=True)
class Summary:
    """The package's report on some test cases; its aggregates are their means.

    Attributes:
        thresholds: `[100]` from 0.
        curves: `[cases, 100]` coverage.
        values: `krecall`, `coverage_auc` and `coverage_threshold`, each `[cases]`.
    """

    thresholds: Float64s
    curves: Float64s
    values: dict[str, Float64s]


def summary(
    cases: Sequence[tuple[Float64s, Float64s]],
    threshold: float,
    largest: float,
    *,
    above: bool = False,
) -> Summary:
    """Summarise coverage and recall of test cases.

    Args:
        cases: Distances `[S, R]` and weights `[S]` of each.
        threshold: At which coverage counts; between two points of the grid it is interpolated.
        largest: End of the grid of thresholds.
        above: As for `coverage`.
    """
    grid = np.linspace(0.0, largest, _GRID)
    curves = np.array([coverage(d, w, grid, above=above) for d, w in cases])
    widths: Float64s = np.diff(grid)
    values = {
        "krecall": np.array([recall(d, w, above=above) for d, w in cases]),
        "coverage_auc": (0.5 * (curves[:, 1:] + curves[:, :-1])) @ widths,
        "coverage_threshold": np.array([np.interp(threshold, grid, curve) for curve in curves]),
    }
    return Summary(grid, curves, values)
