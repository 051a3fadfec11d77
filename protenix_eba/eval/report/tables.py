"""Tables for readers: the headline table, CSV and LaTeX."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protenix_eba.core.files import atomic_path
from protenix_eba.eval.aggregate import CONFIDENCE_PERCENT
from protenix_eba.eval.catalogue import by_key
from protenix_eba.eval.definitions import PAPER_ROWS, Metric, best_labels
from protenix_eba.eval.models import Comparison, Group
from protenix_eba.eval.published import PublishedRow
from protenix_eba.eval.results import Summary, mean_floor

__all__ = [
    "Cell",
    "Column",
    "Row",
    "headline",
    "known_metrics",
    "leaderboard",
    "number",
    "write_csv",
    "write_latex",
]

FLOOR_NAME: Final = "MD vs MD"
_DASH: Final = "\u2013"
_INTERVAL: Final = f"{CONFIDENCE_PERCENT:.0f}% bootstrap intervals"
COMPAT_NAME: Final = "as alphaflow-1.9.9"
_COUNTS: Final = (
    "n_samples", "n_md_frames", "n_replicas", "n_residues", "n_atoms", "atom_coverage"
)  # fmt: skip
# A metric of this name is something else.
_COUNT_NAMES: Final = {"coverage": "atom_coverage"}
_LATEX: Final = str.maketrans(
    {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
     "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
     "Å": r"\AA{}", ">": "$>$", "<": "$<$", "|": "$|$"}
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number to print, its interval, and whether it is the best of its row."""

    text: str
    interval: str = ""
    best: bool = False
    warning: str = ""


@dataclass(frozen=True)
class Column:
    """A heading; `kind` is model, difference, compat, floor or published."""

    title: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One metric of the headline table."""

    metric: Metric
    cells: list[Cell]


def number(metric: Metric, value: float | None, *, sign: bool = False) -> str:
    """Return a value with the metric's digits; a dash where it is not defined."""
    if value is None or not math.isfinite(value):
        return _DASH
    # A true minus sign is as wide as a digit.
    return f"{value:{'+' if sign else ''}.{metric.digits}f}".replace("-", "\u2212")


def headline(group: Group) -> tuple[list[Column], list[Row]]:
    """Return models with intervals, compatibility columns, paired differences, the floor.

    Args:
        group: Models over the same targets.
    """
    summaries = group.summaries
    compat = {label: summary.compat for label, summary in summaries.items() if summary.compat}
    floors, first = _floors(summaries), next(iter(summaries))
    columns = [Column(label, "model") for label in summaries]
    columns += [Column(f"{label}, {COMPAT_NAME}", "compat") for label in compat]
    columns += [Column(f"{label} less {first}", "difference") for label in group.differences]
    columns += [Column(title, "floor") for title in floors]
    rows = []
    for metric in known_metrics(group):
        cells = _model_cells(metric, summaries)
        cells += [Cell(number(metric, values.get(metric.key))) for values in compat.values()]
        cells += [_difference(metric, d.get(metric.key)) for d in group.differences.values()]
        cells += [Cell(number(metric, floor.get(metric.key))) for floor in floors.values()]
        rows.append(Row(metric, cells))
    return columns, rows


def known_metrics(group: Group) -> list[Metric]:
    """Return the metrics that any model has, in the order of the published tables."""
    known = {key for summary in group.summaries.values() for key in summary.values}
    return [metric for metric in by_key().values() if metric.key in known]


def leaderboard(
    group: Group, published: Sequence[PublishedRow]
) -> tuple[list[Metric], list[Column], list[list[Cell]]]:
    """Return the metrics of the published tables, a line for each method.

    Args:
        group: Models over the same targets.
        published: Rows of papers, of all-atom ensembles.

    Returns:
        The metrics, a heading for each line, and the lines' cells.
    """
    metrics = [by_key()[key] for key in PAPER_ROWS]
    summaries = group.summaries
    lines = [Column(label, "model") for label in summaries]
    cells = [[_model_cells(m, summaries)[i] for m in metrics] for i in range(len(summaries))]
    for label, summary in summaries.items():
        if summary.compat:
            lines.append(Column(f"{label}, {COMPAT_NAME}", "compat"))
            cells.append([Cell(number(m, summary.compat.get(m.key))) for m in metrics])
    for title, floor in _floors(summaries).items():
        lines.append(Column(title, "floor"))
        cells.append([Cell(number(m, floor.get(m.key))) for m in metrics])
    for row in [] if group.ca_only else published:
        lines.append(Column(row.label, "published", row.cite))
        cells.append([_published_cell(m, row) for m in metrics])
    return metrics, lines, cells


def _published_cell(metric: Metric, row: PublishedRow) -> Cell:
    if metric.key not in row.values:
        return Cell(_DASH)
    # As printed in the paper, to two digits.
    text = f"{row.values[metric.key]:.{min(metric.digits, 2)}f}"
    return Cell(text, warning=row.caveat if metric.key in row.unsafe else "")


def _floors(summaries: Mapping[str, Summary]) -> dict[str, Mapping[str, float]]:
    """Return one column if the models share the floor, else one for each, as sizes differ."""
    floors = {label: summary.floor for label, summary in summaries.items() if summary.floor}
    if len({str(sorted(floor.items())) for floor in floors.values()}) == 1:
        return {FLOOR_NAME: next(iter(floors.values()))}
    return {f"{FLOOR_NAME}, as {label}": floor for label, floor in floors.items()}


def _model_cells(metric: Metric, summaries: Mapping[str, Summary]) -> list[Cell]:
    best = best_labels(metric, {label: summary.values for label, summary in summaries.items()})
    return [
        Cell(
            number(metric, summary.values.get(metric.key)),
            _interval(metric, summary.intervals.get(metric.key)),
            label in best,
        )
        for label, summary in summaries.items()
    ]


def _difference(metric: Metric, value: tuple[float, float | None, float | None] | None) -> Cell:
    if value is None:
        return Cell(_DASH)
    middle, low, high = value
    bounds = None if low is None or high is None else (low, high)
    return Cell(number(metric, middle, sign=True), _interval(metric, bounds, sign=True))


def _interval(metric: Metric, bounds: tuple[float, float] | None, *, sign: bool = False) -> str:
    if bounds is None:
        return ""
    return f"{number(metric, bounds[0], sign=sign)} to {number(metric, bounds[1], sign=sign)}"


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write a row for each model and target, its floor and aggregate; empty where undefined.

    Columns: `kind` (samples, md_floor, compat, interval_low, interval_high), `model`, `target`
    ("(all)" for the aggregate), `ca_only`, counts, then every metric.
    """
    known = [*_COUNTS, *by_key()]
    records = [record for group in comparison.groups for record in _records(group)]
    extra = dict.fromkeys(key for *_, values in records for key in values if key not in known)
    columns = [*known, *extra]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["kind", "model", "target", "ca_only", *columns])
        for kind, model, target, ca_only, values in records:
            cells = [values.get(key) for key in columns]
            shown = ["" if v is None or not math.isfinite(v) else v for v in cells]
            writer.writerow([kind, model, target, int(ca_only), *shown])


# Kind, model, target, C-alpha only, values.
_Record = tuple[str, str, str, bool, Mapping[str, float]]


def _records(group: Group) -> Iterable[_Record]:
    for label, summary in group.summaries.items():
        rows: list[tuple[str, str, Mapping[str, float]]] = []
        for name, target in summary.targets.items():
            counts = {_COUNT_NAMES.get(k, k): v for k, v in target.counts.items()}
            rows.append(("samples", name, counts | target.values))
        rows.append(("samples", "(all)", summary.values))
        for side, end in (("interval_low", 0), ("interval_high", 1)):
            rows.append((side, "(all)", {k: b[end] for k, b in summary.intervals.items()}))
        if summary.compat:
            rows += [("compat", name, t.compat) for name, t in summary.targets.items() if t.compat]
            rows.append(("compat", "(all)", summary.compat))
        if summary.floor:
            floors = {name: mean_floor(t) for name, t in summary.targets.items() if t.floor}
            rows += [("md_floor", name, floor) for name, floor in floors.items()]
            rows.append(("md_floor", "(all)", summary.floor))
        yield from ((kind, label, name, group.ca_only, values) for kind, name, values in rows)


def write_latex(path: Path, comparison: Comparison) -> None:
    """Write a line for each method in the layout of published tables (needs booktabs)."""
    with atomic_path(path) as temporary:
        text = "\n".join(_latex_table(group, comparison) for group in comparison.groups)
        temporary.write_text(text, encoding="utf-8")


def _latex_table(group: Group, comparison: Comparison) -> str:
    metrics, lines, cells = leaderboard(group, comparison.published)
    kind = "C-alpha atoms only" if group.ca_only else "all heavy atoms"
    text = [
        f"% {len(group.targets)} targets, {kind}; medians over targets with {_INTERVAL}.",
        *(f"% {line.title}: {line.note}" for line in lines if line.note),
        r"\begin{tabular}{l" + "r" * len(metrics) + "}",
        r"\toprule",
        " & ".join(["Method", *(_latex_heading(metric) for metric in metrics)]) + r" \\",
        r"\midrule",
    ]
    for line, row in zip(lines, cells, strict=True):
        text.append(" & ".join([_latex(line.title), *(_latex_cell(c) for c in row)]) + r" \\")
        if any(cell.interval for cell in row):
            text.append(" & ".join(["", *(_latex_interval(cell) for cell in row)]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", ""])


def _latex(text: str) -> str:
    return text.replace("\u2212", "-").translate(_LATEX)


def _latex_heading(metric: Metric) -> str:
    arrow = {"lower": r" $\downarrow$", "higher": r" $\uparrow$"}.get(metric.better, "")
    return _latex(metric.label) + arrow


def _latex_cell(cell: Cell) -> str:
    text = cell.text.replace("\u2212", "$-$").replace(_DASH, "--")
    text = rf"\textbf{{{text}}}" if cell.best else text
    return text + (r"$^{*}$" if cell.warning else "")


def _latex_interval(cell: Cell) -> str:
    bounds = cell.interval.replace("\u2212", "$-$").replace(" to ", ", ")
    return rf"{{\scriptsize [{bounds}]}}" if bounds else ""
