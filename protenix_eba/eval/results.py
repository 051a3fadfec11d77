"""Results of the evaluation of one model, and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file, write_json
from protenix_eba.eval.aggregate import (
    CONFIDENCE_PERCENT,
    RESAMPLES,
    TargetTable,
    aggregate,
    compat_table,
    floor_aggregate,
    intervals,
    sample_table,
)
from protenix_eba.eval.plain_values import (
    MAPPING,
    REASONS,
    SEED,
    TEXT,
    TEXTS,
    Kind,
    check_format,
    check_kinds,
)
from protenix_eba.eval.store import require_target, target_path
from protenix_eba.eval.target_result import TargetResult

__all__ = ["Evaluation", "Summary", "load_evaluation", "mean_floor"]

_FORMAT: Final = 2
# What `load_evaluation` takes from `metrics.json`.
_NEEDED: Final[Mapping[str, Kind]] = {
    "label": TEXT, "targets": MAPPING, "settings": MAPPING, "versions": MAPPING,
    "failed": REASONS, "not_evaluated": TEXTS, "notes": TEXTS,
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """The aggregate of comparable targets: all of them all-atom, or all of them C-alpha only.

    Attributes:
        targets: Name to result.
        seed: Seed of the resamples behind the intervals.
    """

    targets: Mapping[str, TargetResult]
    seed: int

    @cached_property
    def table(self) -> TargetTable:
        """Metrics of the samples, target by target."""
        return sample_table(list(self.targets.values()))

    @cached_property
    def values(self) -> dict[str, float]:
        """Medians over targets and the metrics over all targets; what is undefined is absent."""
        return aggregate(self.table)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Bootstrap intervals of these values; empty under three targets."""
        return intervals(self.table, self.seed)

    @cached_property
    def floor(self) -> dict[str, float]:
        """The same values for MD against MD."""
        return floor_aggregate(list(self.targets.values()))

    @cached_property
    def compat(self) -> dict[str, float]:
        """The same values by AlphaFlow's own script, if these were asked for."""
        return aggregate(compat_table(list(self.targets.values())))


@dataclass(frozen=True)
class Evaluation:
    """One model's ensembles against their MD.

    Attributes:
        label: Name of the model.
        targets: Name to result, those that could be evaluated, sorted.
        failed: Name to the reason why not.
        not_evaluated: Targets of the reference that the model has no samples of.
        notes: Sentences on how far the numbers can be compared.
        settings: What was run.
        versions: Package to version.
    """

    label: str
    targets: Mapping[str, TargetResult]
    failed: Mapping[str, str]
    not_evaluated: Sequence[str]
    notes: Sequence[str]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def seed(self) -> int:
        """Seed of every random draw."""
        return int(self.settings["seed"])

    def restricted_to(self, names: Collection[str]) -> Evaluation:
        """Return the evaluation with these targets only."""
        return replace(self, targets={k: v for k, v in self.targets.items() if k in names})

    @cached_property
    def kinds(self) -> dict[bool, Summary]:
        """Summaries by whether targets are C-alpha only; the two kinds are never mixed."""
        sides = {
            only: {n: t for n, t in self.targets.items() if bool(t.counts.get("ca_only")) == only}
            for only in (False, True)
        }
        return {only: Summary(targets, self.seed) for only, targets in sides.items() if targets}

    @property
    def main(self) -> Summary:
        """The summary that `metrics.json` has first: all-atom targets, if there are any."""
        return next(iter(self.kinds.values()), Summary({}, self.seed))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `metrics.json`; an undefined metric is null."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "label": self.label,
            "targets": {name: _finite(t.values) for name, t in self.targets.items()},
            **_summary_json(self.main),
            "failed": dict(self.failed),
            "not_evaluated": list(self.not_evaluated),
            "counts": {name: _finite(t.counts) for name, t in self.targets.items()},
            "notes": list(self.notes),
            "target_notes": {name: t.notes for name, t in self.targets.items() if t.notes},
            "settings": dict(self.settings),
            "bootstrap": {"resamples": RESAMPLES, "confidence_percent": CONFIDENCE_PERCENT},
            "versions": dict(self.versions),
        }
        if len(self.kinds) > 1:
            content["ca_only"] = _summary_json(self.kinds[True])
        return content

    def write(self, folder: Path) -> None:
        """Write `metrics.json`."""
        write_json(folder / "metrics.json", self.to_json())


def _summary_json(summary: Summary) -> dict[str, Any]:
    targets = summary.targets.items()
    content: dict[str, Any] = {
        "aggregate": _finite(summary.values),
        "intervals": {key: list(bounds) for key, bounds in summary.intervals.items()},
        "floor": {
            "targets": {name: _finite(mean_floor(t)) for name, t in targets if t.floor},
            "aggregate": _finite(summary.floor),
        },
    }
    if summary.compat:
        content["compat"] = {
            "targets": {name: _finite(t.compat) for name, t in targets if t.compat},
            "aggregate": _finite(summary.compat),
        }
    return content


def mean_floor(target: TargetResult) -> dict[str, float]:
    """Return MD against MD of one target, the mean over replicas that have a value."""
    keys = dict.fromkeys(key for row in target.floor for key in row)
    known = {
        k: [row[k] for row in target.floor if math.isfinite(row.get(k, math.nan))] for k in keys
    }
    return {key: sum(v) / len(v) if v else math.nan for key, v in known.items()}


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def load_evaluation(folder: Path) -> Evaluation:
    """Load a finished evaluation, from files that `protenix-eba evaluate` wrote.

    Raises:
        UserError: No such files, of another version, or a target's result is gone.
    """
    path = require_file(
        folder / "metrics.json", f"evaluation {folder.name}", "run `protenix-eba evaluate` first"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_format(content, _FORMAT)
        check_kinds(content, _NEEDED)
        settings = content["settings"]
        run = {"training": TEXT} if "training" in settings else {}
        check_kinds(settings, {"seed": SEED, **run}, "settings.")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not the metrics of an evaluation of this version: {error}",
            "run `protenix-eba evaluate` again with the same --out",
        ) from error
    label, names, versions = content["label"], list(content["targets"]), content["versions"]
    failed, missing, notes = (content[k] for k in ("failed", "not_evaluated", "notes"))
    targets = {name: require_target(target_path(folder, name)) for name in names}
    return Evaluation(label, targets, failed, missing, notes, settings, versions)
