"""Records of an import: a row of the report, and a file beside those of each target."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.importing.molecule import Molecule
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.md_files import Source
from protenix_eba.structures.md_topology import SourceTopology

__all__ = [
    "RECORD",
    "ROW",
    "ImportedTarget",
    "ReplicaRecord",
    "already_there",
    "identity_of",
    "record_of",
    "remove_leftovers",
]

RECORD: Final = "import.json"
ROW: Final = ("target", "status", "n_frames", "reason")


@dataclass(frozen=True)
class ImportedTarget:
    """One row of the report.

    Attributes:
        target: Name.
        status: "ok"; "incomplete" where frames or replicas were left out; "failed".
        n_frames: Frames stored.
        reason: What was left out, decided or why it failed, one line.
        kept: Whether it was there from an earlier run.
        summary: Lines from `summary.summary_of`; none where it failed.
    """

    target: str
    status: str
    n_frames: int
    reason: str
    kept: bool = False
    summary: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the target's values for the report and the record."""
        return {name: getattr(self, name) for name in ROW}


@dataclass
class ReplicaRecord:
    """The record of one replica.

    Attributes:
        file: Name of the source file.
        bytes: Its size.
        whole_frames: Frames that it has.
        frames: Source frame of each stored frame.
        left_out: Reason for each chosen frame that is not stored.
        made_whole: Stored frames in which periodic images were put together.
        bad_boxes: Stored frames with a box that cannot be used, and what is wrong with the first.
        apart: Stored frames without a usable box whose chains do not touch.
    """

    file: str
    bytes: int
    whole_frames: int
    frames: list[int] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    made_whole: int = 0
    bad_boxes: tuple[int, str] = (0, "")
    apart: int = 0


def remove_leftovers(out: Path, name: str) -> None:
    """Delete what killed imports of a target left half-written (the names of `atomic_path`)."""
    path = Path(name)
    for folder in out.glob(f".{escape(path.stem)}.*.tmp{escape(path.suffix)}"):
        shutil.rmtree(folder, ignore_errors=True)


def identity_of(source: Source, choice: FrameChoice, chains: tuple[str, ...] | None) -> str:
    """Return a fingerprint of the sources and the choice, which a second run compares."""
    files = []
    for path in source.files:
        if not path.is_file():
            raise UserError(f"no file at {path}")
        stat = path.stat()
        files.append([path.name, stat.st_size, stat.st_mtime_ns])
    members = [str(p) for p in (source.topology, *(source.trajectories or {}).values())]
    parts = {"files": files, "replicas": list(source.trajectories or {}), "choice": asdict(choice),
             "members": members if source.archive else [], "chains": chains}  # fmt: skip
    return fingerprint(parts)


def already_there(folder: Path, identity: str) -> ImportedTarget | None:
    """Return the row of an earlier import of the same; None where it must be made (again).

    Raises:
        UserError: The folder was not made by an import.
    """
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        row = ImportedTarget(**{name: record[name] for name in ROW})
        stored = [n for n, replica in record["replicas"].items() if replica["frames"]]
        same = record["identity"] == identity
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is there already and was not made by an import: it is not touched"
        ) from error
    files = [f"{row.target}.pdb", *(f"{row.target}_R{number}.xtc" for number in stored)]
    if same and all((folder / file).is_file() for file in files):
        return replace(row, kept=True, summary=tuple(record.get("summary", ())))
    return None


def record_of(
    topology: Path,
    system: SourceTopology,
    molecule: Molecule,
    replicas: dict[int, ReplicaRecord],
    notes: list[str],
) -> dict[str, Any]:
    """Return what `import.json` holds besides the row: see `import_target`."""
    return {
        "topology": {"file": topology.name, "bytes": topology.stat().st_size},
        "chains": list(molecule.sequences),
        "n_atoms": molecule.topology.n_atoms,
        "replicas": {str(number): asdict(found) for number, found in replicas.items()},
        "dropped_atoms": system.dropped,
        "renamed_atoms": system.renamed,
        "caps": list(system.caps),
        "kept_caps": list(system.kept_caps),
        "missing_heavy_atoms": list(molecule.missing),
        "alternate_locations_left_out": system.alternate_locations,
        "notes": notes,
        "units": {"PDB": "angstrom", "XTC": "nm, rounded to 0.001 nm", "time": "ps"},
        "protenix_eba": version("protenix-eba"),
    }
