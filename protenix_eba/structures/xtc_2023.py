"""XTC files as GROMACS 2023 and later write them for systems of more than 298 million atoms.

Their magic number is 2023, and the length of a frame's packed coordinates has 64 bits. A frame is
read alone: with a length of 32 bits it is one that mdtraj reads.

Source of the format: GROMACS' `libxdrf.cpp`, `XTC_NEW_MAGIC`.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.structures.frame import Frame

__all__ = ["Xtc2023"]

_MAGIC: Final = (struct.pack(">i", 1995), struct.pack(">i", 2023))
_BEFORE_LENGTH: Final = 88  # bytes from the magic number on
_HEADER: Final = _BEFORE_LENGTH + 8
_MOST_BYTES: Final = 2**31 - 1


class Xtc2023:
    """A trajectory of such frames, see `special_formats.SpecialFile`; a cut frame ends it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames: list[tuple[int, int]] = []  # first byte, packed bytes
        self.n_atoms = 0
        size = path.stat().st_size
        with open(path, "rb") as file:
            while (header := file.read(_HEADER)).startswith(_MAGIC[1]) and len(header) == _HEADER:
                self.n_atoms = struct.unpack(">i", header[4:8])[0]
                (packed,) = struct.unpack(">q", header[_BEFORE_LENGTH:])
                start = file.tell() - _HEADER
                if packed < 0 or file.seek((packed + 3) // 4 * 4, 1) > size:
                    break
                self._frames.append((start, packed))
        self.n_frames = len(self._frames)
        whole = sum(_HEADER + (packed + 3) // 4 * 4 for _, packed in self._frames)
        self.note, self.is_cut = "", whole < size

    @staticmethod
    def is_one(path: Path) -> bool:
        """Tell whether a file begins so."""
        if path.suffix.lower() != ".xtc" or not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == _MAGIC[1]

    def read(self, index: int) -> Frame:
        """One frame.

        Raises:
            UserError: It is not there, is broken, or has more than 2 GB.
        """
        if not 0 <= index < self.n_frames:
            raise UserError(f"{self._path.name}: frame {index} is not there")
        start, packed = self._frames[index]
        if packed > _MOST_BYTES:
            raise UserError(
                f"{self._path.name}: frame {index} has {packed} bytes, at most 2 GB can be read",
                "store the protein alone: gmx trjconv",
            )
        with open(self._path, "rb") as file, tempfile.TemporaryDirectory() as folder:
            file.seek(start)
            data = file.read(_HEADER + (packed + 3) // 4 * 4)
            frame = Path(folder) / "frame.xtc"
            length = struct.pack(">i", packed)
            frame.write_bytes(_MAGIC[0] + data[4:_BEFORE_LENGTH] + length + data[_HEADER:])
            return _read(frame, f"{self._path.name}: frame {index}")


def _read(path: Path, name: str) -> Frame:
    try:
        with mdtraj.formats.XTCTrajectoryFile(str(path)) as handle:
            xyz, time, _, box = handle.read()
    except Exception as error:  # mdtraj raises many kinds for broken files
        raise UserError(f"{name} cannot be read: {error}") from error
    return Frame(
        np.asarray(xyz[0] * ANGSTROM_PER_NM, dtype=np.float32),
        None if box is None else np.asarray(box[0] * ANGSTROM_PER_NM, dtype=np.float32),
        float(time[0]),
    )
