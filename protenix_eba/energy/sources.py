"""Sources of frames: folders of trajectories, or structure files that are a frame each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from openmm import app, unit

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import natural_order
from protenix_eba.core.text_files import read_text
from protenix_eba.energy.caps import places
from protenix_eba.energy.structure import atom_keys
from protenix_eba.structures.pdb_text import with_models
from protenix_eba.structures.trajectories import (
    Target,
    find_targets,
    frame_count,
    is_cut,
    load_topology,
    read_frames,
    topology_in,
)

__all__ = ["FilesSource", "FrameSource", "Frames", "TrajectorySource", "find_frame_sources"]


def _pdb_file(path: str) -> app.PDBFile:
    return app.PDBFile(StringIO(with_models(read_text(Path(path), strict=False))))


def _cif_file(path: str) -> app.PDBxFile:
    return app.PDBxFile(StringIO(read_text(Path(path), strict=False)))


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    ".pdb": _pdb_file,
    ".ent": _pdb_file,
    ".cif": _cif_file,
    ".mmcif": _cif_file,
}
# The number at the end of a file's name that tells a target's frames apart: 2wnp_F_0.cif.
_NUMBER: Final = re.compile(r"[_.-](?:model|frame|sample|conf)?[_.-]?\d+$")


class Frames(NamedTuple):
    """Frames of one replica.

    Attributes:
        xyz_angstrom: `[F, N, 3]` in the topology file's atom order; NaN where an atom is missing.
        faults: Reason why each frame cannot be used; empty when it can.
    """

    xyz_angstrom: NDArray[np.float32]
    faults: list[str]


class FrameSource(Protocol):
    """One target's frames.

    Attributes:
        name: Name of the target.
        topology_path: PDB or mmCIF file whose atoms the frames have, in their order.
        replicas: Numbers of its replicas.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def topology_path(self) -> Path: ...  # noqa: D102
    @property
    def replicas(self) -> list[int]: ...  # noqa: D102

    def count(self, replica: int) -> int:
        """Return the number of a replica's frames; raise UserError if it cannot be read."""

    def remark(self, replica: int) -> str:
        """Return a fault of a replica whose frames can be used; empty when there is none."""

    def read(self, replica: int, frames: NDArray[np.integer]) -> Frames:
        """Read the frames of these indices; raise UserError if the file cannot be read."""

    def atoms(self) -> list[tuple[int, str]]:
        """Return residue index and name of each of the N atoms; may raise UserError likewise."""


@dataclass(frozen=True)
class TrajectorySource:
    """Trajectories in the layout of ATLAS, see `trajectories`."""

    target: Target

    @property
    def name(self) -> str:
        """Return the name of the target."""
        return self.target.name

    @property
    def topology_path(self) -> Path:
        """Return the path of the target's PDB file."""
        return self.target.topology_path

    @property
    def replicas(self) -> list[int]:
        """Return the numbers of the target's replicas."""
        return list(self.target.trajectory_paths)

    def count(self, replica: int) -> int:
        """Count the whole frames of a replica."""
        return frame_count(self.target, replica)

    def remark(self, replica: int) -> str:
        """Return a remark if the file is cut after its whole frames; empty otherwise."""
        if not is_cut(self.target, replica):
            return ""
        name = self.target.trajectory_paths[replica].name
        return f"target {self.name}: {name} is cut after {self.count(replica)} whole frames"

    def read(self, replica: int, frames: NDArray[np.integer]) -> Frames:
        """Read the frames of these indices, as they stand in the file."""
        return Frames(read_frames(self.target, replica, frames), [""] * len(frames))

    def atoms(self) -> list[tuple[int, str]]:
        """Return residue index and name of each atom."""
        return places(load_topology(self.target).atoms)


class FilesSource:
    """Structure files of one protein; each of their models is a frame of replica 1.

    The first file that can be read gives the topology. Atoms of the others are matched to it by
    chain, residue number and name, so their order may differ.

    Args:
        name: Name of the target.
        paths: PDB or mmCIF files in the order of their frames.

    Raises:
        UserError: None of the files can be read.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.replicas = [1]
        self._frames: list[NDArray[np.float32] | None] = []
        self._faults: list[str] = []
        self._topology: Any = None
        self._unread: list[int] = []
        for path in paths:
            self._add(path)
        if self._topology is None:
            raise UserError(
                f"target {name}: {self._faults[0]}", "check the file: it must be PDB or mmCIF"
            )

    def _add(self, path: Path) -> None:
        try:
            content = _READERS[path.suffix.lower()](str(path))
            models = [
                content.getPositions(asNumpy=True, frame=i).value_in_unit(unit.angstrom)
                for i in range(content.getNumFrames())
            ]
        except Exception as error:  # OpenMM raises many kinds for a broken file
            self._frames.append(None)
            self._faults.append(f"cannot read {path}: {type(error).__name__}: {error}")
            return
        if self._topology is None:
            self._topology, self.topology_path = content.topology, path
        order, fault = _order(self._topology, content.topology, path)
        for xyz in models:
            self._frames.append(_in_order(np.asarray(xyz), order))
            self._faults.append(fault)

    def count(self, replica: int) -> int:
        """Count the models of all files; a file that cannot be read counts as one."""
        return len(self._frames)

    def remark(self, replica: int) -> str:
        """Return an empty text: each file that cannot be read is a frame with a fault."""
        return ""

    def read(self, replica: int, frames: NDArray[np.integer]) -> Frames:
        """Read the frames of these indices; a fault says what a file lacks."""
        missing = np.full((self._topology.getNumAtoms(), 3), np.nan, dtype=np.float32)
        found = [self._frames[i] for i in frames]
        xyz = [missing if frame is None else frame for frame in found]
        return Frames(np.array(xyz, dtype=np.float32), [self._faults[i] for i in frames])

    def atoms(self) -> list[tuple[int, str]]:
        """Return residue index and name of each atom of the first file."""
        return places(self._topology.atoms())


def _order(reference: Any, topology: Any, path: Path) -> tuple[NDArray[np.int64], str]:
    """Return each reference atom's place in another topology (-1: nowhere), and what differs.

    Only protein atoms make a fault: files may hold other water.
    """
    where = {key: i for i, key in enumerate(atom_keys(topology))}
    wanted = atom_keys(reference)
    order = np.array([where.get(key, -1) for key in wanted], dtype=np.int64)
    residues = {
        key[:3] for key, protein in zip(wanted, _protein(reference), strict=True) if protein
    }
    lacks = [key for key, i in zip(wanted, order, strict=True) if i < 0 and key[:3] in residues]
    known = set(wanted)
    heavy = (atom.element is not None and atom.element.symbol != "H" for atom in topology.atoms())
    extra = [
        key
        for key, is_heavy in zip(where, heavy, strict=False)
        if is_heavy and key[:3] in residues and key not in known
    ]
    for verb, keys in (("lacks", lacks), ("has", extra)):
        if keys:
            shown = ", ".join(f"{key[3]} of residue {key[1]}{key[2]}" for key in keys[:3])
            return order, f"{path.name} {verb} {shown}, unlike the target's first file"
    return order, ""


def _protein(topology: Any) -> list[bool]:
    backbone = {"N", "CA", "C"}
    names: dict[int, set[str]] = {}
    for atom in topology.atoms():
        names.setdefault(atom.residue.index, set()).add(atom.name)
    return [backbone <= names[atom.residue.index] for atom in topology.atoms()]


def _in_order(xyz: NDArray[np.floating], order: NDArray[np.int64]) -> NDArray[np.float32]:
    arranged = np.full((len(order), 3), np.nan, dtype=np.float32)
    arranged[order >= 0] = xyz[order[order >= 0]]
    return arranged


def find_frame_sources(
    inputs: Path | str | Sequence[Path | str], name: str | None = None
) -> list[FrameSource]:
    """Find all targets of folders and files, sorted by name.

    Args:
        inputs: Folders of trajectories in ATLAS's layout, or PDB and mmCIF files, or folders of
            such files. Files whose names differ only in a number at the end belong to one target.
        name: All files are frames of one target of this name.

    Raises:
        UserError: A path that is none of these, a target of the same name twice, or files that
            cannot be read.
    """
    paths = [Path(p) for p in ([inputs] if isinstance(inputs, Path | str) else inputs)]
    sources: list[FrameSource] = []
    files: list[Path] = []
    for path in paths:
        inside = [] if path.is_file() else _structure_files(path)
        if path.is_file():
            files.append(_known_format(path))
        elif inside and not topology_in(path.resolve()):
            files.extend(inside)
        else:
            sources.extend(TrajectorySource(target) for target in find_targets(path))
    groups: dict[str, list[Path]] = {}
    for file in sorted(files, key=natural_order):
        groups.setdefault(name or _NUMBER.sub("", file.stem), []).append(file)
    sources.extend(FilesSource(group, members) for group, members in groups.items())
    times = Counter(source.name for source in sources)
    twice = ", ".join(sorted(target for target in times if times[target] > 1))
    if twice:
        raise UserError(f"target {twice} is given twice", "give each target once")
    return sorted(sources, key=lambda source: source.name)


def _structure_files(folder: Path) -> list[Path]:
    """Find structure files in a folder that holds no folders of trajectories."""
    if not folder.is_dir() or any(folder.glob("*/*.xtc")):
        return []
    return [path for path in folder.iterdir() if path.suffix.lower() in _READERS]


def _known_format(path: Path) -> Path:
    if path.suffix.lower() not in _READERS:
        raise UserError(
            f"{path} is no structure file: expected one of {', '.join(_READERS)}",
            "give trajectories as a folder NAME with NAME.pdb and NAME_prod_R1_fit.xtc",
        )
    return path
