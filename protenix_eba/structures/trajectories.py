"""MD on disk: targets in a folder, and their frames.

The layout is ATLAS's own (Vander Meersche et al., NAR 2024): `NAME/NAME.pdb` is the topology and
reference structure, `NAME/NAME_prod_R1_fit.xtc` and so on are independent replicas. What
`protenix-eba import` writes (`NAME/NAME_R1.xtc`) and the ensembles of `protenix-eba sample`
(`NAME/NAME.xtc`) are read by the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.structures.md_files import replica_number
from protenix_eba.structures.topologies import read_topology
from protenix_eba.structures.xtc import XtcFile

__all__ = [
    "FrameTimes",
    "Target",
    "find_targets",
    "frame_count",
    "frame_times",
    "is_cut",
    "load_topology",
    "read_frames",
    "topology_in",
]

# Of 217 residues with hydrogens 1.7 MB each.
_TOPOLOGIES_KEPT: Final = 32


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
    """Find the targets below `root`, sorted by name; `root` may be one target's own folder.

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


def topology_in(folder: Path) -> Path | None:
    """Find the topology in a target's own folder: NAME.pdb, or NAME.cif beside trajectories.

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


def load_topology(target: Target) -> mdtraj.Topology:
    """Load the topology file with all atoms under their PDB names, see `read_topology`.

    The file is read once; whoever changes the topology works on a copy.

    Raises:
        UserError: The file cannot be read.
    """
    with _naming(target):
        version = target.topology_path, target.topology_path.stat().st_mtime_ns
        topology = _topology(*version)
        _atom_count(*version)
        return topology


@contextmanager
def _naming(target: Target) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"target {target.name}: cannot read {target.topology_path}: {error.strerror}"
        ) from error
    except UserError as error:
        raise UserError(f"target {target.name}: {error.args[0]}", error.hint) from error


@lru_cache(maxsize=_TOPOLOGIES_KEPT)
def _topology(path: Path, modified_ns: int) -> mdtraj.Topology:
    """Load a topology and keep it; `modified_ns` tells a changed file."""
    return read_topology(path)[0]


@cache
def _atom_count(path: Path, modified_ns: int) -> int:
    """Count a topology's atoms; the number can be kept for all targets."""
    return int(_topology(path, modified_ns).n_atoms)


def frame_count(target: Target, replica: int) -> int:
    """Count the whole frames of a replica, without reading their coordinates.

    Of a file that was cut, these are the frames before the cut.

    Raises:
        UserError: The file cannot be read, or has no whole frame.
    """
    with _open_xtc(target, replica) as file:
        return file.layout.n_frames


def is_cut(target: Target, replica: int) -> bool:
    """Tell whether the file ends within a frame: a copy or download that broke off.

    Raises:
        UserError: The file cannot be read, or has no whole frame.
    """
    with _open_xtc(target, replica) as file:
        return file.layout.is_cut


def frame_times(target: Target, replica: int) -> FrameTimes:
    """Read the times of the whole frames of a replica.

    Raises:
        UserError: The file cannot be read, or has no whole frame.
    """
    with _open_xtc(target, replica) as file:
        times, steps = file.layout.times()
    time_ps = times.astype(np.float64)
    counted = (np.arange(len(time_ps)), steps)
    numbers = any(np.allclose(time_ps, count, atol=1e-3) for count in counted)
    return FrameTimes(time_ps, bool(np.all(np.diff(time_ps) > 0)) and not numbers)


def read_frames(
    target: Target, replica: int, frames: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Read the coordinates of all atoms in the chosen frames, and no other frames.

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
    with _open_xtc(target, replica) as file:
        path, layout = target.trajectory_paths[replica], file.layout
        _check_atoms(target, path, layout.n_atoms)
        every = np.arange(layout.n_atoms)
        if frames is None:
            return file.read(layout.n_frames, every)
        _check_range(target, path, frames, layout.n_frames)
        return file.frames(np.asarray(frames, dtype=np.int64), every)


@contextmanager
def _open_xtc(target: Target, replica: int) -> Iterator[XtcFile]:
    """Open the file; failures while it is read become UserErrors, too."""
    path = target.trajectory_paths[replica]
    try:
        yield XtcFile(path)
    except UserError:
        raise
    except Exception as error:  # mdtraj raises many kinds for a broken file
        raise UserError(
            f"target {target.name}: cannot read {path}: {error}",
            "the file is cut or not an XTC file: copy or download it again",
        ) from error


def _check_atoms(target: Target, path: Path, found: int) -> None:
    with _naming(target):
        modified_ns = target.topology_path.stat().st_mtime_ns
        expected = _atom_count(target.topology_path, modified_ns)
    if found != expected:
        raise UserError(
            f"target {target.name}: {path.name} has {found} atoms, its topology "
            f"{target.topology_path.name} has {expected}",
            "the topology must hold exactly the atoms of the trajectory",
        )


def _check_range(target: Target, path: Path, frames: NDArray[np.integer], n_whole: int) -> None:
    if len(frames) and (np.max(frames) >= n_whole or np.min(frames) < 0):
        raise UserError(
            f"target {target.name}: frame {int(np.max(frames))} asked for, {path.name} has "
            f"{n_whole} whole frames",
            "the file may be cut: copy it again, or label the frames that it has",
        )
