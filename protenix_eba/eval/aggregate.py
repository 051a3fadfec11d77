"""Metrics over all targets, and how sure they are.

One vectorised function gives the aggregate of any choice of targets: of all of them it is the
value, of many resamples its interval, and of the same resamples of two models the interval of
their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.target_result import TargetResult

__all__ = [
    "CONFIDENCE_PERCENT",
    "MIN_TARGETS",
    "RESAMPLES",
    "TargetTable",
    "aggregate",
    "compat_table",
    "differences",
    "floor_aggregate",
    "intervals",
    "percentiles",
    "resamples",
    "sample_table",
]

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

RESAMPLES: Final = 4000
CONFIDENCE_PERCENT: Final = 95.0
# Two points always lie on a line, and two targets resample into three medians.
MIN_TARGETS: Final = 3
_PC_SIMILAR_ABOVE: Final = 0.5


@dataclass(frozen=True)
class TargetTable:
    """The metrics of T targets in a form that can be resampled any number of times.

    Attributes:
        values: Metric key to `[T]`; NaN where a target does not have it.
        moments: `[T, 6]` sums over atoms of 1, x, y, x², y², xy with x the MD's RMSF and y the
            samples': the pooled correlation of any choice of targets follows from their sum.
    """

    values: Mapping[str, Float64s]
    moments: Float64s

    def __len__(self) -> int:
        return len(self.moments)

    def statistics(self, chosen: Int64s) -> dict[str, Float64s]:
        """Compute the aggregates of B choices of targets.

        Args:
            chosen: `[B, n]` positions of targets, repetitions allowed.

        Returns:
            Values `[B]` by key: the median under each metric's own key (targets without a value do
            not enter), then `global_rmsf_pearson`, `pc_sim_percent` and, of three targets or more,
            `pairwise_rmsd_pearson`. NaN where a choice leaves it undefined.
        """
        result = {key: _nan_median(values[chosen]) for key, values in self.values.items()}
        pooled = self.moments[chosen].sum(axis=1)
        if np.isfinite(pooled).all():
            result["global_rmsf_pearson"] = _pearson_of_moments(pooled)
        cosines = self.values.get("pc1_cosine")
        if cosines is not None:
            result["pc_sim_percent"] = _percent_above(cosines[chosen], _PC_SIMILAR_ABOVE)
        md, samples = (self.values.get(k) for k in ("md_pairwise_rmsd", "pairwise_rmsd"))
        if md is not None and samples is not None and len(self) >= MIN_TARGETS:
            result["pairwise_rmsd_pearson"] = _row_pearson(md[chosen], samples[chosen])
        return result


def _nan_median(values: Float64s) -> Float64s:
    """Return the medians `[B]` of `[B, n]`; a row without any number is NaN, silently."""
    count = np.isfinite(values).sum(axis=1)
    ordered = np.sort(values, axis=1)  # NaN last
    rows = np.arange(len(values))
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, values.shape[1] - 1)
    return np.where(count > 0, 0.5 * (ordered[rows, low] + ordered[rows, high]), np.nan)


def _percent_above(values: Float64s, bound: float) -> Float64s:
    count = np.isfinite(values).sum(axis=1)
    above = (values > bound).sum(axis=1)
    return np.where(count > 0, 100.0 * above / np.maximum(count, 1), np.nan)


def _row_pearson(x: Float64s, y: Float64s) -> Float64s:
    ones = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(ones, x, 0.0), np.where(ones, y, 0.0)
    terms = (ones.astype(np.float64), x, y, x * x, y * y, x * y)
    return _pearson_of_moments(np.stack([term.sum(axis=1) for term in terms], axis=1))


def _pearson_of_moments(moments: Float64s) -> Float64s:
    """Return the correlations `[B]` from sums `[B, 6]` of 1, x, y, x², y², xy."""
    n, x, y, xx, yy, xy = np.maximum(moments, 0.0).T
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    # Equal values leave a spread of rounding errors only.
    defined = (spread_x > 1e-12 * n * xx) & (spread_y > 1e-12 * n * yy)
    scale = np.sqrt(np.where(defined, spread_x * spread_y, 1.0))
    return np.where(defined, np.clip((n * xy - x * y) / scale, -1.0, 1.0), np.nan)


def sample_table(targets: Sequence[TargetResult]) -> TargetTable:
    """Return the samples' metrics of these targets."""
    rmsf = [(t.arrays.get("md_rmsf"), t.arrays.get("sample_rmsf")) for t in targets]
    return _table([t.values for t in targets], rmsf)


def compat_table(targets: Sequence[TargetResult]) -> TargetTable:
    """Return the metrics by AlphaFlow's own script, of the targets that have them."""
    known = [t for t in targets if t.compat]
    rmsf = [(t.arrays.get("md_rmsf"), t.arrays.get("sample_rmsf")) for t in known]
    return _table([t.compat for t in known], rmsf)


def _floor_table(targets: Sequence[TargetResult], replica: int) -> TargetTable:
    """Return the metrics of one MD replica in the place of the samples."""
    rmsf: list[tuple[object, object]] = []
    for target in targets:
        floor = target.arrays.get("floor_rmsf", np.empty(0))
        # The others stand for the MD.
        known = len(floor) > replica
        rmsf.append((floor[replica, 1], floor[replica, 0]) if known else (None, None))
    return _table([t.floor[replica] for t in targets], rmsf)


def _table(
    values: Sequence[Mapping[str, float]], rmsf: Sequence[tuple[object, object]]
) -> TargetTable:
    keys = dict.fromkeys(key for row in values for key in row)
    columns = {key: np.array([row.get(key, np.nan) for row in values]) for key in keys}
    moments = np.array([_moments(md, samples) for md, samples in rmsf]).reshape(len(values), 6)
    return TargetTable(columns, moments)


def _moments(md: object, samples: object) -> Float64s:
    if md is None or samples is None:
        return np.full(6, np.nan)
    x, y = np.asarray(md, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    return np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])


def aggregate(table: TargetTable) -> dict[str, float]:
    """Return the value of each metric over all targets; undefined ones are left out.

    Beside them `n_targets`, and `n_<key>` where fewer targets than that have the metric.
    """
    if not len(table):
        return {}
    found = table.statistics(np.arange(len(table))[None])
    result = {key: float(value[0]) for key, value in found.items() if np.isfinite(value[0])}
    for key, values in table.values.items():
        known = int(np.isfinite(values).sum())
        if 0 < known < len(table):
            result[f"n_{key}"] = known
    return {"n_targets": len(table)} | result


def floor_aggregate(targets: Sequence[TargetResult]) -> dict[str, float]:
    """Return MD against MD: the mean over replicas, each taken as a model's ensemble.

    Targets with a single replica have no floor and do not enter (`n_targets` counts the others).
    """
    known = [target for target in targets if target.floor]
    if not known:
        return {}
    n_replicas = min(len(target.floor) for target in known)
    rows = [aggregate(_floor_table(known, replica)) for replica in range(n_replicas)]
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}


def resamples(n_targets: int, seed: int, n: int = RESAMPLES) -> Int64s:
    """Return `[n, T]` draws of targets with replacement, as scipy's bootstrap makes them."""
    return np.random.default_rng(seed).integers(0, n_targets, (n, n_targets))


def intervals(table: TargetTable, seed: int) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap intervals over targets, of every aggregate.

    Percentiles rather than BCa: its correction differentiates the statistic by leaving single
    targets out, and a median has no such derivative.

    Args:
        table: The targets' values; fewer than `MIN_TARGETS` have no interval.
        seed: Seed of the resamples.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    if len(table) < MIN_TARGETS:
        return {}
    found = table.statistics(resamples(len(table), seed))
    return {key: bounds for key, value in found.items() if (bounds := percentiles(value))}


def percentiles(values: Float64s) -> tuple[float, float] | None:
    """Return the interval of bootstrap draws; None if none of them is finite."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    tail = 0.5 * (100.0 - CONFIDENCE_PERCENT)
    low, high = np.percentile(finite, [tail, 100.0 - tail])
    return float(low), float(high)


def differences(
    first: TargetTable, second: TargetTable, seed: int
) -> dict[str, tuple[float, float | None, float | None]]:
    """Return how far the second model is from the first, target by target.

    Both are aggregated over the same resamples of targets, so what makes a target hard for both
    does not widen the interval.

    Args:
        first: A model.
        second: Another, the same targets in the same order.
        seed: Seed of the resamples.

    Returns:
        The triple (second less first, low, high) by key; the bounds are None below `MIN_TARGETS`
        targets.

    Raises:
        ValueError: Different numbers of targets.
    """
    if len(first) != len(second):
        raise ValueError(f"expected the same targets, got {len(first)} and {len(second)}")
    everything = np.arange(len(first))[None]
    value = _subtract(second.statistics(everything), first.statistics(everything))
    bounds: dict[str, tuple[float, float] | None] = {}
    if len(first) >= MIN_TARGETS:
        drawn = resamples(len(first), seed)
        spread = _subtract(second.statistics(drawn), first.statistics(drawn))
        bounds = {key: percentiles(values) for key, values in spread.items()}
    return {
        key: (float(v[0]), *(bounds.get(key) or (None, None)))
        for key, v in value.items()
        if np.isfinite(v[0])
    }


def _subtract(a: Mapping[str, Float64s], b: Mapping[str, Float64s]) -> dict[str, Float64s]:
    return {key: a[key] - b[key] for key in a if key in b}
