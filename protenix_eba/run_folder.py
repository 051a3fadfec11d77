"""A training run on disk: its configuration, log, checkpoints and result."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import yaml

from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path, write_json

__all__ = ["RunFolder"]

# Keys that may differ between the first start of a run and its resumption.
_MAY_CHANGE = ("max_steps", "log_interval", "eval_interval", "checkpoint_interval")
_DONE = "complete.json"


class RunFolder:
    """One run.

    Args:
        path: `base_dir/run_name`; made if absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.errors = path / "errors"
        self.model = path / "model.pt"
        self.log = path / "log.csv"
        self.validation = path / "validation.csv"

    def claim(self, configuration: dict[str, Any]) -> None:
        """Write the configuration of a new run, or check that of an old one.

        Raises:
            UserError: The folder holds a run with another configuration.
        """
        config_path = self.path / "config.yaml"
        if config_path.is_file():
            before = yaml.safe_load(config_path.read_text(encoding="utf-8")) or {}
            changed = [k for k in _changed(before, configuration) if k not in _MAY_CHANGE]
            if changed:
                raise UserError(
                    f"{self.path} holds a run with another configuration; different are: "
                    f"{', '.join(changed[:6])}",
                    "choose another --run_name, or delete the folder to start again",
                )
        for folder in (self.checkpoints, self.errors):
            folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(config_path) as temporary:
            temporary.write_text(yaml.safe_dump(configuration), encoding="utf-8")

    def complete_steps(self) -> list[int]:
        """Steps of the checkpoints that were written to their end, newest first."""
        found = [p.parent.name for p in self.checkpoints.glob(f"step_*/{_DONE}")]
        return sorted((int(name.removeprefix("step_")) for name in found), reverse=True)

    def tag(self, step: int) -> str:
        """Name of a checkpoint's folder."""
        return f"step_{step:07d}"

    def mark_complete(self, step: int, keep: int) -> None:
        """Declare a checkpoint whole and remove all but the newest `keep`."""
        write_json(self.checkpoints / self.tag(step) / _DONE, {"step": step})
        for old in self.complete_steps()[keep:]:
            shutil.rmtree(self.checkpoints / self.tag(old), ignore_errors=True)

    def truncate_logs(self, step: int) -> None:
        """Forget the lines of steps after `step`, where a resumed run goes on."""
        for path in (self.log, self.validation):
            if not path.is_file():
                continue
            with open(path, newline="", encoding="utf-8") as handle:
                rows = list(csv.reader(handle))
            # A validation comes before the step of its number, a line of the log after it.
            last = step - 1 if path == self.validation else step
            kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= last]
            with atomic_path(path) as temporary, open(temporary, "w", newline="") as handle:
                csv.writer(handle).writerows(kept)

    def append_row(self, path: Path, row: dict[str, float | int]) -> None:
        """Add one line to `log` or `validation`; the first one brings the header."""
        new = not path.is_file()
        with open(path, "a", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            if new:
                writer.writerow(row)
            writer.writerow(f"{v:.9g}" if isinstance(v, float) else v for v in row.values())


def _changed(before: Any, after: Any, prefix: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys(), key=str)
        return [key for k in keys for key in _changed(before.get(k), after.get(k), f"{prefix}{k}.")]
    return [] if before == after else [prefix.rstrip(".")]
