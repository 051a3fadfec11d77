"""Frames of GROMACS' compressed trajectories (XTC), of the wanted atoms only, in angstrom.

The C routine that all readers share takes packed numbers apart byte by byte, which would be a third
of an evaluation's time. The loop here does it by whole words, several times as fast, stops at the
last wanted atom, and gives what mdtraj gives bit by bit. Whatever it is not made for (fewer than
ten atoms, a system of more than 200 nm) and whatever is broken is left to mdtraj and its errors.

Source of the format: GROMACS' xdrfile library, `xdrfile_decompress_coord_float`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.compiled import compiler
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.structures.ascii_paths import ascii_path
from protenix_eba.structures.xtc_layout import layout_of

__all__ = ["XtcFile"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MAGIC: Final = 1995
_HEADER_BYTES: Final = 92
# At most so much of a file is in memory, or a frame.
_PIECE_BYTES: Final = 16 << 20
# Words of eight bytes are read from any bit on, also from a frame's last one.
_PADDING: Final = 16
# Quotients of such numbers are exact, or one off, in float64.
_MOST_BITS: Final = 53
# The packed range of a difference for each number of bits of its triple; 5060 is GROMACS' own.
_RANGES: Final = np.array(
    [
        *[0] * 9, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256, 322, 406,
        512, 645, 812, 1024, 1290, 1625, 2048, 2580, 3250, 4096, 5060, 6501, 8192, 10321, 13003,
        16384, 20642, 26007, 32768, 41285, 52015, 65536, 82570, 104031, 131072, 165140, 208063,
    ],
    dtype=np.int64,
)  # fmt: skip
_FEWEST_BITS: Final = 9

# Unsigned words: numba mixes signed and unsigned numbers to floating ones.
_U = np.uint64
_compiled = compiler(error_model="numpy")
_FLAG, _RUN = _U(63), _U(58)


class XtcFile:
    """A trajectory of packed frames.

    Args:
        path: The file.

    Attributes:
        layout: Where its whole frames stand; others are not read.

    Raises:
        Exception: As `xtc_layout.layout_of`.
    """

    def __init__(self, path: Path) -> None:
        self.layout = layout_of(path)
        self._path = path
        self._next = 0

    def read(self, n_frames: int, atoms: Ints) -> Floats:
        """Read the next frames, from the first on.

        Args:
            n_frames: Largest number of frames.
            atoms: `[n]` in any order, each once.

        Returns:
            `[<= n_frames, n, 3]` angstrom.

        Raises:
            Exception: Of many kinds, by mdtraj, for a broken file; OSError for a frame of other
                atoms than the first.
        """
        first, last = self._next, min(self._next + n_frames, self.layout.n_frames)
        self._next = last
        return self._ascending(np.arange(first, last), atoms)

    def frames(self, indices: Ints, atoms: Ints) -> Floats:
        """Read single frames, each once, in the order of the file.

        Args:
            indices: `[F]` in any order, repetitions allowed.
            atoms: `[n]` in any order, each once.

        Returns:
            `[F, n, 3]` angstrom.

        Raises:
            Exception: As `read`.
        """
        wanted, where = np.unique(indices, return_inverse=True)
        return self._ascending(wanted, atoms)[where]

    def _ascending(self, frames: Ints, atoms: Ints) -> Floats:
        xyz = np.empty((len(frames), len(atoms), 3), dtype=np.float32)
        edges, row = self.layout.edges, 0
        # In a box of water a few thousand wanted atoms stand among hundreds of thousands.
        while row < len(frames) and len(atoms):
            ends = np.cumsum(edges[frames[row:] + 1] - edges[frames[row:]])
            n_fitting = int(np.searchsorted(ends, _PIECE_BYTES, side="right"))
            piece = slice(row, row + max(n_fitting, 1))
            self._read(frames[piece], atoms, xyz[piece])
            row = piece.stop
        return xyz

    def _read(self, frames: Ints, atoms: Ints, xyz: Floats) -> None:
        edges = self.layout.edges
        ends = np.cumsum(edges[frames + 1] - edges[frames])
        starts = np.append(0, ends[:-1])
        packed = np.zeros(ends[-1] + _HEADER_BYTES + _PADDING, dtype=np.uint8)
        with open(self._path, "rb") as file:
            breaks = np.flatnonzero(np.diff(frames) != 1)
            for first, last in zip(np.append(0, breaks + 1), np.append(breaks, -1), strict=True):
                file.seek(edges[frames[first]])
                file.readinto(packed[starts[first] : ends[last]].data)
        self._check_atoms(packed[starts[:, None] + np.arange(4, 8)].view(">i4")[:, 0], frames)
        if not _unpack(packed, starts, atoms, xyz):
            for row, frame in enumerate(frames.tolist()):
                self._handle.seek(frame)
                found = self._handle.read(n_frames=1, atom_indices=atoms)[0][0]
                xyz[row] = found * np.float32(ANGSTROM_PER_NM)

    def _check_atoms(self, n_atoms: NDArray[np.integer], frames: Ints) -> None:
        """Refuse a frame of other atoms, of which mdtraj would read a part, or too much."""
        expected = self.layout.n_atoms
        for row in np.flatnonzero(n_atoms != expected):
            raise OSError(f"frame {frames[row]} has {n_atoms[row]} atoms, the first {expected}")

    @cached_property
    def _handle(self) -> Any:
        with ascii_path(self._path) as name:
            handle = mdtraj.formats.XTCTrajectoryFile(name)
            len(handle)  # for which it opens the file by its name once more
        return handle


def _unpack(packed: NDArray[np.uint8], starts: Ints, atoms: Ints, xyz: Floats) -> bool:
    """Fill `xyz` with the atoms of the frames that begin at `starts`; False if it cannot be."""
    headers = packed[starts[:, None] + np.arange(_HEADER_BYTES)]
    whole, precision = headers.view(">i4").astype(np.int64), headers.view(">f4")[:, 14]
    magic, n_atoms, n_packed, bits, n_bytes = whole[:, [0, 1, 13, 21, 22]].T
    low, high = whole[:, 15:18], whole[:, 18:21]
    ranges = high - low + 1
    # The number of bits of a product of three ranges is the exponent of its next power of two.
    total_bits = np.frexp(ranges.prod(axis=1, dtype=np.float64))[1].astype(np.int64)
    ends = starts + _HEADER_BYTES + n_bytes
    known = (magic == _MAGIC) & (n_atoms == n_packed) & (n_atoms > atoms.max())
    known &= (ranges > 0).all(axis=1) & (ranges < 1 << 24).all(axis=1)
    known &= (total_bits <= _MOST_BITS) & (bits >= _FEWEST_BITS) & (bits <= _MOST_BITS)
    known &= (n_bytes > 0) & (ends <= len(packed) - _HEADER_BYTES - _PADDING) & (precision > 0)
    if not known.all():
        return False
    columns = np.full(int(atoms.max()) + 1, -1, dtype=np.int64)
    columns[atoms] = np.arange(len(atoms))
    per_unit = (np.float32(1.0) / precision).astype(np.float32)
    integers = np.stack([starts + _HEADER_BYTES, ends, n_atoms, total_bits, bits], axis=1)
    return bool(_decode(packed, integers, low, ranges, per_unit, columns, xyz))


@_compiled
def _decode(
    packed: Any, integers: Ints, low: Ints, ranges: Ints, per_unit: Floats, columns: Ints,
    xyz: Floats,
) -> bool:  # pragma: no cover  # fmt: skip
    """Decode all frames; return False as soon as one is broken.

    Args:
        packed: `[B + padding]` bytes.
        integers: `[F, 5]` first byte of the coordinates and the one after the last, atoms, bits
            of a position and, at the beginning, of a difference.
        low: `[F, 3]` smallest position on each axis.
        ranges: `[F, 3]` number of positions on each axis.
        per_unit: `[F]` nanometres.
        columns: `[A]` of each of the first atoms the place among the wanted ones, or -1.
        xyz: `[F, n, 3]` is filled, angstrom.
    """
    for f in range(len(xyz)):
        if not _decode_frame(packed, integers[f], low[f], ranges[f], per_unit[f], columns, xyz[f]):
            return False
    return True


@_compiled
def _decode_frame(
    packed: Any, integers: Ints, low: Ints, ranges: Ints, per_unit: float, columns: Ints,
    xyz: Floats,
) -> bool:  # pragma: no cover  # fmt: skip
    """Decode a frame: atoms by position, most followed by others by their difference."""
    at, end, n_atoms, bits = 8 * integers[0], 8 * integers[1], integers[2], integers[3]
    small_bits, run, i = integers[4], 0, 0
    inverse_y, inverse_z, inverse = 1.0 / ranges[1], 1.0 / ranges[2], 1.0 / _RANGES[small_bits]
    while i < len(columns):
        if at > end:
            return False
        xy, z = _divided(_number(_word(packed, at), bits), ranges[2], inverse_z)
        x, y = _divided(xy, ranges[1], inverse_y)
        x, y, z = x + low[0], y + low[1], z + low[2]
        flags = _word(packed, at + bits)
        at += bits + 1
        change = 0
        if flags >> _FLAG:
            code = np.int64((flags >> _RUN) & _U(31))
            run, change = int(code // 3), int(code % 3 - 1)
            at += 5
        if i + run >= n_atoms:
            return False
        # GROMACS swaps the first two of a run: in water the oxygen then comes before.
        _put(xyz, columns, i + min(run, 1), x, y, z, per_unit)
        small = _RANGES[small_bits]
        for k in range(run):
            if at > end:
                return False
            xy, dz = _divided(_number(_word(packed, at), small_bits), small, inverse)
            dx, dy = _divided(xy, small, inverse)
            at += small_bits
            x, y, z = x + dx - small // 2, y + dy - small // 2, z + dz - small // 2
            _put(xyz, columns, i + 1 + k if k else i, x, y, z, per_unit)
        i += 1 + run
        if change:
            small_bits += change
            if small_bits < _FEWEST_BITS or small_bits > _MOST_BITS:
                return False
            inverse = 1.0 / _RANGES[small_bits]
    return bool(at <= end)


@_compiled
def _word(packed: Any, at: int) -> Any:  # pragma: no cover
    """Return at least 57 bits from a bit on, the first one highest."""
    byte = _U(at) >> _U(3)
    word = _U(0)
    for k in range(8):
        word = (word << _U(8)) | _U(packed[byte + _U(k)])
    return word << (_U(at) & _U(7))


@_compiled
def _number(word: Any, n_bits: int) -> Any:  # pragma: no cover
    """Return a word's first bits as a number: lowest byte first, the last one not full."""
    spare = _U(64 - n_bits)
    word = (word >> spare) << spare
    turned = _U(0)
    for _ in range(8):
        turned = (turned << _U(8)) | (word & _U(255))
        word = word >> _U(8)
    full = _U(n_bits & ~7)
    last = turned >> full
    return np.int64((turned ^ (last << full)) | ((last >> _U(8 - (n_bits & 7))) << full))


@_compiled
def _divided(value: Any, by: Any, inverse: float) -> tuple[Any, Any]:  # pragma: no cover
    """Return quotient and rest; multiplying with the inverse is faster than dividing."""
    quotient = np.int64(value * inverse)
    rest = value - quotient * by
    if rest < 0:
        return quotient - 1, rest + by
    if rest >= by:
        return quotient + 1, rest - by
    return quotient, rest


@_compiled
def _put(
    xyz: Floats, columns: Ints, atom: int, x: int, y: int, z: int, per_unit: float
) -> None:  # pragma: no cover
    """Store a position if the atom is wanted, rounded as mdtraj and its caller round it."""
    if atom < len(columns) and columns[atom] >= 0:
        row = xyz[columns[atom]]
        ten = np.float32(10.0)
        row[0] = np.float32(x) * per_unit * ten
        row[1] = np.float32(y) * per_unit * ten
        row[2] = np.float32(z) * per_unit * ten
