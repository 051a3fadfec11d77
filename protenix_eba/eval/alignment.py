"""Rigid superposition on the reference structure, as AlphaFlow's protocol says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Aligned", "Floats", "align", "superpose"]

_CHUNK_FRAMES: Final = 1000

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Aligned:
    """Conformations in the reference frame.

    Attributes:
        heavy: `[F, N, 3]` superposed on the reference with all matched heavy atoms, angstrom.
        ca: `[F, L, 3]` their C-alpha atoms, superposed again on the reference's C-alpha atoms.
    """

    heavy: Floats
    ca: Floats


def align(xyz: Floats, reference_xyz: Floats, ca_index: NDArray[np.int64]) -> Aligned:
    """Superpose as AlphaFlow does: all heavy atoms first, the C-alpha atoms of that once more.

    Args:
        xyz: `[F, N, 3]` matched heavy atoms, angstrom.
        reference_xyz: `[N, 3]` the same atoms of the reference structure.
        ca_index: `[L]` positions of the C-alpha atoms.

    Source: AlphaFlow (Jing et al., ICML 2024), scripts/analyze_ensembles.py.
    """
    heavy = superpose(xyz, reference_xyz)
    return Aligned(heavy, superpose(heavy[:, ca_index], reference_xyz[ca_index]))


def superpose(xyz: Floats, reference_xyz: Floats) -> Floats:
    """Least-squares rigid superposition of each frame, reflections excluded (Kabsch, 1976).

    The reference is moved to its centroid first, so that float32 storage loses nothing.

    Args:
        xyz: `[F, N, 3]`.
        reference_xyz: `[N, 3]`.

    Returns:
        `[F, N, 3]` centred on the origin, in the dtype of `xyz`; the algebra is in float64.
    """
    target = np.asarray(reference_xyz, dtype=np.float64)
    target = target - target.mean(axis=0)
    result = np.empty_like(xyz)
    for start in range(0, len(xyz), _CHUNK_FRAMES):
        frames = np.asarray(xyz[start : start + _CHUNK_FRAMES], dtype=np.float64)
        frames = frames - frames.mean(axis=1, keepdims=True)
        u, _, vt = np.linalg.svd(frames.transpose(0, 2, 1) @ target)
        # A negative determinant is a reflection: turn the axis of the smallest singular value.
        u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
        result[start : start + _CHUNK_FRAMES] = frames @ (u @ vt)
    return result
