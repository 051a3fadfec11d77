"""`protenix-eba embed`."""

from __future__ import annotations

from pathlib import Path

import click

from protenix_eba.cli.session import Trunk, config_option, load_configuration


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
    help="Folder of MD targets (ATLAS layout), or a FASTA or CSV file of sequences.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for NAME.safetensors."
)
def embed(config_path: Path, checkpoint: Path, input_path: Path, out: Path) -> None:
    r"""Run the frozen trunk once for each sequence and keep its embeddings.

    Without MSA and templates. What is there already, made by the same trunk, is kept.

    \b
    Example:
      protenix-eba embed --config configs/demo_sft.yaml --checkpoint runs/start.pt \
          --input my_md/ --out runs/embeddings
    """
    from protenix_eba.data.sequences import protein_of_target, read_proteins
    from protenix_eba.progress import console, track
    from protenix_eba.trajectories import find_targets

    if input_path.is_file():
        proteins = read_proteins(input_path)
    else:
        proteins = [protein_of_target(target) for target in find_targets(input_path)]
    configs = load_configuration(config_path)
    from protenix_eba.data.features import protein_features
    from protenix_eba.weights import load_checkpoint

    trunk = Trunk(configs, load_checkpoint(checkpoint), out)
    for protein in track(proteins, "embedding", len(proteins)):
        trunk.embed(protein_features(protein))
    console.print(f"embeddings of {len(proteins)} sequences in {out}", markup=False)
