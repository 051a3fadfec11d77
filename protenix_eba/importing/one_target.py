"""Import one target: a topology, its replicas, and a record of what was done to them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, write_json
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.importing.molecule import (
    Molecule,
    backbone_is_sound,
    build_molecule,
    geometry_fault,
)
from protenix_eba.importing.pdb_file import write_pdb
from protenix_eba.importing.periodic import box_fault, chains_touch, make_whole
from protenix_eba.importing.record import (
    RECORD,
    ImportedTarget,
    ReplicaRecord,
    already_there,
    identity_of,
    record_of,
    remove_leftovers,
)
from protenix_eba.importing.summary import summary_of
from protenix_eba.structures.ascii_paths import ascii_path
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.frames import Frame, TrajectoryFile, open_trajectory
from protenix_eba.structures.md_files import Source, unpacked
from protenix_eba.structures.md_topology import SourceTopology, read_protein

__all__ = ["import_target"]

# Frames of one replica whose fault the report names; the record names all.
_SHOWN: Final = 3
# Frames that may stand in for reference coordinates.
_FRAMES_TRIED: Final = 3


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
        source: A source from `sources.find_md`.
        out: The data set.
        choice: Which frames to keep.
        chains: The sequence that each chain must have; None if any will do.

    Returns:
        The target's row of the report; what is wrong with one target is told there, not raised.
    """
    try:
        if source.problem:
            raise UserError(source.problem)
        identity = identity_of(source, choice, chains)
        if done := already_there(out / source.name, identity):
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
                summary=tuple(record["summary"]),
            )
            origin = {"choice": asdict(choice), "identity": identity}
            write_json(folder / RECORD, row.as_dict() | record | origin)
        return row
    except UserError as error:
        return ImportedTarget(source.name, "failed", 0, _first_line(error))
    except Exception as error:  # one bad target must not end the others
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return ImportedTarget(source.name, "failed", 0, reason)


def _import_into(
    folder: Path, source: Source, choice: FrameChoice, chains: tuple[str, ...] | None
) -> tuple[dict[str, Any], list[str]]:
    """Write the files of one target; return its record and what went wrong on the way."""
    problems: list[str] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        files = unpacked(source, scratch)
        if files.topology is None or not files.trajectories:
            raise UserError("it has no topology or no trajectory")
        system = _fitted(read_protein(files.topology), files.trajectories, notes)
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
            notes += _box_notes(replicas[replica], molecule)
        if molecule is None or not any(found.frames for found in replicas.values()):
            raise UserError("; ".join(problems) or "no frame was chosen")
        write_pdb(folder / f"{source.name}.pdb", molecule)
        notes += [*_system_notes(system), *molecule.notes]
        record = record_of(files.topology, system, molecule, replicas, notes)
        return record | {"summary": summary_of(system, molecule, replicas)}, problems


def _system_notes(system: SourceTopology) -> Iterator[str]:
    """Yield notes on what the energies see and Protenix does not, and what they do not see."""
    if system.kept_caps:
        yield f"caps are part of the energy ({_few(system.kept_caps)}), not of Protenix's sequence"
    if system.caps:
        yield f"caps are left out ({_few(system.caps)}): labels are energies of charged ends"


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")


def _fitted(
    system: SourceTopology, trajectories: dict[int, Path], notes: list[str]
) -> SourceTopology:
    """Return the protein's topology if the trajectories were stored without other atoms."""
    for path in trajectories.values():
        with suppress(UserError), open_trajectory(path, system.all_atoms) as trajectory:
            if trajectory.count_atoms() == len(system.columns) < system.all_atoms.n_atoms:
                notes.append("the trajectories hold the protein's atoms of the topology only")
                return system.protein_only()
            break
    return system


def _count_frames(
    trajectories: dict[int, Path], system: SourceTopology, problems: list[str], notes: list[str]
) -> dict[int, ReplicaRecord]:
    """Count whole frames of each replica; enter unreadable and cut ones in the lists."""
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
        replicas[replica] = ReplicaRecord(path.name, path.stat().st_size, whole)
    return replicas


def _molecule(
    system: SourceTopology, trajectory: TrajectoryFile, frames: NDArray[np.int64], scratch: Path
) -> Molecule:
    """Build the molecule with the file's coordinates, or the first sound frame's if those fail.

    Raises:
        UserError: What is wrong with the frame that was tried last.
    """
    sound = (
        (f.xyz[system.columns], f.box)
        for f in _readable(trajectory, frames)
        if backbone_is_sound(system, f.xyz[system.columns], f.box)
    )
    candidates = list(islice(sound, _FRAMES_TRIED))
    if not candidates:
        raise UserError(
            "in none of its frames are N-CA and CA-C bonds of the topology's residues: the "
            "trajectory has another order of atoms, or broken coordinates"
        )
    if system.xyz is not None and backbone_is_sound(system, system.xyz, system.box):
        candidates.insert(0, (system.xyz, system.box))
    for xyz, box in candidates[:-1]:
        with suppress(UserError):
            return build_molecule(system, xyz, box, scratch)
    return build_molecule(system, *candidates[-1], scratch)


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
    replica: ReplicaRecord,
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
            _check_box(xyz, frame, molecule, replica)
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


def _check_box(
    xyz: NDArray[np.float32], frame: Frame, molecule: Molecule, replica: ReplicaRecord
) -> None:
    """Enter in the record what a frame without a usable box may have wrong."""
    fault = "" if frame.box is None else box_fault(frame.box)
    if fault:
        count, first = replica.bad_boxes
        replica.bad_boxes = (count + 1, first or fault)
    if (fault or frame.box is None) and not chains_touch(xyz, molecule.connections):
        replica.apart += 1


def _box_notes(replica: ReplicaRecord, molecule: Molecule) -> Iterator[str]:
    count, fault = replica.bad_boxes
    if count:
        yield (
            f"{replica.file}: the box of {count} frames cannot be used ({fault}): images were not "
            "put together"
        )
    if replica.apart and chains_touch(molecule.reference, molecule.connections):
        yield (
            f"{replica.file}: without a box, {replica.apart} of {len(replica.frames)} frames have "
            "chains apart that touch in the reference: they may be images"
        )


def _left_out(replica: int, found: ReplicaRecord) -> list[str]:
    if not found.left_out:
        return []
    shown = [f"frame {n}: {why}" for n, why in list(found.left_out.items())[:_SHOWN]]
    chosen = len(found.left_out) + len(found.frames)
    return [
        f"replica {replica}: {len(found.left_out)} of {chosen} frames left out, {'; '.join(shown)}"
    ]


def _first_line(error: UserError) -> str:
    return str(error).split("\n")[0]
