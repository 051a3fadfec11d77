"""Names, units, directions and groups of the metrics, as readers see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.plugin_api import Registry

__all__ = [
    "AGGREGATES",
    "METRICS",
    "PAPER_ROWS",
    "PROTOCOL_METRICS",
    "Better",
    "Compute",
    "Metric",
    "best_labels",
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
    """What a metric is of one target."""

    def __call__(self, drawn: Drawn, /) -> float:
        """The value for some samples against MD.

        It is also called with a replica of the MD in the place of the samples and the others as the
        MD: what it gives then is the floor, what MD reaches against itself.

        Args:
            drawn: Frames of both, superposed, atoms in one order.

        Returns:
            NaN where it is not defined.

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
        compute: Gives the value of a target. None for those that are computed together with others:
            in `protocol.panel`, and in the modules of `metrics`.
    """

    key: str
    label: str
    unit: str
    better: Better
    meaning: str
    group: Group = "Beyond the protocol"
    digits: int = 3
    compute: Compute | None = None


METRICS: Final[Registry[Metric]] = Registry("metric")

_FLEXIBILITY: Final = "Predicting flexibility"
_ACCURACY: Final = "Distributional accuracy"
_OBSERVABLES: Final = "Ensemble observables"
_ENERGIES: Final = "Energies"
_A: Final = "Å"
_E: Final = "kJ/mol"

PROTOCOL_METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "pairwise_rmsd",
        "Pairwise RMSD",
        _A,
        "as MD",
        "Diversity: mean C-alpha RMSD of all pairs of conformations.",
        _FLEXIBILITY,
    ),
    Metric(
        "md_pairwise_rmsd",
        "Pairwise RMSD of the MD",
        _A,
        "neither",
        "The diversity to reach.",
        _FLEXIBILITY,
    ),
    Metric(
        "rmsf_pearson",
        "Per-target RMSF r",
        "",
        "higher",
        "Pearson r between atoms' fluctuations in the samples and in the MD.",
        _FLEXIBILITY,
    ),
    Metric(
        "rmwd",
        "RMWD",
        _A,
        "lower",
        "Root mean squared 2-Wasserstein distance between Gaussians fitted to each atom.",
        _ACCURACY,
    ),
    Metric(
        "rmwd_translation",
        "RMWD trans.",
        _A,
        "lower",
        "Its part from the atoms' mean positions.",
        _ACCURACY,
    ),
    Metric(
        "rmwd_variance",
        "RMWD var.",
        _A,
        "lower",
        "Its part from the atoms' covariances.",
        _ACCURACY,
    ),
    Metric(
        "md_pca_w2",
        "MD PCA W2",
        _A,
        "lower",
        "2-Wasserstein distance on the MD's first two principal components (PCs).",
        _ACCURACY,
    ),
    Metric(
        "joint_pca_w2",
        "Joint PCA W2",
        _A,
        "lower",
        "The same on the first two PCs of MD and samples together.",
        _ACCURACY,
    ),
    Metric(
        "pc1_cosine",
        "PC1 |cosine|",
        "",
        "higher",
        "Agreement of the largest motion's direction in the samples and in the MD.",
        _ACCURACY,
    ),
    Metric(
        "weak_contacts_jaccard",
        "Weak contacts J",
        "",
        "higher",
        "Contacts of the structure that open in over 10% of conformations: overlap with the MD's.",
        _OBSERVABLES,
    ),
    Metric(
        "transient_contacts_jaccard",
        "Transient contacts J",
        "",
        "higher",
        "Contacts not in the structure that form in over 10%: overlap with the MD's.",
        _OBSERVABLES,
    ),
    Metric(
        "exposed_residue_jaccard",
        "Exposed residue J",
        "",
        "higher",
        "Buried side chains that become exposed in over 10%: overlap with the MD's.",
        _OBSERVABLES,
    ),
    Metric(
        "exposed_mi_spearman",
        "Exposed MI rho",
        "",
        "higher",
        "Spearman rho of the mutual information between residues' exposures, by AlphaFlow's "
        "formula, which ranks rounding errors of 1e-17 nats: for comparison with published values.",
        _OBSERVABLES,
    ),
    Metric(
        "exposed_mi_spearman_exact",
        "Exposed MI rho, exact",
        "",
        "higher",
        "The same with pairs of residues that share no information at zero.",
        _OBSERVABLES,
    ),
    Metric(
        "energy_above_md_kj_mol",
        "Mean energy above MD",
        _E,
        "neither",
        "Mean minimised energy of the samples less that of the MD.",
        _ENERGIES,
        1,
    ),
    Metric(
        "energy_median_above_md_kj_mol",
        "Median energy above MD",
        _E,
        "neither",
        "Median minimised energy of the samples less that of the MD.",
        _ENERGIES,
        1,
    ),
    Metric(
        "energy_target_above_md_kj_mol",
        "Boltzmann-weighted MD above MD",
        _E,
        "neither",
        "What alignment aims at: the Boltzmann-weighted mean energy of the MD less its plain mean.",
        _ENERGIES,
        1,
    ),
    Metric(
        "energy_w1_kj_mol",
        "Energy W1, MD uniform",
        _E,
        "lower",
        "1-Wasserstein distance of the minimised energies to those of the MD frames.",
        _ENERGIES,
        1,
    ),
    Metric(
        "energy_w1_boltzmann_kj_mol",
        "Energy W1, MD Boltzmann-weighted",
        _E,
        "lower",
        "The same with MD frames weighted by softmax(-E / (kT sqrt(N_res))).",
        _ENERGIES,
        1,
    ),
    Metric(
        "boltzmann_ess",
        "Effective MD frames",
        "",
        "neither",
        "Effective sample size of the MD under the Boltzmann weights.",
        _ENERGIES,
        1,
    ),
)

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
            value = abs(value - row.get(f"md_{metric.key}", 0.0))
        # What a reader cannot tell apart is a tie.
        scores[label] = round(-value if metric.better == "higher" else value, metric.digits)
    if len(scores) < 2 or len(set(scores.values())) == 1:
        return set()
    return {label for label, score in scores.items() if score == min(scores.values())}
