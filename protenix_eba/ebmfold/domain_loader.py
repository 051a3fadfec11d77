"""Crops of protein domains with predictions for them, the same for any rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from protenix_eba.core.seeds import stream_generator
from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.score_matching import Batch, CropSettings, draw_batch

__all__ = ["DomainLoader"]

# The stream of an item's noise, beside that of its crops and predictions.
_NOISE = 2**40


class DomainLoader:
    """Loads items by their number: item i is the same whoever asks for it, in whatever order.

    Each domain is seen once in an epoch, which need not be a whole number of items.

    Args:
        domains: Domains to train on.
        crops: How they become examples.
        batch_size: Crops of an item.
        batch_items: Items of one optimizer step, on all ranks.
        seed: Seed of the run.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        crops: CropSettings,
        *,
        batch_size: int,
        batch_items: int,
        seed: int,
    ) -> None:
        self._domains = domains
        self._crops = crops
        self._batch_size = batch_size
        self._batch_items = batch_items
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._domains))

    def domains(self, index: int) -> list[Domain]:
        """Return the domains of item `index`."""
        first = index * self._batch_size
        places = (divmod(n, len(self._domains)) for n in range(first, first + self._batch_size))
        return [self._domains[int(self._order(epoch)[place])] for epoch, place in places]

    def __getitem__(self, index: int) -> Batch:
        """Load item `index`."""
        generator = stream_generator(self._seed, index)
        return draw_batch(self.domains(index), self._crops, generator)

    def noise(self, index: int) -> torch.Generator:
        """Return the random generator for the noise of item `index`."""
        return stream_generator(self._seed, index + _NOISE)

    def share(self, steps: Iterable[int], rank: int, world_size: int) -> Iterator[int]:
        """Yield the numbers of one process's items, step by step."""
        for step in steps:
            first = step * self._batch_items
            yield from range(first + rank, first + self._batch_items, world_size)
