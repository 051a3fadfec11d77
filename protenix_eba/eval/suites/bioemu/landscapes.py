"""Free-energy surfaces of two coordinates, compared where the reference has its states.

Points are drawn again with Gaussian noise, so that bins are filled smoothly: a convolution. With
the seed of the package its draws are repeated, and so are its numbers.

Source: `bioemu_benchmarks.eval.md_emulation.state_metric`, whose settings these are; supplement
of Lewis et al., Science 2025, doi:10.1126/science.adv9817.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import GAS_CONSTANT_KJ_MOL_K, KJ_PER_KCAL
from protenix_eba.eval.suites.registry import Float64s

__all__ = ["SEED", "Landscape", "LandscapeErrors"]

SEED: Final = 42
_DRAWN: Final = 1_000_000
_NOISE: Final = 0.25
_BINS: Final = 50
_CUTOFF_KCAL: Final = 4.0
_PADDING_BINS: Final = 0.5


@dataclass(frozen=True)
class LandscapeErrors:
    """Errors of a surface against the reference's, in kcal/mol as published.

    Attributes:
        mae: Mean absolute difference where both have states, after the best shift.
        rmse: Root mean square difference there.
        coverage: Share of the reference's states where there are samples.
    """

    mae: float
    rmse: float
    coverage: float


class Landscape:
    """The reference's surface: bins whose free energy is within 4 kcal/mol of the lowest.

    Args:
        reference: `[N, 2]` points of the reference.
        temperature_K: Of the free energies.
    """

    def __init__(self, reference: NDArray[np.floating], temperature_K: float = 300.0) -> None:
        self._kt = temperature_K * GAS_CONSTANT_KJ_MOL_K / KJ_PER_KCAL
        points = _drawn(reference, None)
        self._edges = [_edges(points[:, axis]) for axis in (0, 1)]
        self._density = self._histogram(points)
        self._states = self._density > self._density.max() * np.exp(-_CUTOFF_KCAL / self._kt)

    def _histogram(self, points: Float64s) -> Float64s:
        found, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=self._edges, density=True)
        return np.asarray(found, dtype=np.float64)

    def surface(self) -> tuple[Float64s, Float64s, Float64s]:
        """Return the edges of its bins, `[51]` each, and free energies above the lowest.

        The energies, `[50, 50]` in kcal/mol, are NaN where the reference has no state.
        """
        share = self._density / self._density.max()
        energy = -self._kt * np.log(np.where(self._states, share, 1.0))
        return self._edges[0], self._edges[1], np.where(self._states, energy, np.nan)

    def errors(
        self, samples: NDArray[np.floating], weights: Float64s | None = None
    ) -> LandscapeErrors:
        """Compare the surface of samples with the reference's.

        Args:
            samples: `[S, 2]`.
            weights: `[S]`, which sum to 1; None for equal ones.

        Raises:
            UserError: No sample is where the reference has states.
        """
        density = self._histogram(_drawn(samples, weights))
        common = self._states & (density > 0.0)
        if not common.any():
            raise UserError(
                "no sample is where the reference has states",
                "is it the protein, and folded?",
            )
        difference = -self._kt * np.log(density[common] / self._density[common])
        # The shift that makes the mean absolute difference least is the median.
        return LandscapeErrors(
            float(np.abs(difference - np.median(difference)).mean()),
            float(difference.std()),
            float(common.sum() / self._states.sum()),
        )


def _drawn(points: NDArray[np.floating], weights: Float64s | None) -> Float64s:
    random = np.random.default_rng(SEED)
    rows = random.choice(np.arange(len(points)), size=_DRAWN, p=weights)
    result: Float64s = points[rows] + _NOISE * random.standard_normal((_DRAWN, 2))
    return result


def _edges(x: Float64s) -> Float64s:
    low, high = x.min(), x.max()
    margin = _PADDING_BINS * (high - low) / (_BINS + 1)
    return np.linspace(low - margin, high + margin, _BINS + 1)
