"""`protenix-eba label report`, `merge` and `import-csv`: what is done with finished tables."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["import_csv", "merge", "report"]

_TABLE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog="Example: protenix-eba label report labels.parquet --out report.md")
@click.argument("labels", type=_TABLE)
@click.option("--out", type=_TABLE, help="Markdown file; a plot is written beside it.")
def report(labels: Path, out: Path | None) -> None:
    """Say how far labels can be trusted: spread, noise, reliability, outliers.

    Noise is known where the labels were made with --repeat 2 or more.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from protenix_eba.energy.report import (
        HEADINGS,
        label_quality,
        quality_cells,
        write_quality_report,
    )
    from protenix_eba.energy.table import read_labels
    from protenix_eba.errors import UserError

    if out is not None and out.suffix != ".md":
        raise UserError(f"--out {out}: the report is Markdown", "give a name that ends in .md")
    table = read_labels(labels)
    # narrow enough for 80 columns
    shown = Table(*HEADINGS, title=str(labels), box=SIMPLE_HEAD, padding=0)
    for row in label_quality(table):
        shown.add_row(*quality_cells(row))
    Console().print(shown)
    if out is not None:
        for path in write_quality_report(out, table):
            click.echo(path)


@click.command(epilog="Example: protenix-eba label merge labels.parquet")
@click.argument("out", type=_TABLE)
def merge(out: Path) -> None:
    """Put the shares of `label --shard i/n --out OUT` together to the table OUT."""
    from protenix_eba.energy.shards import merge_shards

    labels = merge_shards(out)
    click.echo(f"{out}: {len(labels)} rows of {len(labels.targets)} targets")


@click.command(
    "import-csv",
    epilog="Example: protenix-eba label import-csv energies.csv --structures cif --out l.parquet",
)
@click.argument("path", metavar="CSV", type=_TABLE)
@click.option("--structures", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the structure files that the rows name: adds residues and the "
              "identity of each frame.")  # fmt: skip
@click.option("--out", required=True, type=_TABLE, help="Label table (Parquet).")
def import_csv(path: Path, structures: Path | None, out: Path) -> None:
    """Make a label table of published energies.

    The columns are frame (NAME_<number>.cif), initial_e and final_e in kJ/mol, and rmsd in
    angstrom, as the EBA authors published theirs.
    """
    from protenix_eba.energy.published import labels_from_csv
    from protenix_eba.energy.table import write_labels

    labels = labels_from_csv(path, structures)
    write_labels(out, labels)
    click.echo(f"{out}: {len(labels)} rows of {len(labels.targets)} targets")
