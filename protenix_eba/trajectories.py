"""MD on disk: which targets a folder holds, and their frames.

The layout is ATLAS's own (Vander Meersche et al., NAR 2024): `NAME/NAME.pdb` is the topology and
reference structure, `NAME/NAME_prod_R1_fit.xtc` and so on are independent replicas. Ensembles that
`protenix-eba sample` writes (`NAME/NAME.pdb` and `NAME/NAME.xtc`) are read by the same functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.errors import UserError
from protenix_eba.units import ANGSTROM_PER_NM

__all__ = ["Target", "find_targets", "frame_count", "load_topology", "read_frames"]

_REPLICA = re.compile(r"_R(\d+)(?:_fit)?$")


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


def find_targets(root: Path | str) -> list[Target]:
    """The targets below `root`, sorted by name; `root` may be one target's own folder.

    Raises:
        UserError: No such folder, or a target without its PDB file or without any XTC.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"expected a folder with NAME/NAME.pdb and NAME/NAME_*.xtc, found nothing at {root}",
            "check the path; ATLAS archives must be unpacked into one folder for each target",
        )
    if (root / f"{root.resolve().name}.pdb").is_file():
        return [_target_in(root.resolve())]
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and any(f.glob("*.xtc"))]
    if not folders:
        raise UserError(
            f"no target in {root}: expected folders NAME with NAME.pdb and NAME_*.xtc",
            "point to the folder above the targets' folders",
        )
    return [_target_in(folder) for folder in folders]


def _target_in(folder: Path) -> Target:
    topology = folder / f"{folder.name}.pdb"
    if not topology.is_file():
        raise UserError(
            f"target {folder.name}: expected its topology at {topology}, found nothing",
            "name the PDB file as its folder",
        )
    replicas: dict[int, Path] = {}
    for path in sorted(folder.glob("*.xtc")):
        match = _REPLICA.search(path.stem)
        number = int(match.group(1)) if match else 1
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
        UserError: The file cannot be read as a PDB.
    """
    try:
        return mdtraj.load_pdb(str(target.topology_path), standard_names=True)[0]
    except Exception as error:  # mdtraj raises many kinds for a broken PDB
        raise UserError(
            f"target {target.name}: cannot read {target.topology_path} as PDB: {error}",
            "open the file in a text editor: it needs ATOM lines in fixed columns",
        ) from error


def frame_count(target: Target, replica: int) -> int:
    """Number of whole frames of a replica, without reading their coordinates.

    Raises:
        UserError: The file cannot be read.
    """
    path = target.trajectory_paths[replica]
    try:
        with mdtraj.formats.XTCTrajectoryFile(str(path)) as handle:
            return len(handle)
    except Exception as error:
        raise UserError(
            f"target {target.name}: cannot read {path}: {error}",
            "the file is cut or not an XTC file: copy or download it again",
        ) from error


def read_frames(
    target: Target, replica: int, frames: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Coordinates of all atoms.

    Args:
        target: From `find_targets`.
        replica: Key of `target.trajectory_paths`.
        frames: Indices to read, any order; all when None.

    Returns:
        `[F, N_atom, 3]` in angstrom, as they stand in the file (NaN included).

    Raises:
        UserError: A cut file, frames beyond its end, or another number of atoms than the topology.
    """
    path = target.trajectory_paths[replica]
    try:
        with mdtraj.formats.XTCTrajectoryFile(str(path)) as handle:
            xyz_nm = handle.read()[0]
    except Exception as error:
        raise UserError(
            f"target {target.name}: cannot read {path}: {error}",
            "the file is cut or not an XTC file: copy or download it again",
        ) from error
    expected = load_topology(target).n_atoms
    if xyz_nm.shape[1] != expected:
        raise UserError(
            f"target {target.name}: {path.name} has {xyz_nm.shape[1]} atoms, its topology "
            f"{target.topology_path.name} has {expected}",
            "the topology must hold exactly the atoms of the trajectory",
        )
    if frames is not None:
        if len(frames) and (np.max(frames) >= len(xyz_nm) or np.min(frames) < 0):
            raise UserError(
                f"target {target.name}: frame {int(np.max(frames))} asked for, {path.name} has "
                f"{len(xyz_nm)} whole frames",
                "the file may be cut: copy it again, or label the frames that it has",
            )
        xyz_nm = xyz_nm[np.asarray(frames, dtype=np.int64)]
    return np.asarray(xyz_nm * ANGSTROM_PER_NM, dtype=np.float32)
