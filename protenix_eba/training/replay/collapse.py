"""Has an ensemble lost conformations that it had? Clusters of a reference, and who visits them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.training.data.clusters import k_medoids, rmsd_matrix

__all__ = ["clusters_visited"]

# Enough to see the states of a small protein go, and few beside the samples of a refresh.
_CLUSTERS: Final = 8


def clusters_visited(
    reference: NDArray[np.float32], samples: NDArray[np.float32]
) -> tuple[float, float]:
    """Sort samples into the clusters of a reference.

    Clusters are those around medoids by RMSD, eight, or one for two conformations of the reference
    where it has fewer than 16.

    Args:
        reference: Conformations `[F, N, 3]`, F at least 1, such as MD's C-alpha atoms, angstrom.
        samples: Conformations `[G, N, 3]`, G at least 1.

    Returns:
        The effective number of clusters among the samples, the exponential of the entropy of their
        populations; and the share of the reference in clusters that the samples visit.
    """
    count = max(1, min(_CLUSTERS, len(reference) // 2))
    theirs = rmsd_matrix(reference)
    medoids = k_medoids(theirs, count)
    visits = _shares(rmsd_matrix(samples, reference[medoids]))
    populations = _shares(theirs[:, medoids])
    visited = visits > 0
    entropy = -(visits[visited] * np.log(visits[visited])).sum()
    return float(np.exp(entropy)), float(populations[visited].sum())


def _shares(distance: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of conformations nearest to each medoid, by their distances `[F, K]`."""
    return np.bincount(distance.argmin(axis=1), minlength=distance.shape[1]) / len(distance)
