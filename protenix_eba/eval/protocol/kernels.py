"""Loops over atoms and frames that numpy cannot do without large temporaries, compiled by numba.

Without `fastmath`, so that float32 arithmetic is IEEE's, in the order that is written here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.compiled import compiler

__all__ = ["add_moments", "compiled", "count_contacts", "placement_sums"]

Floats = NDArray[np.float32]
Float64s = NDArray[np.float64]
Ints = NDArray[np.int64]

# Without Python's check for division by zero, which would keep loops out of wide registers.
compiled = compiler(error_model="numpy")


@compiled
def placement_sums(
    xyz: NDArray[np.floating], target: Float64s
) -> tuple[Float64s, Float64s]:  # pragma: no cover
    """Compute what a superposition needs of each frame, in one pass and in float64.

    Args:
        xyz: `[F, N, 3]`.
        target: `[N, 3]` centred.

    Returns:
        Centres `[F, 3]`, and `[F, 3, 3]` products of the frame's axes with the target's.
    """
    n_frames, n_atoms = xyz.shape[0], xyz.shape[1]
    centres, products = np.empty((n_frames, 3)), np.empty((n_frames, 3, 3))
    for f in range(n_frames):
        # Relative to the first atom, so that a protein far from the origin keeps its digits.
        ox, oy, oz = np.float64(xyz[f, 0, 0]), np.float64(xyz[f, 0, 1]), np.float64(xyz[f, 0, 2])
        sx = sy = sz = xa = xb = xc = ya = yb = yc = za = zb = zc = 0.0
        for n in range(n_atoms):
            x, y, z = xyz[f, n, 0] - ox, xyz[f, n, 1] - oy, xyz[f, n, 2] - oz
            a, b, c = target[n, 0], target[n, 1], target[n, 2]
            sx, sy, sz = sx + x, sy + y, sz + z
            xa, xb, xc = xa + x * a, xb + x * b, xc + x * c
            ya, yb, yc = ya + y * a, yb + y * b, yc + y * c
            za, zb, zc = za + z * a, zb + z * b, zc + z * c
        centres[f] = ox + sx / n_atoms, oy + sy / n_atoms, oz + sz / n_atoms
        products[f, 0] = xa, xb, xc
        products[f, 1] = ya, yb, yc
        products[f, 2] = za, zb, zc
    return centres, products


@compiled
def add_moments(
    xyz: Floats,
    centres: Float64s,
    turns: Float64s,
    target: Float64s,
    total: Float64s,
    squares: Float64s,
) -> None:  # pragma: no cover
    """Add the deviations `(xyz - centre) @ turn - target` of each atom, and their squares.

    Args:
        xyz: `[F, N, 3]`.
        centres: `[F, 3]`.
        turns: `[F, 3, 3]`.
        target: `[N, 3]` centred.
        total: `[N, 3]` is added to.
        squares: `[N]` is added to.
    """
    for f in range(xyz.shape[0]):
        turn = turns[f]
        cx, cy, cz = centres[f, 0], centres[f, 1], centres[f, 2]
        for n in range(xyz.shape[1]):
            x, y, z = xyz[f, n, 0] - cx, xyz[f, n, 1] - cy, xyz[f, n, 2] - cz
            a = x * turn[0, 0] + y * turn[1, 0] + z * turn[2, 0] - target[n, 0]
            b = x * turn[0, 1] + y * turn[1, 1] + z * turn[2, 1] - target[n, 1]
            c = x * turn[0, 2] + y * turn[1, 2] + z * turn[2, 2] - target[n, 2]
            total[n, 0] += a
            total[n, 1] += b
            total[n, 2] += c
            squares[n] += a * a + b * b + c * c


@compiled
def count_contacts(xyz: NDArray[np.floating], cutoff: float) -> Ints:  # pragma: no cover
    """Count frames in which two atoms are closer than the cutoff: `[F, L, 3]` to `[L, L]`."""
    n_frames, n_atoms = xyz.shape[0], xyz.shape[1]
    counts = np.zeros((n_atoms, n_atoms), dtype=np.int64)
    limit = cutoff * cutoff
    for f in range(n_frames):
        for i in range(n_atoms):
            x, y, z = xyz[f, i, 0], xyz[f, i, 1], xyz[f, i, 2]
            for j in range(i, n_atoms):
                dx, dy, dz = x - xyz[f, j, 0], y - xyz[f, j, 1], z - xyz[f, j, 2]
                counts[i, j] += dx * dx + dy * dy + dz * dz < limit
    for i in range(n_atoms):
        for j in range(i):
            counts[i, j] = counts[j, i]
    return counts
