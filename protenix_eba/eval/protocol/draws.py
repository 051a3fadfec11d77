"""The MD frames that the protocol draws, known before the first one is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHAFLOW_SEED", "Draws", "FloorDraws"]

ALPHAFLOW_SEED: Final = 137
# AlphaFlow draws this many MD frames for the Gaussians of single atoms and for exposure.
_N_GAUSSIAN_FRAMES: Final = 1000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FloorDraws:
    """Draws with one replica in the place of the samples, the others in the place of MD.

    Attributes:
        own: `[S]` frames of the replica, as many as there are samples.
        others: `[S]` frames of the others.
        second_others: `[S]` frames of the others.
    """

    own: Ints
    others: Ints
    second_others: Ints


@dataclass(frozen=True)
class Draws:
    """Frame numbers through all replicas in their order, with replacement.

    Attributes:
        first: `[S]` as many as there are samples.
        second: `[S]` another draw, for pairs.
        gaussian: `[1000]`.
        gaussian_replica: `[1000]` the replica of each of these.
        plotted: Distinct frames for the figure of the principal components.
        floor: Replica to its draws; empty where there is only one.
    """

    first: Ints
    second: Ints
    gaussian: Ints
    gaussian_replica: Ints
    plotted: Ints
    floor: dict[int, FloorDraws]

    @classmethod
    def of(cls, n_frames: dict[int, int], n_samples: int, n_plotted: int, seed: int) -> Draws:
        """Draw with numpy's legacy generator in AlphaFlow's order, so that 137 gives its frames.

        Args:
            n_frames: Replica to its number of frames.
            n_samples: Number of samples of the ensemble that is compared.
            n_plotted: Largest number of points in the figure.
            seed: Seed of the generator.
        """
        random = np.random.RandomState(seed)
        replicas = sorted(n_frames)
        ends = np.cumsum([n_frames[replica] for replica in replicas])
        n_md = int(ends[-1])
        first, second = random.randint(0, n_md, n_samples), random.randint(0, n_md, n_samples)
        gaussian = random.randint(0, n_md, _N_GAUSSIAN_FRAMES)
        plotted = random.choice(n_md, min(n_md, n_plotted), replace=False)
        floor = {}
        for replica, end in zip(replicas, ends, strict=True):
            n_own = n_frames[replica]
            if n_own == n_md:
                break
            own = random.choice(n_own, n_samples, replace=n_samples > n_own) + (end - n_own)
            others = random.randint(0, n_md - n_own, (2, n_samples))
            others[others >= end - n_own] += n_own
            floor[replica] = FloorDraws(own, *others)
        replica_of = np.array(replicas)[np.searchsorted(ends, gaussian, side="right")]
        return cls(first, second, gaussian, replica_of, plotted, floor)
