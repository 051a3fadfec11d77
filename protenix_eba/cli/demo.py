"""`protenix-eba demo`: the whole pipeline on a small example."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(
    epilog="""Example:

    \b
    protenix-eba demo --out runs/demo"""
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Folder to write to; a second run continues from what is there.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Number of processes that compute energies.",
)
def demo(out: Path, jobs: int) -> None:
    """Run the whole pipeline on shipped MD whose answer is known, in minutes on two cores.

    MD of five tripeptides under a bias, labels, embeddings, supervised fine-tuning, energy-based
    alignment, ensembles, their evaluation against MD without the bias, which training never sees,
    and stock `protenix pred` on the result. Every stage prints its command.
    """
    from protenix_eba.cli.demo_stages import Demo, run_stages
    from protenix_eba.cli.demo_summary import summarise

    run = Demo(out, jobs)
    summarise(run, run_stages(run))
