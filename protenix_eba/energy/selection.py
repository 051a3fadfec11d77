"""Which frames of a target get a label."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameSelection"]


@dataclass(frozen=True, kw_only=True)
class FrameSelection:
    """Which frames to label.

    Attributes:
        stride: Every so many frames of each replica.
        per_target: Largest number of frames of each target, drawn at random; None for no limit.
        seed: Seed of that draw; a target's draw does not depend on the other targets.
        explicit: Frames by (target, replica); replicas without an entry are left out. None for
            all replicas.
    """

    stride: int = 1
    per_target: int | None = None
    seed: int = 0
    explicit: Mapping[tuple[str, int], NDArray[np.integer]] | None = None

    def of(self, target: str, counts: Mapping[int, int]) -> dict[int, NDArray[np.int64]]:
        """Sorted frame indices by replica, given the number of frames of each replica."""
        frames = {r: np.arange(0, n, self.stride, dtype=np.int64) for r, n in counts.items()}
        if self.explicit is not None:
            nothing = np.empty(0, dtype=np.int64)
            chosen = {r: self.explicit.get((target, r), nothing) for r in counts}
            frames = {r: np.intersect1d(frames[r], chosen[r]) for r in counts}
        total = sum(len(f) for f in frames.values())
        if self.per_target is None or total <= self.per_target:
            return frames
        name = int.from_bytes(hashlib.sha256(target.encode()).digest()[:8], "big")
        generator = np.random.default_rng([self.seed, name])
        drawn = generator.choice(total, self.per_target, replace=False)
        owner = np.concatenate([np.full(len(f), r) for r, f in frames.items()])[drawn]
        pooled = np.concatenate(list(frames.values()))[drawn]
        return {r: np.sort(pooled[owner == r]) for r in frames}
