"""Chemical shifts of an ensemble.

A prediction costs seconds of a core. So each is made once: those of a few conformations at a time
are kept in the user's cache folder, under a fingerprint of the predictor, atoms and coordinates.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, cache_folder
from protenix_eba.core.progress import progress_bar, tell
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.measurements import Measurement
from protenix_eba.eval.experiment.shift_predictors import NUCLEI, ShiftPredictor, nucleus, predictor

__all__ = ["fitted_offsets", "random_coil", "shift_remarks", "shift_signals"]

Float64s = NDArray[np.float64]

# Few enough that little is lost where a run is stopped.
_FRAMES_A_FILE: Final = 32
# A constant of fewer values says nothing of their deviations.
_FEWEST_FOR_OFFSET: Final = 3
_SHOWN: Final = 8


@dataclass(frozen=True)
class _Table:
    """Shifts of one chain: rows by index of the residue, `[S, R, 6]` and `[R, 6]` ppm."""

    rows: dict[int, int]
    shifts: Float64s
    coil: Float64s
    remarks: list[str]


def shift_signals(frames: Frames, measurements: Sequence[Measurement]) -> Float64s:
    """Return the predicted shift of each conformation, `[S, M]` ppm.

    Args:
        frames: The conformations.
        measurements: Of the kind SHIFT.

    Raises:
        UserError: The predictor is not installed, or has no shift of some of the atoms; all of
            these are named.
    """
    found = np.full((len(frames), len(measurements)), np.nan)
    for n, m in enumerate(measurements):
        if place := _place(frames, m):
            table, row, column = place
            found[:, n] = table.shifts[:, row, column]
    lacking = [str(m.groups[0][0]) for m, some in zip(measurements, found.T, strict=True)
               if not np.isfinite(some).all()]  # fmt: skip
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise UserError(
            f"target {frames.name}: no shift can be predicted of {', '.join(lacking[:_SHOWN])}"
            f"{more}: such residues or atoms are not in the structures",
            "compare the numbers of residues, or leave these values out; proline has no H",
        )
    return found


def random_coil(frames: Frames, measurement: Measurement) -> float:
    """Return the shift that an atom has in its sequence without structure, ppm; NaN if unknown."""
    place = _place(frames, measurement)
    return float(place[0].coil[place[1:]]) if place else math.nan


def shift_remarks(frames: Frames, measurements: Sequence[Measurement]) -> list[str]:
    """Say where default errors are from, and what predictors take for something else."""
    remarks = []
    for m in measurements:
        if m.kind == "SHIFT":
            model = predictor(m.group)
            if m.error == model.errors[nucleus(m.groups[0][0].name)]:
                remarks.append(f"errors of shifts that the file leaves empty: {model.source}")
    remarks += [remark for table in frames.tables.values() for remark in table.remarks]
    return list(dict.fromkeys(remarks))


def fitted_offsets(measurements: Sequence[Measurement], signals: Float64s) -> Float64s:
    """Return what is added to each conformation's shifts for referencing, `[S, M]` ppm.

    Where `offset` asks for it, the shifts of a nucleus are moved by the constant that brings them
    nearest to the measured ones in squares of errors: the mean of measured less predicted. It is
    linear in the weights of conformations, so averages of what is moved are moved averages.

    Args:
        measurements: M of them, of any kind.
        signals: `[S, M]` predicted.

    Raises:
        UserError: Fewer than three values of a nucleus.
    """
    moved = np.zeros_like(signals)
    asked = [n for n, m in enumerate(measurements) if m.offset]
    for family in dict.fromkeys(measurements[n].family for n in asked):
        rows = [n for n in asked if measurements[n].family == family]
        if len(rows) < _FEWEST_FOR_OFFSET:
            raise UserError(
                f"{family}: an offset cannot be fitted to {len(rows)} values",
                f"{_FEWEST_FOR_OFFSET} or more; or leave the column offset empty",
            )
        value, error = np.array([(measurements[n].value, measurements[n].error) for n in rows]).T
        share = error**-2 / (error**-2).sum()
        moved[:, rows] = ((value - signals[:, rows]) @ share)[:, None]
    return moved


def _place(frames: Frames, measurement: Measurement) -> tuple[_Table, int, int] | None:
    """Return where a shift stands: the table of its chain, the residue's row, the column."""
    (atom,) = measurement.groups[0]
    residue = frames.residue(atom)
    if residue is None:
        return None
    key = (measurement.group, residue.chain.index)
    if key not in frames.tables:
        frames.tables[key] = _predict(predictor(measurement.group), residue.chain, frames)
    table: _Table = frames.tables[key]
    row = table.rows.get(residue.index)
    return None if row is None else (table, row, NUCLEI.index(nucleus(atom.name)))


def _predict(model: ShiftPredictor, chain: mdtraj.core.topology.Chain, frames: Frames) -> _Table:
    version = model.version()
    # Amino acids, modified ones among them; neither caps nor a calcium ion.
    own = {r.index: [a.index for a in r.atoms] for r in chain.residues if r.n_atoms > 1
           and any(a.name == "CA" for a in r.atoms)}  # fmt: skip
    if not own:
        raise UserError(
            f"target {frames.name}: shifts need more than C-alpha atoms", "all heavy atoms"
        )
    atoms = np.concatenate(list(own.values()))
    topology = frames.topology.subset(atoms)
    xyz = np.ascontiguousarray(frames.xyz[:, atoms], dtype=np.float32)
    shifts = _of_all(model, version, topology, xyz, frames)
    name = f"chain {chain.chain_id}: " if chain.chain_id and len(frames.chains) > 1 else ""
    remarks = [f"{version}: {name}{remark}" for remark in model.remarks(topology, xyz)]
    if len(frames.chains) > 1:
        remarks.append(f"{version}: {name}predicted alone, without the other chains")
    rows = {index: row for row, index in enumerate(own)}
    return _Table(rows, shifts, model.random_coil(topology), remarks)


def _of_all(
    model: ShiftPredictor, version: str, topology: mdtraj.Topology, xyz: NDArray[np.float32],
    frames: Frames,
) -> Float64s:  # fmt: skip
    """Return the shifts of all conformations `[S, N, 3]`, read or predicted: `[S, R, 6]` ppm."""
    from joblib import Parallel, delayed  # takes a second to import

    parts = [xyz[n : n + _FRAMES_A_FILE] for n in range(0, len(xyz), _FRAMES_A_FILE)]
    what = [(atom.residue.index, atom.residue.name, atom.name) for atom in topology.atoms]
    files = [_file(f"{version} {what}", part) for part in parts]
    shape = (topology.n_residues, len(NUCLEI))
    found = [_read(file, (len(part), *shape)) for file, part in zip(files, parts, strict=True)]
    missing = [n for n, part in enumerate(found) if part is None]
    calls = (delayed(model.predict)(topology, frame) for n in missing for frame in parts[n])
    todo = sum(len(parts[n]) for n in missing)
    with progress_bar() as bar:
        task = bar.add_task(
            f"shifts of {frames.name}", total=len(xyz), completed=len(xyz) - todo, note=""
        )
        predicted = Parallel(n_jobs=frames.jobs, return_as="generator")(calls)
        for n in missing:
            own = []
            for _ in parts[n]:
                own.append(next(predicted))
                bar.advance(task)
            found[n] = made = np.array(own, dtype=np.float32)
            _write(files[n], made)
    return np.concatenate([part for part in found if part is not None]).astype(np.float64)


def _file(what: str, xyz: NDArray[np.float32]) -> Path:
    total = hashlib.sha256(f"{what} {xyz.shape} ".encode())
    total.update(xyz.tobytes())
    return cache_folder() / "shifts" / f"{total.hexdigest()[:32]}.npy"


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return what was kept; None if there is nothing, or if it is damaged."""
    try:
        kept = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.shape == shape and kept.dtype == np.float32 else None


def _write(path: Path, shifts: NDArray[np.float32]) -> None:
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, shifts)
    except (OSError, UserError) as error:
        tell(f"note: predicted shifts are not kept for the next time: {error}")
