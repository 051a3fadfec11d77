"""All metrics with a name for readers, in the order in which they are shown."""

from __future__ import annotations

from typing import Final

from protenix_eba.eval.definitions import (
    AGGREGATES,
    METRICS,
    PAPER_ROWS,
    Metric,
)
from protenix_eba.eval.metrics.conformational import CONFORMATIONAL
from protenix_eba.eval.metrics.energies import ENERGIES
from protenix_eba.eval.metrics.kinetics import KINETICS
from protenix_eba.eval.metrics.soundness import SOUNDNESS
from protenix_eba.eval.protocol.panel import PROTOCOL_METRICS

__all__ = ["by_key", "plugin_metrics", "target_metrics"]

_OWN: Final = PROTOCOL_METRICS + ENERGIES + CONFORMATIONAL + KINETICS + SOUNDNESS
for _metric in _OWN:
    METRICS.register(_metric.key)(_metric)


def target_metrics() -> list[Metric]:
    """Return the metrics of a single target: our own, then those of plugins."""
    return [*_OWN, *plugin_metrics()]


def plugin_metrics() -> list[Metric]:
    """Return the metrics that plugins registered, by their keys."""
    ours = {metric.key for metric in _OWN}
    return [METRICS.get(key) for key in METRICS if key not in ours]


def by_key() -> dict[str, Metric]:
    """Return the metrics by key, those of the published tables first."""
    known = {metric.key: metric for metric in (*AGGREGATES, *target_metrics())}
    return {key: known[key] for key in PAPER_ROWS} | known
