"""A training run on disk: its configuration, log, checkpoints and result."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, write_json

__all__ = ["RunFolder", "read_json"]

# Keys that may differ between the first start of a run and its resumption. What accumulation and
# the number of processes make together is compared as the global batch.
_MAY_CHANGE = (
    *("max_steps", "log_interval", "eval_interval", "checkpoint_interval", "iters_to_accumulate"),
    *(
        "use_wandb",
        "wandb_id",
        "eba.checkpoint_keep",
        "ebmfold.checkpoint_keep",
        "eba.low_memory",
        "diffusion_chunk_size",
        # Of the head, which has no part in training.
        "ebmfold.weights",
        "ebmfold.sampler",
        # Who computes energies, and when to stop.
        *("replay.jobs", "replay.platform"),
        *("replay.valid_floor", "replay.rmsf_floor", "replay.drift_limit"),
        *("replay.clusters_floor", "replay.coverage_floor"),
    ),
)
# Values of keys that runs from before they existed do not name.
_SINCE: Final = {
    "eba.dataset": "atlas",
    "eba.energy_column": [],
    "eba.double_counting": False,
}
_MAY_CHANGE_ANYWHERE = ("blocks_per_ckpt",)
_DONE = "complete.json"


class RunFolder:
    """The folder of one training run.

    Args:
        path: `base_dir/run_name`; made if absent.
        suffix: Suffix of the files with weights.
    """

    def __init__(self, path: Path, suffix: str = ".pt") -> None:
        self.path = path
        self._config = path / "config.yaml"
        self._start = path / "start.json"
        self.checkpoints = path / "checkpoints"
        self.errors = path / "errors"
        self.model = path / f"model{suffix}"
        self.average = path / f"model_ema{suffix}"
        self.best = path / f"best{suffix}"
        self.reference = path / "reference.safetensors"
        self.temperature = path / "temperature.json"
        self.samples = path / "validation"
        self.log = path / "log.csv"
        self.validation = path / "validation.csv"
        self.targets = path / "validation_targets.csv"

    def claim(self, configuration: dict[str, Any]) -> None:
        """Write the configuration of a new run, or check that it is the one of an old run.

        Raises:
            UserError: The folder holds a run with another configuration.
        """
        if not self.has_begun():
            for stale in (self.reference, self.temperature, self._start):
                stale.unlink(missing_ok=True)
        self.check(configuration)
        for folder in (self.checkpoints, self.errors):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        with atomic_path(self._config) as temporary:
            temporary.write_text(yaml.safe_dump(configuration), encoding="utf-8")

    def check(self, configuration: dict[str, Any]) -> None:
        """Check that a run which has begun here, if there is one, has this configuration.

        Raises:
            UserError: It has another.
        """
        if not self.has_begun() or not self._config.is_file():
            return
        try:
            before = yaml.safe_load(self._config.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise _damaged(self._config) from error
        changed = [
            f"{key} ({old} then, {new} now)"
            for key, old, new in _changed(before, configuration)
            if not _may_change(key)
        ]
        if changed:
            raise UserError(
                f"{self.path} holds a run with another configuration; different are: "
                f"{', '.join(changed[:6])}",
                "choose another --run_name, or delete the folder to start again",
            )

    def lend_temperature(self, other: RunFolder) -> None:
        """Give another folder, a new one, the T that this run has measured, if it has.

        A run without a step has none to lend: it might be that of another start.
        """
        if self.has_begun() and self.temperature.is_file():
            other.path.mkdir(parents=True)
            other.log.touch()  # the other counts as begun too, or else it would not keep T
            shutil.copyfile(self.temperature, other.temperature)

    def _lock(self) -> None:
        """Keep other processes from training here while this one lives."""
        self._held = open(self.path / ".lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is training in {self.path}",
                "wait for it, or choose another --run_name",
            ) from error

    def has_begun(self) -> bool:
        """Return whether a step has been made; before, a run has nothing to lose."""
        return self.log.is_file() or bool(self.complete_steps())

    def pin(self, facts: Mapping[str, str | int]) -> None:
        """Write down what a run starts from, or check that it is still the same.

        Args:
            facts: Facts to record, for example fingerprints of the start checkpoint.

        Raises:
            UserError: One of them is another one now.
        """
        self.check_pinned(facts)
        write_json(self._start, dict(facts))

    def check_pinned(self, facts: Mapping[str, str | int]) -> None:
        """Check that a run which has been pinned here, if there is one, started from the same.

        Args:
            facts: As for `pin`.

        Raises:
            UserError: One of them is another one now.
        """
        before = self.pinned() or facts
        for name, value in facts.items():
            if before.get(name) != value:
                raise UserError(
                    f"{self.path} was started with another {name}: expected "
                    f"{before.get(name)}, found {value}",
                    "give what it was started with, or choose another --run_name",
                )

    def pinned(self) -> dict[str, Any]:
        """Return the facts of `pin`, none if it was not called yet."""
        return read_json(self._start) if self._start.is_file() else {}

    def finish(self, step: int) -> None:
        """Record that the run is finished at `step`."""
        write_json(self.path / "finished.json", {"step": step})

    def is_finished(self, step: int) -> bool:
        """Return whether the run was finished at `step`."""
        path = self.path / "finished.json"
        return path.is_file() and read_json(path)["step"] == step

    def is_best(self, step: int, loss: float) -> bool:
        """Return whether a validation is the best so far."""
        path = self.path / "best.json"
        if not math.isfinite(loss):
            return False
        if not path.is_file():
            return True
        best = read_json(path)
        # A resumed run meets the validations after its checkpoint again.
        return bool(best["step"] >= step or loss < best["loss"])

    def mark_best(self, step: int, loss: float) -> None:
        """Record that `best.pt` holds the weights of `step`."""
        write_json(self.path / "best.json", {"step": step, "loss": loss})

    def complete_steps(self) -> list[int]:
        """Return the steps of whole checkpoints, newest first."""
        found = [p.parent.name for p in self.checkpoints.glob(f"step_*/{_DONE}")]
        numbers = [name.removeprefix("step_") for name in found]
        return sorted((int(n) for n in numbers if n.isdecimal()), reverse=True)

    def tag(self, step: int) -> str:
        """Return the name of a checkpoint's folder."""
        return f"step_{step:07d}"

    def mark_complete(self, step: int, keep: int, world_size: int) -> None:
        """Record that a checkpoint is whole, and remove all but the newest `keep`."""
        done = {"step": step, "world_size": world_size}
        write_json(self.checkpoints / self.tag(step) / _DONE, done)
        for old in self.complete_steps()[keep:]:
            shutil.rmtree(self.checkpoints / self.tag(old), ignore_errors=True)
        for rewritten in self.checkpoints.glob("*_universal"):
            shutil.rmtree(rewritten, ignore_errors=True)

    def mark_incomplete(self, step: int) -> None:
        """Withdraw that record, before the checkpoint is written again."""
        (self.checkpoints / self.tag(step) / _DONE).unlink(missing_ok=True)

    def set_aside(self, steps: Iterable[int]) -> None:
        """Rename checkpoints that cannot be read, so that they do not count any more."""
        for step in steps:
            path = self.checkpoints / self.tag(step)
            shutil.rmtree(path.with_name(f"unreadable_{path.name}"), ignore_errors=True)
            path.rename(path.with_name(f"unreadable_{path.name}"))

    def world_size(self, step: int) -> int:
        """Return how many processes wrote a checkpoint."""
        return int(read_json(self.checkpoints / self.tag(step) / _DONE)["world_size"])

    def truncate_logs(self, step: int) -> None:
        """Remove the lines of steps after `step`, from which a resumed run continues."""
        for path in (self.log, self.validation, self.targets):
            if not path.is_file():
                continue
            with open(path, newline="", encoding="utf-8") as handle:
                rows = list(csv.reader(handle))
            # A validation comes before the step of its number, a line of the log after it.
            last = step if path == self.log else step - 1
            kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= last]
            with atomic_path(path) as temporary, open(temporary, "w", newline="") as handle:
                csv.writer(handle).writerows(kept)

    def append_row(self, path: Path, row: Mapping[str, float | int | str]) -> None:
        """Add one line to `log` or `validation`; the first one comes with the header.

        A file that an earlier version began keeps its columns.
        """
        columns = list(row)
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as handle:
                columns = next(csv.reader(handle), columns)
        new = not path.is_file()
        with open(path, "a", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, columns, extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: it cannot be read",
        "restore it, or choose another --run_name to start again",
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run folder.

    Raises:
        UserError: It is no JSON.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path) from error
    return content


def _may_change(key: str) -> bool:
    return key in _MAY_CHANGE or key.rpartition(".")[2] in _MAY_CHANGE_ANYWHERE


def _changed(before: Any, after: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return the dotted keys whose values differ, with both values."""
    if before is None and isinstance(after, dict) and prefix:
        return []  # a section that joined later had no part in the run
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys(), key=str)
        return [
            item
            for k in keys
            for item in _changed(
                before.get(k, _SINCE.get(f"{prefix}{k}")), after.get(k), f"{prefix}{k}."
            )
        ]
    return [] if before == after else [(prefix.rstrip("."), before, after)]
