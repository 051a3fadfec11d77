"""The label table: one row for each frame, Parquet, with units and provenance in the schema.

A table of several energies has the chosen one in the columns of a table of one, so that whoever
reads `energy_kj_mol` finds it; the others are in columns that end with their names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file

__all__ = [
    "FINISHED",
    "SHARED",
    "EnergyLabels",
    "disk_errors",
    "frame_hash",
    "labels_from_rows",
    "read_labels",
    "write_csv",
    "write_labels",
]

# Statuses of rows that have an energy; the others are computed again when asked for.
FINISHED: Final = ("ok", "outlier")
_KIND: Final = {"string": np.str_, "int64": np.int64, "double": np.float64}
# Column: (type, unit or meaning)
_COLUMNS: Final = {
    "target": ("string", "folder name"),
    "replica": ("int64", "number in the trajectory's file name"),
    "frame": ("int64", "index in the replica's trajectory file, from 0"),
    "initial_energy_kj_mol": ("double", "kJ/mol, of the conformation as it is"),
    "energy_kj_mol": ("double", "kJ/mol, after the protocol's minimisation, mean of repeats"),
    "rmsd_angstrom": ("double", "angstrom, all atoms, moved by the minimisation"),
    "n_residues": ("int64", "residues"),
    "status": ("string", "ok, outlier, skipped or failed"),
    "reason": ("string", "why not ok, or how it became ok"),
    "energy_bonds_kj_mol": ("double", "kJ/mol, part of the energy: bonds and Urey-Bradley terms"),
    "energy_angles_kj_mol": ("double", "kJ/mol, part of the energy: angles"),
    "energy_torsions_kj_mol": ("double", "kJ/mol, part of the energy: torsions, impropers, CMAP"),
    "energy_nonbonded_kj_mol": ("double", "kJ/mol, part of the energy: Coulomb, Lennard-Jones"),
    "energy_solvent_kj_mol": ("double", "kJ/mol, part of the energy: implicit solvent"),
    "iterations": ("int64", "L-BFGS iterations of all repeats, -1 where not known"),
    "rms_force_kj_mol_nm": ("double", "kJ/mol/nm, left after minimisation, constraints aside"),
    "built_fraction": ("double", "of the atoms, hydrogens included, that the frame lacks"),
    "repeats": ("int64", "minimisations that the energy is the mean of"),
    "noise_kj_mol": ("double", "kJ/mol, standard deviation of a single minimisation"),
    "topology_hash": ("string", "residues, atom names and bonds, with hydrogens; --system's file"),
    "protocol_hash": ("string", "force field and minimisation"),
    "frame_hash": ("string", "SHA-256 of the frame's float32 coordinates in angstrom"),
}
# Columns that older tables lack, and what their rows are given.
_JOINED_LATER: Final = {
    "energy_bonds_kj_mol": math.nan,
    "energy_angles_kj_mol": math.nan,
    "energy_torsions_kj_mol": math.nan,
    "energy_nonbonded_kj_mol": math.nan,
    "energy_solvent_kj_mol": math.nan,
    "iterations": -1,
    "rms_force_kj_mol_nm": math.nan,
    "built_fraction": math.nan,
    "repeats": 1,
    "noise_kj_mol": math.nan,
}
_METADATA_KEY: Final = b"protenix_eba"
_OTHERS: Final = "others"  # in it: the provenance of each further energy, by its name
# Of the frame, whatever its energy; all else has a column for each, "energy_kj_mol:gfn2-xtb".
SHARED: Final = ("target", "replica", "frame", "n_residues", "frame_hash")


@dataclass(frozen=True)
class EnergyLabels:
    """Energy labels as parallel arrays of R rows, sorted by target, replica and frame.

    Attributes:
        target: `[R]` target names.
        replica: `[R]` replica numbers.
        frame: `[R]` frame indices in the replica's trajectory file.
        initial_energy_kj_mol: `[R]` energies of the conformations as they are.
        energy_kj_mol: `[R]` float64 labels, kJ/mol; NaN where there is none: see `finished`.
        rmsd_angstrom: `[R]` how far the minimisation moved the atoms.
        n_residues: `[R]` residues of the target.
        status: `[R]` "ok", "outlier", "skipped" (unusable coordinates) or "failed".
        reason: `[R]` why not ok, or how it became ok.
        energy_bonds_kj_mol: `[R]` part of the energy, as the next four; NaN where not known.
        energy_angles_kj_mol: `[R]` angles.
        energy_torsions_kj_mol: `[R]` torsions, impropers and CMAP.
        energy_nonbonded_kj_mol: `[R]` Coulomb and Lennard-Jones.
        energy_solvent_kj_mol: `[R]` implicit solvent.
        iterations: `[R]` of the minimiser; -1 where not known.
        rms_force_kj_mol_nm: `[R]` left after minimisation.
        built_fraction: `[R]` fraction of atoms that the frame lacks.
        repeats: `[R]` minimisations that the energy is the mean of.
        noise_kj_mol: `[R]` standard deviation of a single minimisation; NaN where not measured.
        topology_hash: `[R]` of the complete topology, and of the MD's own file.
        protocol_hash: `[R]` of the energy protocol.
        frame_hash: `[R]` of the frame's coordinates.
        provenance: Protocol, versions and platform that made them.
        others: Further energies of the same rows, by name, see `energy.committee`.
    """

    target: NDArray[np.str_]
    replica: NDArray[np.int64]
    frame: NDArray[np.int64]
    initial_energy_kj_mol: NDArray[np.float64]
    energy_kj_mol: NDArray[np.float64]
    rmsd_angstrom: NDArray[np.float64]
    n_residues: NDArray[np.int64]
    status: NDArray[np.str_]
    reason: NDArray[np.str_]
    energy_bonds_kj_mol: NDArray[np.float64]
    energy_angles_kj_mol: NDArray[np.float64]
    energy_torsions_kj_mol: NDArray[np.float64]
    energy_nonbonded_kj_mol: NDArray[np.float64]
    energy_solvent_kj_mol: NDArray[np.float64]
    iterations: NDArray[np.int64]
    rms_force_kj_mol_nm: NDArray[np.float64]
    built_fraction: NDArray[np.float64]
    repeats: NDArray[np.int64]
    noise_kj_mol: NDArray[np.float64]
    topology_hash: NDArray[np.str_]
    protocol_hash: NDArray[np.str_]
    frame_hash: NDArray[np.str_]
    provenance: Mapping[str, Any]
    others: Mapping[str, EnergyLabels] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.target)

    @property
    def targets(self) -> list[str]:
        """Return the names of the targets, sorted."""
        return sorted(set(self.target.tolist()))

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Return a mask `[R]` of rows that can be trained on."""
        return np.asarray(self.status == "ok")

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Return a mask `[R]` of rows that have an energy: ok ones and outliers."""
        return np.isin(self.status, FINISHED)

    def select(self, rows: NDArray[Any]) -> EnergyLabels:
        """Return the rows of a mask or of indices."""
        others = {name: other.select(rows) for name, other in self.others.items()}
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(self, **columns, others=others)

    def for_target(self, name: str) -> EnergyLabels:
        """Return the rows of one target.

        Raises:
            UserError: It has none.
        """
        rows = self.target == name
        if not rows.any():
            raise UserError(
                f"no energy labels for target {name!r}: there are for {', '.join(self.targets)}",
                "label it with `protenix-eba label`",
            )
        return self.select(rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as plain dictionaries, without the other energies."""
        columns = [getattr(self, name).tolist() for name in _COLUMNS]
        return [dict(zip(_COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]


def labels_from_rows(
    rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]
) -> EnergyLabels:
    """Make labels of dictionaries, in any order; keys of later columns may be missing."""
    ordered = sorted(rows, key=lambda row: (row["target"], row["replica"], row["frame"]))
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([_value(row, name) for row in ordered], dtype=_KIND[kind])
        for name, (kind, _) in _COLUMNS.items()
    }
    return EnergyLabels(**arrays, provenance=dict(provenance), others={})


def _value(row: Mapping[str, Any], name: str) -> Any:
    return row.get(name, _JOINED_LATER[name]) if name in _JOINED_LATER else row[name]


def frame_hash(xyz_angstrom: NDArray[np.floating]) -> str:
    """Return 16 digits that identify a frame's coordinates `[N, 3]` (angstrom, float32)."""
    data = np.ascontiguousarray(xyz_angstrom, dtype=np.float32).tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def write_labels(path: Path | str, labels: EnergyLabels) -> None:
    """Write Parquet, atomically.

    Raises:
        UserError: It cannot be written; what stood at `path` is unchanged.
    """
    origin = dict(labels.provenance)
    if labels.others:
        origin[_OTHERS] = {name: dict(other.provenance) for name, other in labels.others.items()}
    fields, columns = zip(*_fields(labels), strict=True)
    schema = pa.schema(fields, metadata={_METADATA_KEY: json.dumps(origin, sort_keys=True)})
    with disk_errors(path), atomic_path(path) as temporary:
        table = pa.Table.from_arrays(list(columns), schema=schema)
        pq.write_table(table, temporary, compression="zstd")


def _fields(labels: EnergyLabels, suffix: str = "") -> Iterator[tuple[pa.Field, pa.Array]]:
    """Yield the columns of the energy, then those of the others."""
    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64()}
    for name, (kind, meaning) in _COLUMNS.items():
        if not (suffix and name in SHARED):
            column = pa.field(
                name + suffix, types[kind], nullable=False, metadata={"unit": meaning}
            )
            yield column, pa.array(getattr(labels, name).tolist(), types[kind])
    for name, other in labels.others.items():
        yield from _fields(other, f":{name}")


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Tell the user of a full disk or quota that ends the writing of `path` in this block."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}",
            "make room (disk, quota) and run the same command again: it goes on from here",
        ) from error


def read_labels(path: Path | str) -> EnergyLabels:
    """Read and check a label table.

    Raises:
        UserError: No such file, cut or not Parquet, a column is missing or of another type, an
            "ok" row without a finite energy, or two rows for one frame.

    Examples:
        >>> from importlib.resources import files
        >>> labels = read_labels(str(files("protenix_eba") / "demo_data" / "labels.parquet"))
        >>> labels.energy_kj_mol.dtype
        dtype('float64')
    """
    path = require_file(path, "energy labels", "make them with `protenix-eba label`")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"energy labels: {path} is cut or not a Parquet file ({str(error).splitlines()[0]})",
            "copy it again, or make it with `protenix-eba label`",
        ) from error
    origin = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    others = {
        name: _checked(_from_table(table, path, theirs, f":{name}"), path)
        for name, theirs in origin.pop(_OTHERS, {}).items()
    }
    return replace(_checked(_from_table(table, path, origin), path), others=others)


def _from_table(
    table: pa.Table, path: Path, provenance: Mapping[str, Any], suffix: str = ""
) -> EnergyLabels:
    """Take the energy whose columns end with `suffix`."""
    names = {name: name if name in SHARED else name + suffix for name in _COLUMNS}
    there = {name for name, column in names.items() if column in table.column_names}
    if missing := [
        column for name, column in names.items() if name not in there | _JOINED_LATER.keys()
    ]:
        raise UserError(
            f"energy labels: {path} lacks {', '.join(missing)}; it has "
            f"{', '.join(table.column_names)}",
            "make it with `protenix-eba label`",
        )
    arrays: dict[str, NDArray[Any]] = {}
    for name, (kind, _) in _COLUMNS.items():
        if name in there:
            arrays[name] = _array(table, path, names[name], kind)
        else:
            arrays[name] = np.full(len(table), _JOINED_LATER[name], dtype=_KIND[kind])
    return EnergyLabels(**arrays, provenance=provenance, others={})


def _array(table: pa.Table, path: Path, column: str, kind: str) -> NDArray[Any]:
    found, nulls = str(table.schema.field(column).type), table.column(column).null_count
    if found != kind or nulls:
        raise UserError(
            f"energy labels: {path}, column {column}: expected {kind} without nulls, found "
            f"{found} with {nulls} nulls",
            "make it with `protenix-eba label`",
        )
    return np.array(table.column(column).to_pylist(), dtype=_KIND[kind])


def _checked(labels: EnergyLabels, path: Path) -> EnergyLabels:
    bad = labels.ok & ~np.isfinite(labels.energy_kj_mol)
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"energy labels: {path}, {int(bad.sum())} rows are ok without a finite energy, first "
            f"{labels.target[row]} replica {labels.replica[row]} frame {labels.frame[row]}",
            "delete the file and label again",
        )
    keys = list(zip(labels.target.tolist(), labels.replica, labels.frame, strict=True))
    if len(set(keys)) != len(keys):
        raise UserError(f"energy labels: {path} has two rows for one frame", "label again")
    return labels


def write_csv(path: Path | str, labels: EnergyLabels) -> None:
    """Write the rows as text, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(labels.rows())
    with disk_errors(path), atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
