"""What to change where a step needs more memory than there is, and its peak after the change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from protenix_eba.training.data.item import Item
from protenix_eba.training.rehearse.peak_memory import Memory, MemoryMeter
from protenix_eba.training.trainer import EBATrainer

__all__ = ["Change", "advise", "passes"]

_SMALLEST_CROP = 8


@dataclass(frozen=True)
class Change:
    """A change of the configuration.

    Attributes:
        words: Keys and values to set, as on the command line.
        peak: Peak of the process in a pass of the largest item after the change.
        fits: Whether that peak is small enough.
    """

    words: str
    peak: Memory
    fits: bool

    @property
    def sentence(self) -> str:
        """The change as advice to users."""
        if not self.words:
            return "train a smaller model, or on a larger device: no crop is short enough"
        gib = (self.peak.device or self.peak.host) / 2**30
        still = (
            "" if self.fits else ", still too much: a smaller model or a larger device, beside it"
        )
        return f"set {self.words}; the peak is then {gib:.2f} GiB{still}"


def passes(action: Callable[[], object]) -> bool:
    """Do something and return whether the memory sufficed; what it held then is free again."""
    try:
        action()
    except RuntimeError as error:
        # On a CPU torch raises this one, on a GPU a kind of it.
        known = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not known:
            raise
        return False
    return True


def advise(trainer: EBATrainer, index: int, item: Item, fits: Callable[[Memory], bool]) -> Change:
    """Return the first change with which the largest item fits, or else the last one that ran.

    What leaves the gradient as it is comes first, then shorter crops. Each change is made on this
    trainer, which is of no use for training afterwards, and measured in a forward and backward
    pass.

    Args:
        trainer: A trainer of one process: several that run out of memory at different places would
            wait for each other for ever.
        index: Number of the largest item.
        item: The largest item.
        fits: Function that says whether a peak is small enough.
    """
    meter = MemoryMeter(trainer.device)
    for _ in range(trainer.iters_to_accumulate):  # the first step makes the optimizer's state
        passes(partial(_pass, trainer, index, _beginning(item, _SMALLEST_CROP)))
    best = Change("", Memory(), fits=False)
    for words, smaller in _changes(trainer, item):
        meter.restart()
        if passes(partial(_pass, trainer, index, smaller)):
            best = Change(words, meter.peak(), fits(meter.peak()))
            if best.fits:
                break
    return best


def _changes(trainer: EBATrainer, item: Item) -> Iterator[tuple[str, Item]]:
    """Make one change after the other, each on top of those before.

    Yields:
        Words of all changes so far, and the item to pass with them.
    """
    words = []
    if not trainer.configs.blocks_per_ckpt:
        for module in trainer.raw_model.modules():
            if hasattr(module, "blocks_per_ckpt"):
                module.blocks_per_ckpt = 1  # type: ignore[assignment]
        words.append("--blocks_per_ckpt 1")
        yield " ".join(words), item
    if not trainer.eba.low_memory:
        trainer.eba = replace(trainer.eba, low_memory=True)
        trainer.items = trainer.item_step(trainer.engine, trainer.reference)
        words.append("--eba.low_memory true")
        yield " ".join(words), item
    size = item.n_tokens // 2
    while size >= _SMALLEST_CROP:
        yield " ".join([*words, f"--eba.crop_size {size}"]), _beginning(item, size)
        size //= 2


def _beginning(item: Item, size: int) -> Item:
    return item.crop(torch.arange(min(size, item.n_tokens)))


def _pass(trainer: EBATrainer, index: int, item: Item) -> None:
    trainer.engine.zero_grad()
    trainer.engine.train()
    trainer.coming = (pair for pair in [(index, item)])
    trainer.train_item()
