"""Conformations to refine: models of structure files and frames of sampled ensembles, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.structures import Trace, open_models

__all__ = ["Conformation", "find_conformations"]

if TYPE_CHECKING:
    from protenix_eba.structures.trajectories import Target

logger = logging.getLogger(__name__)

_STRUCTURES: Final = (".pdb", ".cif", ".mmcif", ".bcif")


@dataclass(frozen=True)
class Conformation:
    """One structure, read when it is asked for.

    Attributes:
        name: Name for its output and reports.
        path: The file that it is in.
        read: Function that gives its C-alpha atoms; `UserError` if it cannot be used.
    """

    name: str
    path: Path
    read: Callable[[], Trace]


def find_conformations(path: Path) -> list[Conformation]:
    """Find the conformations in a file or folder.

    Args:
        path: A PDB or mmCIF file, each model of which is one conformation; a folder of
            `protenix-eba sample` or another with NAME.pdb and NAME*.xtc, of one protein; or a
            folder with structure files at any depth, as of `protenix pred`.

    Returns:
        The conformations. A file that cannot be read counts as one: reading it then raises the
        reason.

    Raises:
        UserError: There is nothing, or the trajectories cannot be used.
    """
    if path.is_file():
        return list(_models(path, path.stem))
    if not path.is_dir():
        raise UserError(f"structures: there is nothing at {path}", "check the path")
    if any(path.glob("*.xtc")) or any(path.glob("*/*.xtc")):
        return list(_frames(path))
    visible = (f for f in sorted(path.rglob("*")) if not f.name.startswith("."))
    files = [f for f in visible if f.suffix.lower() in _STRUCTURES]
    if not files:
        raise UserError(
            f"structures: found neither NAME.pdb with NAME.xtc nor PDB or mmCIF files in {path}",
            "give the folder that `protenix-eba sample` or `protenix pred` wrote",
        )
    return [found for file in files for found in _models(file, _name_below(path, file))]


def _name_below(folder: Path, file: Path) -> str:
    return "_".join(file.relative_to(folder).with_suffix("").parts)


def _models(path: Path, name: str) -> Iterator[Conformation]:
    try:
        n_models, _ = _open_cached(path, path.stat().st_mtime_ns)
    except UserError:
        n_models = 1
    for model in range(1, n_models + 1):
        called = name if n_models == 1 else f"{name}_{model}"
        yield Conformation(called, path, partial(_read_model, path, model))


@lru_cache(maxsize=1)
def _open_cached(path: Path, modified_ns: int) -> tuple[int, Callable[[int], Trace]]:
    """Open a file and keep it in memory until the next one, so that many models are parsed once."""
    return open_models(path)


def _read_model(path: Path, model: int) -> Trace:
    return _open_cached(path, path.stat().st_mtime_ns)[1](model)


def _frames(folder: Path) -> Iterator[Conformation]:
    from protenix_eba.structures.trajectories import find_targets, frame_count, is_cut

    targets = find_targets(folder)
    if len(targets) != 1:
        raise UserError(
            f"structures: expected the ensemble of one protein in {folder}, found "
            f"{', '.join(target.name for target in targets)}",
            "give the folder of one of them",
        )
    (target,) = targets
    residues = _residues(target)
    for replica, path in target.trajectory_paths.items():
        if is_cut(target, replica):
            logger.warning("%s ends within a frame: the frames before it are refined", path)
        label = f"_R{replica}" if len(target.trajectory_paths) > 1 else ""
        for frame in range(frame_count(target, replica)):
            read = partial(_read_frame, target, replica, frame, residues)
            yield Conformation(f"{target.name}{label}_{frame + 1}", path, read)


@dataclass(frozen=True)
class _Residues:
    """The residues of a topology: their C-alpha atoms, and what `Trace` says of them."""

    atoms: NDArray[np.int64]
    sequence: str
    numbers: NDArray[np.int64]
    chains: NDArray[np.int64]


def _residues(target: Target) -> _Residues:
    from protenix_eba.structures.trajectories import load_topology

    found = [
        (atom.index, atom.residue.code or "X", atom.residue.resSeq, atom.residue.chain.index)
        for atom in load_topology(target).atoms
        if atom.name == "CA" and atom.element.symbol == "C"
    ]
    if not found:
        raise UserError(
            f"structures: no C-alpha atoms in {target.topology_path}", "give a protein's ensemble"
        )
    atoms, letters, numbers, chains = zip(*found, strict=True)
    return _Residues(np.array(atoms), "".join(letters), np.array(numbers), np.array(chains))


def _read_frame(target: Target, replica: int, frame: int, residues: _Residues) -> Trace:
    """Read one frame on its own, so that a damaged frame does not affect others."""
    from protenix_eba.structures.trajectories import read_frames

    xyz = read_frames(target, replica, np.array([frame]))[0, residues.atoms]
    path = target.trajectory_paths[replica]
    return Trace(path, torch.from_numpy(xyz), residues.sequence, residues.numbers, residues.chains)
