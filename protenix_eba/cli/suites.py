"""`protenix-eba suites`: what `evaluate --suite` can answer; and how its answers are printed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from protenix_eba.cli.session import plugin_option

if TYPE_CHECKING:
    from protenix_eba.eval.suites.answers import Answer
    from protenix_eba.eval.suites.page import Page, Table
    from protenix_eba.eval.suites.registry import Outcome, Suite

__all__ = ["ATLAS", "answer", "compare_suites", "screen_table", "suite_of", "suites"]

# What `evaluate` answers without --suite; its files name no suite.
ATLAS: Final = "atlas"
_MAX_ROWS = 40


@click.command(epilog="Then: protenix-eba evaluate --suite NAME --reference DATA --samples DIR")
@plugin_option
def suites(plugins: tuple[str, ...]) -> None:
    """List the questions that `evaluate --suite` answers.

    For each: what it measures and needs, how many samples its papers take, the source and licence
    of its data, and the settings that --set changes. Nothing is downloaded.
    """
    from protenix_eba.eval.suites.catalogue import known_suites

    for suite in known_suites():
        click.echo(_description(suite))


def _description(suite: Suite) -> str:
    fields = dataclasses.fields(suite.settings) if suite.settings else ()
    defaults = [f"{f.name}={getattr(suite.settings, f.name)}" for f in fields]
    lines = {
        "measures": suite.measures,
        "--reference": suite.reference,
        "samples": suite.n_samples,
        "data": suite.data,
        **({"--set": ", ".join(defaults)} if defaults else {}),
    }
    body = "\n".join(
        click.wrap_text(text, 96, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
        for name, text in lines.items()
    )
    return f"{suite.name}\n{body}\n"


def answer(
    name: str,
    samples: Sequence[Path],
    reference: Path,
    out: Path,
    targets: Collection[str] | None,
    weights: Path | None,
    changes: Sequence[str],
    jobs: int,
) -> bool:
    """Run a suite, write its files and print its headline; return whether some targets failed.

    Args:
        name: Name of the suite.
        samples: Ensembles.
        reference: The suite's data.
        out: Folder for the results.
        targets: Those that are wanted; all when None.
        weights: File of weights.
        changes: NAME=VALUE settings.
        jobs: Number of processes.
    """
    from protenix_eba.core.files import make_folder
    from protenix_eba.eval.suites.catalogue import SUITES
    from protenix_eba.eval.suites.run import run_suite, write_outcome

    suite = SUITES.get(name)
    make_folder(out)  # before the work rather than after
    outcome, record = run_suite(
        suite, samples, reference, targets=targets, weights=weights, settings=changes, jobs=jobs
    )
    write_outcome(outcome, record, out)
    _print(outcome, out)
    return bool(outcome.failed)


def suite_of(folder: Path) -> str | None:
    """Return the suite whose results a folder holds; None if it holds none, or they are damaged."""
    try:
        content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(content.get("suite", ATLAS)) if isinstance(content, dict) and content else None


def compare_suites(answers: Mapping[str, Answer], out: Path) -> Page:
    """Put answers of one suite side by side, write the files and print the headline.

    Args:
        answers: From `load_answers`.
        out: Folder for the comparison.

    Returns:
        What its page shows.
    """
    from protenix_eba.core.progress import answers as screen
    from protenix_eba.eval.suites.comparison import compare_answers

    page = compare_answers(answers, out)
    for table in page.tables:
        if table.main:
            screen.print(screen_table(table))
    _print_remarks(page.outcome, out)
    return page


def screen_table(found: Table) -> Any:
    """Lay out one key for the screen: a row for each target and item, a column for each model."""
    from rich.table import Table as Screen
    from rich.text import Text

    table = Screen(title=found.title)
    for title in ("target", "item"):
        table.add_column(title)
    for label, _ in found.headings:
        table.add_column(Text(label), justify="right")
    for target, item, cells in found.rows[:_MAX_ROWS]:
        table.add_row(*map(Text, (target, item, *(number for number, _ in cells))))
    more = len(found.rows) - _MAX_ROWS
    table.caption = "intervals are in the report"
    if more > 0:
        table.caption += f", and {more} more rows"
    return table


def _print(outcome: Outcome, out: Path) -> None:
    from protenix_eba.core.progress import answers

    answers.print(_table(outcome))
    _print_remarks(outcome, out)


def _print_remarks(outcome: Outcome, out: Path) -> None:
    from protenix_eba.core.progress import answers, tell

    for finding in outcome.findings:
        tell(finding, answers)
    for note in outcome.notes:
        tell(f"note: {note}", answers)
    for name, reason in outcome.failed.items():
        tell(f"failed: {name}: {reason}", answers)
    tell(f"results: {out}; report: {out / 'report.html'}", answers)


def _table(outcome: Outcome) -> Any:
    """Lay out the values of the headline; the files have all values."""
    from rich.table import Table
    from rich.text import Text

    shown = [v for v in outcome.values if not outcome.headline or v.key in outcome.headline]
    table = Table()
    for title in ("target", "item", "value"):
        table.add_column(title)
    table.add_column("", justify="right")
    table.add_column("95% interval", style="dim")
    for value in shown[:_MAX_ROWS]:
        unit = f" ({value.unit})" if value.unit else ""
        interval = "{:.3f} to {:.3f}".format(*value.interval) if value.interval else ""
        words = (value.target, value.item, value.key + unit, f"{value.value:.3f}", interval)
        table.add_row(*map(Text, words))
    more = len(outcome.values) - min(len(shown), _MAX_ROWS)
    table.caption = f"{more} more values are in metrics.csv" if more else None
    return table
