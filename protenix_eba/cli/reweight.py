"""`protenix-eba reweight`: weights with which an ensemble agrees with measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.numbers import NumberRange
from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.eval.reweighting.ensembles import Report

__all__ = ["reweight"]

_PATH = click.Path(path_type=Path)
_WEIGHTS = "weights.csv"


@click.command(
    epilog="""Example:

    \b
    protenix-eba reweight --samples samples/eba --data couplings.csv
    protenix-eba evaluate --reference md --samples samples/eba --out reweighted \\
        --weights samples/eba/weights.csv"""
)
@click.option("--samples", type=_PATH, multiple=True, required=True,
              help="Ensembles of one model: a folder or files, as for `protenix-eba "
              "evaluate`.")  # fmt: skip
@click.option("--data", type=_PATH, required=True,
              help="CSV file of measured values that the averages should agree with, as for "
              "`protenix-eba evaluate --suite nmr`.")  # fmt: skip
@click.option(
    "--held-out",
    type=_PATH,
    help="CSV file of measured values that are not fitted, and only judge the result.",
)
@click.option("--theta", default="cv", show_default=True, metavar="NUMBER|cv|cv-residues|l-curve",
              help="How much to trust the ensemble against the measurements; large values keep "
              "its weights. A number, or how to choose it. cv: cross-validation over single "
              "values; cv-residues: cross-validation over residues; l-curve: the corner of "
              "agreement against entropy.")  # fmt: skip
@click.option("--prior", type=_PATH,
              help="Weights to start from: a CSV file as this command writes it, or a label table "
              "(Parquet) of the conformations, for weights softmax(-E / (kT sqrt(N))) as in EBA.  "
              "[default: equal weights]")  # fmt: skip
@click.option("--temperature-K", "temperature_k", type=NumberRange(min=0, min_open=True),
              default=300.0, show_default=True,
              help="With a label table as --prior: the temperature in kelvin.")  # fmt: skip
@click.option("--min-effective", type=NumberRange(min=0), default=10.0, show_default=True,
              help="Refuse weights that rest on fewer effective conformations than "
              "this.")  # fmt: skip
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of the random parts of the cross-validation.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes for predictions of chemical shifts, which take seconds for each "
    "conformation.",
)
@click.option("--out", type=_PATH,
              help=f"CSV file of weights to write.  [default: {_WEIGHTS} in "
              "--samples]")  # fmt: skip
def reweight(
    samples: Sequence[Path], data: Path, held_out: Path | None, theta: str, prior: Path | None,
    temperature_k: float, min_effective: float, seed: int, jobs: int, out: Path | None,
) -> None:  # fmt: skip
    """Weight conformations so that their averages agree with measurements.

    By maximum entropy: the weights change the ensemble as little as the agreement allows. Writes
    the weights and, beside them, a file of the same name with .json, which holds chi^2 and the
    effective number of conformations before and after, and each value. Weights that rest on a few
    conformations are refused.
    """
    from protenix_eba.core.files import write_json
    from protenix_eba.eval.reweighting.ensembles import reweight_ensembles
    from protenix_eba.eval.weighting import write_weights

    path = out or _beside(samples)
    if path.suffix == ".json":
        raise UserError(f"--out {path}: that name is for the record", "name a CSV file")
    reports = reweight_ensembles(
        samples, data, theta=theta, held_out=held_out,
        prior=_prior(prior, temperature_k) if prior else None, min_effective=min_effective,
        seed=seed, jobs=jobs,
    )  # fmt: skip
    record = {
        "samples": [str(each) for each in samples],
        "data": str(data),
        "held_out": str(held_out) if held_out else None,
        "prior": str(prior) if prior else None,
        "seed": seed,
        "targets": {report.target: _plain(report) for report in reports},
    }
    write_json(path.with_suffix(".json"), record)
    write_weights(path, {report.target: report.weights for report in reports})
    _print(reports, path)


def _prior(path: Path, temperature_k: float) -> dict[str, Any]:
    """Return the prior weights of each target, from a file of weights or of labels."""
    from protenix_eba.energy.table import read_labels
    from protenix_eba.eval.metrics.energies import boltzmann_weights
    from protenix_eba.eval.weighting import read_weights

    if path.suffix != ".parquet":
        return read_weights(path)
    labels, found = read_labels(path), {}
    for name in sorted(set(labels.target.tolist())):
        own = labels.select(labels.target == name)  # by replica and frame, as files are read
        if not own.ok.all():
            raise UserError(
                f"{path}: {(~own.ok).sum()} conformations of {name} have no energy",
                "label them again, or give weights instead",
            )
        found[name] = boltzmann_weights(
            own.energy_kj_mol, int(own.n_residues[0]), temperature_K=temperature_k
        )
    return found


def _beside(samples: Sequence[Path]) -> Path:
    if len(samples) != 1 or not samples[0].is_dir():
        raise UserError("--out: needed where --samples is not one folder", "name a CSV file")
    return samples[0] / _WEIGHTS


def _plain(report: Report) -> dict[str, Any]:
    return {"numbers": report.numbers, "values": report.rows, "notes": report.notes}


def _print(reports: Sequence[Report], path: Path) -> None:
    from rich.table import Table

    from protenix_eba.core.progress import answers, tell

    table = Table()
    for title in ("target", "theta", "chi² before", "after", "effective before", "after"):
        table.add_column(title, justify="left" if title == "target" else "right")
    for report in reports:
        n = report.numbers
        table.add_row(
            report.target, f"{n['theta']:.3g}", f"{n['chi2_before']:.3f}",
            f"{n['chi2_after']:.3f}", f"{n['effective_before']:.0f}", f"{n['effective_after']:.0f}",
        )  # fmt: skip
    answers.print(table)
    for report in reports:
        for note in report.notes:
            tell(f"note: {report.target}: {note}", answers)
    tell(f"weights: {path}", answers)
