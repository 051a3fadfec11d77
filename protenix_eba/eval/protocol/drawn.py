"""Conformations of one target that stay in memory, for metrics beyond the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.metrics.distributions import evenly

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

    def floors(self) -> Iterator[Drawn]:
        """Yield each replica in the place of the samples, the others as MD; none of a single one.

        A replica gives as many frames as there are samples, evenly spaced, if it has them.
        """
        replicas = np.unique(self.md_replica)
        for replica in replicas if len(replicas) > 1 else ():
            own = np.flatnonzero(self.md_replica == replica)
            others = self.md_replica != replica
            chosen = own[evenly(len(own), len(self.sample_xyz))]
            yield Drawn(
                self.topology,
                self.md_xyz[others],
                self.md_replica[others],
                self.md_xyz[chosen],
            )
