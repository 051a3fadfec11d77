"""One frame of a simulation, whichever reader it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """One frame of the whole system.

    Attributes:
        xyz: `[N_system, 3]` in angstrom.
        box: `[3, 3]` box vectors as rows, angstrom, or None.
        time_ps: As the file has it.
    """

    xyz: NDArray[np.float32]
    box: NDArray[np.float32] | None
    time_ps: float
