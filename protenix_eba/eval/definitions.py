"""Names, units and directions of the metrics, and their aggregation over targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from protenix_eba.eval.metrics import Panel, pearson

__all__ = ["AGGREGATES", "METRICS", "Metric", "aggregate", "best_labels", "over_targets"]

Better = Literal["lower", "higher", "as MD", "neither"]

# Two points always lie on a line: a correlation over targets needs one more.
_MIN_TARGETS_FOR_CORRELATION: Final = 3
_PC_SIMILAR_ABOVE: Final = 0.5


@dataclass(frozen=True)
class Metric:
    """One row of the report.

    Attributes:
        key: Name in the JSON and CSV files.
        label: Name for readers.
        unit: Unit, empty for a pure number.
        better: Which values are better; "as MD" means close to `md_pairwise_rmsd`.
        meaning: One sentence for readers.
        digits: Decimal places to print.
    """

    key: str
    label: str
    unit: str
    better: Better
    meaning: str
    digits: int = 3


_A: Final = "Å"
_E: Final = "kJ/mol"

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "pairwise_rmsd", "Pairwise RMSD", _A, "as MD", "Diversity: mean C-alpha RMSD of all pairs."
    ),
    Metric("md_pairwise_rmsd", "Pairwise RMSD of the MD", _A, "neither", "The diversity to reach."),
    Metric(
        "rmsf_pearson",
        "RMSF correlation",
        "",
        "higher",
        "Pearson r between heavy-atom fluctuations in the samples and in the MD.",
    ),
    Metric(
        "rmwd",
        "RMWD",
        _A,
        "lower",
        "Root mean squared 2-Wasserstein distance between Gaussians fitted to each heavy atom.",
    ),
    Metric(
        "rmwd_translation", "RMWD, translation", _A, "lower", "Part from the atoms' mean positions."
    ),
    Metric("rmwd_variance", "RMWD, variance", _A, "lower", "Part from the atoms' covariances."),
    Metric(
        "md_pca_w2", "MD PCA W2", _A, "lower", "2-Wasserstein distance on the MD's first two PCs."
    ),
    Metric(
        "joint_pca_w2",
        "Joint PCA W2",
        _A,
        "lower",
        "The same on the first two PCs of MD and samples together.",
    ),
    Metric(
        "pc1_cosine",
        "PC1 |cosine|",
        "",
        "higher",
        "Agreement of the largest motion's direction in the samples and in the MD.",
    ),
    Metric(
        "energy_above_md_kj_mol",
        "Mean energy above MD",
        _E,
        "neither",
        "Mean minimised energy of the samples less that of the MD.",
        1,
    ),
    Metric(
        "energy_median_above_md_kj_mol",
        "Median energy above MD",
        _E,
        "neither",
        "Median minimised energy of the samples less that of the MD.",
        1,
    ),
    Metric(
        "energy_target_above_md_kj_mol",
        "Boltzmann-weighted MD above MD",
        _E,
        "neither",
        "What alignment aims at: the Boltzmann-weighted mean energy of the MD less its plain mean.",
        1,
    ),
    Metric(
        "energy_w1_kj_mol",
        "Energy W1, MD uniform",
        _E,
        "lower",
        "1-Wasserstein distance of the minimised energies to those of the MD frames.",
        1,
    ),
    Metric(
        "energy_w1_boltzmann_kj_mol",
        "Energy W1, MD Boltzmann-weighted",
        _E,
        "lower",
        "The same with MD frames weighted by softmax(-E / (kT sqrt(N_res))).",
        1,
    ),
    Metric(
        "boltzmann_ess",
        "Effective MD frames",
        "",
        "neither",
        "Effective sample size of the MD under the Boltzmann weights.",
        1,
    ),
)

AGGREGATES: Final[tuple[Metric, ...]] = (
    Metric(
        "pairwise_rmsd_pearson",
        "Pairwise RMSD correlation over targets",
        "",
        "higher",
        "Pearson r over targets between the diversity of the samples and of the MD.",
    ),
    Metric(
        "rmsf_pearson_global",
        "RMSF correlation, all atoms pooled",
        "",
        "higher",
        "Pearson r over the heavy atoms of all targets.",
    ),
    Metric(
        "pc1_similar_percent",
        "Targets with PC1 |cosine| > 0.5",
        "%",
        "higher",
        "How often the largest motion has the MD's direction.",
        0,
    ),
)


def aggregate(
    values: Sequence[Mapping[str, float]], panels: Sequence[Panel]
) -> dict[str, float | int]:
    """Median over targets of each metric, and the three numbers that need all targets at once.

    A metric that is not defined for a target (NaN or absent) does not enter its median; how many
    targets did is under `n_<key>` wherever that is fewer than all.

    Args:
        values: One mapping of metrics for each target.
        panels: The coordinate metrics of those targets that have them, with their RMSF profiles.
    """
    result: dict[str, float | int] = {"n_targets": len(values)}
    for metric in METRICS:
        defined = [row[metric.key] for row in values if np.isfinite(row.get(metric.key, np.nan))]
        if defined:
            result[metric.key] = float(np.median(defined))
        if 0 < len(defined) < len(values):
            result[f"n_{metric.key}"] = len(defined)
    return result | over_targets(panels) if panels else result


def over_targets(panels: Sequence[Panel]) -> dict[str, float]:
    """The metrics of `AGGREGATES` that are defined for these targets; one panel for each."""
    cosines = np.array([panel.values["pc1_cosine"] for panel in panels])
    result = {
        "rmsf_pearson_global": pearson(
            np.concatenate([panel.md_rmsf for panel in panels]),
            np.concatenate([panel.sample_rmsf for panel in panels]),
        ),
        "pc1_similar_percent": float(100.0 * np.mean(cosines > _PC_SIMILAR_ABOVE)),
    }
    if len(panels) >= _MIN_TARGETS_FOR_CORRELATION:
        md, samples = (
            np.array([panel.values[key] for panel in panels])
            for key in ("md_pairwise_rmsd", "pairwise_rmsd")
        )
        result["pairwise_rmsd_pearson"] = pearson(md, samples)
    return {key: value for key, value in result.items() if np.isfinite(value)}


def best_labels(metric: Metric, rows: Mapping[str, Mapping[str, float]]) -> set[str]:
    """The labels with the best value of a metric; empty unless two or more can be compared.

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
            value = abs(value - row["md_pairwise_rmsd"])
        # What a reader cannot tell apart is a tie.
        scores[label] = round(-value if metric.better == "higher" else value, metric.digits)
    if len(scores) < 2 or len(set(scores.values())) == 1:
        return set()
    return {label for label, score in scores.items() if score == min(scores.values())}
