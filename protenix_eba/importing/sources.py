"""Where the MD of each target is: ATLAS archives, folders, a table, or files that are named."""

from __future__ import annotations

import csv
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from protenix_eba.errors import UserError
from protenix_eba.files import require_file
from protenix_eba.importing.frames import TRAJECTORY_SUFFIXES
from protenix_eba.importing.topology import TOPOLOGY_SUFFIXES
from protenix_eba.trajectories import replica_number

__all__ = ["Source", "find_sources", "source_of_files", "unpacked"]

_ARCHIVE: Final = re.compile(r"(?:_protein)?\.zip$", re.IGNORECASE)
_COLUMNS: Final = ("name", "topology", "trajectory")


@dataclass(frozen=True)
class Source:
    """The MD of one target.

    Attributes:
        name: Of the target, and of its folder in the data set.
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
        """Files on disk that it is read from."""
        if self.archive:
            return (self.archive,)
        return (*([self.topology] if self.topology else []), *(self.trajectories or {}).values())


def source_of_files(topology: Path, trajectories: Sequence[Path], name: str | None) -> Source:
    """One target from files; each trajectory is a replica, in the order given.

    Raises:
        UserError: A file is not there, or the name cannot be a folder's.
    """
    require_file(topology, "topology")
    for path in trajectories:
        require_file(path, "trajectory")
    name = topology.stem if name is None else name
    if fault := _name_fault(name):
        raise UserError(fault, "give --name with letters, digits, '_' and '-'")
    return Source(name, topology, dict(enumerate(trajectories, start=1)))


def find_sources(path: Path) -> list[Source]:
    """The targets of a table, or of a folder of archives or sub-folders, sorted by name.

    An archive `NAME_protein.zip` beside its unpacked folder `NAME` is passed over.

    Raises:
        UserError: Nothing there, no permission, a table without its columns, or no target in a
            folder.
    """
    try:
        return _find(path)
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or path}: {error.strerror or error}",
            "check the permissions of the files",
        ) from error


def _find(path: Path) -> list[Source]:
    if path.is_file() and path.suffix.lower() == ".csv":
        return _from_table(path)
    if path.is_file() and _ARCHIVE.search(path.name):
        return [_from_archive(path)]
    if not path.is_dir():
        raise UserError(
            f"expected a folder or a CSV table of trajectories at {path}, found "
            f"{'another kind of file' if path.exists() else 'nothing'}",
            "give a folder of targets, of ATLAS archives, a table with the columns "
            f"{', '.join(_COLUMNS)}, or --topology and --trajectory",
        )
    if any(f.suffix.lower() in TRAJECTORY_SUFFIXES for f in path.iterdir() if f.is_file()):
        found = _from_folder(path.resolve())
        return [found] if found else []
    folders = [f for f in sorted(path.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    sources = [found for folder in folders if (found := _from_folder(folder))]
    names = {source.name for source in sources}
    archives = [_from_archive(f) for f in sorted(path.glob("*.zip")) if f.is_file()]
    sources += [archive for archive in archives if archive.name not in names]
    if not sources:
        raise UserError(
            f"no target in {path}: expected sub-folders with a topology and trajectories, or "
            "archives NAME_protein.zip",
            "point to the folder above the targets' folders",
        )
    return sorted(sources, key=lambda source: source.name)


def _name_fault(name: str) -> str:
    if (
        name
        and name == name.strip()
        and not name.startswith(".")
        and not set(name) & set("/\\\0\n")
    ):
        return ""
    return f"{name!r} cannot be the name of a target: it names a folder"


def _from_table(path: Path) -> list[Source]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            rows, columns = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV table: {error}", "save it as CSV in UTF-8") from error
    lacking = [name for name in _COLUMNS if name not in columns]
    if lacking or not rows:
        raise UserError(
            f"{path}: expected the columns {', '.join(_COLUMNS)} and optionally replica, found "
            f"{', '.join(columns) or 'none'} and {len(rows)} rows",
            "write one row for each trajectory; paths are relative to the table",
        )
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        grouped.setdefault((row["name"] or "").strip(), []).append(row)
    return [_from_rows(name, grouped[name], path.parent) for name in sorted(grouped)]


def _from_rows(name: str, rows: list[dict[str, str]], folder: Path) -> Source:
    if fault := _name_fault(name):
        return Source(name or "(no name)", problem=fault)
    incomplete = [row for row in rows if not row["topology"] or not row["trajectory"]]
    topologies = {row["topology"] for row in rows}
    if incomplete or len(topologies) > 1:
        found = "an empty cell" if incomplete else f"{len(topologies)} topologies"
        return Source(
            name, problem=f"its rows have {found}, expected one topology and a trajectory"
        )
    numbers = [(row.get("replica") or "").strip() or str(i) for i, row in enumerate(rows, 1)]
    if not all(number.isdecimal() for number in numbers):
        return Source(name, problem=f"replicas are numbers, found {', '.join(numbers)}")
    trajectories = {
        int(number): folder / row["trajectory"] for number, row in zip(numbers, rows, strict=True)
    }
    if len(trajectories) < len(rows):
        return Source(name, problem=f"two rows are the same replica: {', '.join(numbers)}")
    return Source(name, folder / rows[0]["topology"], dict(sorted(trajectories.items())))


def _from_folder(folder: Path) -> Source | None:
    """The target of a folder; None if it has neither topology nor trajectory."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    return _from_names(folder.name, files)


def _from_archive(path: Path) -> Source:
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
    source = _from_names(name, members)
    if source is None:
        return Source(name, problem=f"{path.name} holds neither topology nor trajectory")
    return Source(name, source.topology, source.trajectories, path, source.problem)


def _from_names(name: str, files: list[Path]) -> Source | None:
    """Sort files by their suffixes into one topology and the replicas."""
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
    if len(chosen) != 1:
        found = ", ".join(f.name for f in chosen) or "none"
        return Source(name, problem=f"expected one topology, or one named {name}; found {found}")
    return Source(name, chosen[0], _numbered(trajectories))


def _numbered(trajectories: list[Path]) -> dict[int, Path]:
    """By the `_R1` of their names if all have one, else in the order of their names."""
    found = [replica_number(path) for path in trajectories]
    numbers = [number for number in found if number is not None]
    if len(set(numbers)) < len(trajectories):
        numbers = list(range(1, len(trajectories) + 1))
    return dict(sorted(zip(numbers, trajectories, strict=True)))


def unpacked(source: Source, scratch: Path) -> Source:
    """The same MD as files on disk: those of an archive are unpacked into `scratch`.

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
