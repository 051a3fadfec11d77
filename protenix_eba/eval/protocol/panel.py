"""The thirteen metrics of AlphaFlow's protocol, for two sides that are already superposed.

Source: Jing, Berger, Jaakkola, "AlphaFold Meets Flow Matching for Generating Protein Ensembles",
ICML 2024, scripts/analyze_ensembles.py and scripts/print_analysis.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.protocol import kernels
from protenix_eba.eval.protocol.alignment import Floats
from protenix_eba.eval.protocol.exposure import mutual_information
from protenix_eba.eval.protocol.metrics import (
    PrincipalComponents,
    gaussian_distances,
    jaccard,
    mean_pairwise_rmsd,
    pearson,
    principal_components,
    root_mean_square,
    spearman,
    wasserstein2,
)

__all__ = [
    "CONTACT_ANGSTROM",
    "PROTOCOL_METRICS",
    "Panel",
    "Side",
    "Structure",
    "exposure_metrics",
    "information_correlation",
]

CONTACT_ANGSTROM: Final = 8.0
# A contact of the structure is weak below the first probability; one that it has not, and a side
# chain that is buried in it, count above the second.
_WEAK_BELOW: Final = 0.9
_SEEN_ABOVE: Final = 0.1
# Of information in nats: 1,000 frames tell values apart that are 1e-7 apart.
_DECIMALS: Final = 12
# One frame is no ensemble: of a replica that was hardly drawn there is no floor.
_MIN_FRAMES: Final = 2

Bools = NDArray[np.bool_]
Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """Properties of the reference structure.

    Attributes:
        contacts: `[L, L]` C-alpha atoms closer than 8 angstrom.
        buried: `[L]` side chains with less than 0.02 nm2 of accessible area; None without side
            chains.
    """

    contacts: Bools
    buried: Bools | None


@dataclass(frozen=True)
class Side:
    """One of the two ensembles that are compared.

    Attributes:
        rmsf: `[N]` of heavy atoms, angstrom; over all frames.
        axes: Principal axes of the C-alpha atoms; over all frames.
        heavy: `[F, N, 3]` frames for the Gaussians of single atoms.
        ca: `[S, L, 3]` frames for contacts, diversity and projections.
        second_ca: `[S, L, 3]` frames that diversity pairs those with: the same, or a second draw.
        exposed: `[F, L]` exposed side chains; None without side chains.
    """

    rmsf: Float64s
    axes: PrincipalComponents
    heavy: Floats
    ca: Floats
    second_ca: Floats
    exposed: Bools | None

    @cached_property
    def contacts(self) -> Float64s:
        """Probability that two C-alpha atoms are closer than 8 angstrom, `[L, L]`."""
        result: Float64s = kernels.count_contacts(self.ca, CONTACT_ANGSTROM) / len(self.ca)
        return result


@dataclass(frozen=True)
class Panel:
    """The input of the protocol's metrics.

    Attributes:
        structure: Of the reference.
        md: The MD.
        samples: The ensemble.
        replicas: For each replica of the MD the others and, in the place of the samples, itself.
    """

    structure: Structure
    md: Side
    samples: Side
    replicas: Sequence[tuple[Side, Side]] = ()

    def floors(self) -> Iterator[Panel]:
        """Yield each replica in the place of the samples."""
        return (Panel(self.structure, others, own) for others, own in self.replicas)

    @cached_property
    def rmwd_parts(self) -> tuple[float, float]:
        """Root mean squared distances of means and of covariances; NaN of a single frame."""
        if min(len(self.md.heavy), len(self.samples.heavy)) < _MIN_FRAMES:
            return float("nan"), float("nan")
        translation, variance = gaussian_distances(self.md.heavy, self.samples.heavy)
        return root_mean_square(translation), root_mean_square(variance)

    @property
    def joint_axes(self) -> PrincipalComponents:
        """Principal axes of MD and samples together."""
        return principal_components(np.concatenate([self.md.ca, self.samples.ca]))

    def distance_along(self, axes: PrincipalComponents) -> float:
        """Return the 2-Wasserstein distance of the projections."""
        return wasserstein2(axes.project(self.md.ca), axes.project(self.samples.ca))

    def overlap(self, contacts: Callable[[Side], Bools]) -> float:
        """Return the Jaccard index of what a function marks in the MD and in the samples."""
        return jaccard(contacts(self.md), contacts(self.samples))

    @cached_property
    def exposure(self) -> dict[str, float]:
        """Metrics of exposure, see `exposure_metrics`."""
        return exposure_metrics(self.structure.buried, self.md.exposed, self.samples.exposed)


def exposure_metrics(
    buried: Bools | None, md: Bools | None, samples: Bools | None
) -> dict[str, float]:
    """Compare which buried side chains open, and which side chains open together.

    Args:
        buried: `[L]` in the reference structure.
        md: `[F, L]` exposed side chains.
        samples: `[S, L]`.

    Returns:
        Three metrics, NaN without side chains or frames.
    """
    keys = ("exposed_residue_jaccard", "exposed_mi_spearman", "exposed_mi_spearman_exact")
    if buried is None or md is None or samples is None or min(len(md), len(samples)) < _MIN_FRAMES:
        return dict.fromkeys(keys, float("nan"))
    opened = [buried & (side.mean(axis=0) > _SEEN_ABOVE) for side in (md, samples)]
    rho = [information_correlation(md, samples, exact=exact) for exact in (False, True)]
    return dict(zip(keys, (jaccard(*opened), *rho), strict=True))


def information_correlation(md: Bools, samples: Bools, *, exact: bool = False) -> float:
    """Return the Spearman correlation of the mutual information of all pairs of residues.

    Most pairs share no information at all, but the protocol's formula gives some of them 1e-17
    nats where others have zero, and ranks tell these apart: its value may be that of rounding.

    Args:
        md: `[F, L]` exposed side chains.
        samples: `[S, L]`.
        exact: Count what is rounding as zero; False repeats the protocol.
    """
    # The whole matrix with its diagonal, as AlphaFlow's script flattens it.
    both = [mutual_information(side).ravel() for side in (md, samples)]
    if exact:
        # Rounded as well, so that pairs with the same counts in another order tie.
        both = [np.round(information, _DECIMALS) for information in both]
    return spearman(*both)


_FLEXIBILITY: Final = "Predicting flexibility"
_ACCURACY: Final = "Distributional accuracy"
_OBSERVABLES: Final = "Ensemble observables"
_A: Final = "Å"

PROTOCOL_METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "pairwise_rmsd",
        "Pairwise RMSD",
        _A,
        "as MD",
        "Diversity: mean C-alpha RMSD of all pairs of conformations.",
        _FLEXIBILITY,
        compute=lambda p: mean_pairwise_rmsd(p.samples.ca, p.samples.second_ca),
    ),
    Metric(
        "md_pairwise_rmsd",
        "Pairwise RMSD of the MD",
        _A,
        "neither",
        "The diversity to reach.",
        _FLEXIBILITY,
        compute=lambda p: mean_pairwise_rmsd(p.md.ca, p.md.second_ca),
    ),
    Metric(
        "rmsf_pearson",
        "Per-target RMSF r",
        "",
        "higher",
        "Pearson r between atoms' fluctuations in the samples and in the MD.",
        _FLEXIBILITY,
        compute=lambda p: pearson(p.md.rmsf, p.samples.rmsf),
        undefined="all atoms of one side fluctuate alike",
    ),
    Metric(
        "rmwd",
        "RMWD",
        _A,
        "lower",
        "Root mean squared 2-Wasserstein distance between Gaussians fitted to each atom.",
        _ACCURACY,
        compute=lambda p: np.hypot(*p.rmwd_parts),
    ),
    Metric(
        "rmwd_translation",
        "RMWD trans.",
        _A,
        "lower",
        "Its part from the atoms' mean positions.",
        _ACCURACY,
        compute=lambda p: p.rmwd_parts[0],
    ),
    Metric(
        "rmwd_variance",
        "RMWD var.",
        _A,
        "lower",
        "Its part from the atoms' covariances.",
        _ACCURACY,
        compute=lambda p: p.rmwd_parts[1],
    ),
    Metric(
        "md_pca_w2",
        "MD PCA W2",
        _A,
        "lower",
        "2-Wasserstein distance on the MD's first two principal components (PCs).",
        _ACCURACY,
        compute=lambda p: p.distance_along(p.md.axes),
    ),
    Metric(
        "joint_pca_w2",
        "Joint PCA W2",
        _A,
        "lower",
        "The same on the first two PCs of MD and samples together.",
        _ACCURACY,
        compute=lambda p: p.distance_along(p.joint_axes),
    ),
    Metric(
        "pc1_cosine",
        "PC1 |cosine|",
        "",
        "higher",
        "Agreement of the largest motion's direction in the samples and in the MD.",
        _ACCURACY,
        compute=lambda p: p.md.axes.cosine(p.samples.axes),
        undefined="one side does not move",
    ),
    Metric(
        "weak_contacts_jaccard",
        "Weak contacts J",
        "",
        "higher",
        "Contacts of the structure that open in over 10% of conformations: overlap with the MD's.",
        _OBSERVABLES,
        compute=lambda p: p.overlap(
            lambda side: p.structure.contacts & (side.contacts < _WEAK_BELOW)
        ),
        undefined="neither side breaks a contact of the structure",
    ),
    Metric(
        "transient_contacts_jaccard",
        "Transient contacts J",
        "",
        "higher",
        "Contacts not in the structure that form in over 10%: overlap with the MD's.",
        _OBSERVABLES,
        compute=lambda p: p.overlap(
            lambda side: ~p.structure.contacts & (side.contacts > _SEEN_ABOVE)
        ),
        undefined="neither side makes a contact that the structure has not",
    ),
    Metric(
        "exposed_residue_jaccard",
        "Exposed residue J",
        "",
        "higher",
        "Buried side chains that become exposed in over 10%: overlap with the MD's.",
        _OBSERVABLES,
        compute=lambda p: p.exposure["exposed_residue_jaccard"],
        undefined="neither side opens a buried side chain, or there are none",
    ),
    Metric(
        "exposed_mi_spearman",
        "Exposed MI rho",
        "",
        "higher",
        "Spearman rho of the mutual information between residues' exposures, by AlphaFlow's "
        "formula, which ranks rounding errors of 1e-17 nats: for comparison with published values.",
        _OBSERVABLES,
        compute=lambda p: p.exposure["exposed_mi_spearman"],
        undefined="no two side chains of one side open together, or there are none",
    ),
    Metric(
        "exposed_mi_spearman_exact",
        "Exposed MI rho, exact",
        "",
        "higher",
        "The same with pairs of residues that share no information at zero.",
        _OBSERVABLES,
        compute=lambda p: p.exposure["exposed_mi_spearman_exact"],
        undefined="no two side chains of one side open together, or there are none",
    ),
)
