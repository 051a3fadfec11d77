"""The page of a suite's answer: findings, figures, and its values in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protenix_eba.core.files import atomic_path
from protenix_eba.eval.report.scene import scenes_json, viewer_scripts
from protenix_eba.eval.report.templates import template
from protenix_eba.eval.suites.registry import Outcome, Value

__all__ = ["Page", "Table", "column", "named", "render_outcome", "tables", "write_page"]

# A longer table is folded.
_MANY_ROWS: Final = 25
_DASH: Final = "\u2013"


@dataclass(frozen=True)
class Table:
    """Values that have the same keys, or some of them.

    Attributes:
        headings: Key and unit of each column; the unit is empty where it differs by row.
        rows: Target, item, and a (number, interval) for each column.
        main: Whether it has a key of the headline.
        title: What stands above it.
    """

    headings: list[tuple[str, str]]
    rows: list[tuple[str, str, list[tuple[str, str]]]]
    main: bool
    title: str = ""

    @property
    def folded(self) -> bool:
        """Whether a reader has to open it."""
        return len(self.rows) > _MANY_ROWS


@dataclass(frozen=True)
class Page:
    """All that a page shows of a suite's answer, or of answers side by side.

    Attributes:
        suite: Name of the suite.
        measures: What it answers, one sentence.
        outcome: Findings, notes, failures, figures and scenes.
        tables: The values.
        file: The file that has the values with all digits.
        settings: What was run.
        versions: Of the packages.
    """

    suite: str
    measures: str
    outcome: Outcome
    tables: Sequence[Table]
    file: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]


def tables(values: Sequence[Value], headline: Sequence[str] = ()) -> list[Table]:
    """Lay values out: a row for each target and item, in the first table that has all its keys.

    Args:
        values: In their order.
        headline: Keys whose tables come first; in their order of appearance when empty.
    """
    # A mean over targets is in a table of its own, even where it has the keys of a target.
    found: list[list[Mapping[str, Value]]] = []
    for row in _rows(values):
        for rows in found:
            of_means = [not _place(one)[0] for one in (row, rows[0])]
            if row.keys() <= rows[0].keys() and of_means[0] == of_means[1]:
                rows.append(row)
                break
        else:
            found.append([row])
    made = [_table(rows, not headline or bool(rows[0].keys() & {*headline})) for rows in found]
    return sorted(made, key=lambda table: not table.main)


def _place(row: Mapping[str, Value]) -> tuple[str, str]:
    first = next(iter(row.values()))
    return first.target, first.item


def _rows(values: Sequence[Value]) -> list[dict[str, Value]]:
    rows: list[dict[str, Value]] = []
    latest: dict[tuple[str, str], dict[str, Value]] = {}
    for value in values:
        place = value.target, value.item
        # Two measurements may have one name.
        if place not in latest or value.key in latest[place]:
            latest[place] = {}
            rows.append(latest[place])
        latest[place][value.key] = value
    return rows


def _table(rows: Sequence[Mapping[str, Value]], main: bool) -> Table:
    keys = list(rows[0])
    columns = [column([row.get(key) for row in rows]) for key in keys]
    headings = [(key.replace("_", " "), unit) for key, (unit, _) in zip(keys, columns, strict=True)]
    cells = zip(*(each for _, each in columns), strict=True)
    lines = [(*_place(row), list(line)) for row, line in zip(rows, cells, strict=True)]
    return Table(headings, lines, main)


def column(values: Sequence[Value | None]) -> tuple[str, list[tuple[str, str]]]:
    """Return the unit of values of one key, and the number and the interval of each.

    Where they have several units that is empty, and each number has its own. One that is missing
    or not defined is a dash.
    """
    known = [value for value in values if value is not None]
    units = {value.unit for value in known}
    shared, spec = units.pop() if len(units) == 1 else "", _format(known)

    def cell(value: Value | None) -> tuple[str, str]:
        if value is None:
            return _DASH, ""
        own = f" {value.unit}" if value.unit and not shared else ""
        if not value.interval or not all(map(math.isfinite, value.interval)):
            return _number(value.value, spec) + own, ""
        ends = (_number(end, spec) for end in value.interval)
        return _number(value.value, spec) + own, " to ".join(ends)

    return shared, [cell(value) for value in values]


def named(key: str, unit: str) -> str:
    """Return a key as a title, with its unit if it has one."""
    return key.replace("_", " ") + (f" ({unit})" if unit else "")


def _format(values: Sequence[Value]) -> str:
    """Return the format of a column: three decimals, fewer of large numbers, none of counts."""
    numbers = [abs(value.value) for value in values if math.isfinite(value.value)]
    if not any(value.interval for value in values) and all(x.is_integer() for x in numbers):
        return ".0f"
    largest = max(numbers, default=1.0)
    return ".1f" if largest >= 100.0 else ".3f" if largest >= 0.01 or not largest else ".3g"


def _number(value: float, spec: str) -> str:
    # A true minus sign is as wide as a digit.
    return f"{value:{spec}}".replace("-", "\u2212") if math.isfinite(value) else _DASH


def render_outcome(outcome: Outcome, record: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html`, which loads nothing from elsewhere.

    Args:
        outcome: The answer.
        record: What decided it, with `suite`, `measures` and `versions`.
        folder: Folder to write to.

    Returns:
        The path of the page.

    Raises:
        UserError: The file cannot be written.
    """
    shown = ("suite", "measures", "versions")
    page = Page(
        suite=record["suite"],
        measures=record["measures"],
        outcome=outcome,
        tables=tables(outcome.values, outcome.headline),
        file="metrics.csv",
        settings={key: value for key, value in record.items() if key not in shown},
        versions=record["versions"],
    )
    return write_page(page, folder)


def write_page(page: Page, folder: Path) -> Path:
    """Write `report.html` from what it shows; see `render_outcome`."""
    viewer = scenes_json(page.outcome.scenes)
    text = template("suite.html.jinja").render(
        page=page,
        n_targets=len({value.target for value in page.outcome.values} - {""}),
        settings=page.settings,
        versions=page.versions,
        viewer=viewer,
        viewer_scripts=viewer_scripts() if viewer else "",
    )
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
