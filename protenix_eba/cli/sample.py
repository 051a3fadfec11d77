"""`protenix-eba sample`: ensembles of conformations from sequences."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import click

from protenix_eba.cli.numbers import Number, NumberRange
from protenix_eba.cli.processes import in_processes, processes_option
from protenix_eba.cli.sample_models import Job, Report, model_folders, sample_with
from protenix_eba.cli.session import (
    config_option,
    exit_with_failures,
    load_configuration,
    msa_option,
    plugin_option,
    shard_option,
)
from protenix_eba.cli.status import SOME_FAILED
from protenix_eba.core.errors import UserError
from protenix_eba.core.sharding import Shard
from protenix_eba.sampling.settings import PRESETS, SamplerSettings


@click.command(
    epilog="""Example:

    \b
    protenix-eba sample --config configs/demo_eba.yaml --checkpoint runs/eba/model.pt \\
        --input sequences.fasta --out runs/samples -n 250 --preset tuned

Several models, into runs/samples/sft and runs/samples/eba:

    \b
    protenix-eba sample ... --out runs/samples \\
        --checkpoint sft=runs/sft/model.pt --checkpoint eba=runs/eba/model.pt

A second run continues where the first was stopped; with a larger -n it adds samples. A job array
takes a share of the sequences in each job: --shard "$SLURM_ARRAY_TASK_ID/8"

Exit status: 0 all sequences are sampled, 2 unusable input or none is, 3 some failed or have fewer
samples than asked for."""
)
@config_option
@plugin_option
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    metavar="[NAME=]PATH",
    help="Protenix checkpoint to sample with. If several are given, each writes into a folder "
    "NAME below --out; without NAME= it is named after the checkpoint file.",
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    required=True,
    help="Sequences to sample: a FASTA file, a CSV file with the columns name and seqres, or the "
    "JSON file of `protenix pred`.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option(
    "-n", "--samples", default=250, show_default=True, help="Number of samples for each sequence."
)
@click.option(
    "--steps", default=20, show_default=True, help="Number of denoising steps that make a sample."
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Settings of the sampler (--gamma0, --noise-scale, --step-scale) that belong together. "
    "tuned: those of the EBA authors' script; alphafold3: those of AlphaFold 3; exact: no added "
    "noise and Heun's steps, to judge populations. An option that is given wins over the preset.",
)
@click.option(
    "--sampler",
    default="churned",
    show_default=True,
    metavar="NAME",
    help="Diffusion sampler: churned, which adds some noise before each step as AlphaFold 3 does, "
    "or one that a plugin registers.",
)
@click.option(
    "--gamma0",
    type=Number(),
    help="Churn: the fraction by which the noise level is raised before each step; 0 adds no "
    "noise.  [default: 0.8]",
)
@click.option(
    "--noise-scale",
    type=Number(),
    help="Factor on the noise that churn adds, lambda in AlphaFold 3.  [default: 1]",
)
@click.option(
    "--step-scale",
    type=Number(),
    help="Factor on the length of each denoising step, eta in AlphaFold 3.  [default: 1]",
)
@click.option(
    "--gamma-min",
    type=Number(),
    help="Noise level in angstrom below which churn ends.  [default: 1]",
)
@click.option(
    "--s-max",
    type=Number(),
    help="Largest noise level, in units of sigma_data (16 angstrom).  [default: 160]",
)
@click.option(
    "--s-min",
    type=Number(),
    help="Smallest noise level, in units of sigma_data (16 angstrom).  [default: 0.0004]",
)
@click.option(
    "--rho",
    type=Number(),
    help="Exponent that spaces the noise levels; larger values put more steps at small noise.  "
    "[default: 7]",
)
@click.option(
    "--order",
    type=click.IntRange(1, 2),
    help="Order of each step. 1: Euler's; 2: Heun's, which denoises twice and takes twice as "
    "long.  [default: 1; exact: 2]",
)
@click.option(
    "--seed",
    type=int,
    help="Random seed; sample number n depends on the seed and n only.  [default: modelSeeds of a "
    "JSON, else 0]",
)
@click.option(
    "--batch",
    default="auto",
    show_default=True,
    help="Number of samples computed at a time; auto chooses it by the memory that is free.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Precision of matrix products; auto takes bf16 on a GPU and fp32 on a CPU.",
)
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder that `protenix-eba embed` wrote. The trunk runs only for proteins that it lacks.",
)
@msa_option
@processes_option
@shard_option("All parts write into the same folder, each protein by itself.")
@click.option(
    "--split-cif",
    is_flag=True,
    help="Also write each sample as a file of its own, NAME/NAME_<number>.cif.",
)
@click.option(
    "--valid-only",
    is_flag=True,
    help="Leave out samples with a broken chain, a D-amino acid or a clash, and make others in "
    "their place.",
)
@click.option(
    "--max-attempts-factor",
    type=NumberRange(min=1),
    default=4.0,
    show_default=True,
    help="With --valid-only: give up after this many times the number of samples asked for.",
)
@click.option(
    "--relax",
    is_flag=True,
    help="Also minimise the samples with the force field, and write them with their energies to "
    "OUT_relaxed.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --relax: number of processes that minimise, for each of --processes.",
)
@click.option(
    "--head",
    metavar="NAME",
    help="Also refine the C-alpha traces of the samples with the model's distogram, and write "
    "them to OUT_NAME. NAME is ebmfold, or a head that a plugin registers.",
)
def sample(
    config_path: Path,
    plugins: tuple[str, ...],
    checkpoints: tuple[str, ...],
    input_path: Path,
    out: Path,
    samples: int,
    batch: str,
    valid_only: bool,
    max_attempts_factor: float,
    split_cif: bool,
    precision: str,
    embeddings: Path | None,
    msa_path: Path | None,
    shard: Shard | None,
    processes: int,
    relax: bool,
    jobs: int,
    head: str | None,
    seed: int | None,
    preset: str | None,
    steps: int,
    sampler: str,
    **schedule: float | None,
) -> int:
    """Sample ensembles from sequences alone: NAME/NAME.pdb and NAME/NAME.xtc.

    NAME/NAME.json says how they were made, and which samples are invalid. Ensembles that are there
    already and were made with the same settings are kept. Without --msa, embeddings from
    --embeddings are used as they are, whatever MSA they were made with.
    """
    from protenix_eba.core.progress import tell
    from protenix_eba.host.msa import MsaFiles
    from protenix_eba.structures.sequences import read_proteins, read_seed

    models = model_folders(checkpoints, out)
    if processes > 1:
        return in_processes(click.get_current_context().obj, shard, processes)
    proteins = read_proteins(input_path)
    if shard:
        proteins = shard.of(proteins)
    chosen_seed = (read_seed(input_path) or 0) if seed is None else seed
    msas = MsaFiles(msa_path) if msa_path else None
    stored = f"embeddings from {embeddings}, else " if embeddings else ""
    tell(f"sampling {len(proteins)} sequences: {stored}{msas or MsaFiles(None)}")
    configs = load_configuration(config_path, plugins)
    from protenix_eba.sampling.run import Plan

    plan = Plan(
        n_samples=samples,
        settings=_settings(preset, schedule, n_steps=steps, sigma_data=configs.sigma_data),
        seed=chosen_seed,
        chunk=_chunk(batch),
        valid_only=valid_only,
        max_attempts=math.ceil(samples * max_attempts_factor),
        split_cif=split_cif,
    )
    rest = (precision, embeddings, msas, relax, jobs, len(models) > 1)
    job = Job(configs, proteins, plan, sampler, head, *rest)
    report = Report()
    for folder, path in models.items():
        sample_with(job, path, folder, report)
    _exit_with(report, len(proteins) * len(models))
    return 0


def _exit_with(report: Report, n_ensembles: int) -> None:
    """Print what went wrong and exit; with status 3 also if only samples are missing."""
    from protenix_eba.core.progress import tell

    for problem in report.problems:
        tell(problem)
    exit_with_failures(report.failures, n_ensembles)
    if report.problems:
        raise click.exceptions.Exit(SOME_FAILED)


def _settings(
    preset: str | None, given: dict[str, float | None], *, n_steps: int, sigma_data: float
) -> SamplerSettings:
    """Return the preset's settings, replaced by the options that were given."""
    chosen = PRESETS[preset] if preset else {}
    chosen = chosen | {key: value for key, value in given.items() if value is not None}
    return replace(SamplerSettings(n_steps=n_steps, sigma_data=sigma_data), **chosen)


def _chunk(batch: str) -> int | None:
    if batch == "auto":
        return None
    if not batch.isdigit():
        raise UserError(f"--batch: expected 'auto' or a number of samples, found {batch!r}")
    return int(batch)
