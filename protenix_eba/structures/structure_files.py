"""Ensembles of structure files: the models of PDB and mmCIF files are the conformations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.structures.checks import check_finite, check_range
from protenix_eba.structures.models import CIF_SUFFIXES, Model, models_of
from protenix_eba.structures.packed import format_of
from protenix_eba.structures.topologies import pdb_lines, read_cif, read_topology

__all__ = ["StructureConformations", "has_several_models"]

_REPLICA: Final = 1


class StructureConformations:
    """Models of PDB or mmCIF files, also packed by gzip, read when they are asked for.

    Args:
        name: Name of the target.
        paths: In the order of the conformations. The first gives the topology; atoms of the others
            are matched to it by chain, residue number and name.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.paths = tuple(paths)

    @cached_property
    def topology(self) -> mdtraj.Topology:
        """Return all atoms of the first file."""
        return read_topology(self.paths[0])[0]

    @cached_property
    def structure_xyz(self) -> NDArray[np.float32]:
        """Return the first model's coordinates `[N_atom, 3]`, angstrom."""
        return _parse(self._models[0])[1]

    @property
    def n_frames(self) -> dict[int, int]:
        """Return the number of models in all files, as replica 1."""
        return {_REPLICA: len(self._models)}

    def chunks(
        self, replica: int, atoms: NDArray[np.int64], size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield all models in order, see `Conformations`."""
        for start in range(0, len(self._models), size):
            yield self._read(range(start, min(start + size, len(self._models))), atoms)

    def frames(
        self, replica: int, indices: NDArray[np.int64], atoms: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Read single models, see `Conformations`."""
        check_range(indices, len(self._models), f"target {self.name}: {self.paths[0].name}")
        wanted, where = np.unique(indices, return_inverse=True)
        return self._read(wanted.tolist(), atoms)[where]

    @cached_property
    def _models(self) -> list[Model]:
        found = [model for path in self.paths for model in _models_of(path)]
        if not found:
            raise UserError(f"target {self.name}: no model in {self.paths[0]}", "sample it again")
        return found

    @cached_property
    def _keys(self) -> list[bytes]:
        return _parse(self._models[0])[0]

    def _read(self, numbers: Sequence[int], atoms: NDArray[np.int64]) -> NDArray[np.float32]:
        xyz = np.empty((len(numbers), len(atoms), 3), dtype=np.float32)
        for row, number in enumerate(numbers):
            model = self._models[number]
            keys, coordinates = _parse(model)
            if keys != self._keys:
                coordinates = coordinates[self._order(keys, model, number)]
            xyz[row] = coordinates[atoms]
            check_finite(xyz[row : row + 1], number, model.path)
        return xyz

    def _order(self, keys: list[bytes], model: Model, number: int) -> NDArray[np.int64]:
        where = {key: i for i, key in enumerate(keys)}
        unlike = set(self._keys) ^ set(keys)
        if unlike or len(where) < len(keys):
            shown = min(unlike).decode(errors="replace") if unlike else "one twice"
            verb = "lacks" if len(keys) < len(self._keys) else "has"
            raise UserError(
                f"target {self.name}: model {number} in {model.path} {verb} other atoms than the "
                f"first, {len(keys)} for {len(self._keys)}: {shown}",
                "all conformations of a target need the same atoms: is the file cut?",
            )
        return np.array([where[key] for key in self._keys], dtype=np.int64)


def has_several_models(path: Path) -> bool:
    """Tell whether a PDB or mmCIF file holds an ensemble; reads as little as it can.

    Raises:
        UserError: It cannot be read.
    """
    return len(_models_of(path, at_most=2)) > 1


def _models_of(path: Path, at_most: int | None = None) -> list[Model]:
    try:
        return models_of(path, at_most)
    except Exception as error:  # zlib and others raise many kinds for a broken file
        raise UserError(
            f"cannot read {path}: {type(error).__name__}: {error}",
            "check that the file is whole; leave it out otherwise",
        ) from error


def _parse(model: Model) -> tuple[list[bytes], NDArray[np.float32]]:
    """Return key and coordinates `[N, 3]` of each atom."""
    parse = _parse_cif if format_of(model.path) in CIF_SUFFIXES else _parse_pdb
    try:
        return parse(model.text())
    except Exception as error:  # biotite raises many kinds for a broken file
        raise UserError(
            f"cannot read {model.path}: {type(error).__name__}: {error}",
            "check that the file is whole; a PDB file has coordinates in columns 31 to 54",
        ) from error


def _parse_pdb(text: bytes) -> tuple[list[bytes], NDArray[np.float32]]:
    lines = [line for line in pdb_lines(text) if not line.startswith(b"TER")]
    fields = np.array([line[30:54] for line in lines], dtype="S24").view("S8")
    xyz = fields.astype(np.float64).reshape(-1, 3).astype(np.float32)
    return [line[12:16].strip() + line[21:27] for line in lines], xyz


def _parse_cif(text: bytes) -> tuple[list[bytes], NDArray[np.float32]]:
    atoms = read_cif(text)
    columns = (atoms.atom_name, atoms.chain_id, atoms.res_id, atoms.ins_code)
    # As they stand in a PDB file, so that a target may have files of both kinds.
    keys = [
        f"{name}{chain}{number:>4}{insertion or ' '}".encode()
        for name, chain, number, insertion in zip(*(c.tolist() for c in columns), strict=True)
    ]
    return keys, np.asarray(atoms.coord, dtype=np.float32)
