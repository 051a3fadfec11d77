"""Energies that a user has for frames of trajectories, or minus a bias, as a label table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.core.text_files import text_lines
from protenix_eba.core.units import KJ_PER_KCAL, thermal_energy_kj_mol
from protenix_eba.energy.choices import MEANINGS, Match, Meaning
from protenix_eba.energy.plumed import is_colvar, read_colvar, rows_of_frames
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.table import EnergyLabels, frame_hash, labels_from_rows
from protenix_eba.structures.trajectories import (
    Target,
    find_targets,
    frame_count,
    frame_times,
    read_frames,
)

__all__ = ["ColvarChoice", "Imported", "labels_by_frame"]

_COLUMNS: Final[dict[Meaning, str]] = {
    "energy": "energy_kj_mol",
    "bias": "bias_kj_mol",
    "weights": "weight",
}
_KEYS: Final = ("target", "replica", "frame")
_BLOCK: Final = 500  # frames that are read at a time


@dataclass(frozen=True)
class ColvarChoice:
    """Choices about PLUMED's files that the files do not state.

    Attributes:
        targets: Target of each file, or one for all; may be left out for a single target.
        replicas: Replica of each file; may be left out for one file of a single replica.
        column: Name; None for the only one whose name ends in ".bias".
        unit: Unit of that column, one of `choices.ENERGY_UNITS`.
        temperature_K: Of kT.
        match: How rows and frames are matched, see `plumed.rows_of_frames`.
    """

    targets: tuple[str, ...] = ()
    replicas: tuple[int, ...] = ()
    column: str | None = None
    unit: str = "kj/mol"
    temperature_K: float = 300.0
    match: Match = "auto"

    @property
    def kj_mol(self) -> float:
        """The unit in kJ/mol."""
        kt = thermal_energy_kj_mol(self.temperature_K)
        return {"kj/mol": 1.0, "kcal/mol": KJ_PER_KCAL, "kT": kt}[self.unit]


class Imported(NamedTuple):
    """Labels, and notes for the user on how they were read."""

    labels: EnergyLabels
    remarks: list[str]


_Values = dict[tuple[str, int], dict[int, float]]
"""(target, replica) -> frame -> kJ/mol as the file has it."""


def labels_by_frame(
    paths: Sequence[Path],
    data: Path,
    *,
    meaning: Meaning = "energy",
    temperature_K: float = 300.0,
    colvar: ColvarChoice | None = None,
) -> Imported:
    """Make labels of the frames of trajectories from numbers that the user brings.

    MD under U + V has the distribution exp(-(U + V) / kT). Its frames weighted by exp(+V / kT) have
    that of U: minus the bias is the energy to align to, without length scaling (Torrie and
    Valleau, J. Comput. Phys. 1977). That holds for a V that does not change with time. Frames of
    several biases or temperatures have weights w that an estimator gives for one state, MBAR
    (Shirts and Chodera, J. Chem. Phys. 2008) or WHAM: -kT ln w is the energy to align to then.

    Args:
        paths: CSV files with the columns target, replica, frame and energy_kj_mol, bias_kj_mol or
            weight, or PLUMED's COLVAR files, one for each replica.
        data: Folder of the trajectories.
        meaning: What the numbers are: an energy; a bias potential V, whose labels are -V; or
            weights w of the frames, up to a factor, whose labels are -kT ln w.
        temperature_K: T of weights.
        colvar: How COLVAR files are read; None for the defaults, and for CSV files.

    Raises:
        UserError: A number belongs to no frame, or to two; files of both kinds; unreadable ones.
    """
    targets = {target.name: target for target in find_targets(data)}
    kinds = {is_colvar(path) for path in paths}
    if len(kinds) > 1:
        raise UserError("CSV and COLVAR files are given together", "import one kind at a time")
    remarks: list[str] = []
    if kinds == {True}:
        choice = colvar or ColvarChoice()
        if meaning == "weights":
            raise UserError(
                f"{paths[0]} is a COLVAR file, and weights are read from CSV files",
                "write target,replica,frame,weight",
            )
        values = _from_colvars(paths, targets, choice, meaning == "bias", remarks)
    elif colvar is not None:
        raise UserError(
            f"{paths[0]} is no COLVAR file (it does not begin with #! FIELDS): a CSV file names "
            "its target, replica, frame and unit itself",
            "leave out --target, --replica, --column, --energy-unit, --temperature-K and --match",
        )
    else:
        values = _from_csv(paths, _COLUMNS[meaning])
    origin = _provenance(paths, meaning, colvar, kinds == {True})
    if meaning == "weights":
        origin["temperature_K"] = temperature_K
    structure = cache(complete_structure)  # protonating takes a second
    rows = [
        row | _of_target(structure(targets[name].topology_path), origin)
        for (name, replica), found in sorted(values.items())
        for row in _rows(_known(targets, name, replica), replica, found, meaning, temperature_K)
    ]
    return Imported(labels_from_rows(rows, origin), remarks)


def _provenance(
    paths: Sequence[Path], meaning: Meaning, colvar: ColvarChoice | None, is_plumed: bool
) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "imported": [path.name for path in paths],
        "energy": MEANINGS[meaning],
        "minimised": False,
    }
    if is_plumed:
        choice = colvar or ColvarChoice()
        origin |= {"column": choice.column or "*.bias", "unit": choice.unit, "match": choice.match}
        if choice.unit == "kT":
            origin["temperature_K"] = choice.temperature_K
    return origin


def _from_csv(paths: Sequence[Path], column: str) -> _Values:
    values: _Values = {}
    for path in paths:
        for line, row in _read(path, column):
            target, replica, frame, value = _parsed(path, line, row, column)
            frames = values.setdefault((target, replica), {})
            if frame in frames:
                raise UserError(
                    f"{path}, line {line}: target {target} replica {replica} frame {frame} stands "
                    "twice",
                    "keep one row for each frame",
                )
            frames[frame] = value
    if not values:
        raise UserError(f"{paths[0]} has no row", f"one for each frame, with {column}")
    return values


def _read(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the cells of each line."""
    wanted = (*_KEYS, column)
    try:
        reader = csv.DictReader(text_lines(path, "save it as CSV"), skipinitialspace=True)
        fields = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = fields
        if missing := [name for name in wanted if name not in fields]:
            hint = f"expected the columns {', '.join(wanted)}"
            if column == "energy_kj_mol" and "bias_kj_mol" in fields:
                hint += "; for a bias add --bias"
            if column != "weight" and "weight" in fields:
                hint += "; for weights add --weights"
            raise UserError(
                f"{path} lacks {', '.join(missing)}; it has {', '.join(fields) or 'nothing'}",
                hint,
            )
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file: {error}", "save it as that") from error


def _parsed(path: Path, line: int, row: dict[str, Any], column: str) -> tuple[str, int, int, float]:
    try:
        if None in row or None in row.values():
            raise ValueError("another number of cells than the first line has")
        return (
            row["target"].strip(),
            int(row["replica"]),
            int(row["frame"]),
            float(row[column]),
        )
    except ValueError as error:
        raise UserError(
            f"{path}, line {line}: {error}", "replica and frame are whole numbers, energies numbers"
        ) from error


def _from_colvars(
    paths: Sequence[Path],
    targets: Mapping[str, Target],
    choice: ColvarChoice,
    bias: bool,
    remarks: list[str],
) -> _Values:
    if not bias and choice.column is None:
        raise UserError(f"{paths[0]}: which column is the energy?", "give --column, or --bias")
    values: _Values = {}
    for path, (name, replica) in zip(paths, _owners(paths, targets, choice), strict=True):
        target = _known(targets, name, replica)
        if (name, replica) in values:
            raise UserError(
                f"two files are given for target {name} replica {replica}", "give one for each"
            )
        found = read_colvar(path, choice.column)
        what = target.trajectory_paths[replica].name
        rows = rows_of_frames(found, frame_times(target, replica), what, choice.match)
        remarks.append(f"{path}: {found.column}, {len(rows)} frames of {what}")
        if found.n_replaced:
            remarks[-1] += f"; {found.n_replaced} rows that a restart wrote again are left out"
        energies = (found.value[rows] * choice.kj_mol).tolist()
        values[name, replica] = dict(enumerate(energies))
    return values


def _owners(
    paths: Sequence[Path], targets: Mapping[str, Target], choice: ColvarChoice
) -> list[tuple[str, int]]:
    """Return the target and the replica of each file."""
    names = list(choice.targets) or list(targets)
    if len(names) not in (1, len(paths)) or (not choice.targets and len(names) > 1):
        raise UserError(
            f"{len(paths)} COLVAR files and {len(choice.targets)} --target; the data have "
            f"{', '.join(targets)}",
            "give --target once for all files, or once for each, in their order",
        )
    names *= len(paths) // len(names)
    replicas = list(choice.replicas)
    if not replicas and len(paths) == 1 and names[0] in targets:
        only = list(targets[names[0]].trajectory_paths)
        replicas = only if len(only) == 1 else []
    if len(replicas) != len(paths):
        raise UserError(
            f"{len(paths)} COLVAR files and {len(choice.replicas)} --replica: a COLVAR file does "
            "not say which replica it is of",
            "give --replica once for each file, in their order",
        )
    return list(zip(names, replicas, strict=True))


def _known(targets: Mapping[str, Target], name: str, replica: int) -> Target:
    if name not in targets:
        raise UserError(
            f"no target {name!r} in the data: there are {', '.join(targets)}",
            "name targets as their folders",
        )
    if replica not in targets[name].trajectory_paths:
        raise UserError(
            f"target {name} has no replica {replica}: there are "
            f"{', '.join(map(str, targets[name].trajectory_paths))}",
            "replica 1 is NAME_R1.xtc, and so on",
        )
    return targets[name]


def _of_target(structure: CompleteStructure, origin: Mapping[str, Any]) -> dict[str, Any]:
    way = [origin["energy"], origin["minimised"]]
    if origin["energy"] == MEANINGS["weights"]:
        way.append(origin["temperature_K"])
    return {
        "n_residues": structure.n_residues,
        "built_fraction": structure.built_fraction,
        "topology_hash": structure.topology_hash,
        "protocol_hash": fingerprint(way),
    }


def _rows(
    target: Target,
    replica: int,
    values: Mapping[int, float],
    meaning: Meaning,
    temperature_K: float,
) -> Iterator[dict[str, Any]]:
    """Yield the label rows for the frames of one replica."""
    n_frames = frame_count(target, replica)
    beyond = sorted(frame for frame in values if not 0 <= frame < n_frames)
    if beyond:
        raise UserError(
            f"target {target.name} replica {replica}: {len(beyond)} rows are of frames that "
            f"{target.trajectory_paths[replica].name} does not have, first {beyond[0]}; it has "
            f"{n_frames}, 0 to {n_frames - 1}",
            "count frames from 0, of the trajectory in the data folder",
        )
    frames = np.array(sorted(values), dtype=np.int64)
    for start in range(0, len(frames), _BLOCK):
        some = frames[start : start + _BLOCK]
        for frame, xyz in zip(some.tolist(), read_frames(target, replica, some), strict=True):
            yield {
                "target": target.name,
                "replica": replica,
                "frame": frame,
                **_energy(values[frame], meaning, temperature_K, bool(np.isfinite(xyz).all())),
                "frame_hash": frame_hash(xyz),
            }


def _energy(
    value: float, meaning: Meaning, temperature_K: float, has_coordinates: bool
) -> dict[str, Any]:
    """Return a row's energy, status and reason; nothing was minimised."""
    status, reason = "ok", ""
    if not has_coordinates:
        status, reason = "skipped", "the frame's coordinates are not finite"
    elif not math.isfinite(value) or (meaning == "weights" and value <= 0):
        what = "weight" if meaning == "weights" else meaning
        status, reason = "failed", f"the {what} is {value}"
    energy = math.nan
    if status == "ok" and meaning == "weights":
        energy = -thermal_energy_kj_mol(temperature_K) * math.log(value)
    elif status == "ok":
        energy = -value if meaning == "bias" else value
    return {
        "initial_energy_kj_mol": energy,
        "energy_kj_mol": energy,
        "rmsd_angstrom": 0.0,
        "status": status,
        "reason": reason,
    }
