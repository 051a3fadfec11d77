"""Distances between the distributions of two ensembles, and coverage of one by the other.

All of these are biased by the number of conformations: with few of them two draws from the same
distribution differ. So equal numbers are compared, and the MD against itself, in the same
numbers, says what is left.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, jensenshannon

__all__ = ["NEIGHBOURS", "Coverage", "coverage", "evenly", "histogram", "jsd_bits"]

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

NEIGHBOURS: Final = 5
_NEAR_QUANTILE: Final = 0.95
_MAX_CLUSTERS: Final = 50
_FRAMES_PER_CLUSTER: Final = 10
_KMEANS_ROUNDS: Final = 20


class Coverage(NamedTuple):
    """Fractions from 0 to 1; NaN where there are too few conformations."""

    recall: float
    precision: float


def evenly(n_total: int, n: int) -> Ints:
    """Return evenly spaced indices below `n_total`, each once, `[min(n, n_total)]`."""
    n = min(n, n_total)
    return (np.arange(n) * n_total // max(n, 1)).astype(np.int64)


def histogram(values: Floats, bins: int) -> Floats:
    """Compute the joint histogram of periodic values of each column.

    Args:
        values: `[F, R, D]` fractions of the period, 0 to 1 (both ends are the same).
        bins: On each of the D axes.

    Returns:
        `[R, bins ** D]` probabilities.
    """
    n_frames, n_columns, n_axes = values.shape
    cell = np.floor(values * bins).astype(np.int64) % bins
    flat = np.zeros((n_frames, n_columns), dtype=np.int64)
    for axis in range(n_axes):
        flat = flat * bins + cell[..., axis]
    size = bins**n_axes
    counts = np.bincount(
        (flat + np.arange(n_columns) * size).ravel(), minlength=n_columns * size
    ).reshape(n_columns, size)
    probabilities: Floats = counts / max(n_frames, 1)
    return probabilities


def jsd_bits(first: Floats, second: Floats) -> Floats:
    """Return the Jensen-Shannon divergence in bits, 0 (the same) to 1 (no bin in common).

    Of two histograms of n draws each from one distribution over K bins it is about
    `(K - 1) / (4 n ln 2)`, not 0.

    Args:
        first: `[R, bins]` probabilities.
        second: `[R, bins]`.

    Returns:
        `[R]`.

    Source: Lin, IEEE Trans. Inf. Theory 1991. SciPy's function is its square root.
    """
    if not first.size:
        return np.empty(len(first))
    distance: Floats = jensenshannon(first, second, axis=1, base=2.0)
    return distance**2


def coverage(md_ca: Floats, md_replica: Ints, sample_ca: Floats) -> Coverage:
    """Return the recall of the MD's clusters by the samples, and the samples' precision.

    What is near is said by the MD: by the C-alpha RMSD, as superposed, between a frame and those of
    the other replicas. Frames of its own replica are correlated with it and say nothing about how
    far independent conformations are apart. Recall is the fraction of the medoids of k-means
    clusters that have a sample nearer than their fifth nearest frame. Precision is the fraction of
    samples that are as near to a frame as 95% of the frames are.

    As many evenly spaced frames as samples are compared, or the other way round. Then samples from
    the MD's own distribution have a recall of at least about 1 - 2^-5, 97%, and a precision of at
    least about 95%, whatever the distribution is.

    Args:
        md_ca: `[F, L, 3]` angstrom. Frames that were drawn twice count once.
        md_replica: `[F]`. Of a single replica all frames are neighbours.
        sample_ca: `[S, L, 3]`.

    Source: after Naeem et al., ICML 2020, "Reliable fidelity and diversity metrics".
    """
    md, samples = (x.reshape(len(x), x.shape[1] * x.shape[2]) for x in (md_ca, sample_ca))
    once = np.sort(np.unique(md, axis=0, return_index=True)[1])
    n = min(len(once), len(samples))
    rows = once[evenly(len(once), n)]
    md = md[rows].astype(np.float64)
    samples = samples[evenly(len(samples), n)].astype(np.float64)
    kin = md_replica[rows][:, None] == md_replica[rows]
    if kin.all():
        kin = np.eye(n, dtype=bool)
    if not n or (~kin).sum(axis=1).min() < NEIGHBOURS:
        return Coverage(float("nan"), float("nan"))
    among_md = cdist(md, md)
    among_md[kin] = np.inf
    among_md = np.partition(among_md, NEIGHBOURS - 1, axis=1)
    near = np.quantile(among_md.min(axis=1), _NEAR_QUANTILE)
    to_samples = cdist(md, samples)
    recalled = to_samples.min(axis=1) <= among_md[:, NEIGHBOURS - 1]
    return Coverage(
        recall=float(recalled[_medoids(md)].mean()),
        precision=float((to_samples.min(axis=0) <= near).mean()),
    )


def _medoids(points: Floats) -> Ints:
    """Return the points nearest to the centres of k-means clusters."""
    from scipy.cluster.vq import kmeans2  # takes a second to import

    n_clusters = int(np.clip(len(points) // _FRAMES_PER_CLUSTER, 1, _MAX_CLUSTERS))
    start = points[evenly(len(points), n_clusters)]
    centres, _ = kmeans2(points, start, iter=_KMEANS_ROUNDS, minit="matrix", missing="warn")
    return np.unique(np.argmin(cdist(centres, points), axis=1))
