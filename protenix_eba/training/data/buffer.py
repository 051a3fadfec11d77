"""The replay buffer on disk: a folder for each refresh, with ordinary ensembles and labels.

`step_0000100/NAME/` is what `protenix-eba sample` writes, `step_0000100/labels.parquet` what
`protenix-eba label` does, `step_0000100/sampled.json` says that the first are whole, `refresh.json`
that both are. `current.json` names the refresh that training stands at: a resumed run does not see
what its future had left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import write_json
from protenix_eba.core.run_folder import read_json
from protenix_eba.energy.table import EnergyLabels, labels_from_rows, read_labels
from protenix_eba.structures.trajectories import Target
from protenix_eba.training.data.conformers import labels_by_target

__all__ = ["LABELS", "RECORD", "SAMPLED", "Buffer", "Drawn", "require_made"]

RECORD: Final = "refresh.json"
SAMPLED: Final = "sampled.json"
LABELS: Final = "labels.parquet"
_CURRENT: Final = "current.json"
_PREFIX: Final = "step_"


@dataclass(frozen=True, eq=False)
class Drawn:
    """The samples of one target in the buffer, oldest first.

    Attributes:
        target: Its files; a refresh is a replica whose number is the step.
        labels: `F` rows, in which the replica is the step as well.
        invalid: `[F]` samples that could be no protein's.
    """

    target: Target
    labels: EnergyLabels
    invalid: NDArray[np.bool_]

    def newest(self, count: int) -> Drawn:
        """Return the newest samples, this many of them, 1 or more."""
        rows = np.arange(len(self.invalid))[-count:]
        return Drawn(self.target, self.labels.select(rows), self.invalid[rows])


class Buffer:
    """The refreshes in a folder.

    Args:
        folder: Folder of all refreshes; it need not exist yet.
        max_samples: The newest so many of a target are in the buffer.
        max_age: Largest age in optimizer steps, which a target's newest may exceed; 0 for no limit.
    """

    def __init__(self, folder: Path, max_samples: int, max_age: int = 0) -> None:
        self.folder = folder
        self._max_samples = max_samples
        self._max_age = max_age

    def path(self, step: int) -> Path:
        """Return the folder of the refresh before a step."""
        return self.folder / f"{_PREFIX}{step:07d}"

    def set_current(self, step: int) -> None:
        """Leave out refreshes before later steps than this."""
        write_json(self.folder / _CURRENT, {"step": step})

    @property
    def current(self) -> int:
        """Return the step of the last refresh that counts; -1 if there is none."""
        path = self.folder / _CURRENT
        return int(read_json(path)["step"]) if path.is_file() else -1

    def steps(self) -> list[int]:
        """Return the steps of the whole refreshes that count, newest first."""
        names = [path.parent.name for path in self.folder.glob(f"{_PREFIX}*/{RECORD}")]
        found = [int(name.removeprefix(_PREFIX)) for name in names]
        return sorted((step for step in found if step <= self.current), reverse=True)

    def record(self, step: int) -> dict[str, Any]:
        """Return the record of a refresh; empty if it is not whole."""
        path = self.path(step) / RECORD
        return read_json(path) if path.is_file() else {}

    def oldest(self, names: list[str], count: int) -> list[str]:
        """Return the targets to sample next.

        Args:
            names: Names of all targets.
            count: How many; 0 for all.

        Returns:
            Those that were never sampled, all of them, or else those whose newest samples are
            oldest.
        """
        newest = {name: -1 for name in names}
        for step in reversed(self.steps()):
            newest |= {name: step for name in self.record(step)["targets"] if name in newest}
        never = [name for name in names if newest[name] < 0]
        return never or sorted(names, key=lambda name: newest[name])[: count or None]

    def samples(self, name: str) -> Drawn:
        """Return the samples of a target that are trained on.

        Raises:
            UserError: There are none, or a file of theirs is damaged.
        """
        steps = [step for step in self.steps() if name in self.record(step)["targets"]]
        if not steps:
            raise UserError(
                f"target {name}: no sample in {self.folder}",
                "the trainer on_policy makes them (trainer: on_policy); any other trains on the "
                "samples that an earlier run left in replay.buffer",
            )
        young = [s for s in steps if not self._max_age or self.current - s <= self._max_age]
        return self._joined(name, young or steps[:1])

    def _joined(self, name: str, steps: list[int]) -> Drawn:
        rows: list[tuple[dict[str, Any], bool]] = []
        for step in steps:
            labels = _labels(self.path(step) / LABELS)[name]
            invalid = self._invalid(name, step, labels.frame)
            renamed = ({**row, "replica": step} for row in labels.rows())
            rows += zip(renamed, invalid, strict=True)
        kept = rows[: self._max_samples]
        kept.sort(key=lambda pair: (pair[0]["replica"], pair[0]["frame"]))
        paths = {step: self.path(step) / name / f"{name}.xtc" for step in steps}
        target = Target(name, self.path(steps[0]) / name / f"{name}.pdb", paths)
        provenance = _labels(self.path(steps[0]) / LABELS)[name].provenance
        labels = labels_from_rows([row for row, _ in kept], provenance)
        return Drawn(target, labels, np.array([bad for _, bad in kept], dtype=bool))

    def _invalid(self, name: str, step: int, frames: NDArray[np.int64]) -> list[bool]:
        """From the record of the ensemble, which goes by the numbers of samples."""
        record = read_json(self.path(step) / name / f"{name}.json")
        numbers = np.array(record["numbers"])[frames].tolist()
        return [str(number) in record["invalid"] for number in numbers]


def require_made(path: Path) -> None:
    """Make sure that a file of the buffer is there.

    Raises:
        UserError: It is not.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: expected what this run has written, found nothing",
            "restore it, or choose another --run_name to start again",
        )


@lru_cache(maxsize=256)
def _labels(path: Path) -> dict[str, EnergyLabels]:
    """Read the table of a whole refresh, which does not change any more, by target."""
    return labels_by_target(read_labels(path))
