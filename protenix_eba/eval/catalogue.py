"""Every metric that has a name for readers, in the order in which they are shown."""

from __future__ import annotations

from protenix_eba.eval.definitions import AGGREGATES, METRICS, PAPER_ROWS, Metric
from protenix_eba.eval.extras.beyond import BEYOND
from protenix_eba.eval.extras.soundness import SOUNDNESS

__all__ = ["TARGET_METRICS", "by_key"]

# Those that a single target has.
TARGET_METRICS: tuple[Metric, ...] = METRICS + BEYOND + SOUNDNESS


def by_key() -> dict[str, Metric]:
    """Key to metric, those of the published tables first."""
    known = {metric.key: metric for metric in AGGREGATES + TARGET_METRICS}
    return {key: known[key] for key in PAPER_ROWS} | known
