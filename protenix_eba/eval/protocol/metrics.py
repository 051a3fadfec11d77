"""Metrics between two superposed ensembles, after AlphaFlow's scripts/analyze_ensembles.py.

Lengths are in angstrom; sums run in float64 whatever the storage. Source of the definitions:
Jing, Berger, Jaakkola, "AlphaFold Meets Flow Matching for Generating Protein Ensembles", ICML 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from protenix_eba.eval.protocol.alignment import Floats

__all__ = [
    "PrincipalComponents",
    "covariances",
    "fluctuation",
    "gaussian_distances",
    "jaccard",
    "leading_axes",
    "mean_pairwise_rmsd",
    "pearson",
    "principal_components",
    "rmsf",
    "root_mean_square",
    "spearman",
    "wasserstein2",
]

_N_COMPONENTS: Final = 2
_CHUNK_FRAMES: Final = 2000
_RANK_TOLERANCE: Final = 1e-9
# Variance, square angstrom, that rounding of float32 coordinates can make.
_ROUNDING: Final = 1e-8
# Squared distances below this share of the squared lengths are rounding.
_SAME_POINT: Final = 1e-12

Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class PrincipalComponents:
    """The leading principal axes of an ensemble.

    Attributes:
        mean: `[3 L]` mean coordinates, angstrom.
        axes: `[2, 3 L]` orthonormal, by falling variance; zero beyond the ensemble's rank.
    """

    mean: Float64s
    axes: Float64s

    def project(self, xyz: Floats) -> Float64s:
        """Project `[F, L, 3]` to `[F, 2]`, divided by sqrt(L): angstrom, comparable to an RMSD."""
        flat = np.asarray(xyz, dtype=np.float64).reshape(len(xyz), -1)
        result: Float64s = (flat - self.mean) @ self.axes.T / np.sqrt(xyz.shape[1])
        return result

    def cosine(self, other: PrincipalComponents) -> float:
        """Return the absolute cosine between first axes; NaN where one ensemble does not move."""
        if not (self.axes[0].any() and other.axes[0].any()):
            return float("nan")
        # The sign of an axis means nothing.
        return float(abs(self.axes[0] @ other.axes[0]))


def mean_pairwise_rmsd(first: Floats, second: Floats) -> float:
    """Return the mean RMSD over all pairs, without superposition of each pair.

    Args:
        first: `[F, L, 3]` in the reference frame.
        second: `[G, L, 3]`. With `first` itself the zero diagonal counts, as in AlphaFlow.
    """
    a, b = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (first, second))
    lengths = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)
    squares = lengths - 2.0 * (a @ b.T)
    squares[squares < _SAME_POINT * lengths] = 0.0
    return float(np.sqrt(squares).mean() / np.sqrt(first.shape[1]))


def rmsf(xyz: Floats) -> Float64s:
    """Return the root mean square fluctuation of each atom about its own mean.

    Args:
        xyz: `[F, N, 3]`.

    Returns:
        `[N]`, in the unit of `xyz`.
    """
    mean = xyz.mean(axis=0, dtype=np.float64)
    total = np.zeros(xyz.shape[1])
    for start in range(0, len(xyz), _CHUNK_FRAMES):
        total += np.square(xyz[start : start + _CHUNK_FRAMES] - mean).sum(axis=(0, 2))
    return fluctuation(total / len(xyz))


def fluctuation(variance: Float64s) -> Float64s:
    """Return the root of a variance in square angstrom; zero if it is rounding of float32."""
    result: Float64s = np.sqrt(np.where(variance > _ROUNDING, variance, 0.0))
    return result


def covariances(xyz: Floats) -> tuple[Float64s, Float64s]:
    """Return mean and covariance of each atom, divided by the number of frames.

    Args:
        xyz: `[F, N, 3]`.

    Returns:
        `[N, 3]` and `[N, 3, 3]`.
    """
    by_atom = np.asarray(xyz, dtype=np.float64).transpose(1, 2, 0)
    mean = by_atom.mean(axis=2)
    centred = by_atom - mean[:, :, None]
    return mean, centred @ centred.transpose(0, 2, 1) / len(xyz)


def gaussian_distances(first: Floats, second: Floats) -> tuple[Float64s, Float64s]:
    r"""Return both parts of the 2-Wasserstein distance between per-atom Gaussians.

    W2^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2). The symmetric form needs
    only `eigh`; AlphaFlow's sqrtm of S1 S2 gives NaN where a covariance is singular.

    Args:
        first: `[F, N, 3]`.
        second: `[G, N, 3]`.

    Returns:
        Per atom `[N]`: the distance of the means, and the root of the covariance part.
    """
    mean_1, cov_1 = covariances(first)
    mean_2, cov_2 = covariances(second)
    eigenvalues, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(eigenvalues.clip(0.0))[:, None, :]) @ vectors.transpose(0, 2, 1)
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_2 @ root).clip(0.0)).sum(axis=1)
    traces = np.trace(cov_1, axis1=1, axis2=2) + np.trace(cov_2, axis1=1, axis2=2)
    return np.linalg.norm(mean_1 - mean_2, axis=1), np.sqrt((traces - 2.0 * cross).clip(0.0))


def root_mean_square(values: Floats) -> float:
    """Return the root of the mean of the squares."""
    return float(np.sqrt(np.square(values).mean()))


def pearson(first: Floats, second: Floats) -> float:
    """Return the Pearson correlation; NaN where one side is constant."""
    a, b = (np.asarray(x, dtype=np.float64) - np.mean(x, dtype=np.float64) for x in (first, second))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0.0 else float("nan")


def spearman(first: Floats, second: Floats) -> float:
    """Return the Spearman rank correlation, ties at their mean rank; NaN for a constant side."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Floats) -> Float64s:
    # Not scipy.stats: it takes longer to import than all ranks of a target to compute.
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    result: Float64s = (np.cumsum(counts) - (counts - 1) / 2.0)[where]
    return result


def jaccard(first: Bools, second: Bools) -> float:
    """Return the size of the intersection over that of the union; NaN where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else float("nan")


def principal_components(xyz: Floats) -> PrincipalComponents:
    """Return the first two principal axes of centred, unscaled coordinates.

    The smaller of the covariance `[3L, 3L]` and the Gram matrix `[F, F]` is diagonalised; beyond
    the rank (fewer than three distinct frames) the axes are zero.

    Args:
        xyz: `[F, L, 3]`, at least two frames.
    """
    flat = np.asarray(xyz, dtype=np.float64).reshape(len(xyz), -1)
    mean = flat.mean(axis=0)
    deviation = flat - mean
    if len(flat) >= flat.shape[1]:
        return leading_axes(mean, deviation.T @ deviation / len(flat))
    variances, vectors = _leading(deviation @ deviation.T / len(flat))
    return _axes(mean, variances, vectors @ deviation)


def leading_axes(mean: Float64s, covariance: Float64s) -> PrincipalComponents:
    """Return the first two principal axes from mean `[3 L]` and covariance `[3 L, 3 L]`."""
    return _axes(mean, *_leading(covariance))


def _leading(matrix: Float64s) -> tuple[Float64s, Float64s]:
    n = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[max(n - _N_COMPONENTS, 0), n - 1])
    return values[::-1], vectors[:, ::-1].T


def _axes(mean: Float64s, variances: Float64s, axes: Float64s) -> PrincipalComponents:
    """Normalise axes: zero where nothing moves, and with a sign that no library decides."""
    moves = (variances > np.maximum(_RANK_TOLERANCE * variances.max(), _ROUNDING))[:, None]
    norms = np.linalg.norm(axes, axis=1, keepdims=True)
    axes = np.where(moves, axes / np.where(moves, norms, 1.0), 0.0)
    # LAPACK may return either sign: the largest entry is made positive, so that figures repeat.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return PrincipalComponents(mean, axes * np.where(largest < 0.0, -1.0, 1.0))


def wasserstein2(first: Floats, second: Floats) -> float:
    """Return the exact 2-Wasserstein distance of two equally large, uniform point clouds.

    Args:
        first: `[n, d]`.
        second: `[n, d]`.

    Raises:
        ValueError: Different numbers of points.
    """
    if len(first) != len(second):
        raise ValueError(f"expected equally many points, got {len(first)} and {len(second)}")
    cost = cdist(first, second, "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))
