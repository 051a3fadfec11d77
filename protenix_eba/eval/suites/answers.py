"""Answers of suites, read back from the files that `evaluate --suite` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.eval.plain_values import (
    INTERVAL,
    MAPPING,
    NUMBER,
    REASONS,
    SEED,
    TEXT,
    TEXTS,
    Kind,
    check_format,
    check_kinds,
)
from protenix_eba.eval.suites.registry import Value
from protenix_eba.eval.suites.run import FORMAT

__all__ = ["Answer", "Place", "load_answers"]

_AGAIN: Final = "run `protenix-eba evaluate --suite` again with the same --out"
_NEEDED: Final[Mapping[str, Kind]] = {
    "suite": TEXT, "measures": TEXT, "reference": TEXT, "settings": MAPPING, "seed": SEED,
    "versions": MAPPING, "failed": REASONS, "notes": TEXTS, "findings": TEXTS, "headline": TEXTS,
    "of_data": TEXTS,
    "values": ("a list of values", lambda v: isinstance(v, list)),
}  # fmt: skip
_OF_VALUES: Final[Mapping[str, Kind]] = {
    "target": TEXT, "item": TEXT, "key": TEXT, "value": NUMBER, "unit": TEXT, "interval": INTERVAL,
}  # fmt: skip

# Target, item, key, and a count where two values have all three in common.
Place = tuple[str, str, str, int]


@dataclass(frozen=True)
class Answer:
    """The answer of a suite for one model, as `metrics.json` has it.

    Attributes:
        values: Place to value, in their order.
        record: All else that the file holds.
    """

    values: Mapping[Place, Value]
    record: Mapping[str, Any]


def load_answers(folders: Sequence[Path]) -> dict[str, Answer]:
    """Load answers of one suite by the names of their folders, as many parts as tell them apart.

    Raises:
        UserError: A folder without an answer, one given twice, or answers of several suites.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("a folder is given twice", "give each once")
    n = 1
    while len({path.parts[-n:] for path in paths}) < len(paths):
        n += 1
    found = {"/".join(path.parts[-n:]): _load(path) for path in paths}
    suites = {label: answer.record["suite"] for label, answer in found.items()}
    if len(set(suites.values())) > 1:
        shown = ", ".join(f"{label}: {suite}" for label, suite in suites.items())
        raise UserError(f"expected answers of one suite, found {shown}", "compare like with like")
    return found


def _load(folder: Path) -> Answer:
    path = require_file(
        folder / "metrics.json",
        f"answer {folder.name}",
        "run `protenix-eba evaluate --suite` first",
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_format(content, FORMAT)
        check_kinds(content, _NEEDED)
        record = {key: value for key, value in content.items() if key != "values"}
        values: dict[Place, Value] = {}
        for number, plain in enumerate(content["values"]):
            check_kinds(plain, _OF_VALUES, f"values[{number}].")
            value = _value(plain)
            place = value.target, value.item, value.key
            count = 0
            while (*place, count) in values:
                count += 1
            values[*place, count] = value
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not the answer of a suite of this version: {error}", _AGAIN
        ) from error
    return Answer(values, record)


def _value(plain: Mapping[str, Any]) -> Value:
    number = float("nan") if plain["value"] is None else float(plain["value"])
    interval = tuple(plain["interval"]) if plain["interval"] else None
    return Value(plain["target"], plain["item"], plain["key"], number, plain["unit"], interval)
