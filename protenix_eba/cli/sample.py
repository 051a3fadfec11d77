"""`protenix-eba sample`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.session import Trunk, config_option, load_configuration

if TYPE_CHECKING:
    from protenix_eba.data.sequences import Protein
    from protenix_eba.diffusion import ConformerDenoiser
    from protenix_eba.sample import SamplerSettings
    from protenix_eba.weights import StateDict


@click.command()
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
    help="Folder of `protenix-eba embed`; without it the trunk runs.",
)
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
) -> None:
    r"""Sample ensembles from sequences alone: NAME/NAME.pdb and NAME/NAME.xtc.

    Ensembles that are there already, made with the same settings, are kept.

    \b
    Example:
      protenix-eba sample --config configs/demo_eba.yaml --checkpoint runs/eba/model.pt \
          --input sequences.fasta --out runs/samples -n 100
    """
    from protenix_eba.data.sequences import read_proteins
    from protenix_eba.errors import UserError
    from protenix_eba.files import sha256_of_file

    for name, value in (("--samples", samples), ("--batch", batch)):
        if value < 1:
            raise UserError(f"{name}: expected at least 1, found {value}")
    proteins = read_proteins(input_path)
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
    trunk = Trunk(configs, state, embeddings)
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
    from protenix_eba.progress import console, progress_bar
    from protenix_eba.sample import is_sampled
    from protenix_eba.weights import build_diffusion_module

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).to(device).eval()
    versions = {"versions": {"protenix-eba": __version__, "torch": torch.__version__}}
    samples = provenance["n_samples"]
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=samples * len(proteins), note="")
        for protein in proteins:
            made = provenance | {"sequence": list(protein.chains)}
            if is_sampled(out / protein.name, protein.name, made):
                bar.advance(task, samples)
                continue
            for n in _sample_one(protein, denoiser, trunk, settings, made, versions, out, batch):
                bar.update(task, advance=n, note=protein.name)
    console.print(f"{samples} samples of {len(proteins)} sequences in {out}", markup=False)


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
    embedded = trunk.embed(featurised).to(device)
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
