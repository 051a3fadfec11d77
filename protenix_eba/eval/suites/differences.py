"""How far models are from the first one, target by target."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from protenix_eba.eval.aggregate import MIN_TARGETS, percentiles, resamples
from protenix_eba.eval.suites.answers import Answer, Place
from protenix_eba.eval.suites.registry import Value

__all__ = ["paired_differences"]


def paired_differences(answers: Mapping[str, Answer]) -> dict[str, dict[Place, Value]]:
    """Return the mean difference of each model from the first one, over targets that both have.

    What makes a target hard for both models does not widen the interval.

    Args:
        answers: At least one, from `load_answers`.

    Returns:
        Model to place, of no target, to the difference, with its interval over targets, for what at
        least `MIN_TARGETS` targets have in both.
    """
    (_, first), *others = answers.items()
    return {label: _differences(first, other) for label, other in others}


def _differences(first: Answer, second: Answer) -> dict[Place, Value]:
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    units: dict[tuple[str, str], str] = {}
    for place in _shared(first, second):
        target, item, key, _ = place
        found[item, key][target] = second.values[place].value - first.values[place].value
        units[item, key] = first.values[place].unit
    made: dict[Place, Value] = {}
    for (item, key), of_targets in found.items():
        if len(of_targets) >= MIN_TARGETS:
            values = np.array(list(of_targets.values()))
            drawn = values[resamples(len(values), int(first.record["seed"]))].mean(axis=1)
            mean, unit = float(values.mean()), units[item, key]
            made["", item, key, 0] = Value("", item, key, mean, unit, percentiles(drawn))
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
