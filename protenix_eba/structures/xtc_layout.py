"""The places of the frames in GROMACS' compressed trajectories (XTC).

A frame's length stands in its header, so that all headers must be read to find one frame. It is
done once for each file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.structures.ascii_paths import ascii_path

__all__ = ["XtcLayout", "layout_of"]

# Frames of more atoms than this are packed, behind a longer header.
_UNPACKED_ATOMS: Final = 9
_HEADER_BYTES: Final = 92
# Of 10,000 frames 80 kB: the replicas of all of ATLAS take 0.3 GB.
_FILES_KEPT: Final = 4096


@dataclass(frozen=True, eq=False)
class XtcLayout:
    """The places of the F whole frames of a file.

    Attributes:
        path: The file.
        edges: `[F + 1]` first byte of each frame, and the byte after the last.
        n_atoms: Of the first frame.
        is_cut: Whether more bytes follow: the file ends within a frame.
    """

    path: Path
    edges: NDArray[np.int64]
    n_atoms: int
    is_cut: bool

    @property
    def n_frames(self) -> int:
        """Return the number F of whole frames."""
        return len(self.edges) - 1

    def times(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Read times `[F]`, picoseconds, and steps `[F]` from the headers."""
        data = np.memmap(self.path, dtype=np.uint8, mode="r")
        heads = data[self.edges[:-1, None] + np.arange(8, 16)]
        step, time_ps = heads[:, :4].copy().view(">i4"), heads[:, 4:].copy().view(">f4")
        return time_ps[:, 0].astype(np.float32), step[:, 0].astype(np.int32)


def layout_of(path: Path) -> XtcLayout:
    """Find the whole frames of a file, or remember them: until it has another size or time.

    Raises:
        Exception: Of many kinds, by mdtraj, for a broken file; OSError without a whole frame.
    """
    found = path.stat()
    return _layout(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=_FILES_KEPT)
def _layout(path: Path, size: int, modified_ns: int) -> XtcLayout:
    with ascii_path(path) as name, mdtraj.formats.XTCTrajectoryFile(name) as handle:
        starts = np.array(handle.offsets[: len(handle)], dtype=np.int64)
    # mdtraj counts the headers of frames, also that of a frame whose end is missing.
    while len(starts):
        n_atoms, end = _first_and_end(path, int(starts[0]), int(starts[-1]))
        if end <= size:
            return XtcLayout(path, np.append(starts, end), n_atoms, end < size)
        starts = starts[:-1]
    raise OSError("it has no whole frame")


def _first_and_end(path: Path, first: int, last: int) -> tuple[int, int]:
    """Read the atoms of the frame at `first`, and the end of that at `last` (XDR format)."""
    with open(path, "rb") as file:
        file.seek(first)
        n_first = int.from_bytes(file.read(8)[4:], "big")
        file.seek(last)
        header = file.read(_HEADER_BYTES)
    n_atoms = int.from_bytes(header[52:56], "big")
    if n_atoms <= _UNPACKED_ATOMS:
        return n_first, last + 56 + 12 * n_atoms
    packed = int.from_bytes(header[88:92], "big")
    return n_first, last + _HEADER_BYTES + (packed + 3) // 4 * 4
