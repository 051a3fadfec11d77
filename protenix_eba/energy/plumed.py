"""PLUMED's COLVAR files: a bias potential (or an energy) by time, and the frames that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.text_files import read_text, without_mark
from protenix_eba.energy.choices import Match
from protenix_eba.structures.trajectories import FrameTimes

__all__ = ["Colvar", "is_colvar", "read_colvar", "rows_of_frames"]

_FIELDS: Final = "#! FIELDS"
_TIME: Final = "time"
_RECOMPUTE: Final = (
    "recompute it for the stored frames: `plumed driver --mf_xtc TRAJECTORY.xtc` with the final "
    "bias, PRINT with STRIDE=1"
)


@dataclass(frozen=True)
class Colvar:
    """One column of a COLVAR file.

    Attributes:
        path: The file.
        column: Name of the column.
        time_ps: `[R]` increasing times; empty if the file has none.
        value: `[R]` in the file's unit; NaN and inf where it says so.
        n_replaced: Rows left out since a restart wrote their times again.
    """

    path: Path
    column: str
    time_ps: NDArray[np.float64]
    value: NDArray[np.float64]
    n_replaced: int


def is_colvar(path: Path) -> bool:
    """Tell whether a file begins as PLUMED's do."""
    require_file(path, "energies by frame")
    with without_mark(path) as plain, plain.open("rb") as file:
        return file.read(64).lstrip().startswith(_FIELDS.encode())


def read_colvar(path: Path, column: str | None = None) -> Colvar:
    """Read one column of a COLVAR file.

    A run that was restarted from a checkpoint writes the times after it a second time: of these
    the last rows count, as in a trajectory that the MD program appends to.

    Args:
        path: The file.
        column: Its name; None for the only one whose name ends in ".bias".

    Raises:
        UserError: No such column, a row with other cells than the header names, a cell that is no
            number, or times that start again from the beginning.
    """
    fields, rows = _table(path)
    column = column or _only_bias(path, fields)
    if column not in fields:
        raise UserError(
            f"{path} has no column {column}", f"choose --column of: {', '.join(fields)}"
        )
    value = rows[:, fields.index(column)]
    if _TIME not in fields:
        return Colvar(path, column, np.empty(0), value, 0)
    time = rows[:, fields.index(_TIME)]
    keep = _last_of_each_time(path, time)
    return Colvar(path, column, time[keep], value[keep], len(time) - len(keep))


def _only_bias(path: Path, fields: Sequence[str]) -> str:
    found = [name for name in fields if name.endswith(".bias")]
    if len(found) != 1:
        raise UserError(
            f"{path}: expected one column whose name ends in .bias, found "
            f"{', '.join(found) or 'none'}",
            f"choose --column of: {', '.join(found or fields)}",
        )
    return found[0]


def _table(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Return the names of the columns, and the numbers `[R, columns]`."""
    fields: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.startswith(_FIELDS):
            fields = _same_fields(path, number, fields, line.split()[2:])
        elif line.strip() and not line.lstrip().startswith("#"):
            rows.append(_numbers(path, number, line.split(), fields))
    if not rows:
        raise UserError(f"{path} has no row", "give the file that PLUMED's PRINT wrote")
    return fields, np.array(rows, dtype=np.float64)


def _same_fields(path: Path, number: int, fields: list[str], found: list[str]) -> list[str]:
    if len(set(found)) < len(found):
        raise UserError(f"{path}, line {number}: two columns have one name", "print each once")
    if fields and found != fields:
        raise UserError(
            f"{path}, line {number}: a restart changed the columns from {' '.join(fields)} to "
            f"{' '.join(found)}",
            "split the file there, or print the same columns",
        )
    return found


def _numbers(path: Path, number: int, cells: list[str], fields: list[str]) -> list[float]:
    if len(cells) != len(fields):
        raise UserError(
            f"{path}, line {number}: expected {len(fields)} cells, found {len(cells)}",
            "the line is cut (a killed run): delete it",
        )
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {error}", "cells are numbers") from error


def _last_of_each_time(path: Path, time: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows that no later row replaces, as a restarted run does.

    Raises:
        UserError: A time is no number, or the times start again from the beginning.
    """
    if not np.isfinite(time).all():
        raise UserError(f"{path}: a time is not finite", "check the column time")
    again = np.flatnonzero((time[1:] <= time[0]) & (time[1:] < time[:-1])) + 1
    if len(again):
        raise UserError(
            f"{path}: the times start again at {time[again[0]]:g} ps, row {again[0] + 1} of "
            f"{len(time)}: two runs in one file",
            "give one file for each replica",
        )
    earliest_later = np.append(np.minimum.accumulate(time[::-1])[::-1][1:], np.inf)
    return np.flatnonzero(time < earliest_later)


def rows_of_frames(colvar: Colvar, times: FrameTimes, what: str, match: Match) -> NDArray[np.int64]:
    """Find the row of each frame.

    Args:
        colvar: R rows.
        times: Times of the F frames.
        what: Name of what the frames are of, for messages.
        match: "time" by the time, "row" by the position with as many rows as frames; "auto" by the
            time where the trajectory has times, else by the position.

    Returns:
        `[F]` indices of rows.

    Raises:
        UserError: A frame has no row.
    """
    by_time = match == "time" or (match == "auto" and times.stored and len(colvar.time_ps) > 0)
    return _by_time(colvar, times.time_ps, what) if by_time else _by_row(colvar, times, what)


def _by_row(colvar: Colvar, times: FrameTimes, what: str) -> NDArray[np.int64]:
    n_rows, n_frames = len(colvar.value), len(times.time_ps)
    if n_rows != n_frames or colvar.n_replaced:
        left_out = f" and {colvar.n_replaced} that a restart repeats" if colvar.n_replaced else ""
        raise UserError(
            f"{colvar.path} has {n_rows} rows{left_out}, {what} has {n_frames} frames, and they "
            "are not matched by time (a trajectory whose times are the numbers of its frames "
            "counts as one without)",
            f"give --match time if its times are ps of the MD; else {_RECOMPUTE}",
        )
    return np.arange(n_rows)


def _by_time(colvar: Colvar, time_ps: NDArray[np.float64], what: str) -> NDArray[np.int64]:
    rows = colvar.time_ps
    if not len(rows):
        raise UserError(f"{colvar.path} has no column time", "give --match row, or print the time")
    right = np.clip(np.searchsorted(rows, time_ps), 1, max(len(rows) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(rows) - 1)
    nearest = np.where(time_ps - rows[left] <= rows[right] - time_ps, left, right)
    # PLUMED prints microseconds of a ps; XTC holds times as float32, exact to 6e-8 of themselves.
    tolerance = 1e-3 + 2e-7 * np.abs(time_ps)
    lost = np.flatnonzero(~(np.abs(rows[nearest] - time_ps) <= tolerance))
    if len(lost):
        raise UserError(
            f"{len(lost)} of {len(time_ps)} frames of {what} (times {time_ps[0]:g} to "
            f"{time_ps[-1]:g} ps) have no row of their time in {colvar.path} ({len(rows)} rows, "
            f"{rows[0]:g} to {rows[-1]:g} ps); the first is frame {lost[0]} at "
            f"{time_ps[lost[0]]:g} ps",
            f"{_RECOMPUTE}; or give --match row if rows and frames are the same in number and "
            "order",
        )
    if len(np.unique(nearest)) < len(nearest):
        raise UserError(f"{what}: two frames have one time", _RECOMPUTE)
    return nearest
