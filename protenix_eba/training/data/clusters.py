"""Clusters of a target's conformers: k-medoids on the RMSD of C-alpha atoms.

Letters: F conformers, K clusters, L C-alpha atoms.
"""

from __future__ import annotations

from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.training.data.interfaces import LabelledConformers

__all__ = ["conformer_clusters", "k_medoids", "rmsd_matrix"]

# Of more conformers as many, evenly spaced, have their medoids found: a matrix of F x F distances
# would soon be larger than the trajectories. Each conformer then joins the nearest medoid.
_MOST_IN_MATRIX: Final = 1000
_READ_AT_ONCE: Final = 1000
_MOST_ROUNDS: Final = 100


def conformer_clusters(source: LabelledConformers, n_clusters: int) -> list[NDArray[np.int64]]:
    """Divide conformers into clusters around medoids; reads all of them.

    Args:
        source: LabelledConformers of a target, `n_clusters` or more.
        n_clusters: K.

    Returns:
        Ascending conformer numbers of each cluster, each conformer in one, no cluster empty.

    Raises:
        UserError: A trajectory cannot be read.
    """
    xyz = _alpha_carbons(source)
    candidates = np.unique(np.linspace(0, len(xyz) - 1, _MOST_IN_MATRIX).astype(np.int64))
    medoids = candidates[k_medoids(rmsd_matrix(xyz[candidates]), n_clusters)]
    nearest = _nearest(rmsd_matrix(xyz, xyz[medoids]), medoids)
    return [np.flatnonzero(nearest == cluster) for cluster in range(n_clusters)]


def _alpha_carbons(source: LabelledConformers) -> NDArray[np.float32]:
    """Return the C-alpha atoms `[F, L, 3]` that the trajectories have, in angstrom."""
    alpha = source.protein.alpha_carbons
    alpha = alpha[source.mask[alpha] > 0]
    starts = range(0, len(source), _READ_AT_ONCE)
    chunks = (range(first, min(first + _READ_AT_ONCE, len(source))) for first in starts)
    return np.concatenate([source.coordinates(chunk)[:, alpha].numpy() for chunk in chunks])


def rmsd_matrix(
    xyz: NDArray[np.float32], others: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Compute the RMSD of all pairs after superposition (Theobald, Acta Cryst. A61, 478, 2005).

    Args:
        xyz: `[F, L, 3]`.
        others: `[G, L, 3]`; `xyz` itself when None.

    Returns:
        `[F, G]`, in the unit of `xyz`.
    """
    first = mdtraj.Trajectory(xyz.copy(), topology=None)
    second = first if others is None else mdtraj.Trajectory(others.copy(), topology=None)
    for trajectory in (first, second):
        trajectory.center_coordinates()
    columns = [
        mdtraj.rmsd(first, second, frame, parallel=False, precentered=True)
        for frame in range(len(second))
    ]
    return np.stack(columns, axis=1)


def k_medoids(distance: NDArray[np.floating], n_clusters: int) -> NDArray[np.int64]:
    """Choose points with nearly the least sum of distances from each point to its nearest.

    Chosen one after the other, each the best beside those before (the BUILD phase of PAM, Kaufman
    and Rousseeuw, Finding Groups in Data, 1990), then moved to the middle of their clusters until
    none moves (Park and Jun, Expert Syst. Appl. 36, 3336, 2009). Nothing is drawn.

    Args:
        distance: `[F, F]` symmetric.
        n_clusters: K, at most F.

    Returns:
        `[K]` different points.
    """
    medoids = _spread(distance, n_clusters)
    for _ in range(_MOST_ROUNDS):
        nearest = _nearest(distance[:, medoids], medoids)
        clusters = [np.flatnonzero(nearest == cluster) for cluster in range(n_clusters)]
        moved = np.array([c[distance[np.ix_(c, c)].sum(axis=0).argmin()] for c in clusters])
        if (moved == medoids).all():
            break
        medoids = moved
    return medoids


def _spread(distance: NDArray[np.floating], n_clusters: int) -> NDArray[np.int64]:
    medoids = [int(distance.sum(axis=0).argmin())]
    nearest = distance[:, medoids[0]]
    while len(medoids) < n_clusters:
        gain = np.maximum(nearest[:, None] - distance, 0.0).sum(axis=0)
        gain[medoids] = -1.0  # where all others lie on a medoid too
        medoids.append(int(gain.argmax()))
        nearest = np.minimum(nearest, distance[:, medoids[-1]])
    return np.array(medoids, dtype=np.int64)


def _nearest(distance: NDArray[np.floating], medoids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of each point's nearest medoid; a medoid belongs to itself."""
    nearest: NDArray[np.int64] = distance.argmin(axis=1)
    nearest[medoids] = np.arange(len(medoids))
    return nearest
