"""Comparison of several models: common targets, paired differences, published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import write_json
from protenix_eba.eval.aggregate import MIN_TARGETS, differences
from protenix_eba.eval.published import PublishedRow
from protenix_eba.eval.results import Evaluation, Summary

__all__ = ["Comparison", "Group", "compare_evaluations"]

# What must be equal for two evaluations to be compared, and its name for readers.
_SAME_SETTINGS = {
    "reference": "MD references",
    "seed": "seeds",
    "compat": "compatibility columns",
    "temperature_K": "temperatures of the weights",
    "MD energies": "MD energies",
}


@dataclass(frozen=True)
class Group:
    """Models over the same targets, all of them all-atom or all of them C-alpha only.

    Attributes:
        ca_only: Which of the two.
        summaries: Label to the summary over the common targets, in the order given.
    """

    ca_only: bool
    summaries: Mapping[str, Summary]

    @property
    def targets(self) -> list[str]:
        """Targets that the models have in common."""
        return list(next(iter(self.summaries.values())).targets)

    @cached_property
    def differences(self) -> dict[str, dict[str, tuple[float, float | None, float | None]]]:
        """Each model but the first, less the first: label to key to (value, low, high)."""
        (_, first), *others = self.summaries.items()
        return {label: differences(first.table, other.table, first.seed) for label, other in others}


@dataclass(frozen=True)
class Comparison:
    """The content of a report on one model, or several.

    Attributes:
        evaluations: Label to evaluation, with all of its targets.
        groups: All-atom first, then C-alpha only, those that have a common target.
        published: Rows of papers to stand beside them.
        notes: Sentences on how far the numbers can be compared.
    """

    evaluations: Mapping[str, Evaluation]
    groups: Sequence[Group]
    published: Sequence[PublishedRow]
    notes: Sequence[str]

    @property
    def labels(self) -> list[str]:
        """The models in the order given."""
        return list(self.evaluations)

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """Reason of each failure by label and target; labels without failures are left out."""
        return {label: dict(e.failed) for label, e in self.evaluations.items() if e.failed}

    @cached_property
    def left_out(self) -> dict[str, list[str]]:
        """Targets by label that are in no group, because other models lack them."""
        common = {name for group in self.groups for name in group.targets}
        missing = {k: sorted(e.targets.keys() - common) for k, e in self.evaluations.items()}
        return {label: names for label, names in missing.items() if names}

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `comparison.json`."""
        return {
            "models": self.labels,
            "groups": [_group_json(group) for group in self.groups],
            "published": [row.to_json() for row in self.published],
            "left_out": self.left_out,
            "failed": self.failed,
            "notes": list(self.notes),
        }

    def write(self, folder: Path) -> None:
        """Write `comparison.json`."""
        write_json(folder / "comparison.json", self.to_json())


def _group_json(group: Group) -> dict[str, Any]:
    items = group.summaries.items()
    return {
        "ca_only": group.ca_only,
        "targets": group.targets,
        "aggregate": {label: summary.values for label, summary in items},
        "intervals": {label: summary.intervals for label, summary in items},
        "floor": {label: summary.floor for label, summary in items},
        "differences": group.differences,
    }


def compare_evaluations(
    evaluations: Sequence[Evaluation], published: Sequence[PublishedRow] = ()
) -> Comparison:
    """Compare models over the targets that all of them have.

    Args:
        evaluations: One or more, the first is what the others are compared with.
        published: Rows of papers.

    Raises:
        UserError: Two models of one name, or no target in common.
    """
    by_label: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        if evaluation.label in by_label:
            raise UserError(
                f"two evaluations are called {evaluation.label!r}",
                "evaluate one of them again with another --label",
            )
        by_label[evaluation.label] = evaluation
    groups = [group for only in (False, True) if (group := _group(by_label, only))]
    if not groups:
        raise UserError(
            f"{', '.join(by_label)}: no target in common",
            "compare evaluations of the same targets, all-atom with all-atom",
        )
    notes = [f"{label}: {note}" if len(by_label) > 1 else note
             for label, e in by_label.items() for note in e.notes]  # fmt: skip
    return Comparison(by_label, groups, published, notes + _notes(by_label, groups))


def _group(evaluations: Mapping[str, Evaluation], only: bool) -> Group | None:
    sides = {label: e.kinds[only] for label, e in evaluations.items() if only in e.kinds}
    if not sides:
        return None
    common = set.intersection(*(set(side.targets) for side in sides.values()))
    first = next(iter(sides.values()))
    names = [name for name in first.targets if name in common]
    if not names:
        return None
    chosen = {k: Summary({n: s.targets[n] for n in names}, first.seed) for k, s in sides.items()}
    return Group(only, chosen)


def _notes(evaluations: Mapping[str, Evaluation], groups: Sequence[Group]) -> list[str]:
    notes = []
    for key, name in _SAME_SETTINGS.items():
        values = {label: e.settings.get(key) for label, e in evaluations.items()}
        if len({str(value) for value in values.values()}) > 1:
            shown = ", ".join(f"{label}: {value}" for label, value in values.items())
            notes.append(f"The models were evaluated with different {name} ({shown}).")
    if len(evaluations) > 1:
        sizes = {label: _sizes(e) for label, e in evaluations.items()}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{label}: {size}" for label, size in sizes.items())
            notes.append(
                f"The ensembles differ in size ({shown}); most metrics depend on it, so the "
                "differences are not those of the models alone."
            )
    if len(groups) > 1:
        notes.append(
            "Targets with C-alpha atoms only have a table of their own: their fluctuations and "
            "RMWD are of other atoms."
        )
    for group in groups:
        if len(group.targets) < MIN_TARGETS:
            notes.append(
                f"Intervals need {MIN_TARGETS} targets or more, there are {len(group.targets)}."
            )
    return notes


def _sizes(evaluation: Evaluation) -> str:
    sizes = sorted({int(t.counts["n_samples"]) for t in evaluation.targets.values()})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "none"
