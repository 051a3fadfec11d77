"""Weights of conformations: their file, and ensembles drawn by them."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file
from protenix_eba.core.text_files import text_lines
from protenix_eba.structures.sources import Conformations

__all__ = [
    "WeightedDraw",
    "read_weights",
    "refuse_strangers",
    "require_length",
    "systematic_draw",
    "write_weights",
]

Float64s = NDArray[np.float64]
Ints = NDArray[np.int64]

_COLUMNS = ("target", "sample", "weight")
_REPLICA = 1


def write_weights(path: Path, weights: Mapping[str, Float64s]) -> None:
    """Write the weights of each target's conformations, one to a row.

    Args:
        path: A CSV file with the columns target, sample (from 0, in the order of the files) and
            weight.
        weights: Target to `[S]`.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for name, values in weights.items():
            writer.writerows([name, n, f"{w:.9g}"] for n, w in enumerate(values.tolist()))


def read_weights(path: Path) -> dict[str, Float64s]:
    """Read weights `[S]` of each target, which sum to 1, as `write_weights` writes them.

    Raises:
        UserError: No such file, other columns, a number that is none, conformations that are
            missing or there twice, or weights that are negative or all 0.
    """
    hint = "`protenix-eba reweight` writes such a file: target, sample from 0, weight"
    found: dict[str, dict[int, float]] = {}
    reader = csv.DictReader(text_lines(require_file(path, "weights"), hint))
    if not set(_COLUMNS) <= set(reader.fieldnames or ()):
        raise UserError(f"{path}: expected columns {', '.join(_COLUMNS)}, found "
                        f"{', '.join(reader.fieldnames or ()) or 'none'}", hint)  # fmt: skip
    for row in reader:
        try:
            sample, weight = int(row["sample"]), float(row["weight"])
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}", hint) from error
        known = found.setdefault(row["target"], {})
        if sample in known:
            raise UserError(
                f"{path}, line {reader.line_num}: sample {sample} of {row['target']} is there "
                "twice",
                hint,
            )
        known[sample] = weight
    return {name: _normalised(path, name, rows) for name, rows in found.items()}


def refuse_strangers(given: Collection[str], targets: Collection[str], source: str) -> None:
    """Refuse weights that name none of the targets: equal ones would silently replace them.

    Args:
        given: Targets that have weights.
        targets: Targets of the ensembles.
        source: Where the weights are from.

    Raises:
        UserError: Not one target has weights.
    """
    if not set(given) & set(targets):
        raise UserError(
            f"{source}: expected weights of {', '.join(sorted(targets)[:4])}, found those of "
            f"{', '.join(sorted(given)[:4]) or 'no target'}",
            "the column `target` holds the names of the ensembles in --samples",
        )


def _normalised(path: Path, name: str, rows: Mapping[int, float]) -> Float64s:
    if set(rows) != set(range(len(rows))):
        raise UserError(
            f"{path}: the samples of {name} do not count from 0 to {len(rows) - 1}",
            "give each conformation a weight, also where it is 0",
        )
    weights = np.array([rows[n] for n in range(len(rows))])
    total = weights.sum()
    if not np.isfinite(total) or total <= 0.0 or weights.min() < 0.0:
        raise UserError(
            f"{path}: the weights of {name} are from {weights.min():g}, their sum is {total:g}",
            "weights are not negative, and not all of them 0",
        )
    result: Float64s = weights / total
    return result


def require_length(
    weights: Float64s,
    source: Conformations,
    hint: str = "weights belong to the files that `protenix-eba reweight` read: run it again",
) -> None:
    """Refuse weights unless there is one for each conformation.

    Args:
        weights: Those that were given.
        source: The ensemble.
        hint: What to do.

    Raises:
        UserError: There is another number of them.
    """
    n = sum(source.n_frames.values())
    if len(weights) != n:
        raise UserError(f"target {source.name}: {len(weights)} weights for {n} conformations", hint)


def systematic_draw(weights: Float64s, n: int) -> Ints:
    """Return `[n]` ascending indices, each about n times its weight: never off by one or more.

    One point in the middle of each of n equal parts of the cumulated weights; nothing is random,
    so equal weights and n conformations give each of them once.

    Args:
        weights: `[S]`, which sum to 1.
        n: How many.

    Source: Kitagawa, J. Comput. Graph. Stat. 5, 1 (1996), the stratified resampling with the
        middle of each stratum.
    """
    cumulated = np.cumsum(weights)
    points = (np.arange(n) + 0.5) / n * cumulated[-1]
    result: Ints = np.searchsorted(cumulated, points).astype(np.int64)
    return result


class WeightedDraw:
    """A drawn ensemble as `Conformations`: equal in number, each by its weight.

    All metrics of `evaluate` take conformations of equal weight, and many of them depend on their
    number. So weights become repetitions: each conformation is there about S times its weight.

    Args:
        source: The ensemble.
        weights: `[S]` in the order of its replicas and their frames.

    Raises:
        UserError: Another number of weights than of conformations.
    """

    def __init__(self, source: Conformations, weights: Float64s) -> None:
        require_length(weights, source)
        self.name = source.name
        self._source = source
        self._drawn = systematic_draw(weights, len(weights))

    @property
    def drawn(self) -> list[int]:
        """The conformations that are there, ascending, repeated."""
        return [int(n) for n in self._drawn]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files from which the ensemble is read."""
        return self._source.paths

    @property
    def topology(self) -> mdtraj.Topology:
        """Topology of the ensemble."""
        return self._source.topology

    @property
    def structure_xyz(self) -> NDArray[np.floating]:
        """Coordinates in the topology file, `[N_atom, 3]` in angstrom."""
        return self._source.structure_xyz

    @property
    def n_frames(self) -> dict[int, int]:
        """Numbers of frames, all of them as replica 1."""
        return {_REPLICA: len(self._drawn)}

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Notes of the ensemble, and how many conformations are left."""
        kept = len(np.unique(self._drawn))
        note = f"Weighted: {kept} of {len(self._drawn)} conformations stand for all, repeated."
        return (*self._source.notes, note)

    def chunks(self, replica: int, atoms: Ints, size: int) -> Iterator[NDArray[np.float32]]:
        """Yield the drawn conformations in order, see `Conformations`."""
        for start in range(0, len(self._drawn), size):
            stop = min(start + size, len(self._drawn))
            yield self.frames(replica, np.arange(start, stop), atoms)

    def frames(self, replica: int, indices: Ints, atoms: Ints) -> NDArray[np.float32]:
        """Read single drawn conformations, see `Conformations`."""
        wanted = self._drawn[indices]
        result = np.empty((len(wanted), len(atoms), 3), dtype=np.float32)
        first = 0
        for number in sorted(self._source.n_frames):
            n = self._source.n_frames[number]
            mine = np.flatnonzero((wanted >= first) & (wanted < first + n))
            if len(mine):
                result[mine] = self._source.frames(number, wanted[mine] - first, atoms)
            first += n
        return result
