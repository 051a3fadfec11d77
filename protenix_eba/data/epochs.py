"""The order in which structures are seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["epoch_blocks"]


def epoch_blocks(
    sizes: Sequence[int], n_conformers: int, seed: int, epoch: int, batch_items: int = 1
) -> list[tuple[int, tuple[int, ...]]]:
    """One pass over all structures in blocks of K of the same sequence.

    Every structure is drawn once (but for fewer than K left over in a sequence), with K - 1 others
    of its sequence drawn without replacement: EBA, section 4.1. The blocks go round the sequences,
    so that those of one optimizer step, which different ranks see at the same time, are of
    different sequences as long as enough of them have blocks left.

    Args:
        sizes: Number of conformers of each sequence.
        n_conformers: K.
        seed: Of the run.
        epoch: From 0.
        batch_items: Blocks of one optimizer step, on all ranks.

    Returns:
        Sequence index and conformer indices of each block.
    """
    rng = np.random.default_rng([seed, epoch])
    queues = [
        rng.permutation(size)[: size // n_conformers * n_conformers].reshape(-1, n_conformers)
        for size in sizes
    ]
    before = epoch * sum(map(len, queues))
    blocks: list[tuple[int, tuple[int, ...]]] = []
    for turn in range(max(map(len, queues))):
        waiting = [i for i, queue in enumerate(queues) if turn < len(queue)]
        n_in_batch = min((before + len(blocks)) % batch_items, len(blocks))
        in_batch = {i for i, _ in blocks[len(blocks) - n_in_batch :]}
        # What the step that is not yet full has already comes late in this round.
        for i in sorted(rng.permutation(waiting).tolist(), key=in_batch.__contains__):
            blocks.append((i, tuple(queues[i][turn].tolist())))
    return blocks
