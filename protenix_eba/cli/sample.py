"""`protenix-eba sample`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.session import (
    Trunk,
    config_option,
    exit_with_failures,
    load_configuration,
    make_folder,
    msa_option,
)

if TYPE_CHECKING:
    from protenix_eba.data.sequences import Protein
    from protenix_eba.diffusion import ConformerDenoiser
    from protenix_eba.sample import SamplerSettings
    from protenix_eba.weights import StateDict


@click.command(
    epilog="""Example:

    \b
    protenix-eba sample --config configs/demo_eba.yaml --checkpoint runs/eba/model.pt \\
        --input sequences.fasta --out runs/samples -n 100

Exit status: 0 all sequences are sampled, 2 unusable input or none is, 3 some failed."""
)
@config_option
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Protenix checkpoint."
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    required=True,
    help="FASTA, or CSV with the columns name and seqres.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Output folder.")
@click.option("-n", "--samples", default=250, show_default=True, help="Samples per sequence.")
@click.option("--steps", default=20, show_default=True, help="Denoising steps.")
@click.option("--gamma0", default=0.8, show_default=True, help="Churn.")
@click.option("--noise-scale", default=1.0, show_default=True, help="lambda.")
@click.option("--step-scale", default=1.0, show_default=True, help="eta.")
@click.option("--seed", default=0, show_default=True, help="Sample n is made from (seed, n).")
@click.option("--batch", default=50, show_default=True, help="Samples at a time.")
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of `protenix-eba embed`; the trunk runs for what is not there.",
)
@msa_option
def sample(
    config_path: Path,
    checkpoint: Path,
    input_path: Path,
    out: Path,
    samples: int,
    steps: int,
    gamma0: float,
    noise_scale: float,
    step_scale: float,
    seed: int,
    batch: int,
    embeddings: Path | None,
    msa_path: Path | None,
) -> None:
    """Sample ensembles from sequences alone: NAME/NAME.pdb and NAME/NAME.xtc.

    Ensembles that are there already, made with the same settings, are kept. Without --msa,
    embeddings that are there are taken as they are, whatever MSA they were made with.
    """
    from protenix_eba.data.msa import MsaFiles
    from protenix_eba.data.sequences import read_proteins
    from protenix_eba.errors import UserError
    from protenix_eba.files import sha256_of_file
    from protenix_eba.progress import console

    for name, value in (("--samples", samples), ("--batch", batch)):
        if value < 1:
            raise UserError(f"{name}: expected at least 1, found {value}")
    proteins = read_proteins(input_path)
    msas = MsaFiles(msa_path) if msa_path else None
    stored = f"embeddings from {embeddings}, else " if embeddings else ""
    message = f"sampling {len(proteins)} sequences: {stored}{msas or MsaFiles(None)}"
    console.print(message, markup=False, soft_wrap=True)
    configs = load_configuration(config_path)
    from protenix_eba.sample import SamplerSettings, describe
    from protenix_eba.weights import load_checkpoint

    settings = SamplerSettings(
        n_steps=steps,
        gamma0=gamma0,
        noise_scale=noise_scale,
        step_scale=step_scale,
        sigma_data=configs.sigma_data,
    )
    state = load_checkpoint(checkpoint)
    make_folder(out)
    trunk = Trunk(configs, state, embeddings, msas)
    provenance = {
        "checkpoint_sha256": sha256_of_file(checkpoint),
        "n_samples": samples,
        "seed": seed,
        "sampler": describe(settings),
    }
    _sample_all(proteins, configs, state, trunk, settings, provenance, out, batch)


def _sample_all(
    proteins: Sequence[Protein],
    configs: Any,
    state: StateDict,
    trunk: Trunk,
    settings: SamplerSettings,
    provenance: dict[str, Any],
    out: Path,
    batch: int,
) -> None:
    """Sample each protein that is not there yet, with a bar."""
    import torch

    from protenix_eba import __version__
    from protenix_eba.diffusion import ConformerDenoiser
    from protenix_eba.errors import UserError
    from protenix_eba.progress import console, progress_bar
    from protenix_eba.sample import is_sampled
    from protenix_eba.weights import build_diffusion_module

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).to(device).eval()
    versions = {"versions": {"protenix-eba": __version__, "torch": torch.__version__}}
    samples = provenance["n_samples"]
    failures = {}
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=samples * len(proteins), note="")
        for number, protein in enumerate(proteins, 1):
            try:
                msa = trunk.msa(protein)
                made = provenance | {"sequence": list(protein.chains), "msa": msa}
                if not is_sampled(out / protein.name, protein.name, made):
                    each = _sample_one(
                        protein, denoiser, trunk, settings, made, versions, out, batch
                    )
                    for n in each:
                        bar.update(task, advance=n, note=protein.name)
            except UserError as error:
                failures[protein.name] = str(error)
            bar.update(task, completed=samples * number)
    n_sampled = len(proteins) - len(failures)
    console.print(f"{samples} samples of {n_sampled} sequences in {out}", markup=False)
    exit_with_failures(failures, len(proteins))


def _sample_one(
    protein: Protein,
    denoiser: ConformerDenoiser,
    trunk: Trunk,
    settings: SamplerSettings,
    made: dict[str, Any],
    versions: dict[str, Any],
    out: Path,
    batch: int,
) -> Iterator[int]:
    """Sample a protein and write its ensemble; yields the sizes of the batches on the way."""
    import numpy as np

    from protenix_eba.data.features import protein_features, to_device
    from protenix_eba.sample import sample_batches, write_ensemble

    device = next(denoiser.parameters()).device
    featurised = protein_features(protein, seed=made["seed"])
    embedded = trunk.embed(protein).to(device)
    featurised.features.update(to_device(featurised.features, device))
    batches = []
    for coordinates in sample_batches(
        denoiser,
        featurised,
        embedded,
        n_samples=made["n_samples"],
        batch_size=batch,
        settings=settings,
        seed=made["seed"],
    ):
        batches.append(coordinates)
        yield len(coordinates)
    write_ensemble(out / protein.name, featurised, np.concatenate(batches), made | versions)
