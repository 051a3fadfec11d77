"""`protenix-eba init`: a checkpoint to start from where no upstream one is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.session import config_option, load_configuration, plugin_option

if TYPE_CHECKING:
    from protenix_eba.host.weights import StateDict


@click.command(
    epilog="""Examples:

    \b
    protenix-eba init --config configs/demo_sft.yaml --start glycine --out runs/start.pt
    protenix-eba init --config configs/pretrain_peptides.yaml --quick-start --out runs/init.pt"""
)
@config_option
@plugin_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Checkpoint file to write."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random weights.")
@click.option("--quick-start", "quick", is_flag=True,
              help="Draw random weights from which a small diffusion module learns peptides "
              "within an hour; the weights of the trunk are all 0.")  # fmt: skip
@click.option("--start", type=click.Choice(["glycine", "tripeptides"]),
              help="Take the weights of a diffusion module that this package ships, trained on MD "
              "of glycine chains or of four tripeptides with a hand; the weights of the trunk are "
              "all 0.")  # fmt: skip
def init(
    config_path: Path,
    plugins: tuple[str, ...],
    out: Path,
    seed: int,
    quick: bool,
    start: str | None,
) -> None:
    """Write a checkpoint of the configured sizes, where no upstream checkpoint is at hand.

    Its weights are random, or those of a small diffusion module that this package ships: for tests,
    the demo and the proof. An existing file is kept.
    """
    from protenix_eba.core.errors import UserError
    from protenix_eba.core.progress import console, tell

    if start and quick:
        raise UserError("--start has its own weights, --quick-start random ones", "give one")
    if out.is_file():
        tell(f"{out} exists already")
        return
    configs = load_configuration(config_path, plugins)
    from protenix_eba.host import starts, weights

    with console.status("making weights"):
        state = starts.shipped_start(configs, start) if start else _random(configs, seed, quick)
    weights.save_checkpoint(out, state)
    kind = f"around the start {start}" if start else "random"
    tell(f"wrote {out}: {weights.count_parameters(state):,} weights, {kind}")


def _random(configs: Any, seed: int, quick: bool) -> StateDict:
    from protenix_eba.host.starts import quick_start, random_state, silent_trunk

    state = random_state(configs, seed)
    return silent_trunk(quick_start(state)) if quick else state
