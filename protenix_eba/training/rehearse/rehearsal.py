"""Measurements on a trainer that is built but does not run: steps, validations, checkpoints."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch.distributed as dist

from protenix_eba.core.errors import UserError
from protenix_eba.core.ranks import gather_rows
from protenix_eba.core.runlog import open_run_log
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.loader import SequenceCoupledLoader
from protenix_eba.training.data.prefetch import prefetch
from protenix_eba.training.replay.trainer import OnPolicyTrainer
from protenix_eba.training.trainer import EBATrainer

__all__ = [
    "ItemSize",
    "bytes_on_disk",
    "largest_item",
    "n_refreshes",
    "n_repeats",
    "order_by_size",
    "seconds_per_step",
    "seconds_per_validation",
    "seconds_to_save",
    "size_of",
    "typical_items",
]

# Items that stand for an epoch, in whole steps.
_N_TYPICAL: Final = 16
# Held-out items whose time is measured, beyond the first.
_N_HELD_OUT: Final = 4


@dataclass(frozen=True)
class ItemSize:
    """The size of an item.

    Attributes:
        target: Name of its protein.
        n_tokens: Residues, of the crop if there is one.
        n_atoms: Heavy atoms.
    """

    target: str
    n_tokens: int
    n_atoms: int


# Items.


def order_by_size(loader: SequenceCoupledLoader) -> list[int]:
    """Return the numbers of an epoch's items, from the smallest to the largest.

    Items are compared by their residues, those with as many residues by atoms per residue.
    """
    density = [len(s.mask) / s.protein.protein.n_residues for s in loader.sources]
    sizes = [(loader.length(i), density[loader.target(i)]) for i in range(loader.epoch_length)]
    return sorted(range(len(sizes)), key=sizes.__getitem__)


def largest_item(loader: SequenceCoupledLoader, order: Sequence[int]) -> tuple[int, Item]:
    """Return the largest item that can be read, after its number.

    Args:
        loader: The loader.
        order: From `order_by_size`.

    Raises:
        UserError: None can be read.
    """
    for index in reversed(order):
        item = loader[index]
        if not item.problem:
            return index, item
    raise UserError(
        f"no item of an epoch can be read; the last one tried: {item.problem.splitlines()[0]}",
        "restore the trajectories that were labelled, or label those that are there",
    )


def size_of(item: Item) -> ItemSize:
    """Return how large an item is."""
    return ItemSize(item.target, item.n_tokens, item.mask.shape[1])


def typical_items(order: Sequence[int], n_per_step: int) -> list[int]:
    """Return items that stand for equal shares of an epoch by size, after a step that warms up.

    Args:
        order: From `order_by_size`.
        n_per_step: Items of one process in a step.
    """
    n = n_per_step * math.ceil(_N_TYPICAL / n_per_step)
    spread = [order[int((i + 0.5) * len(order) / n)] for i in range(n)]
    return spread[:n_per_step] + spread


# Measurements. All processes make them together.


def seconds_per_step(trainer: EBATrainer, items: Sequence[int]) -> float:
    """Train on some items and return the mean seconds of a step, without the first step.

    Args:
        trainer: The trainer.
        items: Numbers of the items, which fill two steps or more; all processes take the same.
    """
    n_steps = len(items) // trainer.iters_to_accumulate
    with closing(prefetch(trainer.loader, items)) as trainer.coming:
        seconds = [trainer.train_step()["seconds"] for _ in range(n_steps)]
    return sum(seconds[1:]) / (n_steps - 1)


def seconds_per_validation(trainer: EBATrainer) -> float:
    """Return the seconds of a validation, without the ensembles that are sampled in it.

    They are extrapolated from a validation on one item of each process and one on a few more.
    """
    trainer.runlog = open_run_log(trainer.folder.path, resume_step=0, wandb=None, silent=True)
    world, settings = dist.get_world_size(), trainer.eba
    n_items = math.ceil(settings.validation_items / world)
    seconds = []
    for n in (1, 1, 1 + _N_HELD_OUT):  # the first warms up
        trainer.eba = replace(settings, validation_items=n * world, validation_samples=0)
        started = time.perf_counter()
        trainer.evaluate()
        seconds.append(time.perf_counter() - started)
    trainer.eba = settings
    _, one, more = seconds
    return one + (n_items - 1) * max(0.0, more - one) / _N_HELD_OUT


def seconds_to_save(trainer: EBATrainer) -> float:
    """Save a checkpoint in the trainer's folder, and return the seconds that this took.

    Raises:
        UserError: There is no room for it.
    """
    model = sum(t.numel() * t.element_size() for t in trainer.start.values())
    needed = 7 * model  # weights, two moments, average; and up to three models
    free = shutil.disk_usage(trainer.folder.path.parent).free  # only the first process has made it
    if free < needed:
        raise UserError(
            f"{trainer.folder.path} has {free / 1e9:.1f} GB left, a scratch checkpoint may take "
            f"{needed / 1e9:.1f} GB",
            "let TMPDIR name a folder with more room",
        )
    started = time.perf_counter()
    trainer.save_checkpoint()
    return time.perf_counter() - started


def bytes_on_disk(trainer: EBATrainer) -> tuple[int, int]:
    """Return the bytes of a checkpoint, of all processes' parts, and of the models beside it."""
    folder = trainer.folder
    models = (folder.model, folder.average, folder.best, folder.reference)
    own = {"checkpoint": _size(folder.checkpoints.rglob("*")), "models": _size(models)}
    rows = gather_rows([own])
    return sum(row["checkpoint"] for row in rows), sum(row["models"] for row in rows)


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def n_repeats(trainer: EBATrainer, first: int) -> tuple[int, int]:
    """Return how many validations and checkpoints the loop makes from a step on to its end."""
    configs = trainer.configs
    last = configs.max_steps
    if first >= last:
        return 0, 0
    n_validations = 0
    if trainer.held_out is not None:
        n_validations = 1 + _multiples(configs.eval_interval, range(first, last))
    return n_validations, 1 + _multiples(configs.checkpoint_interval, range(first + 1, last))


def n_refreshes(trainer: EBATrainer, first: int) -> int:
    """Return how often a replay buffer is refreshed from a step on to the end of the run."""
    if not isinstance(trainer, OnPolicyTrainer):
        return 0
    steps = range(first, trainer.configs.max_steps)
    return _multiples(trainer.dataset.settings.refresh_steps, steps)


def _multiples(interval: int, steps: range) -> int:
    return sum(step % interval == 0 for step in steps) if interval > 0 else 0
