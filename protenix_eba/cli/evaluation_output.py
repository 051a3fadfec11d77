"""Output of `evaluate` and `compare`: tables, the report, and a summary on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protenix_eba.eval.models import Comparison, Group
    from protenix_eba.eval.suites.page import Page

__all__ = ["write_outputs"]

_MAX_FAILURES_PRINTED = 20
_ALSO_PRINTED = ("pairwise_rmsd", "energy_median_above_md_kj_mol", "valid_percent")


def write_outputs(
    comparison: Comparison, out: Path, *, stem: str, suites: Sequence[Page] = ()
) -> None:
    """Write the tables, the figures and the report, and print the headline table.

    Args:
        comparison: One model or several.
        out: Folder.
        stem: Name of the tables.
        suites: Answers of suites, to stand in the report, too.
    """
    from protenix_eba.eval.report.render import render_report
    from protenix_eba.eval.report.tables import write_csv, write_latex

    write_csv(out / f"{stem}.csv", comparison)
    write_latex(out / f"{stem}.tex", comparison)
    report = render_report(comparison, out, suites=suites, **_training(comparison))
    _print(comparison, report)


def _training(comparison: Comparison) -> dict[str, Any]:
    """Return findings, figures and settings of the training runs that still exist."""
    from protenix_eba.eval.report.findings import findings, training_settings
    from protenix_eba.eval.report.training import training_figures

    named = {label: e.settings.get("training") for label, e in comparison.evaluations.items()}
    runs = {label: Path(run) for label, run in named.items() if run and Path(run).is_dir()}
    return {
        "findings": findings(comparison.groups[0].summaries, runs),
        "training": training_figures(runs),
        "settings": training_settings(runs),
    }


def _print(comparison: Comparison, report: Path) -> None:
    from protenix_eba.core.progress import answers, tell

    for group in comparison.groups:
        answers.print(_table(group))
    for note in comparison.notes:
        tell(f"note: {note}", answers)
    for label, reasons in comparison.failed.items():
        _print_failures(label, reasons)
    for label, names in comparison.left_out.items():
        tell(f"left out: {label} alone has {', '.join(names)}", answers)
    tell(f"report: {report}", answers)


def _table(group: Group) -> Any:
    """Lay out the published metrics and the most telling others; intervals for one model only."""
    from rich.table import Table
    from rich.text import Text

    from protenix_eba.eval.definitions import PAPER_ROWS
    from protenix_eba.eval.report.tables import headline

    columns, rows = headline(group)
    single = len(group.summaries) == 1
    kind = ", C-alpha atoms only" if group.ca_only else ""
    intervals = ", 95% intervals" if single else ""
    table = Table(title=f"Medians over targets{kind} (n = {len(group.targets)}){intervals}")
    table.add_column("metric", no_wrap=True)
    for column in columns:
        table.add_column(Text(column.title), justify="right", no_wrap=single)
    shown = [row for row in rows if row.metric.key in (*PAPER_ROWS, *_ALSO_PRINTED)]
    for row in shown:
        unit = f" ({row.metric.unit})" if row.metric.unit else ""
        texts = [
            Text(cell.text, style="bold" if cell.best else "")
            + Text(f" {cell.interval}" if single and cell.interval else "", style="dim")
            for cell in row.cells
        ]
        table.add_row(row.metric.label + unit, *texts)
    table.caption = f"{len(rows) - len(shown)} more metrics are in the report"
    return table


def _print_failures(label: str, reasons: Mapping[str, str]) -> None:
    from protenix_eba.core.progress import answers, tell

    for name, reason in list(reasons.items())[:_MAX_FAILURES_PRINTED]:
        tell(f"failed: {label}, {name}: {reason}", answers)
    more = len(reasons) - _MAX_FAILURES_PRINTED
    if more > 0:
        tell(f"failed: {label}: {more} more, listed in the report", answers)
