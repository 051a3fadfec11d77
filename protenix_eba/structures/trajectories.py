"""MD on disk: which targets a folder holds, and their frames.

The layout is ATLAS's own (Vander Meersche et al., NAR 2024): `NAME/NAME.pdb` is the topology and
reference structure, `NAME/NAME_prod_R1_fit.xtc` and so on are independent replicas. What
`protenix-eba import` writes (`NAME/NAME_R1.xtc`) and the ensembles of `protenix-eba sample`
(`NAME/NAME.xtc`) are read by the same functions.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.text_files import without_mark
from protenix_eba.core.units import ANGSTROM_PER_NM

__all__ = [
    "FrameTimes",
    "Target",
    "ascii_path",
    "find_targets",
    "frame_count",
    "frame_times",
    "has_rest",
    "is_cut",
    "load_topology",
    "read_frames",
    "replica_number",
    "topology_in",
]

_REPLICA = re.compile(r"_R(\d+)(?:_fit)?$")
# Frames of more atoms than this are packed, behind a longer header.
_XTC_UNPACKED_ATOMS: Final = 9
_XTC_HEADER_BYTES: Final = 92
_FRAMES_AT_A_TIME: Final = 500


@dataclass(frozen=True)
class Target:
    """One protein with its trajectories.

    Attributes:
        name: Folder name, for ATLAS PDB id and chain ("2wnp_F").
        topology_path: PDB file with every atom of the trajectories, in their order.
        trajectory_paths: XTC file of each replica, by replica number (1, 2, 3); a single ensemble
            has number 1.
    """

    name: str
    topology_path: Path
    trajectory_paths: dict[int, Path]


class FrameTimes(NamedTuple):
    """Times of a replica's F frames.

    Attributes:
        time_ps: `[F]` as the file has them.
        stored: Whether they are times of the MD. Programs that know none write the number of the
            frame, or the step that the file counts beside them.
    """

    time_ps: NDArray[np.float64]
    stored: bool


def find_targets(root: Path | str) -> list[Target]:
    """The targets below `root`, sorted by name; `root` may be one target's own folder.

    Raises:
        UserError: No such folder, or a target without its PDB file or without any XTC.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"expected a folder with NAME/NAME.pdb and NAME/NAME_*.xtc, found nothing at {root}",
            "check the path; `protenix-eba import` makes it of ATLAS archives and of any other MD",
        )
    if topology_in(root.resolve()):
        return [_target_in(root.resolve())]
    # Hidden folders are those that an import has not finished.
    visible = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    folders = [f for f in visible if any(f.glob("*.xtc"))]
    if not folders:
        raise UserError(
            f"no target in {root}: expected folders NAME with NAME.pdb and NAME_*.xtc",
            "point to the folder above the targets' folders; `protenix-eba import` makes them",
        )
    return [_target_in(folder) for folder in folders]


def replica_number(path: Path) -> int | None:
    """The number in names like NAME_R2.xtc and NAME_prod_R2_fit.xtc; None in others."""
    match = _REPLICA.search(path.stem)
    return int(match.group(1)) if match else None


def topology_in(folder: Path) -> Path | None:
    """The topology of a target's own folder: NAME.pdb, or NAME.cif beside trajectories.

    `protenix-eba sample` writes the second where a protein is too large for a PDB file.
    """
    pdb, cif = (folder / f"{folder.name}{suffix}" for suffix in (".pdb", ".cif"))
    if pdb.is_file():
        return pdb
    return cif if cif.is_file() and any(folder.glob("*.xtc")) else None


def _target_in(folder: Path) -> Target:
    topology = topology_in(folder)
    if topology is None:
        raise UserError(
            f"target {folder.name}: expected its topology at "
            f"{folder / folder.name}.pdb, found nothing",
            "name the PDB file as its folder",
        )
    replicas: dict[int, Path] = {}
    for path in sorted(folder.glob("*.xtc")):
        found = replica_number(path)
        number = 1 if found is None else found
        if number in replicas:
            raise UserError(
                f"target {folder.name}: {replicas[number].name} and {path.name} are both replica "
                f"{number}",
                "name the trajectories NAME_prod_R1_fit.xtc, NAME_prod_R2_fit.xtc and so on",
            )
        replicas[number] = path
    if not replicas:
        raise UserError(f"target {folder.name}: no .xtc file in {folder}", "add its trajectories")
    return Target(folder.name, topology, dict(sorted(replicas.items())))


def load_topology(target: Target) -> mdtraj.Trajectory:
    """The topology file as a one-frame trajectory.

    Raises:
        UserError: The file cannot be read.
    """
    if target.topology_path.suffix == ".cif":
        from protenix_eba.structures.topologies import read_topology  # which imports this module

        topology, xyz = read_topology(target.topology_path)
        return mdtraj.Trajectory(np.asarray(xyz)[None] / ANGSTROM_PER_NM, topology)
    try:
        with without_mark(target.topology_path) as path:
            return mdtraj.load_pdb(str(path), standard_names=True)[0]
    except Exception as error:  # mdtraj raises many kinds for a broken PDB
        raise UserError(
            f"target {target.name}: cannot read {target.topology_path} as PDB: {error}",
            "open the file in a text editor: it needs ATOM lines in fixed columns",
        ) from error


def frame_count(target: Target, replica: int) -> int:
    """Number of whole frames of a replica, without reading their coordinates.

    Of a file that was cut, these are the frames before the cut.

    Raises:
        UserError: The file cannot be read, or has no whole frame.
    """
    with _open_xtc(target, replica) as (_, n_whole):
        return n_whole


def is_cut(target: Target, replica: int) -> bool:
    """Whether the file ends within a frame: a copy or download that broke off.

    Raises:
        UserError: The file cannot be read, or has no whole frame.
    """
    with _open_xtc(target, replica) as (handle, n_whole):
        return has_rest(handle, target.trajectory_paths[replica], n_whole)


def frame_times(target: Target, replica: int) -> FrameTimes:
    """Times of the whole frames of a replica.

    Raises:
        UserError: The file cannot be read, or has no whole frame.
    """
    times, steps = [], []
    with _open_xtc(target, replica) as (handle, n_whole):
        for start in range(0, n_whole, _FRAMES_AT_A_TIME):
            _, time, step, _ = handle.read(min(_FRAMES_AT_A_TIME, n_whole - start))
            times.append(time)
            steps.append(step)
    time_ps = np.concatenate(times).astype(np.float64)
    counted = (np.arange(len(time_ps)), np.concatenate(steps))
    numbers = any(np.allclose(time_ps, count, atol=1e-3) for count in counted)
    return FrameTimes(time_ps, bool(np.all(np.diff(time_ps) > 0)) and not numbers)


def read_frames(
    target: Target, replica: int, frames: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Coordinates of all atoms; only the frames asked for are read.

    Args:
        target: A target from `find_targets`.
        replica: Key of `target.trajectory_paths`.
        frames: Indices to read, any order; all whole frames when None.

    Returns:
        `[F, N_atom, 3]` in angstrom, as they stand in the file (NaN included).

    Raises:
        UserError: A file without a whole frame, frames beyond its end, or another number of atoms
            than the topology.
    """
    with _open_xtc(target, replica) as (handle, n_whole):
        path = target.trajectory_paths[replica]
        n_atoms = handle.read(1)[0].shape[1]
        _check_atoms(target, path, n_atoms)
        if frames is None:
            handle.seek(0)
            xyz_nm = handle.read(n_whole)[0]
        else:
            _check_range(target, path, frames, n_whole)
            xyz_nm = _read_some(handle, np.asarray(frames, dtype=np.int64), n_atoms)
    return np.asarray(xyz_nm * ANGSTROM_PER_NM, dtype=np.float32)


def _whole_frames(handle: Any, path: Path) -> int:
    # mdtraj counts the headers of frames, also that of a frame whose end is missing.
    count = len(handle)
    whole = count and _frame_end(path, handle.offsets[count - 1]) <= path.stat().st_size
    return count if whole else max(count - 1, 0)


def has_rest(handle: Any, path: Path, n_whole: int) -> bool:
    """Whether an open XTC file has more bytes after its last whole frame."""
    return _frame_end(path, handle.offsets[n_whole - 1]) < path.stat().st_size


def _frame_end(path: Path, offset: int) -> int:
    """Where the frame at `offset` ends by its own header (GROMACS' XDR format)."""
    with open(path, "rb") as file:
        file.seek(offset)
        header = file.read(_XTC_HEADER_BYTES)
    n_atoms = int.from_bytes(header[52:56], "big")
    if n_atoms <= _XTC_UNPACKED_ATOMS:
        return offset + 56 + 12 * n_atoms
    packed = int.from_bytes(header[88:92], "big")
    return offset + _XTC_HEADER_BYTES + (packed + 3) // 4 * 4


@contextmanager
def ascii_path(path: Path) -> Iterator[str]:
    """A name for a file, there or not yet, that mdtraj's readers and writers in C can open.

    They refuse letters outside ASCII: a link stands for such a path.
    """
    if str(path).isascii():
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"link{path.suffix}"
        link.symlink_to(path.absolute())
        yield str(link)


@contextmanager
def _open_xtc(target: Target, replica: int) -> Iterator[tuple[Any, int]]:
    """The file and the number of its whole frames; failures inside as well become UserErrors."""
    path = target.trajectory_paths[replica]
    try:
        with (
            ascii_path(path) as name,
            mdtraj.formats.XTCTrajectoryFile(name) as handle,
        ):
            n_whole = _whole_frames(handle, path)
            if not n_whole:
                raise OSError("it has no whole frame")
            yield handle, n_whole
    except UserError:
        raise
    except Exception as error:  # mdtraj raises many kinds for a broken file
        raise UserError(
            f"target {target.name}: cannot read {path}: {error}",
            "the file is cut or not an XTC file: copy or download it again",
        ) from error


def _check_atoms(target: Target, path: Path, found: int) -> None:
    modified_ns = target.topology_path.stat().st_mtime_ns
    expected = _atom_count(target.name, target.topology_path, modified_ns)
    if found != expected:
        raise UserError(
            f"target {target.name}: {path.name} has {found} atoms, its topology "
            f"{target.topology_path.name} has {expected}",
            "the topology must hold exactly the atoms of the trajectory",
        )


@cache
def _atom_count(name: str, path: Path, modified_ns: int) -> int:
    """Reading a PDB file takes longer than reading a frame; `modified_ns` tells a changed one."""
    return int(load_topology(Target(name, path, {})).n_atoms)


def _check_range(target: Target, path: Path, frames: NDArray[np.integer], n_whole: int) -> None:
    if len(frames) and (np.max(frames) >= n_whole or np.min(frames) < 0):
        raise UserError(
            f"target {target.name}: frame {int(np.max(frames))} asked for, {path.name} has "
            f"{n_whole} whole frames",
            "the file may be cut: copy it again, or label the frames that it has",
        )


def _read_some(handle: Any, frames: NDArray[np.int64], n_atoms: int) -> NDArray[np.float32]:
    """`[F, N_atom, 3]` in nm; each frame is read once, in the order of the file."""
    wanted, where = np.unique(frames, return_inverse=True)
    xyz_nm = np.empty((len(wanted), n_atoms, 3), dtype=np.float32)
    for row, frame in enumerate(wanted.tolist()):
        handle.seek(frame)
        xyz_nm[row] = handle.read(1)[0][0]
    return xyz_nm[where]
