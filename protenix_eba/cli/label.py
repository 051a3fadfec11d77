"""`protenix-eba label`: force field energies for every frame of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from protenix_eba.energy.label import LabelReport
    from protenix_eba.energy.table import EnergyLabels

__all__ = ["label"]

_EXIT_SOME_FAILED = 3


@click.command(
    epilog="""Example:

    \b
    protenix-eba label --input atlas --out labels.parquet --per-target 100 --jobs 4

Exit status: 0 all rows ok, 2 unusable input, 3 some frames or trajectories failed."""
)
@click.option("--input", "input_dir", required=True, type=click.Path(path_type=Path),
              help="Folder of targets, NAME/NAME.pdb and NAME/NAME_prod_R1_fit.xtc.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False),
              help="Label table (Parquet). A run that was stopped goes on from it.")  # fmt: skip
@click.option("--reference", "reference_dir", type=click.Path(path_type=Path),
              help="Folder of the MD whose PDB files decide protonation and disulfides: give it "
              "for generated samples, so that their energies compare with the MD's.")  # fmt: skip
@click.option("--protocol", type=click.Choice(["default", "published", "paper"]), default="default",
              show_default=True,
              help="default: least noise; published: as the EBA authors' script; paper: the "
              "same with 150 mM salt.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes, one thread each.")  # fmt: skip
@click.option("--platform", default="auto", show_default=True,
              help="OpenMM platform: CUDA where there is one, else CPU.")  # fmt: skip
@click.option("--stride", type=click.IntRange(min=1), default=1, show_default=True,
              help="Every so many frames.")  # fmt: skip
@click.option("--per-target", type=click.IntRange(min=1),
              help="Random frames of each target, at most.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of that random choice.")
@click.option("--no-minimize", is_flag=True, help="Energies of the frames as they are.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the rows as text as well.")  # fmt: skip
@click.option("--compare", type=click.Path(path_type=Path, dir_okay=False),
              help="Another label table: print how energies of common frames agree.")  # fmt: skip
def label(
    input_dir: Path,
    out: Path,
    reference_dir: Path | None,
    protocol: str,
    jobs: int,
    platform: str,
    stride: int,
    per_target: int | None,
    seed: int,
    no_minimize: bool,
    csv_path: Path | None,
    compare: Path | None,
) -> None:
    """Give every frame of MD trajectories a CHARMM36 + GBn2 energy after minimisation."""
    from protenix_eba.energy.label import FrameSelection, label_targets
    from protenix_eba.energy.protocol import protocol_by_name
    from protenix_eba.energy.table import read_labels, write_csv

    other = read_labels(compare) if compare else None
    report = label_targets(
        input_dir,
        out,
        protocol_by_name(protocol, minimise=not no_minimize),
        reference_dir=reference_dir,
        selection=FrameSelection(stride=stride, per_target=per_target, seed=seed),
        jobs=jobs,
        platform=platform,
    )
    if csv_path:
        write_csv(csv_path, report.labels)
    if other is not None:
        _print_comparison(report.labels, other)
    if _print_summary(report, out):
        raise click.exceptions.Exit(_EXIT_SOME_FAILED)


def _print_summary(report: LabelReport, out: Path) -> bool:
    """Say what was done; true if anything failed."""
    from protenix_eba.progress import console

    labels = report.labels
    counts = {s: int((labels.status == s).sum()) for s in ("ok", "outlier", "failed")}
    found = ", ".join(f"{n} {s}" for s, n in counts.items())
    console.print(f"{out}: {len(labels)} rows ({found}), {report.computed} computed now")
    for problem in report.problems:
        console.print(f"not labelled: {problem}")
    for row in [row for row in labels.rows() if row["status"] != "ok"][:20]:
        place = f"{row['target']} replica {row['replica']} frame {row['frame']}"
        console.print(f"{row['status']}: {place}: {row['reason']}")
    return bool(counts["failed"] or report.problems)


def _print_comparison(labels: EnergyLabels, other: EnergyLabels) -> None:
    from rich.console import Console
    from rich.table import Table

    from protenix_eba.energy.compare import compare_labels

    table = Table(title="Energies of common frames")
    for heading in ("target", "n", "RMS diff. (kJ/mol)", "max diff. (kJ/mol)", "Spearman"):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for row in compare_labels(labels, other):
        values = (f"{row.rms_kj_mol:.3f}", f"{row.max_kj_mol:.3f}", f"{row.spearman:.3f}")
        table.add_row(row.target, str(row.n), *values)
    Console().print(table)
