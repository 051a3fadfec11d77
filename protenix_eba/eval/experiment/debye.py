"""Scattering of a structure by Debye's sum over all pairs of atoms.

I(q) = sum_ij f_i(q) f_j(q) sin(q r_ij) / (q r_ij). Pairs of equal kinds of atoms are counted by
their distance first, in bins of 0.02 angstrom, so that the sum runs over bins. On average that
changes a wave by (q width)^2 / 24 of it: 4e-6 at q = 0.5 / angstrom.

Source: Debye, Ann. Phys. 351, 809 (1915).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.compiled import compiler

__all__ = ["pair_counts", "scattering"]

Float64s = NDArray[np.float64]

_BIN_ANGSTROM: Final = 0.02


def pair_counts(xyz: NDArray[np.floating], kinds: NDArray[np.int64], amounts: Float64s) -> Float64s:
    """Count pairs of points by kind and distance, `[K, K, bins]`, by both amounts' product.

    Both orders of a pair count, and each point with itself in the first bin, so that the sum of all
    is the square of the sum of the amounts.

    Args:
        xyz: `[N, 3]` angstrom.
        kinds: `[N]` from 0 to K - 1.
        amounts: `[N]` 1 for an atom, or a share.
    """
    points = np.ascontiguousarray(xyz, dtype=np.float64)
    longest = float(np.linalg.norm(np.ptp(points, axis=0)))
    n_bins = int(longest / _BIN_ANGSTROM) + 2
    counts = np.zeros((int(kinds.max()) + 1,) * 2 + (n_bins,))
    _count(points, kinds, amounts, counts, _BIN_ANGSTROM)
    return counts + counts.transpose(1, 0, 2)


@compiler()
def _count(
    xyz: NDArray[Any], kinds: NDArray[Any], amounts: NDArray[Any], counts: NDArray[Any],
    width: float,
) -> None:  # fmt: skip
    for i in range(len(xyz)):
        counts[kinds[i], kinds[i], 0] += 0.5 * amounts[i] * amounts[i]
        for j in range(i + 1, len(xyz)):
            total = 0.0
            for k in range(3):
                total += (xyz[i, k] - xyz[j, k]) ** 2
            # Bin n holds distances about n widths, so that the first is of points at one place.
            counts[kinds[i], kinds[j], int(np.sqrt(total) / width + 0.5)] += amounts[i] * amounts[j]


def scattering(counts: Float64s, q: Float64s) -> Float64s:
    """Return sums of sin(q r) / (q r) over the pairs of each two kinds, `[K, K, Q]`.

    Args:
        counts: Counts of pairs by distance, from `pair_counts`.
        q: `[Q]` 1 / angstrom.
    """
    distances = _BIN_ANGSTROM * np.arange(counts.shape[-1])
    used = np.flatnonzero(counts.any(axis=(0, 1)))
    # numpy's sinc is sin(pi x) / (pi x).
    waves = np.sinc(np.outer(distances[used], q) / np.pi)
    result: Float64s = counts[..., used] @ waves
    return result
