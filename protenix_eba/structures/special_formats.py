"""Trajectories that mdtraj does not read right: DCD with fixed atoms, TRR without coordinates.

And the cells of CHARMM's DCD files from version 36 on, which are symmetric matrices.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.structures.frame import Frame
from protenix_eba.structures.md_files import DcdLayout

__all__ = ["Frame", "SpecialFile", "cell_of_dcd", "special_file"]

# Cells whose angles are outside are degenerate: the numbers mean something else.
_ANGLES: Final = (10.0, 170.0)
_TRR_MAGIC: Final = 1993
_TRR_SIZES: Final = 13  # integers of a frame's header from ir_size to nre


class SpecialFile(Protocol):
    """A trajectory that is read here.

    Attributes:
        n_frames: Those with coordinates.
        n_atoms: Number of atoms in each frame.
        note: What else is in the file, for people; empty where nothing is.
        is_cut: Whether the file ends within a frame.
    """

    n_frames: int
    n_atoms: int
    note: str
    is_cut: bool

    def read(self, index: int) -> Frame:
        """Read one frame."""


def special_file(path: Path, name: str) -> SpecialFile | None:
    """Return a reader for a file that mdtraj cannot read; None for all others.

    Args:
        path: The file.
        name: One that mdtraj's readers in C can open.
    """
    suffix = path.suffix.lower()
    if suffix == ".dcd" and (layout := DcdLayout.of(path)) and layout.fixed:
        return _FixedDcd(path, name)
    frames, end = _trr_frames(path) if suffix == ".trr" else ([], 0)
    # mdtraj cannot count the frames of a short file that is cut.
    is_cut = bool(frames) and end < path.stat().st_size
    if is_cut or any(frame.x_size == 0 for frame in frames):
        return _Trr(path, frames, is_cut)
    return None


class _FixedDcd:
    """A DCD file whose later frames hold the atoms that move: mdtraj reads it forward only."""

    def __init__(self, path: Path, name: str) -> None:
        with mdtraj.formats.DCDTrajectoryFile(name) as handle:
            self._xyz, _, _ = handle.read()
        self._path = path
        self.n_frames, self.n_atoms = self._xyz.shape[:2]
        self.note, self.is_cut = "", False

    def read(self, index: int) -> Frame:
        box = cell_of_dcd(self._path, index)
        return Frame(np.asarray(self._xyz[index], dtype=np.float32), box, float(index))


def cell_of_dcd(path: Path, index: int) -> NDArray[np.float32] | None:
    """Return box vectors `[3, 3]` as rows, angstrom, of a DCD frame; None without a cell.

    X-PLOR's and NAMD's files hold lengths and angles or their cosines (A, gamma, B, beta, alpha,
    C). CHARMM writes the lower half of a symmetric matrix from version 36 on, and old readers take
    it for lengths and angles. As those angles are absurd, the two are told apart (MDAnalysis).
    """
    layout = DcdLayout.of(path)
    cell = layout.cell(path, index) if layout else None
    if cell is None:
        return None
    a, gamma, b, beta, alpha, c = cell
    angles = np.array([alpha, beta, gamma])
    if (np.abs(angles) <= 1).all():
        angles = np.degrees(np.arccos(angles))
    plausible = (angles > _ANGLES[0]).all() and (angles < _ANGLES[1]).all()
    if min(a, b, c) > 0 and not plausible:
        shape = np.array([[a, gamma, beta], [gamma, b, alpha], [beta, alpha, c]])
        if np.linalg.eigvalsh(shape).min() > 0:
            return shape.astype(np.float32)
    vectors = mdtraj.utils.lengths_and_angles_to_box_vectors(a, b, c, *angles)
    return np.array(vectors, dtype=np.float32)


@dataclass(frozen=True)
class _TrrFrame:
    """The place of a frame's data, and the sizes of its parts in bytes."""

    start: int
    box_size: int
    before_x: int
    x_size: int
    n_atoms: int
    time_ps: float


def _trr_frames(path: Path) -> tuple[list[_TrrFrame], int]:
    """Find the whole frames of a TRR file by their headers (GROMACS' XDR format), and their end."""
    frames: list[_TrrFrame] = []
    size, whole = path.stat().st_size, 0
    with open(path, "rb") as file:
        while header := file.read(8):
            if len(header) < 8 or struct.unpack(">i", header[:4])[0] != _TRR_MAGIC:
                break
            try:
                parts, n_atoms, time_ps = _trr_header(file)
            except struct.error:  # cut within the header
                break
            start, end = file.tell(), file.tell() + sum(parts)
            if end > size:
                break
            frames.append(_TrrFrame(start, parts[2], sum(parts[:7]), parts[7], n_atoms, time_ps))
            file.seek(end)
            whole = end
    return frames, whole


def _trr_header(file: BinaryIO) -> tuple[list[int], int, float]:
    """Sizes of a frame's parts from ir_size to f_size, its atoms and its time in ps."""
    (length,) = struct.unpack(">i", file.read(4))
    file.seek((length + 3) // 4 * 4, 1)
    *parts, n_atoms, _, _ = struct.unpack(f">{_TRR_SIZES}i", file.read(4 * _TRR_SIZES))
    real = _real_bytes(parts, n_atoms)
    (time_ps,) = struct.unpack(">d" if real == 8 else ">f", file.read(2 * real)[:real])
    return parts, n_atoms, time_ps


def _real_bytes(parts: list[int], n_atoms: int) -> int:
    """Return the bytes of a number in a frame, which GROMACS tells by its box or vectors."""
    box, vectors = parts[2], max(parts[7:10])
    return box // 9 if box else vectors // max(3 * n_atoms, 1) or 4


class _Trr:
    """The whole frames of a TRR file that hold coordinates; others hold velocities only."""

    def __init__(self, path: Path, frames: list[_TrrFrame], is_cut: bool) -> None:
        self._path, self.is_cut = path, is_cut
        self._frames = [frame for frame in frames if frame.x_size]
        self.n_frames = len(self._frames)
        self.n_atoms = frames[0].n_atoms
        without = len(frames) - self.n_frames
        note = f"{path.name}: {without} of {len(frames)} frames hold no coordinates"
        self.note = note if without else ""

    def read(self, index: int) -> Frame:
        frame = self._frames[index]
        real = frame.x_size // (3 * frame.n_atoms)
        kind = f">f{real}"
        with open(self._path, "rb") as file:
            file.seek(frame.start)
            box = np.frombuffer(file.read(frame.box_size), kind)
            file.seek(frame.start + frame.before_x)
            xyz: NDArray[Any] = np.frombuffer(file.read(frame.x_size), kind).reshape(-1, 3)
        return Frame(
            np.asarray(xyz * ANGSTROM_PER_NM, dtype=np.float32),
            np.asarray(box.reshape(3, 3) * ANGSTROM_PER_NM, np.float32) if len(box) else None,
            frame.time_ps,
        )
