"""`protenix-eba evaluate`: sampled ensembles against molecular dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from protenix_eba.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.energy.table import EnergyLabels
    from protenix_eba.eval.energies import TargetEnergies
    from protenix_eba.eval.results import Evaluation

__all__ = ["evaluate"]

SOME_TARGETS_FAILED: Final = 3
SAMPLE_LABELS: Final = "energies.parquet"
# What must be equal for energies to share a zero.
_SAME: Final = (("another protocol", "protocol_hash"), ("another topology", "topology_hash"))
_FOLDER = click.Path(path_type=Path)


@click.command(
    epilog="Example: protenix-eba evaluate --reference md --samples base=samples/base "
    "--samples aligned=samples/eba --labels labels.parquet --out evaluation"
)
@click.option(
    "--reference",
    type=_FOLDER,
    required=True,
    help="MD in ATLAS's layout: NAME/NAME.pdb and NAME/NAME_prod_R1_fit.xtc, _R2_, _R3_.",
)
@click.option(
    "--samples",
    multiple=True,
    required=True,
    metavar="[LABEL=]DIR",
    help="Sampled ensembles, NAME/NAME.pdb and NAME/NAME.xtc; repeat it to compare models. "
    f"Energies are read from DIR/{SAMPLE_LABELS} if that file exists.",
)
@click.option("--out", type=_FOLDER, required=True, help="Folder for the results.")
@click.option(
    "--labels",
    type=_FOLDER,
    help="Energies of the MD frames, made by `protenix-eba label`.",
)
@click.option(
    "--training",
    multiple=True,
    metavar="LABEL=RUN",
    help="Folder of the training run of a model, for its curves in the report.",
)
def evaluate(
    reference: Path,
    samples: Sequence[str],
    out: Path,
    labels: Path | None,
    training: Sequence[str],
) -> int:
    """Compare sampled ensembles with MD, after AlphaFlow's protocol.

    Atoms are matched by chain, residue and name. Beside each metric stands what MD reaches
    against itself. Writes metrics.json, metrics.csv and report.html. Exit status 3: some targets
    failed; they are listed with the reason.
    """
    from protenix_eba.eval.evaluate import evaluate as run
    from protenix_eba.eval.findings import findings, loss_curves, training_settings
    from protenix_eba.eval.report import render_report

    ensembles, runs = _labelled(samples), _labelled(training, "--training")
    md_energies, sample_energies = _energies(labels, ensembles)
    result = run(
        reference, ensembles, out, md_energies=md_energies, sample_energies=sample_energies
    )
    report = out / "report.html"
    settings = {"MD energies": str(labels)} if labels else {}
    render_report(
        result,
        report,
        findings=findings(result.to_json(), runs),
        losses=loss_curves(runs),
        settings=settings | training_settings(runs),
    )
    _print(result, report)
    return SOME_TARGETS_FAILED if result.failed else 0


def _labelled(samples: Sequence[str], option: str = "--samples") -> dict[str, Path]:
    ensembles: dict[str, Path] = {}
    for value in samples:
        label, separator, folder = value.partition("=")
        if not separator or Path(value).is_dir():
            label, folder = Path(value).resolve().name, value
        if not label or not folder:
            raise UserError(f"{option} {value!r}: expected LABEL=DIR or DIR", "name both")
        if label in ensembles:
            raise UserError(
                f"{option}: two are called {label!r}",
                f"give each a label of its own: {option} base=DIR {option} aligned=DIR",
            )
        ensembles[label] = Path(folder)
    return ensembles


def _energies(
    labels: Path | None, ensembles: Mapping[str, Path]
) -> tuple[dict[str, TargetEnergies], dict[str, dict[str, TargetEnergies]]]:
    if labels is None:
        return {}, {}
    from protenix_eba.energy.table import read_labels

    md = read_labels(labels)
    samples: dict[str, dict[str, TargetEnergies]] = {}
    for label, folder in ensembles.items():
        path = folder / SAMPLE_LABELS
        if path.is_file():
            own = read_labels(path)
            _check_comparable(md, own, path)
            # Outliers among the samples are what the model made: they count.
            samples[label] = _grouped(own)
    return _grouped(md.select(md.ok)), samples


def _check_comparable(md: EnergyLabels, samples: EnergyLabels, path: Path) -> None:
    for what, field in (
        ("another protocol", "protocol_hash"),
        ("another topology", "topology_hash"),
    ):
        known, found = (
            set(zip(table.target.tolist(), getattr(table, field).tolist(), strict=True))
            for table in (md, samples)
        )
        shared = set(md.target.tolist())
        wrong = sorted({name for name, _ in found - known if name in shared})
        if wrong:
            raise UserError(
                f"{path}: energies of {', '.join(wrong[:4])} were computed with {what} than those "
                "of the MD, so they cannot be compared",
                "label MD and samples with the same protocol and protonation, or omit --labels",
            )


def _grouped(labels: EnergyLabels) -> dict[str, TargetEnergies]:
    from protenix_eba.eval.energies import energies_by_target

    return energies_by_target(
        labels.target.tolist(), labels.replica, labels.energy_kj_mol, labels.n_residues
    )


def _print(result: Evaluation, report: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from protenix_eba.eval.report import headline_table

    console = Console(highlight=False)
    columns, rows = headline_table(result)
    table = Table(title=f"Median over {len(result.common_targets)} common targets; best in bold")
    table.add_column("metric")
    for column in columns:
        table.add_column(Text(column), justify="right")
    for row in rows:
        unit = f" ({row.metric.unit})" if row.metric.unit else ""
        texts = [f"[bold]{cell.text}[/bold]" if cell.best else cell.text for cell in row.cells]
        table.add_row(row.metric.label + unit, *texts)
    console.print(table)
    for note in result.notes:
        console.print(f"note: {note}", markup=False)
    for label, reasons in result.failed.items():
        for name, reason in reasons.items():
            console.print(f"failed: {label}, {name}: {reason}", markup=False)
    console.print(f"report: {report}", markup=False)
