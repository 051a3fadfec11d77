"""Answers of one suite for several models, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from protenix_eba.core.files import write_json
from protenix_eba.eval.report.figure import Figure, write_figures
from protenix_eba.eval.report.plots.style import label_colours, small_multiples
from protenix_eba.eval.suites.answers import Answer, Place
from protenix_eba.eval.suites.differences import paired_differences
from protenix_eba.eval.suites.page import Page, Table, column, named, write_page
from protenix_eba.eval.suites.registry import Outcome, Value
from protenix_eba.eval.suites.run import write_csv

__all__ = ["compare_answers", "side_by_side"]

# What must be equal for answers to be compared.
_SAME: Final = ("reference", "settings", "seed")
# What a page shows elsewhere than under what was run.
_SHOWN: Final = (
    "suite", "measures", "versions", "failed", "notes", "findings", "headline", "of_data", "format"
)  # fmt: skip
# More rows than this are no longer read in a picture; the tables hold all.
_MAX_DRAWN: Final = 12
_MAX_LETTERS: Final = 24


def side_by_side(answers: Mapping[str, Answer]) -> list[Table]:
    """Return a table for each key: a row for each target and item, a column for each model.

    What is the data's own, such as the measured values, has no table but a column in front of the
    models', beside the values of the same target, item and unit. Then the same for the differences
    from the first model, where targets suffice.
    """
    first, record = next(iter(answers)), next(iter(answers.values())).record
    values = {label: answer.values for label, answer in answers.items()}
    given = _given(values, record["of_data"])
    after = f": difference from {first}, mean over targets in pairs"
    made = [
        *_by_key(values, record["headline"], given),
        *_by_key(paired_differences(answers), record["headline"], given, after),
    ]
    return sorted(made, key=lambda table: not table.main)


# Key to the values that are the data's own, by target, item and count.
_Given = Mapping[str, Mapping[tuple[str, str, int], Value]]


def _given(values: Mapping[str, Mapping[Place, Value]], keys: Sequence[str]) -> _Given:
    """Return the values of these keys; not of one that differs between models or is alone."""
    found: dict[str, dict[tuple[str, str, int], Value]] = {key: {} for key in keys}
    beside = set()
    alone = set()
    for own in values.values():
        for (target, item, key, count), value in own.items():
            if key not in found:
                beside.add((target, item, count, value.unit))
            elif found[key].setdefault((target, item, count), value).to_json() != value.to_json():
                alone.add(key)
    for key, known in found.items():
        if any((*place, value.unit) not in beside for place, value in known.items()):
            alone.add(key)
    return {key: known for key, known in found.items() if known and key not in alone}


def _by_key(
    values: Mapping[str, Mapping[Place, Value]],
    headline: Sequence[str],
    given: _Given,
    after: str = "",
) -> list[Table]:
    """Lay values out by key, a column for each model after those of data; `after` ends titles."""
    places = list(dict.fromkeys(place for own in values.values() for place in own))
    made = []
    for key in dict.fromkeys(place[2] for place in places if place[2] not in given):
        own = [place for place in places if place[2] == key]
        columns = {label: [found.get(place) for place in own] for label, found in values.items()}
        columns = _beside(own, columns, given) | columns
        unit, cells = column(list(chain(*zip(*columns.values(), strict=True))))
        n = len(columns)
        rows = [(place[0], place[1], cells[n * row : n * row + n]) for row, place in enumerate(own)]
        headings = [(label, "") for label in columns]
        made.append(
            Table(headings, rows, not headline or key in headline, named(key, unit) + after)
        )
    return made


def _beside(
    places: Sequence[Place], columns: Mapping[str, Sequence[Value | None]], given: _Given
) -> dict[str, list[Value | None]]:
    """Return the columns of data for a table: what they have of the same place and unit."""
    made: dict[str, list[Value | None]] = {}
    units = [next(v.unit for v in row if v) for row in zip(*columns.values(), strict=True)]
    for key, known in given.items():
        found = [known.get((target, item, count)) for target, item, _, count in places]
        own = [v if v and v.unit == unit else None for v, unit in zip(found, units, strict=True)]
        if any(own):
            made[named(key, "")] = own
    return made


def compare_answers(answers: Mapping[str, Answer], folder: Path) -> Page:
    """Write `comparison.json`, `comparison.csv`, `report.html` and `figures/`.

    Args:
        answers: From `load_answers`; the first decides on the order.
        folder: Folder to write to.

    Returns:
        What the page shows.

    Raises:
        UserError: The folder cannot be written to.
    """
    first = next(iter(answers.values()))
    failed = {
        f"{label}: {name}": why
        for label, answer in answers.items()
        for name, why in answer.record["failed"].items()
    }
    values = [value for answer in answers.values() for value in answer.values.values()]
    findings = [
        f"{label}: {finding}"
        for label, answer in answers.items()
        for finding in answer.record["findings"]
    ]
    outcome = Outcome(
        values, failed, _notes(answers), _figures(answers), first.record["headline"], findings
    )
    write_figures(folder / "figures", outcome.figures)
    _write_tables(answers, outcome, folder)
    runs = {
        label: {key: value for key, value in answer.record.items() if key not in _SHOWN}
        for label, answer in answers.items()
    }
    page = Page(
        suite=first.record["suite"],
        measures=first.record["measures"],
        outcome=outcome,
        tables=side_by_side(answers),
        file="comparison.csv",
        settings={"models": runs},
        versions=first.record["versions"],
    )
    write_page(page, folder)
    return page


def _notes(answers: Mapping[str, Answer]) -> list[str]:
    notes = []
    for key in _SAME:
        found = {label: answer.record[key] for label, answer in answers.items()}
        if len({str(value) for value in found.values()}) > 1:
            shown = ", ".join(f"{label}: {value}" for label, value in found.items())
            notes.append(f"The models were evaluated with another {key} each ({shown}).")
    targets = {label: {place[0] for place in a.values} - {""} for label, a in answers.items()}
    if len({frozenset(own) for own in targets.values()}) > 1:
        shown = ", ".join(f"{label}: {len(own)}" for label, own in targets.items())
        notes.append(
            f"The models have different targets ({shown}): each mean is over a model's own."
        )
    shared = [
        note
        for note in next(iter(answers.values())).record["notes"]
        if all(note in a.record["notes"] for a in answers.values())
    ]
    own = [
        f"{label}: {note}"
        for label, a in answers.items()
        for note in a.record["notes"]
        if note not in shared
    ]
    return [*notes, *shared, *own]


def _figures(answers: Mapping[str, Answer]) -> list[Figure]:
    """Draw the values of the headline, a panel for each key."""
    headline = next(iter(answers.values())).record["headline"]
    colours = label_colours(list(answers))
    panels = {key: found for key in headline if (found := _drawn(answers, key))}
    if not panels:
        return []

    def draw(axes: Axes, places: Sequence[Place]) -> None:
        for n, (label, answer) in enumerate(answers.items()):
            shift = 0.5 * ((n + 0.5) / len(answers) - 0.5)
            rows = [row for row, place in enumerate(places) if place in answer.values]
            own = [answer.values[places[row]] for row in rows]
            x = np.array([value.value for value in own])
            ends = np.array([value.interval or (value.value,) * 2 for value in own]).T
            bars = np.maximum([x - ends[0], ends[1] - x], 0.0) if own else None
            at = np.array(rows) + shift
            axes.errorbar(x, at, xerr=bars, fmt="o", ms=4, color=colours[label], label=label)
        names = [_short(" ".join(filter(None, place[:2]))) for place in places]
        axes.set_yticks(range(len(places)), names)
        axes.invert_yaxis()

    caption = (
        "The values of each model with their 95% intervals; means over targets where there are "
        f"any, else the first {_MAX_DRAWN} rows of the table."
    )
    tallest = max(map(len, panels.values()))
    size = (3.3, 1.0 + 0.28 * tallest)
    drawing = small_multiples(panels, draw, "", "", legend=list(answers), panel_size=size)
    return [Figure("comparison", "Models side by side", caption, drawing)]


def _short(name: str) -> str:
    """Return a name that fits beside a panel; of a long one its ends, which tell items apart."""
    if len(name) <= _MAX_LETTERS:
        return name or "all"
    half = _MAX_LETTERS // 2
    return f"{name[:half]}\u2026{name[-half:]}"


def _drawn(answers: Mapping[str, Answer], key: str) -> list[Place]:
    places = dict.fromkeys(p for a in answers.values() for p in a.values if p[2] == key)
    return ([p for p in places if not p[0]] or list(places))[:_MAX_DRAWN]


def _write_tables(answers: Mapping[str, Answer], outcome: Outcome, folder: Path) -> None:
    values = {label: list(answer.values.values()) for label, answer in answers.items()}
    content = {
        "suite": next(iter(answers.values())).record["suite"],
        "models": {label: [value.to_json() for value in own] for label, own in values.items()},
        "differences": {
            label: [value.to_json() for value in own.values()]
            for label, own in paired_differences(answers).items()
        },
        "failed": dict(outcome.failed),
        "notes": list(outcome.notes),
    }
    write_json(folder / "comparison.json", content)
    write_csv(folder / "comparison.csv", values)
