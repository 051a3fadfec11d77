"""Seeds of single items, samples or decoys: the same in whatever order, batch or process."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["stream_generator", "stream_seed"]


def stream_seed(seed: int, number: int) -> int:
    """Return a seed of 64 bits for stream `number` of a run."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def stream_generator(seed: int, number: int) -> torch.Generator:
    """Return a generator on the CPU for stream `number` of a run."""
    return torch.Generator().manual_seed(stream_seed(seed, number) % 2**63)
