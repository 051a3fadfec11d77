"""What `evaluate` and `compare` write and print: tables, the report, a summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protenix_eba.eval.comparison import Comparison, Group

__all__ = ["write_outputs"]

_MAX_FAILURES_PRINTED = 20


def write_outputs(comparison: Comparison, out: Path, *, stem: str) -> None:
    """Write the tables, the figures and the report, and print the headline table.

    Args:
        comparison: One model or several.
        out: Folder.
        stem: Name of the tables.
    """
    from protenix_eba.eval.report import render_report
    from protenix_eba.eval.tables import write_csv, write_latex

    write_csv(out / f"{stem}.csv", comparison)
    write_latex(out / f"{stem}.tex", comparison)
    report = render_report(comparison, out, **_training(comparison))
    _print(comparison, report)


def _training(comparison: Comparison) -> dict[str, Any]:
    """Findings, and curves and settings of the training runs that are still there."""
    from protenix_eba.eval.findings import findings, loss_curves, training_settings

    named = {label: e.settings.get("training") for label, e in comparison.evaluations.items()}
    runs = {label: Path(run) for label, run in named.items() if run and Path(run).is_dir()}
    return {
        "findings": findings(comparison.groups[0].summaries, runs),
        "losses": loss_curves(runs),
        "settings": training_settings(runs),
    }


def _print(comparison: Comparison, report: Path) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for group in comparison.groups:
        console.print(_table(group))
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)
    for label, reasons in comparison.failed.items():
        _print_failures(console, label, reasons)
    for label, names in comparison.left_out.items():
        console.print(f"left out: {label} alone has {', '.join(names)}", markup=False)
    console.print(f"report: {report}", markup=False)


def _table(group: Group) -> Any:
    from rich.table import Table
    from rich.text import Text

    from protenix_eba.eval.tables import headline

    columns, rows = headline(group)
    kind = ", C-alpha atoms only" if group.ca_only else ""
    table = Table(title=f"Medians over targets{kind} (n = {len(group.targets)}), 95% intervals")
    table.add_column("metric")
    for column in columns:
        table.add_column(Text(column.title), justify="right")
    # A line of its own keeps the table of several models narrow enough for a terminal.
    gap = " " if len(group.summaries) == 1 else "\n"
    for row in rows:
        unit = f" ({row.metric.unit})" if row.metric.unit else ""
        texts = [
            Text(cell.text, style="bold" if cell.best else "")
            + Text(gap + cell.interval.replace(" to ", "…") if cell.interval else "", style="dim")
            for cell in row.cells
        ]
        table.add_row(row.metric.label + unit, *texts)
    return table


def _print_failures(console: Any, label: str, reasons: Mapping[str, str]) -> None:
    for name, reason in list(reasons.items())[:_MAX_FAILURES_PRINTED]:
        console.print(f"failed: {label}, {name}: {reason}", markup=False)
    more = len(reasons) - _MAX_FAILURES_PRINTED
    if more > 0:
        console.print(f"failed: {label}: {more} more, listed in the report", markup=False)
