"""`protenix-eba import`: MD of any origin into a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from protenix_eba.cli.frame_options import frame_options
from protenix_eba.cli.status import SOME_FAILED

if TYPE_CHECKING:
    from protenix_eba.importing.dataset import ImportReport
    from protenix_eba.structures.frame_choice import FrameChoice
    from protenix_eba.structures.md_files import Source

__all__ = ["import_md"]

_SHOWN = 20
_SUMMARIES = 3


@click.command(
    "import",
    epilog="""Examples:

    \b
    protenix-eba import --input atlas --split atlas_train.csv --stride 100 --out md --jobs 8
    protenix-eba import --input trajectories.csv --frames-per-target 300 --seed 1 --out md
    protenix-eba import --topology adk.psf --trajectory adk_dims.dcd --out md

The table has the columns name, topology, trajectory and optionally replica; its paths are relative
to it. OUT/import_report.csv has a row for each target, OUT/NAME/import.json says what was done.

Exit status: 0 all targets whole, 2 unusable input, 3 some targets failed or lack frames.""",
)
@click.option("--input", "input_path", type=click.Path(path_type=Path),
              help="MD to import: ATLAS archives or a folder of them, a folder with a sub-folder "
              "(a topology and its trajectories) for each protein, or a CSV table as described "
              "below.")  # fmt: skip
@click.option("--topology", type=click.Path(path_type=Path),
              help="To import a single protein: its topology file (PDB, mmCIF, GRO, PSF or "
              "HDF5).")  # fmt: skip
@click.option("--trajectory", "trajectories", multiple=True, type=click.Path(path_type=Path),
              help="To import a single protein: its trajectory (XTC, DCD, TRR, NetCDF or HDF5). "
              "Repeat the option for replicas.")  # fmt: skip
@click.option(
    "--name",
    help="To import a single protein: its name in the data set. [default: the topology's file "
    "name]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the data set to write, with NAME/NAME.pdb, NAME/NAME_R1.xtc and so "
              "on for each target. Targets that are finished already are kept.")  # fmt: skip
@click.option("--split", type=click.Path(path_type=Path, dir_okay=False),
              help="CSV file with the columns name and seqres. Only the targets that it lists are "
              "imported.")  # fmt: skip
@frame_options
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Number of processes; each imports one target at a time.")  # fmt: skip
def import_md(
    input_path: Path | None,
    topology: Path | None,
    trajectories: tuple[Path, ...],
    name: str | None,
    out: Path,
    split: Path | None,
    choice: FrameChoice,
    jobs: int,
) -> None:
    """Bring MD trajectories into the layout that all other commands read.

    Molecules that a periodic box cuts are made whole, atoms get their PDB names, whatever is not
    protein is dropped and counted, and whatever is missing is reported.
    """
    from protenix_eba.importing.dataset import import_targets
    from protenix_eba.structures.sequences import read_proteins

    sources = _sources(input_path, topology, trajectories, name)
    wanted = {p.name: p.chains for p in read_proteins(split)} if split else None
    report = import_targets(sources, out, choice, split=wanted, jobs=jobs)
    _print_summary(report, out)
    if not report.complete:
        raise click.exceptions.Exit(SOME_FAILED)


def _sources(
    input_path: Path | None, topology: Path | None, trajectories: tuple[Path, ...], name: str | None
) -> list[Source]:
    from protenix_eba.importing.sources import find_md, source_of_files

    single = topology is not None or bool(trajectories)
    if single == (input_path is not None):
        raise click.UsageError("give --input, or --topology with --trajectory")
    if input_path is not None:
        if name is not None:
            raise click.UsageError("--name goes with --topology")
        return find_md(input_path)
    if topology is None or not trajectories:
        raise click.UsageError("--topology and --trajectory go together")
    return [source_of_files(topology, trajectories, name)]


def _print_summary(report: ImportReport, out: Path) -> None:
    from protenix_eba.core.progress import tell

    counts = {
        s: sum(row.status == s for row in report.rows) for s in ("ok", "incomplete", "failed")
    }
    found = ", ".join(f"{n} {status}" for status, n in counts.items())
    kept = sum(row.kept for row in report.rows)
    frames = sum(row.n_frames for row in report.rows)
    tell(f"{out}: {found}; {frames} frames, {kept} targets kept from before")
    if report.not_in_split:
        tell(f"{report.not_in_split} targets are not in the split and were left alone")
    # Those that are ok may have a reason, too: what was decided on the way.
    told = sorted((row for row in report.rows if row.reason), key=lambda row: row.status == "ok")
    for row in told[:_SHOWN]:
        tell(f"{row.status}: {row.target}: {row.reason}")
    if len(told) > _SHOWN:
        tell(f"... and {len(told) - _SHOWN} more in {out / 'import_report.csv'}")
    summed = [row for row in report.rows if row.summary]
    for row in summed[:_SUMMARIES]:
        tell("\n  ".join([f"{row.target}:", *row.summary]))
    if len(summed) > _SUMMARIES:
        tell(f"the summaries of the others are in {out / 'NAME' / 'import.json'}")
