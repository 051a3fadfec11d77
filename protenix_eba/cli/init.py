"""`protenix-eba init`."""

from __future__ import annotations

from pathlib import Path

import click

from protenix_eba.cli.session import config_option, load_configuration


@click.command(
    epilog="""Example:

    \b
    protenix-eba init --config configs/demo_sft.yaml --out runs/start.pt"""
)
@config_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint to write.")
@click.option("--seed", default=0, show_default=True, help="Of the weights.")
@click.option("--quick-start", "quick", is_flag=True, help="For peptides learnt in minutes.")
def init(config_path: Path, out: Path, seed: int, quick: bool) -> None:
    """Write a randomly initialised Protenix of the configured sizes.

    For tests and for the demo, where no upstream checkpoint is at hand. An existing file is kept.
    """
    from protenix_eba.progress import console

    if out.is_file():
        console.print(f"{out} exists already", markup=False)
        return
    configs = load_configuration(config_path)
    from protenix_eba.weights import (
        count_parameters,
        quick_start,
        random_state,
        save_checkpoint,
    )

    with console.status("drawing weights"):
        state = random_state(configs, seed)
    if quick:
        state = quick_start(state)
    save_checkpoint(out, state)
    console.print(f"wrote {out}: {count_parameters(state):,} random weights", markup=False)
