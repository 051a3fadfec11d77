"""Ensembles on disk, found in folders and files that are streamed, never read whole.

A target is whatever a folder or the names of files say it is:

- `NAME/` with a topology and trajectories: ATLAS (`NAME.pdb`, `NAME_prod_R1_fit.xtc`), the data
  sets of `protenix-eba import`, the ensembles of `protenix-eba sample`, any other MD;
- `NAME_protein.zip` and `NAME_analysis.zip` as the ATLAS database publishes them;
- `NAME.pdb` or `NAME.cif` with several models, AlphaFlow's layout;
- `NAME/` with structure files, also below `seed_*/predictions` as Protenix writes them or in
  `seed-*_sample-*` as AlphaFold 3 does (its copy of the best sample is left out), or files
  `NAME_0.pdb`, `NAME_1.pdb`: each is a conformation. Structure files may be packed by gzip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import natural_order
from protenix_eba.structures.md_files import (
    TOPOLOGY_SUFFIXES,
    TRAJECTORY_SUFFIXES,
    Source,
    archives_in,
    from_archive,
    from_names,
    is_archive,
)
from protenix_eba.structures.models import CIF_SUFFIXES, PDB_SUFFIXES
from protenix_eba.structures.packed import format_of
from protenix_eba.structures.replicas import TrajectoryConformations
from protenix_eba.structures.structure_files import StructureConformations, has_several_models

__all__ = ["Conformations", "find_references", "find_samples"]

Floats = NDArray[np.floating]

_STRUCTURE_SUFFIXES: Final = (*PDB_SUFFIXES, *CIF_SUFFIXES)
_LAYOUTS: Final = (
    "give a folder of NAME/NAME.pdb and NAME/*.xtc, of NAME.pdb files with several models, of "
    "NAME/*.cif, or such files themselves (structures also as .gz)"
)
# What tells the conformations of one target apart: 2wnp_F_0.cif, 2wnp_F_seed_1_sample_4.cif.
_NUMBER: Final = re.compile(r"(?:(?:^|[_.-])(?:model|frame|sample|seed|conf)?[_.-]?\d+)+$")
_REPLICA: Final = re.compile(r"(?:_prod)?_R\d+(?:_fit)?$")


class Conformations(Protocol):
    """An ensemble on disk: MD with its replicas, or generated conformations (one replica)."""

    name: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that it is read from."""

    @property
    def topology(self) -> mdtraj.Topology:
        """Return every atom, in the order of the coordinates, with standard residue names."""

    @property
    def structure_xyz(self) -> Floats:
        """Return the topology file's own coordinates `[N_atom, 3]`, angstrom."""

    @property
    def n_frames(self) -> dict[int, int]:
        """Return the number of frames of each replica, by its number."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes on the files for the reader, a sentence each."""

    def chunks(
        self, replica: int, atoms: NDArray[np.int64], size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield all frames of a replica in order, `[<= size, n, 3]` angstrom, these atoms only.

        Raises:
            UserError: A file that cannot be read, or coordinates that are not finite.
        """

    def frames(
        self, replica: int, indices: NDArray[np.int64], atoms: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Read single frames, in the order asked for, also repeatedly: `[F, n, 3]` angstrom.

        Raises:
            UserError: As `chunks`, or an index beyond the end.
        """


@dataclass
class _Findings:
    """The ensembles and problems found so far, by the name of the target."""

    usable: dict[str, Conformations] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _where: dict[str, Path] = field(default_factory=dict)

    def add(self, found: Conformations, path: Path) -> None:
        """Enter an ensemble; a second one of the same name makes both unusable."""
        name = found.name
        if name in self._where:
            self.usable.pop(name, None)
            self.failed[name] = f"it is there twice: {self._where[name]} and {path}; give one"
            return
        self._where[name] = path
        self.usable[name] = found

    def add_source(self, source: Source | None, path: Path) -> None:
        """Enter the files of a target, or its problem."""
        if source is None:
            return
        if source.problem:
            self.failed[source.name] = source.problem
        else:
            self.add(TrajectoryConformations(source), path)


def find_references(path: Path) -> tuple[dict[str, Conformations], dict[str, str]]:
    """Find the MD below a folder, in an archive or of one target, see the module.

    Returns:
        Target to its MD, and target to the reason why it cannot be used; files are opened when
        their frames are asked for, which may find more.

    Raises:
        UserError: Nothing there that looks like a target.

    Examples:
        >>> from importlib.resources import files
        >>> usable, reasons = find_references(Path(str(files("protenix_eba") / "demo_data")))
        >>> usable["grgds"].structure_xyz.shape == (usable["grgds"].topology.n_atoms, 3)
        True
        >>> reasons
        {}
    """
    return find_samples([path])


def find_samples(paths: Sequence[Path]) -> tuple[dict[str, Conformations], dict[str, str]]:
    """Find the ensembles in folders and files, see the module and `find_references`."""
    findings = _Findings()
    given = [Path(path) for path in paths]
    for path in given:
        if not path.exists():
            raise UserError(f"expected conformations at {path}, found nothing", "check the path")
    try:
        _sort_files([path for path in given if path.is_file()], None, findings)
        for folder in filter(Path.is_dir, given):
            _search(folder, findings)
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename}: {error.strerror or error}", "check the permissions"
        ) from error
    if not findings.usable and not findings.failed:
        raise UserError(f"no conformations in {', '.join(map(str, given))}", _LAYOUTS)
    return dict(sorted(findings.usable.items())), dict(sorted(findings.failed.items()))


def _search(folder: Path, findings: _Findings) -> None:
    """Search a folder of targets, or the own folder of one."""
    files = _visible_files(folder)
    predictions = _predictions(folder)
    # AlphaFold 3 puts a copy of its best sample beside them; more files are targets of their own.
    alone = len(_structures(files)) <= 1 and not _with_suffix(files, TRAJECTORY_SUFFIXES)
    if predictions and alone:
        findings.add(StructureConformations(folder.resolve().name, predictions), folder)
        return
    _sort_files([file for file in files if not is_archive(file)], folder, findings)
    if _with_suffix(files, TRAJECTORY_SUFFIXES):
        return
    if predictions:
        findings.add(StructureConformations(folder.resolve().name, predictions), folder)
        return
    for child in sorted(child for child in folder.iterdir() if child.is_dir()):
        if not child.name.startswith("."):
            _add_folder(child, findings)
    for source in archives_in(folder):
        if source.name not in findings.usable:  # an archive may stay beside its unpacked folder
            findings.add_source(source, folder)


def _add_folder(folder: Path, findings: _Findings) -> None:
    """Add one target's folder; other folders are passed over."""
    try:
        files = _visible_files(folder)
        # AlphaFold 3 puts a copy of its best sample beside the folders of all.
        structures = _predictions(folder) or _structures(files)
    except OSError as error:
        findings.failed[folder.name] = f"cannot read {folder}: {error.strerror or error}"
        return
    if _with_suffix(files, TRAJECTORY_SUFFIXES):
        findings.add_source(from_names(folder.name, files), folder)
    elif structures:
        findings.add(
            StructureConformations(folder.name, sorted(structures, key=natural_order)), folder
        )


def _sort_files(files: list[Path], folder: Path | None, findings: _Findings) -> None:
    """Sort files of one folder, or files that were named one by one (`folder` None)."""
    for archive in filter(is_archive, files):
        findings.add_source(from_archive(archive), archive)
    trajectories = _with_suffix(files, TRAJECTORY_SUFFIXES)
    topologies = _with_suffix(files, TOPOLOGY_SUFFIXES)
    if folder is not None and trajectories:
        name = folder.resolve().name
        pure = [path for path in topologies if path not in trajectories]
        if len(pure) == 1 or any(path.stem == name for path in pure):
            findings.add_source(from_names(name, files), folder)
            return
    used = _pair(trajectories, topologies, findings)
    _group_structures(
        [path for path in _structures(files) if path not in used],
        folder,
        findings,
    )


def _pair(trajectories: list[Path], topologies: list[Path], findings: _Findings) -> set[Path]:
    """Give each trajectory the topology of its name; return the topologies that were given."""
    groups: dict[Path | str, list[Path]] = {}
    for path in trajectories:
        near = topologies if set(topologies) - {path} else _visible_files(path.parent)
        topology = _topology_of(path, _with_suffix(near, TOPOLOGY_SUFFIXES))
        groups.setdefault(topology or _REPLICA.sub("", path.stem), []).append(path)
    for owner, members in groups.items():
        if isinstance(owner, Path):
            findings.add_source(from_names(_before_dot(owner), [owner, *members]), members[0])
        elif all(path.suffix.lower() in TOPOLOGY_SUFFIXES for path in members):  # HDF5
            findings.add_source(from_names(owner, members), members[0])
        else:
            findings.failed[owner] = f"no topology for {members[0]}: expected {owner}.pdb beside it"
    return {owner for owner in groups if isinstance(owner, Path)}


def _topology_of(trajectory: Path, candidates: list[Path]) -> Path | None:
    """Return the topology whose name begins the trajectory's longest, or the only one."""
    pure = [path for path in candidates if path.suffix.lower() not in TRAJECTORY_SUFFIXES]
    stem = trajectory.stem
    fitting = [p for p in pure if stem == p.stem or stem.startswith((f"{p.stem}_", f"{p.stem}."))]
    if fitting:
        return max(fitting, key=lambda path: len(path.stem))
    return pure[0] if len(pure) == 1 else None


def _group_structures(files: list[Path], folder: Path | None, findings: _Findings) -> None:
    """Make a target of each file with several models, and one of all others of one name."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(files, key=natural_order):
        name = _NUMBER.sub("", _before_dot(path))
        # "sample_0.pdb" names no target: its folder does.
        groups.setdefault(name or (folder or path.parent).resolve().name, []).append(path)
    for name, members in groups.items():
        try:
            separate = len(members) == 1 or has_several_models(members[0])
        except UserError as error:
            findings.failed[name] = str(error)
            continue
        if not separate:
            findings.add(StructureConformations(name, members), members[0])
            continue
        for path in members:
            findings.add(StructureConformations(_before_dot(path), [path]), path)


def _before_dot(path: Path) -> str:
    return path.name.partition(".")[0]


def _visible_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def _predictions(folder: Path) -> list[Path]:
    """Find structures of one target as `protenix pred` or AlphaFold 3 write them."""
    found = [*folder.glob("seed_*/predictions/*"), *folder.glob("seed-*_sample-*/*model.cif*")]
    return sorted(_structures(found), key=natural_order)


def _structures(files: list[Path]) -> list[Path]:
    return [path for path in files if format_of(path) in _STRUCTURE_SUFFIXES]


def _with_suffix(files: list[Path], suffixes: Sequence[str]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in suffixes]
