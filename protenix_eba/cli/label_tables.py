"""`protenix-eba label report`, `merge`, `combine` and `import-csv`: tools for label tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.numbers import NumberRange
from protenix_eba.cli.status import SOME_FAILED
from protenix_eba.energy.choices import ENERGY_UNITS, MATCHES, Meaning

if TYPE_CHECKING:
    from protenix_eba.energy.table import EnergyLabels

__all__ = ["combine", "import_csv", "merge", "report"]

_SHOWN = 5
_TABLE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog="Example: protenix-eba label report labels.parquet --out report.md")
@click.argument("labels", type=_TABLE)
@click.option(
    "--out", type=_TABLE, help="Also write the report as a Markdown file, with a plot beside it."
)
def report(labels: Path, out: Path | None) -> None:
    """Say how far labels can be trusted: spread, noise, reliability, outliers.

    Noise is known where the labels were made with --repeat 2 or more. Of a table of several
    energies also their rank correlations, and the effective number of conformers under each.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from protenix_eba.core.errors import UserError
    from protenix_eba.core.progress import answers
    from protenix_eba.energy.committee_report import agreement, agreement_cells, headings
    from protenix_eba.energy.report import (
        HEADINGS,
        label_quality,
        quality_cells,
        write_quality_report,
    )
    from protenix_eba.energy.table import read_labels

    if out is not None and out.suffix != ".md":
        raise UserError(f"--out {out}: the report is Markdown", "give a name that ends in .md")
    table = read_labels(labels)
    # narrow enough for 80 columns
    shown = Table(*HEADINGS, title=str(labels), box=SIMPLE_HEAD, padding=0)
    for row in label_quality(table):
        shown.add_row(*quality_cells(row))
    answers.print(shown)
    if rows := agreement(table):
        beside = Table(*headings(rows), title="Rank correlations", box=SIMPLE_HEAD, padding=0)
        for cells in agreement_cells(rows):
            beside.add_row(*cells)
        answers.print(beside)
    if out is not None:
        for path in write_quality_report(out, table):
            click.echo(path)


@click.command(epilog="Example: protenix-eba label merge labels.parquet")
@click.argument("out", type=_TABLE)
def merge(out: Path) -> None:
    """Put the shares of `label --shard i/n --out OUT` together into the table OUT."""
    from protenix_eba.energy.shards import merge_shards

    labels = merge_shards(out)
    click.echo(f"{out}: {len(labels)} rows of {len(labels.targets)} targets")


@click.command(
    epilog="""Example:

    \b
    protenix-eba label combine charmm36=charmm36.parquet gfn2-xtb=xtb.parquet \\
        --out labels.parquet"""
)
@click.argument("tables", metavar="NAME=TABLE...", nargs=-1, required=True)
@click.option("--energy-column", "chosen", metavar="NAME",
              help="The energy that stands in the column energy_kj_mol, and that training takes "
              "unless eba.energy_column names another.  [default: the first]")  # fmt: skip
@click.option("--out", required=True, type=_TABLE, help="Label table to write (Parquet).")
def combine(tables: tuple[str, ...], chosen: str | None, out: Path) -> None:
    """Put several energies of the same frames into one table, each under a name.

    `label report` then says how far they agree, and eba.energy_column chooses one or mixes them. A
    frame that is not in all tables stays, without the energies that it lacks.
    """
    from protenix_eba.core.errors import UserError
    from protenix_eba.energy import committee
    from protenix_eba.energy.table import read_labels, write_labels

    paths: dict[str, Path] = {}
    for word in tables:
        name, equals, path = word.partition("=")
        if not equals or name in paths:
            raise UserError(f"{word}: a table to combine", "give each as NAME=TABLE, once")
        paths[name] = Path(path)
    found = {name: read_labels(path) for name, path in paths.items()}
    labels = committee.combine(found, chosen)
    write_labels(out, labels)
    click.echo(f"{out}: {len(labels)} rows of {len(labels.targets)} targets")
    for name, table in committee.energies_by_name(labels).items():
        click.echo(f"{name}: {int(table.ok.sum())} ok")


@click.command(
    "import-csv",
    epilog="""Examples:

    \b
    protenix-eba label import-csv energies.csv --structures cif --out l.parquet
    protenix-eba label import-csv energies.csv --input md --out l.parquet
    protenix-eba label import-csv bias.csv --bias --input md --out l.parquet
    protenix-eba label import-csv mbar.csv --weights --input md --out l.parquet
    protenix-eba label import-csv COLVAR.1 COLVAR.2 --bias --target gly4 --replica 1 \\
        --replica 2 --input md --out l.parquet

Exit status: 0 all rows ok, 2 unusable input, 3 some rows of --input have no energy.""",
)
@click.argument("paths", metavar="FILES", nargs=-1, required=True, type=_TABLE)
@click.option("--structures", type=click.Path(path_type=Path, file_okay=False),
              help="For energies as the EBA authors published them: folder of the structure files "
              "that the rows name. It adds the number of residues and the identity of each frame "
              "to the table.")  # fmt: skip
@click.option("--input", "data", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the trajectories whose frames the rows describe, by target, replica "
              "and frame.")  # fmt: skip
@click.option("--bias", is_flag=True,
              help="The numbers are a bias potential V that acted in the MD. The labels are then "
              "-V: they align a model to the ensemble without the bias.")  # fmt: skip
@click.option("--weights", is_flag=True,
              help="The numbers are weights w of the frames, up to a factor, as MBAR or WHAM give "
              "for one state. The labels are then -kT ln w.")  # fmt: skip
@click.option("--target", "targets", multiple=True,
              help="For COLVAR files: the target that they belong to, given once for all files or "
              "once for each.  [default: the only one]")  # fmt: skip
@click.option("--replica", "replicas", multiple=True, type=int,
              help="For COLVAR files: the replica number of each, in the order of the files.  "
              "[default: the only one]")  # fmt: skip
@click.option(
    "--column",
    help="For COLVAR files: the column that holds the energies.  [default: the only one named "
    "*.bias]",
)
@click.option("--energy-unit", "unit", type=click.Choice(ENERGY_UNITS),
              help="For COLVAR files: the unit of that column.  [default: kj/mol]")  # fmt: skip
@click.option("--temperature-K", "temperature_K", type=NumberRange(min=0, min_open=True),
              help="For --energy-unit kT and --weights: the temperature in kelvin.  "
              "[default: 300]")  # fmt: skip
@click.option("--match", type=click.Choice(MATCHES),
              help="For COLVAR files: how their rows are matched to frames, by time or "
              "row by row; auto goes by time where the trajectory has times.  [default: "
              "auto]")  # fmt: skip
@click.option("--out", required=True, type=_TABLE, help="Label table to write (Parquet).")
def import_csv(
    paths: tuple[Path, ...],
    structures: Path | None,
    data: Path | None,
    bias: bool,
    weights: bool,
    targets: tuple[str, ...],
    replicas: tuple[int, ...],
    column: str | None,
    unit: str | None,
    temperature_K: float | None,
    match: str | None,
    out: Path,
) -> None:
    """Make a label table from energies that you already have.

    Without --input, FILES is one CSV file as the EBA authors published theirs, with the columns
    frame (NAME_<number>.cif), initial_e and final_e in kJ/mol, and rmsd in angstrom.

    With --input, FILES are CSV files with the columns target, replica, frame (from 0) and
    energy_kj_mol, or bias_kj_mol with --bias, or weight with --weights; or PLUMED's COLVAR files,
    one for each replica. A bias must not change with time: give that of the converged metadynamics,
    not the growing one.
    """
    from protenix_eba.core.errors import UserError

    given = {
        "targets": targets,
        "replicas": replicas,
        "column": column,
        "unit": unit,
        "temperature_K": temperature_K,
        "match": match,
    }
    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    if data is None:
        _refuse_without_input(paths, bias or weights or bool(chosen))
        labels = _published(paths[0], structures)
    else:
        if bias and weights:
            raise UserError("--bias and --weights name the same numbers", "give one of them")
        meaning: Meaning = "bias" if bias else "weights" if weights else "energy"
        labels = _by_frame(paths, data, structures, meaning, chosen)
    from protenix_eba.energy.table import write_labels

    write_labels(out, labels)
    click.echo(f"{out}: {len(labels)} rows of {len(labels.targets)} targets")
    if data is not None:
        _tell_failures(labels)


def _refuse_without_input(paths: tuple[Path, ...], by_frame: bool) -> None:
    from protenix_eba.core.errors import UserError

    if by_frame:
        raise UserError(
            "energies of trajectory frames need their trajectories",
            "give --input, the folder with NAME/NAME.pdb and NAME/NAME_R1.xtc",
        )
    if len(paths) > 1:
        raise UserError(
            f"expected one CSV file of published energies, found {len(paths)}", "give one"
        )


def _published(path: Path, structures: Path | None) -> EnergyLabels:
    from protenix_eba.energy.published import labels_from_csv

    return labels_from_csv(path, structures)


def _by_frame(
    paths: tuple[Path, ...],
    data: Path,
    structures: Path | None,
    meaning: Meaning,
    chosen: dict[str, Any],
) -> EnergyLabels:
    from protenix_eba.core.errors import UserError
    from protenix_eba.energy.by_frame import ColvarChoice, labels_by_frame

    if structures is not None:
        raise UserError(
            "--structures is for published energies, --input for those of trajectories",
            "give one of them",
        )
    of_weights: dict[str, Any] = {}
    if meaning == "weights" and "temperature_K" in chosen:
        of_weights["temperature_K"] = chosen.pop("temperature_K")
    if "temperature_K" in chosen and chosen.get("unit") != "kT":
        raise UserError(
            "--temperature-K is of the unit kT and of weights",
            "add --energy-unit kT, or leave it out",
        )
    colvar = ColvarChoice(**chosen) if chosen else None
    imported = labels_by_frame(paths, data, meaning=meaning, colvar=colvar, **of_weights)
    for remark in imported.remarks:
        click.echo(remark)
    return imported.labels


def _tell_failures(labels: EnergyLabels) -> None:
    """Name the rows without an energy, the first few, and end with status 3 if there are any."""
    failed = labels.select(~labels.ok).rows()
    for row in failed[:_SHOWN]:
        frame = f"{row['target']} replica {row['replica']} frame {row['frame']}"
        click.echo(f"{row['status']}: {frame}: {row['reason']}")
    if failed:
        click.echo(f"{len(failed)} rows have no energy")
        raise click.exceptions.Exit(SOME_FAILED)
