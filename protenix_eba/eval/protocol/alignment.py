"""Rigid superposition on the reference structure, as in AlphaFlow's protocol."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.protocol import kernels

__all__ = ["Floats", "centred", "placements", "superpose"]

_CHUNK_FRAMES: Final = 256

Floats = NDArray[np.floating]
Float64s = NDArray[np.float64]


def superpose(xyz: Floats, reference_xyz: Floats) -> Floats:
    """Superpose each frame by least squares, reflections excluded (Kabsch, 1976).

    The reference is moved to its centroid first, so that float32 storage loses nothing.

    Args:
        xyz: `[F, N, 3]`.
        reference_xyz: `[N, 3]`.

    Returns:
        `[F, N, 3]` centred on the origin, in the dtype of `xyz`; the algebra is in float64.
    """
    target = centred(reference_xyz)
    result = np.empty_like(xyz)
    for start in range(0, len(xyz), _CHUNK_FRAMES):
        frames = np.asarray(xyz[start : start + _CHUNK_FRAMES], dtype=np.float64)
        centres, turns = placements(frames, target)
        result[start : start + _CHUNK_FRAMES] = (frames - centres[:, None]) @ turns
    return result


def centred(reference_xyz: Floats) -> Float64s:
    """Return the structure `[N, 3]` with its centroid at the origin, float64."""
    target = np.asarray(reference_xyz, dtype=np.float64)
    result: Float64s = target - target.mean(axis=0)
    return result


def placements(xyz: Floats, target: Float64s) -> tuple[Float64s, Float64s]:
    """Return the superposition of each frame on the target: `(xyz - centre) @ turn`.

    Args:
        xyz: `[F, N, 3]`.
        target: `[N, 3]`, centred.

    Returns:
        Centres `[F, 3]` and turns `[F, 3, 3]`.
    """
    centres, products = kernels.placement_sums(xyz, target)
    u, _, vt = np.linalg.svd(products)
    # A negative determinant is a reflection: turn the axis of the smallest singular value.
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return centres, u @ vt
