"""`protenix-eba compare`: evaluated models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from protenix_eba.cli.session import plugin_option
from protenix_eba.cli.suites import ATLAS, compare_suites, suite_of
from protenix_eba.core.errors import UserError

__all__ = ["compare"]

_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog="""Example:

    \b
    protenix-eba compare evaluation/sft evaluation/eba --published --out report
    protenix-eba compare evaluation/* couplings/* --out report"""
)
@click.argument("evaluations", type=_FOLDER, nargs=-1, required=True, metavar="EVALUATION...")
@click.option("--out", type=_FOLDER, required=True, help="Folder to write the results to.")
@click.option(
    "--published",
    is_flag=True,
    help="Also show results from papers, each with its source and caveats.",
)
@plugin_option
def compare(
    evaluations: Sequence[Path], out: Path, published: bool, plugins: tuple[str, ...]
) -> int:
    """Put evaluated models side by side, over the targets that all of them have.

    EVALUATION... are folders that `protenix-eba evaluate` wrote. The models after the first are
    compared with it target by target, and each difference comes with its confidence interval.
    Writes comparison.json, comparison.csv, comparison.tex, report.html and figures.

    Folders that `evaluate --suite` wrote stand side by side under the names of their folders, each
    value with its interval; so do the differences from the first one where at least three targets
    have a value in both. There is no comparison.tex. Given beside evaluations against MD, their
    tables and figures are also in the report, and their files in OUT/SUITE.
    """
    from protenix_eba.eval.suites.answers import load_answers

    of_suite: dict[str, list[Path]] = {}
    for folder in evaluations:
        of_suite.setdefault(suite_of(folder) or ATLAS, []).append(folder)
    of_md = of_suite.pop(ATLAS, [])
    for written in (out, *(out / suite for suite in of_suite if of_md)):
        if written.resolve() in [folder.resolve() for folder in evaluations]:
            raise UserError(
                f"--out {out}: {written} is one of the evaluations that are compared: its report "
                "would be lost",
                "choose another folder",
            )
    if not of_md:
        if published:
            raise UserError("--published: no published results of suites are known", "leave it out")
        compare_suites(load_answers(evaluations), out)
        return 0
    from protenix_eba.cli.evaluation_output import write_outputs
    from protenix_eba.eval.models import compare_evaluations
    from protenix_eba.eval.published import published_rows
    from protenix_eba.eval.results import load_evaluation

    loaded = [load_evaluation(folder) for folder in of_md]
    answers = {suite: load_answers(folders) for suite, folders in of_suite.items()}
    comparison = compare_evaluations(loaded, published_rows() if published else ())
    comparison.write(out)
    pages = [
        replace(compare_suites(found, out / suite), file=f"{suite}/comparison.csv")
        for suite, found in answers.items()
    ]
    write_outputs(comparison, out, stem="comparison", suites=pages)
    return 0
