"""The conformations of one target that stay in memory: what metrics beyond the protocol read."""

from __future__ import annotations

from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray

__all__ = ["Drawn"]


@dataclass(frozen=True)
class Drawn:
    """MD frames drawn by the protocol and all samples, superposed on the reference structure.

    Attributes:
        topology: The matched heavy atoms, in the reference's order.
        md_xyz: `[<= 1000, N, 3]` angstrom; drawn from all replicas with replacement.
        md_replica: `[<= 1000]` the replica that each of them comes from.
        sample_xyz: `[S, N, 3]` angstrom.
    """

    topology: mdtraj.Topology
    md_xyz: NDArray[np.float32]
    md_replica: NDArray[np.int64]
    sample_xyz: NDArray[np.float32]
