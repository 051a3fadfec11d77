"""Import one target: a topology, its replicas, and a record of what was done to them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path, fingerprint, write_json
from protenix_eba.importing.frames import Frame, FrameChoice, TrajectoryFile, open_trajectory
from protenix_eba.importing.molecule import (
    Molecule,
    backbone_is_sound,
    build_molecule,
    geometry_fault,
)
from protenix_eba.importing.periodic import make_whole
from protenix_eba.importing.sources import Source, unpacked
from protenix_eba.importing.topology import SourceTopology, read_topology
from protenix_eba.trajectories import ascii_path
from protenix_eba.units import ANGSTROM_PER_NM

__all__ = ["RECORD", "ImportedTarget", "import_target", "remove_leftovers"]

RECORD: Final = "import.json"
# Frames of one replica whose fault the report names; the record names all.
_SHOWN: Final = 3


@dataclass(frozen=True)
class ImportedTarget:
    """One row of the report.

    Attributes:
        target: Name.
        status: "ok"; "incomplete" where frames or replicas were left out; "failed".
        n_frames: Frames stored.
        reason: What was left out, decided or why it failed, one line.
        kept: Whether it was there from an earlier run.
    """

    target: str
    status: str
    n_frames: int
    reason: str
    kept: bool = False


@dataclass
class _Replica:
    """What the record tells of one replica.

    Attributes:
        file: Name of the source file.
        bytes: Its size.
        whole_frames: Frames that it has.
        frames: Source frame of each stored frame.
        left_out: Reason for each chosen frame that is not stored.
        made_whole: Stored frames in which periodic images were put together.
    """

    file: str
    bytes: int
    whole_frames: int
    frames: list[int] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    made_whole: int = 0


def import_target(
    source: Source,
    out: Path,
    choice: FrameChoice,
    chains: tuple[str, ...] | None = None,
) -> ImportedTarget:
    """Write `out/NAME/NAME.pdb`, `NAME_R1.xtc` ... and `import.json`, or say why not.

    The record tells the sources (names, bytes), which source frame each stored frame is, what was
    dropped, renamed, missing and left out, and in how many frames molecules were made whole.
    XTC holds 0.001 nm, so that coordinates of other formats are rounded to 0.01 angstrom.

    Args:
        source: From `sources.find_sources`.
        out: The data set.
        choice: Which frames.
        chains: The sequence that each chain must have; None if any will do.

    Returns:
        The row; never raises for what is wrong with one target.
    """
    try:
        if source.problem:
            raise UserError(source.problem)
        identity = _identity(source, choice, chains)
        if done := _already_there(out / source.name, identity):
            return done
        remove_leftovers(out, source.name)
        with atomic_path(out / source.name) as folder:
            folder.mkdir()
            record, problems = _import_into(folder, source, choice, chains)
            row = ImportedTarget(
                target=source.name,
                status="incomplete" if problems else "ok",
                n_frames=sum(len(replica["frames"]) for replica in record["replicas"].values()),
                reason="; ".join([*problems, *record["notes"]]),
            )
            head = asdict(row)
            del head["kept"]
            origin = {"choice": asdict(choice), "identity": identity}
            write_json(folder / RECORD, head | record | origin)
        return row
    except UserError as error:
        return ImportedTarget(source.name, "failed", 0, _first_line(error))
    except Exception as error:  # one bad target must not end the others
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return ImportedTarget(source.name, "failed", 0, reason)


def remove_leftovers(out: Path, name: str) -> None:
    """Delete what killed imports of a target left half-written (the names of `atomic_path`)."""
    path = Path(name)
    for folder in out.glob(f".{escape(path.stem)}.*.tmp{escape(path.suffix)}"):
        shutil.rmtree(folder, ignore_errors=True)


def _identity(source: Source, choice: FrameChoice, chains: tuple[str, ...] | None) -> str:
    """A fingerprint of the sources and the choice: what a second run compares."""
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


def _already_there(folder: Path, identity: str) -> ImportedTarget | None:
    """The row of an earlier import of the same; None where it must be made (again).

    Raises:
        UserError: The folder was not made by an import.
    """
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        known = {name: record[name] for name in ("target", "status", "n_frames", "reason")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is there already and was not made by an import: it is not touched"
        ) from error
    return ImportedTarget(**known, kept=True) if record.get("identity") == identity else None


def _import_into(
    folder: Path, source: Source, choice: FrameChoice, chains: tuple[str, ...] | None
) -> tuple[dict[str, Any], list[str]]:
    """Write the files of one target; returns its record and what went wrong on the way."""
    problems: list[str] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        files = unpacked(source, scratch)
        if files.topology is None or not files.trajectories:
            raise UserError("it has no topology or no trajectory")
        system = read_topology(files.topology)
        replicas = _count_frames(files.trajectories, system, problems, notes)
        wanted = choice.of(source.name, {r: found.whole_frames for r, found in replicas.items()})
        molecule = None
        for replica, frames in wanted.items():
            if not len(frames):
                continue
            with open_trajectory(files.trajectories[replica], system.all_atoms) as trajectory:
                if molecule is None:
                    molecule = _molecule(system, trajectory, frames, scratch)
                    _check_sequence(molecule, chains)
                path = folder / f"{source.name}_R{replica}.xtc"
                _store(path, trajectory, frames, system, molecule, replicas[replica])
            problems += _left_out(replica, replicas[replica])
        if molecule is None or not any(found.frames for found in replicas.values()):
            raise UserError("; ".join(problems) or "no frame was chosen")
        reference_nm = molecule.reference[None] / ANGSTROM_PER_NM
        pdb = folder / f"{source.name}.pdb"
        mdtraj.Trajectory(reference_nm, molecule.topology).save_pdb(str(pdb))
        notes += molecule.notes
        return _record(files.topology, system, molecule, replicas, notes), problems


def _count_frames(
    trajectories: dict[int, Path], system: SourceTopology, problems: list[str], notes: list[str]
) -> dict[int, _Replica]:
    """Whole frames of each replica; what cannot be read or was cut is entered in the lists."""
    replicas = {}
    for replica, path in trajectories.items():
        try:
            with open_trajectory(path, system.all_atoms) as trajectory:
                whole = trajectory.count_whole()
                cut, promise = trajectory.cut(whole), trajectory.promise()
        except UserError as error:
            problems.append(_first_line(error))
            continue
        problems += [cut] if cut else []
        notes += [promise] if promise else []
        replicas[replica] = _Replica(path.name, path.stat().st_size, whole)
    return replicas


def _molecule(
    system: SourceTopology, trajectory: TrajectoryFile, frames: NDArray[np.int64], scratch: Path
) -> Molecule:
    """With the coordinates of the topology file; of the first sound frame where it has none."""
    frame = next(
        (f for f in _readable(trajectory, frames)
         if backbone_is_sound(system, f.xyz[system.columns], f.box)),
        None,
    )  # fmt: skip
    if frame is None:
        raise UserError(
            "in none of its frames are N-CA and CA-C bonds of the topology's residues: the "
            "trajectory has another order of atoms, or broken coordinates"
        )
    if system.xyz is not None and backbone_is_sound(system, system.xyz, system.box):
        return build_molecule(system, system.xyz, system.box, scratch)
    return build_molecule(system, frame.xyz[system.columns], frame.box, scratch)


def _readable(trajectory: TrajectoryFile, frames: NDArray[np.int64]) -> Iterator[Frame]:
    for number in frames.tolist():
        with suppress(UserError):
            yield trajectory.read(number)


def _check_sequence(molecule: Molecule, chains: tuple[str, ...] | None) -> None:
    if chains is not None and molecule.sequences != chains:
        raise UserError(
            f"expected the sequence {':'.join(chains)} of the split, found "
            f"{':'.join(molecule.sequences)} in the topology"
        )


def _store(
    path: Path,
    trajectory: TrajectoryFile,
    frames: NDArray[np.int64],
    system: SourceTopology,
    molecule: Molecule,
    replica: _Replica,
) -> None:
    """Write the sound frames of one replica, one at a time, and enter them in its record."""
    with ascii_path(path) as name, mdtraj.formats.XTCTrajectoryFile(name, "w") as out:
        for number in frames.tolist():
            try:
                frame = trajectory.read(number)
            except UserError as error:
                replica.left_out[number] = _first_line(error)
                continue
            xyz, changed = make_whole(frame.xyz[system.columns], frame.box, molecule.connections)
            if fault := geometry_fault(xyz, molecule):
                replica.left_out[number] = fault
                continue
            out.write(xyz[None] / ANGSTROM_PER_NM, time=[frame.time_ps], step=[number])
            replica.frames.append(number)
            replica.made_whole += changed
    if not replica.frames:
        path.unlink()
        return
    with ascii_path(path) as name, mdtraj.formats.XTCTrajectoryFile(name) as written:
        # A full disk shows only in what is there afterwards.
        written.seek(len(replica.frames) - 1)
        if written.read(1)[0].shape != (1, molecule.topology.n_atoms, 3):
            raise OSError(f"{path.name} could not be written whole: is the disk full?")


def _left_out(replica: int, found: _Replica) -> list[str]:
    if not found.left_out:
        return []
    shown = [f"frame {n}: {why}" for n, why in list(found.left_out.items())[:_SHOWN]]
    chosen = len(found.left_out) + len(found.frames)
    return [
        f"replica {replica}: {len(found.left_out)} of {chosen} frames left out, {'; '.join(shown)}"
    ]


def _record(
    topology: Path,
    system: SourceTopology,
    molecule: Molecule,
    replicas: dict[int, _Replica],
    notes: list[str],
) -> dict[str, Any]:
    return {
        "topology": {"file": topology.name, "bytes": topology.stat().st_size},
        "chains": list(molecule.sequences),
        "n_atoms": molecule.topology.n_atoms,
        "replicas": {str(number): asdict(found) for number, found in replicas.items()},
        "dropped_atoms": system.dropped,
        "renamed_atoms": system.renamed,
        "missing_heavy_atoms": list(molecule.missing),
        "alternate_locations_left_out": system.alternate_locations,
        "notes": notes,
        "units": {"PDB": "angstrom", "XTC": "nm, rounded to 0.001 nm", "time": "ps"},
        "protenix_eba": version("protenix-eba"),
    }


def _first_line(error: UserError) -> str:
    return str(error).split("\n")[0]
