"""`protenix-eba export`: a checkpoint that stock `protenix pred` loads."""

from __future__ import annotations

from pathlib import Path

import click

from protenix_eba.cli.session import load_configuration


@click.command(
    epilog="""Example:

    \b
    protenix-eba export --checkpoint runs/eba/model.pt \\
        --model-name protenix_tiny_default_v0.5.0 --out protenix_tiny_default_v0.5.0.pt"""
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    required=True,
    help="Checkpoint of a training run, its model.pt.",
)
@click.option(
    "--model-name",
    required=True,
    help="Stock model that is to load it, by the name that `protenix pred -n` takes.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Checkpoint file to write."
)
def export(checkpoint: Path, model_name: str, out: Path) -> None:
    """Write a plain checkpoint that stock `protenix pred` loads strictly.

    A model trained with fewer diffusion transformer blocks than the stock one gets further blocks
    that do nothing, so that it computes exactly the same. Before the file is written, it is checked
    that the stock model can load these weights.
    """
    from protenix_eba.core.progress import tell

    configs = load_configuration(None, model_name=model_name)
    from protenix_eba.host.weights import (
        build_model,
        count_parameters,
        load_checkpoint,
        save_checkpoint,
        with_depth,
    )

    state = load_checkpoint(checkpoint)
    deeper = with_depth(state, configs.model.diffusion_module.transformer.n_blocks)
    build_model(configs, deeper)
    save_checkpoint(out, deeper)
    tell(f"wrote {out}: {count_parameters(deeper):,} weights, loads as {model_name}")
