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
        words: Keys and values to set, as on the command line, which leave the gradient as it is.
        peak: Peak of the process in a pass of the largest item after the change.
        fits: Whether that peak is small enough.
        other: Those beside them with which the model learns from something else.
    """

    words: str
    peak: Memory
    fits: bool
    other: str = ""

    @property
    def sentence(self) -> str:
        """The change as advice to users."""
        if not self.words and not self.other:
            return "train a smaller model, or on a larger device: no item is small enough"
        gib = (self.peak.device or self.peak.host) / 2**30
        still = (
            "" if self.fits else ", still too much: a smaller model or a larger device, beside it"
        )
        other = f"{self.other} (which changes what is learnt from)" if self.other else ""
        words = " and ".join(filter(None, (self.words, other)))
        return f"set {words}; the peak is then {gib:.2f} GiB{still}"


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

    What leaves the gradient as it is comes first, then shorter crops, then fewer noise samples and
    conformers. Each change is made on this trainer, which is of no use for training afterwards, and
    measured in a forward and backward pass.

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
    same: list[str] = []
    other: dict[str, int] = {}
    for smaller in _changes(trainer, item, same, other):
        meter.restart()
        if passes(partial(_pass, trainer, index, smaller)):
            peak = meter.peak()
            changed = " ".join(f"--eba.{key} {value}" for key, value in other.items())
            best = Change(" ".join(same), peak, fits(peak), changed)
            if best.fits:
                break
    return best


def _changes(
    trainer: EBATrainer, item: Item, same: list[str], other: dict[str, int]
) -> Iterator[Item]:
    """Make one change after the other, each on top of those before.

    Args:
        trainer: Trainer that is changed.
        item: The largest item.
        same: Takes the words of changes that leave the gradient as it is.
        other: Takes the keys of `eba` and the values of other changes.

    Yields:
        The item to pass with all changes so far.
    """
    if not trainer.configs.blocks_per_ckpt:
        for module in trainer.raw_model.modules():
            if hasattr(module, "blocks_per_ckpt"):
                module.blocks_per_ckpt = 1  # type: ignore[assignment]
        same.append("--blocks_per_ckpt 1")
        yield item
    if not trainer.eba.low_memory:
        _set(trainer, low_memory=True)
        same.append("--eba.low_memory true")
        yield item
    for other["crop_size"] in _halves(item.n_tokens, _SMALLEST_CROP):
        item = _beginning(item, other["crop_size"])
        yield item
    for other["n_noise"] in _halves(trainer.eba.n_noise, 1):
        _set(trainer, n_noise=other["n_noise"])
        yield item
    for other["n_conformers"] in _halves(len(item.coordinates), 2):
        _set(trainer, n_conformers=other["n_conformers"])
        item = _first_conformers(item, other["n_conformers"])
        yield item


def _halves(value: int, smallest: int) -> Iterator[int]:
    """Yield a half of the value, a half of that and so on, rounded down, but not below a limit."""
    while value > smallest and (value := max(value // 2, smallest)):
        yield value


def _set(trainer: EBATrainer, **values: int) -> None:
    trainer.eba = replace(trainer.eba, **values)  # type: ignore[arg-type]
    trainer.items = trainer.item_step(trainer.engine, trainer.reference)


def _first_conformers(item: Item, count: int) -> Item:
    return replace(
        item,
        frames=item.frames[:count],
        coordinates=item.coordinates[:count],
        mask=item.mask[:count],
        energy_kj_mol=item.energy_kj_mol[:count],
        keep=item.keep[:count],
        sampled=item.sampled[:count],
    )


def _beginning(item: Item, size: int) -> Item:
    return item.crop(torch.arange(min(size, item.n_tokens)))


def _pass(trainer: EBATrainer, index: int, item: Item) -> None:
    trainer.engine.zero_grad()
    trainer.engine.train()
    trainer.coming = (pair for pair in [(index, item)])
    trainer.train_item()
