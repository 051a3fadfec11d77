"""How far models are from the first one, target by target."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from protenix_eba.eval.aggregate import MIN_TARGETS, percentiles, resamples
from protenix_eba.eval.suites.answers import Answer, Place
from protenix_eba.eval.suites.page import Table, column, named
from protenix_eba.eval.suites.registry import Value

__all__ = ["difference_tables", "paired_differences"]

Differences = dict[tuple[str, str], Value]


def paired_differences(answers: Mapping[str, Answer]) -> dict[str, Differences]:
    """Return the mean difference of each model from the first one, over targets that both have.

    What makes a target hard for both models does not widen the interval.

    Args:
        answers: At least one, from `load_answers`.

    Returns:
        Model to item and key to the difference, with its interval over targets, for what at least
        `MIN_TARGETS` targets have in both.
    """
    (_, first), *others = answers.items()
    return {label: _differences(first, other) for label, other in others}


def _differences(first: Answer, second: Answer) -> Differences:
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    units: dict[tuple[str, str], str] = {}
    for place in _shared(first, second):
        target, item, key, _ = place
        found[item, key][target] = second.values[place].value - first.values[place].value
        units[item, key] = first.values[place].unit
    made = {}
    for (item, key), of_targets in found.items():
        if len(of_targets) >= MIN_TARGETS:
            values = np.array(list(of_targets.values()))
            drawn = values[resamples(len(values), int(first.record["seed"]))].mean(axis=1)
            mean, unit = float(values.mean()), units[item, key]
            made[item, key] = Value("", item, key, mean, unit, percentiles(drawn))
    return made


def _shared(first: Answer, second: Answer) -> list[Place]:
    """Return the places of targets that both have, once each and defined in both."""
    repeated = {place[:3] for answer in (first, second) for place in answer.values if place[3]}
    return [
        place
        for place, value in first.values.items()
        if place[0] and place[:3] not in repeated and place in second.values
        and math.isfinite(value.value) and math.isfinite(second.values[place].value)
        and value.unit == second.values[place].unit
    ]  # fmt: skip


def difference_tables(answers: Mapping[str, Answer]) -> list[Table]:
    """Lay the differences out: a table for each key, a row for each item, a column for each model.

    Tables of the headline are main ones, as those of the values are.
    """
    found = paired_differences(answers)
    first, headline = next(iter(answers)), next(iter(answers.values())).record["headline"]
    places = list(dict.fromkeys(place for differences in found.values() for place in differences))
    made = []
    for key in dict.fromkeys(key for _, key in places):
        own = [place for place in places if place[1] == key]
        unit, cells = column([d.get(place) for place in own for d in found.values()])
        n = len(found)
        rows = [("", place[0], cells[n * row : n * row + n]) for row, place in enumerate(own)]
        title = f"{named(key, unit)}: difference from {first}, mean over targets in pairs"
        headings = [(label, "") for label in found]
        made.append(Table(headings, rows, not headline or key in headline, title))
    return made
