"""`protenix-eba evaluate`: sampled ensembles against molecular dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from protenix_eba.cli.evaluation_output import write_outputs
from protenix_eba.cli.session import exit_with_failures, plugin_option, shard_option
from protenix_eba.cli.status import SOME_FAILED
from protenix_eba.cli.suites import ATLAS, answer, suite_of
from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.core.sharding import Shard
    from protenix_eba.energy.table import EnergyLabels
    from protenix_eba.eval.metrics.additions import ModelEnergies
    from protenix_eba.eval.metrics.energies import TargetEnergies

__all__ = ["evaluate"]

SAMPLE_LABELS: Final = "energies.parquet"
MD_CACHE: Final = ".md-cache"
_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""Example:

    \b
    protenix-eba evaluate --reference atlas --samples samples/eba --out evaluation/eba --jobs 8
    protenix-eba compare evaluation/* --out comparison"""
)
@click.option(
    "--reference",
    type=_PATH,
    required=True,
    help="Folder of MD targets, laid out as by ATLAS or `protenix-eba import`. For another "
    "--suite, its data: `protenix-eba suites` says which.",
)
@click.option(
    "--samples",
    type=_PATH,
    multiple=True,
    required=True,
    metavar="PATH [PATH...]",
    help="Ensembles of one model: a folder, or files that are named after their targets. "
    f"Energies of the samples are read from DIR/{SAMPLE_LABELS} if that file exists.",
)
@click.argument("more", type=_PATH, nargs=-1, metavar="")
@click.option("--out", type=_PATH, required=True, help="Folder to write the results to.")
@click.option(
    "--label", help="Name of the model in tables and figures.  [default: the name of --out]"
)
@click.option(
    "--suite",
    "suite_name",
    default=ATLAS,
    show_default=True,
    metavar="NAME",
    help="Question to answer: the name of a suite that `protenix-eba suites` lists.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting of the suite; `protenix-eba suites` lists them. May be repeated.",
)
@click.option(
    "--weights",
    type=_PATH,
    help="Weights of the conformations, as `protenix-eba reweight` writes them. With the suite "
    "atlas, each conformation is taken as often as its weight says.",
)
@click.option(
    "--compat",
    type=click.Choice(["alphaflow-1.9.9"]),
    help="Also compute the metrics with AlphaFlow's own script and mdtraj 1.9.9, as for the "
    "published tables. These numbers depend on the order of atoms.",
)
@click.option(
    "--compat-threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --compat: number of threads (OMP_NUM_THREADS) of the run that is repeated, because "
    "mdtraj's surface areas depend on it.",
)
@click.option(
    "--targets",
    type=_PATH,
    help="Evaluate only these targets, and count those without samples as failed. A CSV file with "
    "a column `name`, as AlphaFlow's splits have, or a text file with a name on each line.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes; each evaluates one target at a time. Of the other suites nmr alone "
    "has it, for predictions of chemical shifts.",
)
@click.option(
    "--md-cache",
    type=_PATH,
    help="Folder to keep what depends on the MD alone: another model on the same targets with as "
    "many samples then takes a third of the time. About 30 MB for a target of 200 residues; it can "
    "be deleted at any time.  [default: the folder .md-cache beside --out]",
)
@click.option(
    "--labels",
    type=_PATH,
    help="Label table with energies of the MD, made by `protenix-eba label`.",
)
@click.option(
    "--training",
    type=_PATH,
    help="Folder of the training run that made the model, to plot its curves.",
)
@plugin_option
@shard_option("Afterwards the same command without --shard puts the parts together.")
def evaluate(
    reference: Path,
    samples: Sequence[Path],
    more: Sequence[Path],
    out: Path,
    label: str | None,
    suite_name: str,
    changes: tuple[str, ...],
    weights: Path | None,
    compat: str | None,
    compat_threads: int,
    targets: Path | None,
    jobs: int,
    md_cache: Path | None,
    labels: Path | None,
    training: Path | None,
    plugins: tuple[str, ...],
    shard: Shard | None,
) -> int:
    """Compare a model's sampled ensembles with MD, after AlphaFlow's protocol.

    Atoms are matched by chain, residue and name. Each metric comes with its confidence interval
    over targets, and with the value that MD reaches against itself. Writes metrics.json,
    metrics.csv, metrics.tex, report.html, figures and each target's result. The same command
    continues a run that was stopped. Exit status 3: some targets failed; they are listed with the
    reason.

    With --suite, the same samples are compared with other data than MD.
    """
    paths = [*samples, *more]
    _refuse_other_results(out, suite_name)
    only_atlas = {
        "--label": label, "--compat": compat, "--labels": labels, "--training": training,
        "--shard": shard, "--md-cache": md_cache,
    }  # fmt: skip
    _refuse_given(suite_name, {"--set": changes} if suite_name == ATLAS else only_atlas)
    wanted = _names(targets) if targets else None
    if suite_name != ATLAS:
        failed = answer(suite_name, paths, reference, out, wanted, weights, changes, jobs)
        return SOME_FAILED if failed else 0
    if weights and labels:
        raise UserError(
            "--weights and --labels: the energies of samples are not weighted",
            "give one of them: weights are for the metrics of structures",
        )
    from protenix_eba.core.progress import tell
    from protenix_eba.eval.evaluate import evaluate as run
    from protenix_eba.eval.models import compare_evaluations
    from protenix_eba.eval.one_target import TargetSettings
    from protenix_eba.host.environment import use_plugins

    result = run(
        reference,
        paths,
        out,
        label=label or out.resolve().name,
        settings=TargetSettings(compat=compat, compat_threads=compat_threads),
        energies=_energies(labels, paths),
        targets=wanted,
        weights=weights,
        md_cache=md_cache or out.resolve().parent / MD_CACHE,
        jobs=jobs,
        sources={"MD energies": labels, "training": training},
        prepare=partial(use_plugins, plugins),
        shard=shard,
    )
    if shard:
        tell(f"{out}: {len(result.targets)} targets of this part are evaluated")
        exit_with_failures(result.failed, len(result.targets) + len(result.failed))
        return 0
    write_outputs(compare_evaluations([result]), out, stem="metrics")
    return SOME_FAILED if result.failed else 0


def _refuse_other_results(out: Path, suite: str) -> None:
    """Refuse a folder that holds the results of another suite, which would be overwritten."""
    found = suite_of(out)
    if found not in (suite, None):
        raise UserError(
            f"--out {out}: it holds the results of the suite {found}, not of {suite}",
            "choose another folder",
        )


def _refuse_given(suite: str, options: Mapping[str, object]) -> None:
    """Refuse options that the suite would ignore."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UserError(f"the suite {suite} has no {', '.join(given)}", "leave it out")


def _names(path: Path) -> list[str]:
    import csv

    from protenix_eba.core.files import require_file
    from protenix_eba.core.text_files import text_lines

    lines = text_lines(require_file(path, "targets", pipe=True))
    rows = [row for row in csv.reader(lines) if row and row[0].strip()]
    column = rows[0].index("name") if rows and "name" in rows[0] else None
    names = [row[column or 0].strip() for row in rows[column is not None :]]
    if not names:
        raise UserError(f"{path}: no target in it", "a column `name`, or a name a line")
    return names


def _energies(labels: Path | None, samples: Sequence[Path]) -> ModelEnergies | None:
    if labels is None:
        return None
    from protenix_eba.energy.table import read_labels
    from protenix_eba.eval.metrics.additions import ModelEnergies

    md = read_labels(labels)
    own: dict[str, TargetEnergies] = {}
    for folder in samples:
        path = folder / SAMPLE_LABELS
        if path.is_file():
            table = read_labels(path)
            _check_comparable(md, table, path)
            # Outliers among the samples are what the model made: they count.
            own |= _grouped(table)
    return ModelEnergies(_grouped(md.select(md.ok)), own)


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
    from protenix_eba.eval.metrics.energies import energies_by_target

    return energies_by_target(
        labels.target.tolist(), labels.replica, labels.energy_kj_mol, labels.n_residues
    )
