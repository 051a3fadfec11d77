"""The options of `import` and `label` that choose the frames of a target."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

__all__ = ["frame_options"]


def frame_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--stride`, `--frames-per-target` and `--seed`.

    The command gets them as one argument `choice`, a `FrameChoice`.
    """

    @functools.wraps(function)
    def with_choice(
        *args: Any, stride: int, per_target: int | None, seed: int, **words: Any
    ) -> None:
        from protenix_eba.structures.frame_choice import FrameChoice

        if per_target is not None and stride != 1:
            raise click.UsageError("give --stride or --frames-per-target, not both")
        function(*args, choice=FrameChoice(stride, per_target, seed), **words)

    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Seed of the random draw of --frames-per-target."),
        click.option("--frames-per-target", "--per-target", "per_target",
                     type=click.IntRange(min=1),
                     help="Number of frames to take of each target, in place of --stride. The "
                     "frames of all replicas are cut into this many equal blocks, and one frame "
                     "is drawn at random from each; a target with fewer frames gives all of them."),
        click.option("--stride", type=click.IntRange(min=1), default=1, show_default=True,
                     help="Take the first frame of every complete block of this many: with 100, a "
                     "trajectory of 10,001 frames gives 100."),
    ):  # fmt: skip
        with_choice = option(with_choice)
    return with_choice
