"""Checks of coordinates that were read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError

__all__ = ["check_finite", "check_range"]


def check_finite(xyz: NDArray[np.float32], first: int, path: Path) -> None:
    """Refuse NaN and infinity.

    Args:
        xyz: `[F, N, 3]`.
        first: Number of its first frame.
        path: File that it was read from.

    Raises:
        UserError: It names the first broken frame.
    """
    if np.isfinite(xyz).all():
        return
    broken = np.flatnonzero(~np.isfinite(xyz).all(axis=(1, 2)))
    raise UserError(
        f"frame {first + broken[0]} of {path} has coordinates that are not finite",
        "remove the frame, or make the file again",
    )


def check_range(indices: NDArray[np.int64], n_frames: int, what: str) -> None:
    """Refuse frames that are not there.

    Raises:
        UserError: It names the frame and `what` should have it.
    """
    wrong = indices[(indices < 0) | (indices >= n_frames)]
    if len(wrong):
        raise UserError(
            f"{what}: frame {wrong[0]} asked for, it has {n_frames}", "the file may be cut"
        )
