"""The thirteen metrics of AlphaFlow's protocol, from two sides that are already superposed.

Source: Jing, Berger, Jaakkola, "AlphaFold Meets Flow Matching for Generating Protein Ensembles",
ICML 2024, scripts/analyze_ensembles.py and scripts/print_analysis.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
    "Side",
    "Structure",
    "exposure_metrics",
    "information_correlation",
    "panel",
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
    """What the reference structure says of itself.

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
        """`[L, L]` probability that two C-alpha atoms are closer than 8 angstrom."""
        result: Float64s = kernels.count_contacts(self.ca, CONTACT_ANGSTROM) / len(self.ca)
        return result


def panel(structure: Structure, md: Side, samples: Side) -> dict[str, float]:
    """All metrics of an ensemble against MD; NaN where one is not defined."""
    translation, variance = _rmwd_parts(md.heavy, samples.heavy)
    joint = principal_components(np.concatenate([md.ca, samples.ca]))
    return {
        "pairwise_rmsd": mean_pairwise_rmsd(samples.ca, samples.second_ca),
        "md_pairwise_rmsd": mean_pairwise_rmsd(md.ca, md.second_ca),
        "rmsf_pearson": pearson(md.rmsf, samples.rmsf),
        "rmwd": float(np.hypot(translation, variance)),
        "rmwd_translation": translation,
        "rmwd_variance": variance,
        "md_pca_w2": wasserstein2(md.axes.project(md.ca), md.axes.project(samples.ca)),
        "joint_pca_w2": wasserstein2(joint.project(md.ca), joint.project(samples.ca)),
        "pc1_cosine": md.axes.cosine(samples.axes),
        **_contact_metrics(structure.contacts, md.contacts, samples.contacts),
        **exposure_metrics(structure.buried, md.exposed, samples.exposed),
    }


def _rmwd_parts(md: Floats, samples: Floats) -> tuple[float, float]:
    if min(len(md), len(samples)) < _MIN_FRAMES:
        return float("nan"), float("nan")
    translation, variance = gaussian_distances(md, samples)
    return root_mean_square(translation), root_mean_square(variance)


def _contact_metrics(structure: Bools, md: Float64s, samples: Float64s) -> dict[str, float]:
    weak = [structure & (p < _WEAK_BELOW) for p in (md, samples)]
    transient = [~structure & (p > _SEEN_ABOVE) for p in (md, samples)]
    return {
        "weak_contacts_jaccard": jaccard(*weak),
        "transient_contacts_jaccard": jaccard(*transient),
    }


def exposure_metrics(
    buried: Bools | None, md: Bools | None, samples: Bools | None
) -> dict[str, float]:
    """Which buried side chains open, and which side chains open together.

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
    """Spearman correlation over all pairs of residues of what their exposure tells of each other.

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
