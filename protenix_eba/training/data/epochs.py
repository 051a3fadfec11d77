"""The order in which structures are seen: the blocks that a sampler makes of each target.

Letters: F conformers of a target, K of them in a block, B blocks of a target in an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import SAMPLERS

__all__ = ["BatchSampler", "Block", "Blocks", "Epoch", "Pool"]

Integers = NDArray[np.int64]
Block = tuple[int, tuple[int, ...]]
"""Number of a target and of K of its conformers."""


@dataclass(frozen=True, eq=False)
class Pool:
    """A target's conformers, as far as samplers know them.

    Attributes:
        energy_kj_mol: `[F]`.
        clusters: Gives the conformers of each of K clusters; asked for when the first block of
            the target is, since it may have to read all of them.
    """

    energy_kj_mol: NDArray[np.float64]
    clusters: Callable[[], Sequence[Integers]]

    def __len__(self) -> int:
        return len(self.energy_kj_mol)


class Blocks(Protocol):
    """The blocks of a target in an epoch, such as an array `[B, K]` of conformer numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Integers: ...


class BatchSampler(Protocol):
    """Chooses which K conformers are compared with each other.

    In `SAMPLERS` stands what builds one from the section `eba`; `eba.sampler` names it.
    """

    def __call__(
        self, pools: Sequence[Pool], n_conformers: int, rng: np.random.Generator, /
    ) -> Sequence[Blocks]:
        """Make the blocks of one epoch.

        Called once for each epoch in every process, so that all that is drawn is drawn from `rng`.

        Args:
            pools: Conformers of every target to draw from, at least K of each.
            n_conformers: K.
            rng: Generator seeded by the seed of the run and the epoch.

        Returns:
            The blocks of each target, of K different conformers each. A target may have none, but
            all together have at least one, and the same number in each epoch.
        """


def _registered(sampler: BatchSampler) -> BatchSampler:
    """Register a sampler that the configuration has no part in, under its own name."""

    def build(config: EBAConfig) -> BatchSampler:
        return sampler

    SAMPLERS.register(sampler.__name__)(build)  # type: ignore[attr-defined]
    return sampler


@_registered
def structures(pools: Sequence[Pool], n_conformers: int, rng: np.random.Generator) -> list[Blocks]:
    """Take every structure once, with K - 1 others of its target: EBA, section 4.1.

    Fewer than K that are left over wait for another epoch.
    """
    return [_shuffled(len(pool), n_conformers, rng) for pool in pools]


@_registered
def targets(pools: Sequence[Pool], n_conformers: int, rng: np.random.Generator) -> list[Blocks]:
    """Take as many blocks of each target, however many frames it has: the mean of `structures`.

    Small targets start again when all of their structures have been seen; of large ones a random
    part is seen.
    """
    n_blocks = sum(len(pool) // n_conformers for pool in pools) // len(pools)
    return [_repeated(partial(_shuffled, len(pool), n_conformers, rng), n_blocks) for pool in pools]


@_registered
def energy(pools: Sequence[Pool], n_conformers: int, rng: np.random.Generator) -> list[Blocks]:
    """Take a conformer from each of K equal parts of its target's order by energy, each once."""
    return [
        _one_of_each(
            np.array_split(np.argsort(pool.energy_kj_mol, kind="stable"), n_conformers),
            len(pool) // n_conformers,
            rng,
        )
        for pool in pools
    ]


@_registered
def diverse(pools: Sequence[Pool], n_conformers: int, rng: np.random.Generator) -> list[Blocks]:
    """Take one conformer from each of K clusters of its target, F // K times.

    Small clusters start again when all of their members have been seen; of large ones a random
    part is seen.
    """
    seeds = rng.integers(2**63, size=len(pools))
    return [
        _Diverse(pool, len(pool) // n_conformers, seed)
        for pool, seed in zip(pools, seeds.tolist(), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Diverse:
    """Blocks that are made when the first one is asked for."""

    pool: Pool
    n_blocks: int
    seed: int

    def __len__(self) -> int:
        return self.n_blocks

    def __getitem__(self, number: int) -> Integers:
        block: Integers = self._blocks[number]
        return block

    @cached_property
    def _blocks(self) -> Integers:
        rng = np.random.default_rng(self.seed)
        return _one_of_each(self.pool.clusters(), self.n_blocks, rng)


def _shuffled(size: int, n_conformers: int, rng: np.random.Generator) -> Integers:
    order: Integers = rng.permutation(size)[: size // n_conformers * n_conformers]
    return order.reshape(-1, n_conformers)


def _one_of_each(groups: Sequence[Integers], n_blocks: int, rng: np.random.Generator) -> Integers:
    """Return `[n_blocks, len(groups)]`; a column goes round the members of its group."""
    columns = [_repeated(partial(rng.permutation, members), n_blocks) for members in groups]
    return np.stack(columns, axis=1)


def _repeated(draw: Callable[[], Integers], n: int) -> Integers:
    """Return the first n rows of one draw after the other, which are equally long."""
    first = draw()
    n_more = math.ceil(n / len(first)) - 1
    return np.concatenate([first, *(draw() for _ in range(n_more))])[:n]


class Epoch:
    """One pass over the blocks that a sampler makes.

    The blocks go round the targets, so that those of one optimizer step, which different ranks see
    at the same time, are of different targets as long as enough of them have blocks left.

    Args:
        pools: Conformers of each target, K or more.
        sampler: Makes the blocks.
        n_conformers: K.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        batch_items: Blocks of one optimizer step, on all ranks.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        sampler: BatchSampler,
        n_conformers: int,
        seed: int,
        epoch: int,
        batch_items: int = 1,
    ) -> None:
        rng = np.random.default_rng([seed, epoch])
        self._blocks = sampler(pools, n_conformers, rng)
        self._order = _interleaved(
            [len(blocks) for blocks in self._blocks], rng, epoch, batch_items
        )

    def __len__(self) -> int:
        return len(self._order)

    def target(self, position: int) -> int:
        """Return the number of a block's target; its conformers need not be known for that."""
        return int(self._order[position, 0])

    def __getitem__(self, position: int) -> Block:
        which, turn = self._order[position].tolist()
        return which, tuple(self._blocks[which][turn].tolist())


def _interleaved(
    sizes: Sequence[int], rng: np.random.Generator, epoch: int, batch_items: int
) -> NDArray[np.int32]:
    """Return target and number within it of each block, `[sum(sizes), 2]`."""
    before = epoch * sum(sizes)
    order: list[tuple[int, int]] = []
    waiting = list(range(len(sizes)))
    for turn in range(max(sizes)):
        waiting = [i for i in waiting if turn < sizes[i]]
        n_in_batch = min((before + len(order)) % batch_items, len(order))
        in_batch = {i for i, _ in order[len(order) - n_in_batch :]}
        # What the step that is not yet full has already comes late in this round.
        shuffled = sorted(rng.permutation(waiting).tolist(), key=in_batch.__contains__)
        order += [(i, turn) for i in shuffled]
    return np.array(order, dtype=np.int32)
