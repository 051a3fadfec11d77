"""Names, units, directions and groups of the metrics, as readers see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.plugin_api import Registry

__all__ = [
    "AGGREGATES",
    "METRICS",
    "PAPER_ROWS",
    "Better",
    "Compute",
    "Frames",
    "Metric",
    "best_labels",
    "compute_metrics",
]

Better = Literal["lower", "higher", "as MD", "neither"]
Group = Literal[
    "Predicting flexibility",
    "Distributional accuracy",
    "Ensemble observables",
    "Energies",
    "Beyond the protocol",
]


class Compute(Protocol):
    """A function that computes a metric of one target."""

    def __call__(self, drawn: Drawn, /) -> float:
        """Return the value for some samples against MD.

        It is also called with a replica of the MD in the place of the samples and the others as the
        MD: what it gives then is the floor, what MD reaches against itself.

        Args:
            drawn: Frames of both, superposed, atoms in one order.

        Returns:
            The value; NaN if it is not defined.

        Raises:
            UserError: The target cannot be evaluated; it then fails with this reason.
        """


@dataclass(frozen=True)
class Metric:
    """One row of the report; registered in `METRICS` under its key.

    Attributes:
        key: Name in the JSON and CSV files.
        label: Name for readers.
        unit: Unit, empty for a pure number.
        better: Which values are better; "as MD" means close to `md_<key>`.
        meaning: One sentence for readers.
        group: Heading; the first three are those of the published tables.
        digits: Decimal places to print.
        compute: Gives the value of a target. What it gets is for one that is registered by a plugin
            `Drawn`, see `Compute`; for our own the `Frames` of the module that defines it. None for
            aggregates over targets.
        has_floor: Whether it compares the samples with the MD, so that the MD can be compared with
            itself by it.
        undefined: Why it can be NaN although all coordinates are finite.
    """

    key: str
    label: str
    unit: str
    better: Better
    meaning: str
    group: Group = "Beyond the protocol"
    digits: int = 3
    compute: Callable[[Any], float] | None = None
    has_floor: bool = True
    undefined: str = ""


class Frames(Protocol):
    """The input of a module's metrics: samples and MD, prepared once for all of them."""

    def floors(self) -> Iterator[Any]:
        """Yield each replica in the place of the samples, with the others as MD, if there are any.

        Yields:
            The same kind of frames.
        """


def compute_metrics(
    metrics: Sequence[Metric], frames: Frames
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Return the metrics of samples, and their floor: what MD reaches against itself.

    Args:
        metrics: Those that are computed from these frames.
        frames: Of one target.

    Returns:
        The values by key, and such values for each replica of the MD; for none if there is only
        one.

    Raises:
        UserError: A metric refuses the target.
    """
    return metric_values(metrics, frames), floor_rows(metrics, floor_table(metrics, frames))


def metric_values(metrics: Iterable[Metric], frames: Any) -> dict[str, float]:
    """Return the metrics of samples by key; see `compute_metrics`."""
    return {metric.key: float(metric.compute(frames)) for metric in metrics if metric.compute}


def floor_table(metrics: Sequence[Metric], frames: Frames) -> NDArray[np.float64]:
    """Return MD against MD, `[R, M]`: of each replica the metrics that have a floor, in order."""
    known = [metric for metric in metrics if metric.compute and metric.has_floor]
    rows = [list(metric_values(known, part).values()) for part in frames.floors()]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(known))


def floor_rows(metrics: Iterable[Metric], table: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return the rows of `floor_table` by key."""
    keys = [metric.key for metric in metrics if metric.compute and metric.has_floor]
    return [dict(zip(keys, row, strict=True)) for row in table.tolist()]


METRICS: Final[Registry[Metric]] = Registry("metric")

_FLEXIBILITY: Final = "Predicting flexibility"
_ACCURACY: Final = "Distributional accuracy"

AGGREGATES: Final[tuple[Metric, ...]] = (
    Metric(
        "pairwise_rmsd_pearson",
        "Pairwise RMSD r",
        "",
        "higher",
        "Pearson r over targets between the diversity of the samples and of the MD.",
        _FLEXIBILITY,
    ),
    Metric(
        "global_rmsf_pearson",
        "Global RMSF r",
        "",
        "higher",
        "Pearson r of the fluctuations over the atoms of all targets.",
        _FLEXIBILITY,
    ),
    Metric(
        "pc_sim_percent",
        "% PC-sim > 0.5",
        "",
        "higher",
        "Targets whose largest motion has the MD's direction (|cosine| > 0.5).",
        _ACCURACY,
        0,
    ),
)

# The rows of the published tables (AlphaFlow's Table 1 and those after it), in their order.
PAPER_ROWS: Final = (
    "pairwise_rmsd_pearson",
    "global_rmsf_pearson",
    "rmsf_pearson",
    "rmwd",
    "rmwd_translation",
    "rmwd_variance",
    "md_pca_w2",
    "joint_pca_w2",
    "pc_sim_percent",
    "weak_contacts_jaccard",
    "transient_contacts_jaccard",
    "exposed_residue_jaccard",
    "exposed_mi_spearman",
)


def best_labels(metric: Metric, rows: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Return the labels with the best value of a metric; none unless two can be compared.

    Args:
        metric: The metric.
        rows: Label to its values.
    """
    scores: dict[str, float] = {}
    for label, row in rows.items():
        if metric.key not in row or metric.better == "neither":
            continue
        value = row[metric.key]
        if metric.better == "as MD":
            value = abs(value - row.get(f"md_{metric.key}", 0.0))
        # What a reader cannot tell apart is a tie.
        scores[label] = round(-value if metric.better == "higher" else value, metric.digits)
    if len(scores) < 2 or len(set(scores.values())) == 1:
        return set()
    return {label for label, score in scores.items() if score == min(scores.values())}
