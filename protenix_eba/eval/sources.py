"""Where conformations come from: files that are streamed, never read whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import mdtraj
import numpy as np
from numpy.typing import NDArray

__all__ = ["Conformations"]

Floats = NDArray[np.floating]


class Conformations(Protocol):
    """An ensemble on disk: MD with its replicas, or generated conformations (one replica).

    Attributes:
        name: Of the target.
        topology: Every atom, in the order of the coordinates, standard residue names.
        structure_xyz: `[N_atom, 3]` the topology file's own coordinates, angstrom.
        n_frames: Replica number to its number of frames.
    """

    name: str
    topology: mdtraj.Topology
    structure_xyz: Floats
    n_frames: dict[int, int]

    def chunks(
        self, replica: int, atoms: NDArray[np.int64], size: int
    ) -> Iterator[NDArray[np.float32]]:
        """All frames of a replica in order, `[<= size, n, 3]` angstrom, these atoms only.

        Raises:
            UserError: A file that cannot be read, or coordinates that are not finite.
        """

    def frames(
        self, replica: int, indices: NDArray[np.int64], atoms: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Single frames, in the order asked for, repetitions allowed: `[F, n, 3]` angstrom.

        Raises:
            UserError: As `chunks`, or an index beyond the end.
        """
