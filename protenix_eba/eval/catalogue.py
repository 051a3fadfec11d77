"""Every metric that has a name for readers, in the order in which they are shown."""

from __future__ import annotations

from typing import Final

from protenix_eba.eval.definitions import (
    AGGREGATES,
    METRICS,
    PAPER_ROWS,
    PROTOCOL_METRICS,
    Metric,
)
from protenix_eba.eval.metrics.conformational import BEYOND
from protenix_eba.eval.metrics.soundness import SOUNDNESS

__all__ = ["by_key", "computed_alone", "target_metrics"]

_OWN: Final = PROTOCOL_METRICS + BEYOND + SOUNDNESS
for _metric in _OWN:
    METRICS.register(_metric.key)(_metric)


def target_metrics() -> list[Metric]:
    """Those that a single target has: our own, then those of plugins by their keys."""
    ours = [metric.key for metric in _OWN]
    return [*_OWN, *(METRICS.get(key) for key in METRICS if key not in ours)]


def computed_alone() -> list[Metric]:
    """Those that carry what computes them, as those of plugins do."""
    return [metric for metric in target_metrics() if metric.compute]


def by_key() -> dict[str, Metric]:
    """Key to metric, those of the published tables first."""
    known = {metric.key: metric for metric in (*AGGREGATES, *target_metrics())}
    return {key: known[key] for key in PAPER_ROWS} | known
