"""`protenix-eba embed`: trunk embeddings, stored once for each sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.session import (
    config_option,
    exit_with_failures,
    load_configuration,
    msa_option,
    plugin_option,
    shard_option,
)
from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.core.sharding import Shard
    from protenix_eba.host.trunk import Trunk
    from protenix_eba.structures.sequences import Protein
    from protenix_eba.training.data.interfaces import Dataset


@click.command(
    epilog="""Example:

    \b
    protenix-eba embed --config configs/demo_sft.yaml --checkpoint runs/start.pt \\
        --input my_md/ --out runs/embeddings --msa my_msas/

Exit status: 0 all targets have embeddings, 2 unusable input or none has, 3 some failed."""
)
@config_option
@plugin_option
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    required=True,
    help="Protenix checkpoint whose trunk is run.",
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    required=True,
    help="Proteins to embed: a folder of MD targets (ATLAS layout), or a FASTA or CSV file of "
    "sequences.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write to; each protein gets a file NAME.safetensors.",
)
@msa_option
@shard_option("All parts write into the same folder.")
def embed(
    config_path: Path,
    plugins: tuple[str, ...],
    checkpoint: Path,
    input_path: Path,
    out: Path,
    msa_path: Path | None,
    shard: Shard | None,
) -> None:
    """Run the frozen trunk once for each sequence and keep its embeddings and features.

    Files that are there already are kept if the same trunk made them from the same sequence, MSA
    and number of cycles; files made from anything else are an error and stay as they are.
    Templates are not used.
    """
    from protenix_eba.core.files import make_folder
    from protenix_eba.core.progress import tell
    from protenix_eba.host.msa import MsaFiles

    configs = load_configuration(config_path, plugins)
    targets = _targets(input_path, configs)
    if shard:
        targets = dict(shard.of(list(targets.items())))
    msas = MsaFiles(msa_path)
    tell(f"embedding {len(targets)} targets: {msas}")
    from protenix_eba.host.trunk import Trunk
    from protenix_eba.host.weights import load_checkpoint

    trunk = Trunk(configs, load_checkpoint(checkpoint), out, msas)
    # What is no target's fault ends the command: a folder or a checkpoint that cannot be used.
    make_folder(out)
    if not all((out / f"{name}.safetensors").is_file() for name in targets):
        _ = trunk.model
    n_kept, failures = _embed_all(targets, trunk)
    n_embedded = len(targets) - n_kept - len(failures)
    tell(f"{out}: {n_embedded} embedded, {n_kept} kept, {len(failures)} failed")
    exit_with_failures(failures, len(targets))


def _targets(input_path: Path, configs: Any) -> dict[str, Callable[[], Protein]]:
    """Return the name of each protein with what reads it, from sequences or from a data set."""
    from protenix_eba.host import environment
    from protenix_eba.host.config import eba_config
    from protenix_eba.structures.sequences import read_proteins
    from protenix_eba.training.data import atlas  # noqa: F401  registers our own

    if input_path.is_file():
        return {protein.name: partial(_same, protein) for protein in read_proteins(input_path)}
    config = replace(eba_config(configs), data_dir=str(input_path))
    dataset: Dataset = environment.DATASETS.get(config.dataset)(config)
    return {name: partial(dataset.protein, name) for name in dataset.replicas()}


def _same(protein: Protein) -> Protein:
    return protein


def _embed_all(
    targets: Mapping[str, Callable[[], Protein]], trunk: Trunk
) -> tuple[int, dict[str, str]]:
    """Embed all targets; return how many had embeddings already, and why others have none."""
    from protenix_eba.core.progress import track

    n_kept, failures = 0, {}
    for name, read in track(targets.items(), "embedding", len(targets)):
        try:
            protein = read()
            if trunk.stored_msa(protein):
                n_kept += 1
            else:
                trunk.embed(protein)
        except UserError as error:
            failures[name] = str(error)
        except Exception as error:  # whatever Protenix says of it, the others are not to be lost
            failures[name] = f"{type(error).__name__}: {error}"
    return n_kept, failures
