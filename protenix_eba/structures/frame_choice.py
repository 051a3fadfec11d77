"""The choice of a target's frames, to import or to label them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameChoice"]


@dataclass(frozen=True)
class FrameChoice:
    """A choice of a target's frames.

    Attributes:
        stride: The first of every so many frames of each replica; an incomplete last group gives
            none, so that 10,001 frames and a stride of 100 make 100.
        per_target: Instead of it, this number of frames: all replicas, one after the other, are
            cut into as many equal blocks, and one frame is drawn from each.
        seed: Of that draw.
    """

    stride: int = 1
    per_target: int | None = None
    seed: int = 0

    def of(self, target: str, counts: Mapping[int, int]) -> dict[int, NDArray[np.int64]]:
        """Return the chosen frames of each replica, ascending.

        Args:
            target: Its name: each target has its own draw, whatever the others are.
            counts: Frames that each replica has.
        """
        if self.per_target is None:
            return {
                replica: np.arange(max(n // self.stride, min(n, 1))) * self.stride
                for replica, n in counts.items()
            }
        total = sum(counts.values())
        edges = np.linspace(0, total, min(self.per_target, total) + 1).round().astype(np.int64)
        generator = np.random.default_rng([self.seed, zlib.crc32(target.encode())])
        drawn = generator.integers(edges[:-1], edges[1:])
        ends = np.cumsum(list(counts.values()))
        first = ends - list(counts.values())
        return {
            replica: drawn[(drawn >= start) & (drawn < end)] - start
            for replica, start, end in zip(counts, first, ends, strict=True)
        }
