"""Comparison of ensembles along one coordinate: populations, free energies, distances.

For systems whose answer is known. The coordinate here is the distance between the ends of a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.metrics.distributions import jsd_bits

__all__ = [
    "CLOSED_ANGSTROM",
    "MD_BLOCK_FRAMES",
    "Interval",
    "Sample",
    "blocks_of",
    "closed_share",
    "distribution_jsd",
    "free_energy_kT",
    "interval",
    "log_odds",
    "w1_angstrom",
]

Floats = NDArray[np.floating]
Sample = Sequence[Floats]
"""Distances in blocks that are independent of each other: single samples, or pieces of MD."""

CLOSED_ANGSTROM: Final = 6.0
# Of the ion pair of charged ends: the distance's own correlation time is about 20 ps.
MD_BLOCK_FRAMES: Final = 200
_BIN_ANGSTROM: Final = 0.5
_N_BOOTSTRAPS: Final = 1000


def blocks_of(replicas: Sequence[Floats], size: int = MD_BLOCK_FRAMES) -> list[Floats]:
    """Cut each replica into consecutive pieces, for the bootstrap."""
    return [r[i : i + size] for r in replicas for i in range(0, len(r), size)]


@dataclass(frozen=True)
class Interval:
    """A value with the 95% interval of its bootstrap distribution."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def interval(
    statistic: Callable[..., float], *samples: Sample, seed: int = 0, n: int = _N_BOOTSTRAPS
) -> Interval:
    """Return a statistic of samples with its interval, from resamples of each one's blocks.

    Args:
        statistic: Function of as many arrays `[F]` as there are samples.
        samples: Each in blocks.
        seed: Seed of the resampling.
        n: Resamplings.
    """
    draw = np.random.default_rng(seed)
    # Blocks of one size, as single samples are, can be taken by one index.
    blocks = [np.stack(s) if len(set(map(len, s))) == 1 else s for s in samples]

    def again(sample: Sample | Floats) -> Floats:
        chosen = draw.integers(len(sample), size=len(sample))
        if isinstance(sample, np.ndarray):
            return np.asarray(sample[chosen].reshape(-1, *sample.shape[2:]))
        return np.concatenate([sample[i] for i in chosen])

    value = statistic(*(np.concatenate(list(sample)) for sample in samples))
    made = [statistic(*map(again, blocks)) for _ in range(n)]
    low, high = np.quantile(made, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))


def closed_share(distance: Floats, within_angstrom: float = CLOSED_ANGSTROM) -> float:
    """Return the share of conformations whose ends are nearer than `within_angstrom`."""
    return float((distance < within_angstrom).mean())


def log_odds(distance: Floats, within_angstrom: float = CLOSED_ANGSTROM) -> float:
    """Return ln(closed / open), with half a conformation added to both (Haldane and Anscombe)."""
    closed = int((distance < within_angstrom).sum())
    return float(np.log((closed + 0.5) / (len(distance) - closed + 0.5)))


def w1_angstrom(first: Floats, second: Floats) -> float:
    """Return the 1-Wasserstein distance of two samples of a distance."""
    from scipy.stats import wasserstein_distance  # takes a second to import

    return float(wasserstein_distance(first, second))


def distribution_jsd(first: Floats, second: Floats) -> float:
    """Return the Jensen-Shannon divergence of two distances in bits, from bins of 0.5 angstrom."""
    top = max(float(first.max()), float(second.max())) + _BIN_ANGSTROM
    edges = np.arange(0.0, top + _BIN_ANGSTROM, _BIN_ANGSTROM)
    counts = [np.histogram(sample, edges)[0] / len(sample) for sample in (first, second)]
    return float(jsd_bits(counts[0][None], counts[1][None])[0])


def free_energy_kT(distance: Floats, edges: Floats) -> Floats:
    """Return -ln of the density in each bin, in kT; infinite where there is no conformation.

    Args:
        distance: `[F]` in angstrom.
        edges: `[B + 1]` of the bins.

    Returns:
        `[B]`, from normalised densities and not shifted, so that ensembles compare without a fit.
    """
    counts, _ = np.histogram(distance, edges)
    density = counts / (len(distance) * np.diff(edges))
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(density))
