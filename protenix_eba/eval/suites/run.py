"""Running a suite: its inputs, its settings, and the files that it writes."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, write_json
from protenix_eba.eval.report.figure import write_figures
from protenix_eba.eval.suites.page import render_outcome
from protenix_eba.eval.suites.registry import Outcome, Request, Suite, Value
from protenix_eba.eval.weighting import Float64s, read_weights, refuse_strangers
from protenix_eba.plugin_api import did_you_mean
from protenix_eba.structures.sources import Conformations, find_samples

__all__ = ["FORMAT", "changed_settings", "run_suite", "write_csv", "write_outcome"]

FORMAT: Final = 1
_COLUMNS: Final = ("target", "item", "key", "value", "low", "high", "unit")


def changed_settings(suite: Suite, words: Sequence[str]) -> Any:
    """Return a suite's settings, changed where a user gave NAME=VALUE.

    Raises:
        UserError: No such setting, or a value of another type.
    """
    fields = {f.name: f for f in dataclasses.fields(suite.settings)} if suite.settings else {}
    changed = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in fields:
            known = ", ".join(fields) or "none"
            raise UserError(
                f"--set {word}: the suite {suite.name} has the settings {known}",
                f"write --set NAME=VALUE; {did_you_mean(name, fields)}",
            )
        changed[name] = _value(word, text, getattr(suite.settings, name))
    return dataclasses.replace(suite.settings, **changed) if changed else suite.settings


def _value(word: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UserError(f"--set {word}: expected true or false, found {text!r}")
        return text.lower() == "true"
    try:
        value = type(default)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(text)
        return value
    except ValueError as error:
        kind = {int: "a whole number", float: "a number"}.get(type(default), "another value")
        raise UserError(f"--set {word}: expected {kind}, found {text!r}") from error


def run_suite(
    suite: Suite,
    samples: Sequence[Path],
    reference: Path,
    *,
    targets: Collection[str] | None = None,
    weights: Path | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    jobs: int = 1,
) -> tuple[Outcome, dict[str, Any]]:
    """Answer a suite's question for a model's ensembles.

    Args:
        suite: A registered one that computes.
        samples: Ensembles, as `find_samples` takes them.
        reference: Folder or file of the suite's data.
        targets: Names that are wanted; all when None. One without samples counts as failed.
        weights: File of weights; equal ones when None.
        settings: NAME=VALUE words.
        seed: Seed of every draw.
        jobs: Number of processes.

    Returns:
        The answer, and a record of what decided it.

    Raises:
        UserError: Not one target can be evaluated, or an input cannot be used.
    """
    if suite.compute is None:
        raise UserError(
            f"the suite {suite.name} is no suite of this kind",
            "`protenix-eba evaluate` without --suite computes it",
        )
    if jobs > 1 and not suite.parallel:
        raise UserError(f"the suite {suite.name} has no --jobs", "leave it out")
    found, unusable = find_samples(samples)
    if not reference.exists():
        raise UserError(
            f"the suite {suite.name}: expected its data at {reference}, found nothing",
            suite.reference,
        )
    wanted, missing = _chosen(found, targets)
    chosen = changed_settings(suite, settings)
    by_name = _known_weights(weights, wanted)
    # Of those that were found: --targets chooses among them, and among their structures.
    alone = len(found) + len(unusable) == 1
    outcome = suite.compute(Request(wanted, reference, by_name, chosen, seed, alone, jobs))
    kept = {n: why for n, why in unusable.items() if targets is None or n in targets}
    outcome = dataclasses.replace(
        outcome,
        failed=dict(sorted((missing | kept | dict(outcome.failed)).items())),
        notes=[*outcome.notes, *_unweighted(by_name, wanted)],
    )
    inputs = {
        "samples": [str(path) for path in samples],
        "reference": str(reference),
        "weights": str(weights) if weights else None,
    }
    return outcome, _record(suite, inputs, chosen, seed)


def _known_weights(path: Path | None, wanted: Collection[str]) -> dict[str, Float64s]:
    """Return the weights of a file by target; none if there is no file."""
    if path is None:
        return {}
    found = read_weights(path)
    refuse_strangers(found, wanted, str(path))
    return found


def _chosen(
    found: Mapping[str, Conformations], targets: Collection[str] | None
) -> tuple[dict[str, Conformations], dict[str, str]]:
    """Return the samples of the wanted targets, and why there are none of others.

    Raises:
        UserError: There are none at all.
    """
    wanted = {n: s for n, s in found.items() if targets is None or n in targets}
    missing = {n: "no samples of this target" for n in targets or () if n not in found}
    if not wanted:
        raise UserError(f"no samples of {', '.join(sorted(missing)[:4])}", "check --targets")
    return wanted, missing


def _unweighted(weights: Collection[str], names: Collection[str]) -> list[str]:
    """Return a note if some of the targets have weights and others have none."""
    without = sorted(set(names) - set(weights))
    return [f"no weights, so equal ones: {', '.join(without)}"] if weights and without else []


def _record(suite: Suite, inputs: dict[str, Any], settings: Any, seed: int) -> dict[str, Any]:
    """Return what decides an answer, for its file."""
    return {
        "suite": suite.name,
        "measures": suite.measures,
        **inputs,
        "seed": seed,
        "settings": dataclasses.asdict(settings) if settings else {},
        "versions": {name: version(name) for name in ("protenix-eba", "mdtraj", "numpy", "scipy")},
    }


def write_outcome(outcome: Outcome, record: dict[str, Any], folder: Path) -> None:
    """Write `metrics.json`, `metrics.csv`, `report.html` and `figures/`.

    Args:
        outcome: The answer.
        record: What decided it.
        folder: Folder to write to.
    """
    write_figures(folder / "figures", outcome.figures)
    write_csv(folder / "metrics.csv", {"": outcome.values})
    content = {
        "format": FORMAT,
        **record,
        "values": [value.to_json() for value in outcome.values],
        "failed": dict(outcome.failed),
        "notes": list(outcome.notes),
        "findings": list(outcome.findings),
        "headline": list(outcome.headline),
        "of_data": list(outcome.of_data),
    }
    write_json(folder / "metrics.json", content)
    render_outcome(outcome, record, folder)


def write_csv(path: Path, values: Mapping[str, Sequence[Value]]) -> None:
    """Write a row for each value; empty where it is not defined.

    Args:
        path: The file.
        values: Model to its values; a single model has no name, and no column `model`.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        named = "" not in values
        writer.writerow(["model"] * named + [*_COLUMNS])
        for model, own in values.items():
            for value in map(Value.to_json, own):
                value["low"], value["high"] = value["interval"] or ("", "")
                writer.writerow([model] * named + [value[key] for key in _COLUMNS])
