"""Files of MD, sorted by their names into a topology and the trajectory of each replica.

They stand in a folder, or in a zip as the ATLAS database publishes it.
"""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import mdtraj

from protenix_eba.core.errors import UserError
from protenix_eba.structures.ascii_paths import ascii_path

__all__ = [
    "BROKEN",
    "TOPOLOGY_SUFFIXES",
    "TRAJECTORY_SUFFIXES",
    "DcdLayout",
    "Source",
    "archives_in",
    "dcd_has_rest",
    "from_archive",
    "from_folder",
    "from_names",
    "is_archive",
    "open_handle",
    "promised_frames",
    "replica_number",
    "unpacked",
]

TRAJECTORY_SUFFIXES: Final = (
    *(".xtc", ".dcd", ".trr", ".nc", ".ncdf", ".netcdf"),
    *(".h5", ".hdf5"),
)
TOPOLOGY_SUFFIXES: Final = (".pdb", ".ent", ".cif", ".mmcif", ".gro", ".psf", ".h5", ".hdf5")
BROKEN: Final = "the file is cut, or not of the format of its suffix: copy or download it again"
# ATLAS publishes NAME_protein.zip with all frames and NAME_analysis.zip with a tenth of them.
_ARCHIVE: Final = re.compile(r"(?:_protein|_analysis)?\.zip$", re.IGNORECASE)
_REPLICA: Final = re.compile(r"_R(\d+)(?:_fit)?$")


@dataclass(frozen=True)
class Source:
    """The files with the MD of one target.

    Attributes:
        name: Name of the target, and of its folder in the data set.
        topology: Its file, or the member of `archive`; None if there is a `problem`.
        trajectories: File (or member) of each replica.
        archive: A zip that holds them.
        problem: Why it cannot be imported, known without reading it.
    """

    name: str
    topology: Path | None = None
    trajectories: dict[int, Path] | None = None
    archive: Path | None = None
    problem: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files on disk that the target is read from."""
        if self.archive:
            return (self.archive,)
        return (*([self.topology] if self.topology else []), *(self.trajectories or {}).values())


def from_folder(folder: Path) -> Source | None:
    """Find the target of a folder; None if it has neither topology nor trajectory."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    return from_names(folder.name, files)


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is a zip of one target."""
    return path.is_file() and _ARCHIVE.search(path.name) is not None


def archives_in(folder: Path) -> list[Source]:
    """Find the targets of a folder's archives; of two of one target, that with all frames."""
    sources: dict[str, Source] = {}
    # Of NAME_analysis.zip and NAME_protein.zip the second has all frames, and comes last.
    for path in filter(is_archive, sorted(folder.glob("*.zip"))):
        source = from_archive(path)
        sources[source.name] = source
    return list(sources.values())


def from_archive(path: Path) -> Source:
    """Find the target of an archive `NAME_protein.zip`, `NAME_analysis.zip` or `NAME.zip`."""
    name = _ARCHIVE.sub("", path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                Path(m.filename)
                for m in archive.infolist()
                if not m.is_dir() and not PurePosixPath(m.filename).name.startswith(".")
            )
    except (zipfile.BadZipFile, OSError) as error:
        return Source(name, archive=path, problem=f"{path.name} is broken: {error}; get it again")
    source = from_names(name, members)
    if source is None:
        return Source(name, problem=f"{path.name} holds neither topology nor trajectory")
    return Source(name, source.topology, source.trajectories, path, source.problem)


def from_names(name: str, files: list[Path]) -> Source | None:
    """Sort files by their suffixes into one topology and the replicas; None if there are none."""
    trajectories = [f for f in files if f.suffix.lower() in TRAJECTORY_SUFFIXES]
    topologies = [f for f in files if f.suffix.lower() in TOPOLOGY_SUFFIXES]
    # mdtraj's HDF5 is both; beside a topology it is a trajectory.
    pure = [f for f in topologies if f not in trajectories]
    if not trajectories and not pure:
        return None
    if not trajectories:
        return Source(name, problem=f"has {pure[0].name}, but no trajectory")
    chosen = [f for f in pure or topologies if f.stem == name] or pure or topologies[:1]
    if len({f.name for f in trajectories}) < len(trajectories):
        return Source(name, problem="two of its trajectories have the same file name")
    numbers = [n for n in map(replica_number, trajectories) if n is not None]
    if len(set(numbers)) < len(numbers):
        found = ", ".join(f.name for f in trajectories)
        return Source(name, problem=f"two of its trajectories have one replica number: {found}")
    if len(chosen) != 1:
        found = ", ".join(f.name for f in chosen) or "none"
        return Source(name, problem=f"expected one topology, or one named {name}; found {found}")
    return Source(name, chosen[0], _numbered(trajectories))


def replica_number(path: Path) -> int | None:
    """Return the number in names like NAME_R2.xtc and NAME_prod_R2_fit.xtc; None in others."""
    match = _REPLICA.search(path.stem)
    return int(match.group(1)) if match else None


def _numbered(trajectories: list[Path]) -> dict[int, Path]:
    """Number files by the `_R1` of their names if all have one, else by their order."""
    numbers = [n for n in map(replica_number, trajectories) if n is not None]
    if len(numbers) < len(trajectories):
        numbers = list(range(1, len(trajectories) + 1))
    return dict(sorted(zip(numbers, trajectories, strict=True)))


def unpacked(source: Source, scratch: Path) -> Source:
    """Return the MD as files on disk: those of an archive are unpacked into `scratch`.

    Raises:
        UserError: The archive is broken.
    """
    if source.archive is None or source.topology is None or not source.trajectories:
        return source
    try:
        with zipfile.ZipFile(source.archive) as archive:
            topology = _extract(archive, source.topology, scratch)
            trajectories = {
                replica: _extract(archive, member, scratch)
                for replica, member in source.trajectories.items()
            }
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise UserError(
            f"{source.archive.name} cannot be unpacked: {error}",
            "the archive is broken: download it again",
        ) from error
    return Source(source.name, topology, trajectories)


def _extract(archive: zipfile.ZipFile, member: Path, folder: Path) -> Path:
    path = folder / member.name
    with archive.open(member.as_posix()) as packed, open(path, "wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    return path


@contextmanager
def open_handle(path: Path) -> Iterator[Any]:
    """Open mdtraj's object of a trajectory: XTC, DCD, TRR, NetCDF (AMBER) or HDF5 (mdtraj).

    Raises:
        UserError: No such file, an empty one, another format, a broken header.
    """
    if path.suffix.lower() not in TRAJECTORY_SUFFIXES:
        raise UserError(
            f"{path.name}: expected a trajectory ({', '.join(TRAJECTORY_SUFFIXES)})",
            "convert it to XTC",
        )
    if not path.is_file():
        raise UserError(f"no trajectory file at {path}", "check the path")
    if path.stat().st_size == 0:
        raise UserError(f"cannot read {path.name}: it is empty (0 bytes)", BROKEN)
    with ExitStack() as files:
        try:
            handle = files.enter_context(mdtraj.open(files.enter_context(ascii_path(path))))
        except ImportError as error:
            raise UserError(
                f"{path.name}: HDF5 needs PyTables: {error}", "pip install tables"
            ) from error
        except Exception as error:  # mdtraj raises many kinds for broken files
            raise UserError(
                f"cannot read {path.name}: {type(error).__name__}: {error}", BROKEN
            ) from error
        yield handle


def promised_frames(path: Path) -> int:
    """Return the frames by the header of a DCD file; mdtraj counts by the size of the file.

    A run that ended early leaves a header with more. Returns 0 for what is no DCD file.
    """
    with open(path, "rb") as file:
        header = file.read(12)
    return int.from_bytes(header[8:], _dcd_order(header)) if header[4:8] == b"CORD" else 0


@dataclass(frozen=True)
class DcdLayout:
    """The places of headers and frames in a DCD file.

    Attributes:
        order: Byte order of the file, "little" or "big".
        start: Offset of the first frame in bytes.
        n_atoms: Number of atoms in the first frame.
        fixed: Atoms that later frames do not repeat.
        has_cell: Whether each frame begins with a cell.
        fourth: Whether frames have a fourth dimension.
    """

    order: Literal["little", "big"]
    start: int
    n_atoms: int
    fixed: int
    has_cell: bool
    fourth: bool

    @classmethod
    def of(cls, path: Path) -> DcdLayout | None:
        """Read the header; None for what is no DCD file with 32-bit records."""
        with open(path, "rb") as file:
            header = file.read(96)
            if header[4:8] != b"CORD" or len(header) < 96:
                return None
            order = _dcd_order(header)
            title = int.from_bytes(header[92:96], order)
            file.seek(92 + title + 8 + 4)
            n_atoms = int.from_bytes(file.read(4), order)
        # Integers 9, 11 and 12 of the header, after its length and the word CORD.
        fixed, cell, fourth, charmm = (
            int.from_bytes(header[8 + 4 * i : 12 + 4 * i], order) for i in (8, 10, 11, 19)
        )
        if not charmm:  # X-PLOR's files have a step in float64 where CHARMM's have these
            cell = fourth = 0
        start = 92 + (title + 8) + 12 + (4 * (n_atoms - fixed) + 8 if fixed else 0)
        return cls(order, start, n_atoms, fixed, bool(cell), bool(fourth))

    def frame_bytes(self, n_atoms: int) -> int:
        """Return the length of a frame with this number of atoms."""
        return (4 if self.fourth else 3) * (4 * n_atoms + 8) + (56 if self.has_cell else 0)

    def cell(self, path: Path, index: int) -> tuple[float, ...] | None:
        """Read the six numbers of a frame's cell; None if there is none."""
        if not self.has_cell:
            return None
        offset = self.start
        if index:
            later = self.frame_bytes(self.n_atoms - self.fixed)
            offset += self.frame_bytes(self.n_atoms) + (index - 1) * later
        with open(path, "rb") as file:
            file.seek(offset + 4)
            data = file.read(48)
        if len(data) < 48:
            return None
        return struct.unpack(f"{'<' if self.order == 'little' else '>'}6d", data)


def dcd_has_rest(path: Path, n_frames: int, n_atoms: int) -> bool:
    """Tell whether a DCD file ends within a frame.

    Args:
        path: The file; one with fixed atoms or a fourth dimension counts as whole.
        n_frames: Its whole frames.
        n_atoms: Atoms of a frame.
    """
    layout = DcdLayout.of(path)
    if layout is None or layout.fixed or layout.fourth:
        return False
    return path.stat().st_size > layout.start + n_frames * layout.frame_bytes(n_atoms)


def _dcd_order(header: bytes) -> Literal["little", "big"]:
    return "little" if header[:1] == b"T" else "big"  # the first record has 84 bytes
