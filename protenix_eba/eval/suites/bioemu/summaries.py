"""Means over test cases, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from protenix_eba.eval.aggregate import MIN_TARGETS
from protenix_eba.eval.suites.ensembles import RESAMPLES
from protenix_eba.eval.suites.registry import Float64s, Value

__all__ = ["mean_interval", "mean_values", "worst"]


def mean_interval(each: Float64s, seed: int) -> tuple[float, float] | None:
    """Return the 95% interval of the mean over test cases `[n]`; None of fewer than three."""
    if len(each) < MIN_TARGETS:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(each), (RESAMPLES, len(each)))
    low, high = np.percentile(each[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def worst(values: Iterable[Value], key: str, *, lowest: bool = False, n: int = 3) -> str:
    """Name the test cases in which a value is largest, or lowest: "a (1.20), b (1.10)"."""
    found = [v for v in values if v.key == key and v.target and np.isfinite(v.value)]
    found.sort(key=lambda value: value.value if lowest else -value.value)
    return ", ".join(f"{value.target} ({value.value:.2f})" for value in found[:n])


def mean_values(values: Iterable[Value], keys: Sequence[str], seed: int) -> list[Value]:
    """Return the mean of each of these values over test cases."""
    given = list(values)
    means = []
    for key in keys:
        each = np.array([value.value for value in given if value.key == key])
        unit = next(value.unit for value in given if value.key == key)
        means.append(Value("", "", key, float(each.mean()), unit, mean_interval(each, seed)))
    return means
