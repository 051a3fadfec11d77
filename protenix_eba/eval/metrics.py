"""Metrics between two aligned ensembles, after AlphaFlow's scripts/analyze_ensembles.py.

Lengths are in angstrom; sums run in float64 whatever the storage. Source of the definitions:
Jing, Berger, Jaakkola, "AlphaFold Meets Flow Matching for Generating Protein Ensembles", ICML 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from protenix_eba.eval.alignment import Aligned, Floats

__all__ = [
    "ALPHAFLOW_SEED",
    "Panel",
    "PrincipalComponents",
    "covariances",
    "gaussian_distances",
    "mean_pairwise_rmsd",
    "panel",
    "pearson",
    "principal_components",
    "rmsf",
    "root_mean_square",
    "wasserstein2",
]

ALPHAFLOW_SEED: Final = 137
# AlphaFlow draws this many MD frames for the per-atom Gaussians.
_N_GAUSSIAN_FRAMES: Final = 1000
_N_COMPONENTS: Final = 2
_CHUNK_FRAMES: Final = 2000
_RANK_TOLERANCE: Final = 1e-9

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """The metrics of one ensemble pair, and the profiles that they come from.

    Attributes:
        values: Metric key to value; NaN where a metric is not defined.
        md_rmsf: `[N]` per heavy atom, angstrom.
        sample_rmsf: `[N]` of the same atoms.
    """

    values: dict[str, float]
    md_rmsf: Float64s
    sample_rmsf: Float64s


@dataclass(frozen=True)
class PrincipalComponents:
    """The leading principal axes of an ensemble.

    Attributes:
        mean: `[3 L]` mean coordinates, angstrom.
        axes: `[2, 3 L]` orthonormal, by falling variance.
    """

    mean: Float64s
    axes: Float64s

    def project(self, xyz: Floats) -> Float64s:
        """`[F, L, 3]` to `[F, 2]`, divided by sqrt(L): angstrom, comparable to an RMSD."""
        flat = np.asarray(xyz, dtype=np.float64).reshape(len(xyz), -1)
        result: Float64s = (flat - self.mean) @ self.axes.T / np.sqrt(xyz.shape[1])
        return result


def panel(md: Aligned, samples: Aligned, seed: int = ALPHAFLOW_SEED) -> Panel:
    """All metrics of an ensemble against MD.

    MD frames are drawn with replacement in AlphaFlow's order (numpy's legacy generator: the same
    seed gives its numbers): twice as many as there are samples, then 1,000.

    Args:
        md: Every MD frame, at least two.
        samples: Every sample, at least two, the same atoms.
        seed: Of the draws.
    """
    random = np.random.RandomState(seed)
    n_md, n_samples = len(md.ca), len(samples.ca)
    draw = random.randint(0, n_md, n_samples)
    second_draw = random.randint(0, n_md, n_samples)
    gaussian_draw = random.randint(0, n_md, _N_GAUSSIAN_FRAMES)
    md_rmsf, sample_rmsf = rmsf(md.heavy), rmsf(samples.heavy)
    translation, variance = (
        root_mean_square(distance)
        for distance in gaussian_distances(md.heavy[gaussian_draw], samples.heavy)
    )
    values = {
        "pairwise_rmsd": mean_pairwise_rmsd(samples.ca, samples.ca),
        "md_pairwise_rmsd": mean_pairwise_rmsd(md.ca[draw], md.ca[second_draw]),
        "rmsf_pearson": pearson(md_rmsf, sample_rmsf),
        "rmwd": float(np.hypot(translation, variance)),
        "rmwd_translation": translation,
        "rmwd_variance": variance,
    }
    return Panel(values | _pca_metrics(md.ca, samples.ca, draw), md_rmsf, sample_rmsf)


def _pca_metrics(md: Floats, samples: Floats, draw: NDArray[np.int64]) -> dict[str, float]:
    drawn = md[draw]
    md_axes = principal_components(md)
    joint_axes = principal_components(np.concatenate([drawn, samples]))
    own_axes = principal_components(samples)
    return {
        "md_pca_w2": wasserstein2(md_axes.project(drawn), md_axes.project(samples)),
        "joint_pca_w2": wasserstein2(joint_axes.project(drawn), joint_axes.project(samples)),
        # The sign of an axis means nothing.
        "pc1_cosine": float(abs(md_axes.axes[0] @ own_axes.axes[0])),
    }


def mean_pairwise_rmsd(first: Floats, second: Floats) -> float:
    """Mean RMSD over all pairs, without superposition of each pair.

    Args:
        first: `[F, L, 3]` in the reference frame.
        second: `[G, L, 3]`. With `first` itself the zero diagonal counts, as in AlphaFlow.
    """
    a, b = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (first, second))
    return float(cdist(a, b).mean() / np.sqrt(first.shape[1]))


def rmsf(xyz: Floats) -> Float64s:
    """Root mean square fluctuation of each atom about its own mean.

    Args:
        xyz: `[F, N, 3]`.

    Returns:
        `[N]`, in the unit of `xyz`.
    """
    mean = xyz.mean(axis=0, dtype=np.float64)
    total = np.zeros(xyz.shape[1])
    for start in range(0, len(xyz), _CHUNK_FRAMES):
        total += np.square(xyz[start : start + _CHUNK_FRAMES] - mean).sum(axis=(0, 2))
    result: Float64s = np.sqrt(total / len(xyz))
    return result


def covariances(xyz: Floats) -> tuple[Float64s, Float64s]:
    """Mean and covariance of each atom, divided by the number of frames.

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
    r"""The two parts of the 2-Wasserstein distance between per-atom Gaussians.

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
    """Root of the mean of the squares."""
    return float(np.sqrt(np.square(values).mean()))


def pearson(first: Floats, second: Floats) -> float:
    """Pearson correlation; NaN where one side is constant."""
    a, b = (np.asarray(x, dtype=np.float64) - np.mean(x, dtype=np.float64) for x in (first, second))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0.0 else float("nan")


def principal_components(xyz: Floats) -> PrincipalComponents:
    """First two principal axes of centred, unscaled coordinates.

    The smaller of the covariance `[3L, 3L]` and the Gram matrix `[F, F]` is diagonalised; beyond
    the rank (fewer than three distinct frames) the axes are zero.

    Args:
        xyz: `[F, L, 3]`, at least two frames.
    """
    flat = np.asarray(xyz, dtype=np.float64).reshape(len(xyz), -1)
    mean = flat.mean(axis=0)
    centred = flat - mean
    if len(flat) >= flat.shape[1]:
        axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].T[:_N_COMPONENTS]
    else:
        axes = np.linalg.eigh(centred @ centred.T)[1][:, ::-1].T[:_N_COMPONENTS] @ centred
        norms = np.linalg.norm(axes, axis=1, keepdims=True)
        defined = norms > _RANK_TOLERANCE * np.linalg.norm(centred)
        axes = np.where(defined, axes / np.where(defined, norms, 1.0), 0.0)
    # LAPACK may return either sign: the largest entry is made positive, so that figures repeat.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return PrincipalComponents(mean, axes * np.where(largest < 0.0, -1.0, 1.0))


def wasserstein2(first: Floats, second: Floats) -> float:
    """Exact 2-Wasserstein distance of two equally large point clouds with uniform weights.

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
