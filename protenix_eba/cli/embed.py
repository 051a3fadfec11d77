"""`protenix-eba embed`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from protenix_eba.cli.session import (
    Trunk,
    config_option,
    exit_with_failures,
    load_configuration,
    make_folder,
    msa_option,
)
from protenix_eba.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.data.sequences import Protein
    from protenix_eba.trajectories import Target


@click.command(
    epilog="""Example:

    \b
    protenix-eba embed --config configs/demo_sft.yaml --checkpoint runs/start.pt \\
        --input my_md/ --out runs/embeddings --msa my_msas/

Exit status: 0 all targets have embeddings, 2 unusable input or none has, 3 some failed."""
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
    help="Folder of MD targets (ATLAS layout), or a FASTA or CSV file of sequences.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for NAME.safetensors."
)
@msa_option
@click.option(
    "--shard",
    default="1/1",
    show_default=True,
    help="Part i/n of the targets, i from 1 to n: for job arrays, into the same folder.",
)
def embed(
    config_path: Path,
    checkpoint: Path,
    input_path: Path,
    out: Path,
    msa_path: Path | None,
    shard: str,
) -> None:
    """Run the frozen trunk once for each sequence and keep its embeddings and features.

    What is there already, made by the same trunk from the same sequence, MSA and number of cycles,
    is kept; what was made from something else is an error and stays as it is. Without templates.
    """
    from protenix_eba.data.msa import MsaFiles
    from protenix_eba.data.sequences import read_proteins
    from protenix_eba.progress import console
    from protenix_eba.sharding import Shard
    from protenix_eba.trajectories import find_targets

    found: list[Protein | Target] = []
    found += read_proteins(input_path) if input_path.is_file() else find_targets(input_path)
    targets = Shard.parse(shard).of(found)
    msas = MsaFiles(msa_path)
    console.print(f"embedding {len(targets)} targets: {msas}", markup=False, soft_wrap=True)
    configs = load_configuration(config_path)
    from protenix_eba.weights import load_checkpoint

    trunk = Trunk(configs, load_checkpoint(checkpoint), out, msas)
    # What is no target's fault ends the command: a folder or a checkpoint that cannot be used.
    make_folder(out)
    if not all((out / f"{target.name}.safetensors").is_file() for target in targets):
        _ = trunk.model
    n_kept, failures = _embed_all(targets, trunk)
    n_embedded = len(targets) - n_kept - len(failures)
    console.print(
        f"{out}: {n_embedded} embedded, {n_kept} kept, {len(failures)} failed",
        markup=False,
        soft_wrap=True,
    )
    exit_with_failures(failures, len(targets))


def _embed_all(targets: Sequence[Protein | Target], trunk: Trunk) -> tuple[int, dict[str, str]]:
    """The number of targets whose embeddings were there, and why others have none."""
    from protenix_eba.data.sequences import Protein, protein_of_target
    from protenix_eba.progress import track

    n_kept, failures = 0, {}
    for target in track(targets, "embedding", len(targets)):
        try:
            protein = target if isinstance(target, Protein) else protein_of_target(target)
            if trunk.stored_msa(protein):
                n_kept += 1
            else:
                trunk.embed(protein)
        except UserError as error:
            failures[target.name] = str(error)
        except Exception as error:  # whatever Protenix says of it, the others are not to be lost
            failures[target.name] = f"{type(error).__name__}: {error}"
    return n_kept, failures
