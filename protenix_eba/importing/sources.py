"""Sources of MD: ATLAS archives, folders, a table, or files that are named."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.text_files import text_lines
from protenix_eba.structures.md_files import (
    TRAJECTORY_SUFFIXES,
    Source,
    archives_in,
    from_archive,
    from_folder,
    is_archive,
)

__all__ = ["find_md", "source_of_files"]

_COLUMNS: Final = ("name", "topology", "trajectory")


def source_of_files(topology: Path, trajectories: Sequence[Path], name: str | None) -> Source:
    """Make one target of files; each trajectory is a replica, in the order given.

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


def find_md(path: Path) -> list[Source]:
    """Find the targets of a table, or of a folder of archives or sub-folders, sorted by name.

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
    if is_archive(path):
        return [from_archive(path)]
    if not path.is_dir():
        raise UserError(
            f"expected a folder or a CSV table of trajectories at {path}, found "
            f"{'another kind of file' if path.exists() else 'nothing'}",
            "give a folder of targets, of ATLAS archives, a table with the columns "
            f"{', '.join(_COLUMNS)}, or --topology and --trajectory",
        )
    if any(f.suffix.lower() in TRAJECTORY_SUFFIXES for f in path.iterdir() if f.is_file()):
        found = from_folder(path.resolve())
        return [found] if found else []
    folders = [f for f in sorted(path.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    sources = [found for folder in folders if (found := from_folder(folder))]
    names = {source.name for source in sources}
    sources += [archive for archive in archives_in(path) if archive.name not in names]
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
        reader = csv.DictReader(text_lines(path, "save it as CSV in UTF-8"))
        rows, columns = list(reader), reader.fieldnames or []
    except csv.Error as error:
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
