"""Has an ensemble lost conformations that it had? Clusters of a reference, and who visits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.training.data.clusters import k_medoids, rmsd_matrix

__all__ = ["Clusters"]

# Enough to see the states of a small protein go, and few beside the samples of a refresh.
_CLUSTERS: Final = 8


@dataclass(frozen=True)
class Clusters:
    """Clusters of a reference around medoids by RMSD.

    There are eight, or one for two conformations of the reference where it has fewer than 16.

    Attributes:
        medoids: `[K, N, 3]`.
        populations: `[K]`, share of the reference in each.
    """

    medoids: NDArray[np.float32]
    populations: NDArray[np.float64]

    @classmethod
    def of(cls, reference: NDArray[np.float32]) -> Clusters:
        """Find the clusters of `[F, N, 3]`, F at least 1, such as MD's C-alpha atoms, angstrom."""
        distance = rmsd_matrix(reference)
        medoids = k_medoids(distance, max(1, min(_CLUSTERS, len(reference) // 2)))
        return cls(reference[medoids], _shares(distance[:, medoids]))

    def visited(self, samples: NDArray[np.float32]) -> tuple[float, float]:
        """Sort samples `[G, N, 3]`, G at least 1, into the clusters.

        Returns:
            The effective number of clusters among the samples, the exponential of the entropy of
            their populations; and the share of the reference in clusters that they visit.
        """
        visits = _shares(rmsd_matrix(samples, self.medoids))
        there = visits > 0
        entropy = -(visits[there] * np.log(visits[there])).sum()
        return float(np.exp(entropy)), float(self.populations[there].sum())


def _shares(distance: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of conformations nearest to each medoid, by their distances `[F, K]`."""
    return np.bincount(distance.argmin(axis=1), minlength=distance.shape[1]) / len(distance)
