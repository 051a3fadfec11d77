"""Handedness of amino acids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CENTRE", "is_inverted"]

CENTRE = ("N", "C", "CB", "CA")
"""The atoms that tell an L- from a D-amino acid; glycine has no CB."""


def is_inverted(xyz: NDArray[np.floating], centres: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which residues are not L: (N - CA) x (C - CA) . (CB - CA) is positive for L.

    Args:
        xyz: `[N, 3]` in any unit.
        centres: `[C, 4]` indices of the atoms of `CENTRE`.

    Returns:
        `[C]`.
    """
    n, c, cb = (xyz[atoms] - xyz[centres[:, 3]] for atoms in centres.T[:3])
    return np.asarray(np.einsum("ij,ij->i", np.cross(n, c), cb) < 0)
