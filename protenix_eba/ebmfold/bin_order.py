"""Conversion of other programs' bins to trRosetta's: "no contact" first, 15 degrees wide.

trRosetta (37/25/25/13 channels) has that channel first. RoseTTAFold and trRosetta2 (37/37/37/19)
have it last, and angles in bins of 10 degrees.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError

__all__ = ["check_neighbours", "no_contact_is_last", "with_trrosettas_bins"]

Array = NDArray[np.float32]

# Atoms are never so near, so that a first channel for 2 to 2.5 angstrom is empty.
_EMPTY: Final = 1e-3
# C-beta atoms (C-alpha of glycine) of neighbours, angstrom.
_NEIGHBOURS: Final = (5.0, 7.0)
_NARROW: Final = {"omega": 37, "theta": 37, "phi": 19}
_HINT: Final = (
    "channels are either 'beyond 20 angstrom' and 36 bins from 2 to 20 angstrom (trRosetta), or "
    "these bins and then that channel (RoseTTAFold)"
)


def no_contact_is_last(distance: Array) -> bool:
    """Return whether the last of 37 channels, not the first, says that residues are far apart.

    Args:
        distance: `[L, L, 37]` probabilities.

    Raises:
        UserError: Neither channel tells.
    """
    pairs = distance[~np.eye(len(distance), dtype=bool)]
    first, last = pairs[:, 0].mean(), pairs[:, -1].mean()
    if first > _EMPTY or not len(pairs):
        return False
    if last > _EMPTY:
        return True
    raise UserError(
        f"dist: the first and the last channel are empty ({first:.2g}, {last:.2g}), so that their "
        "order is not known",
        _HINT,
    )


def with_trrosettas_bins(name: str, values: Array) -> Array:
    """Convert an array whose channel for no contact is last to trRosetta's order and bins.

    Args:
        name: "dist", "omega", "theta" or "phi".
        values: `[L, L, bins]`; bins of 10 degrees become bins of 15 by their overlap.
    """
    bins = values[..., :-1]
    if values.shape[-1] == _NARROW.get(name):
        bins = bins @ _wider(bins.shape[-1])
    return np.concatenate([values[..., -1:], bins], axis=-1).astype(np.float32)


def _wider(n_bins: int) -> Array:
    """Return `[n, 2 n / 3]` shares of each bin in bins half as wide again; rows sum to 1."""
    narrow, wide = np.arange(n_bins)[:, None], 1.5 * np.arange(n_bins * 2 // 3)
    overlap = np.minimum(narrow + 1, wide + 1.5) - np.maximum(narrow, wide)
    shares: Array = np.clip(overlap, 0.0, None).astype(np.float32)
    return shares


def check_neighbours(distance: Array) -> None:
    """Refuse distances that do not put neighbours in sequence 5 to 7 angstrom apart.

    Args:
        distance: `[L, L, 37]` in trRosetta's order.

    Raises:
        UserError: Bins of another order, or in another unit.
    """
    if len(distance) < 2:
        return
    near = np.diagonal(distance, offset=1).T[:, 1:]
    middles = np.linspace(2.25, 19.75, near.shape[1])
    # Ends of chains are neighbours in the numbering only: the median passes over them.
    found = float(np.median(near @ middles + 20.0 * (1.0 - near.sum(axis=1))))
    if not _NEIGHBOURS[0] <= found <= _NEIGHBOURS[1]:
        raise UserError(
            f"dist: neighbours in the sequence would be {found:.1f} angstrom apart, expected "
            f"{_NEIGHBOURS[0]:g} to {_NEIGHBOURS[1]:g}: the bins have another order or width",
            _HINT,
        )
