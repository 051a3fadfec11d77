"""The distribution of noise levels in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NoiseSettings"]


@dataclass(frozen=True)
class NoiseSettings:
    """AlphaFold 3's noise in training: sigma = sigma_data exp(mean + std n), n normal.

    Attributes:
        mean: Mean of ln(sigma / sigma_data).
        std: Its standard deviation.
        sigma_data: Size of the data, in angstrom.
    """

    mean: float
    std: float
    sigma_data: float

    def quantiles(self, n_levels: int, generator: torch.Generator | None = None) -> Tensor:
        """Return noise levels that stand for equal shares of the distribution, `[n_levels]`.

        Args:
            n_levels: Number of shares.
            generator: Draws a level from each share; None takes their middles.
        """
        within = 0.5 if generator is None else torch.rand(n_levels, generator=generator)
        # In float32 a level of the last share can round to 1, whose quantile is infinite.
        rank = ((torch.arange(n_levels) + within) / n_levels).clamp(1e-6, 1 - 1e-6)
        return self.sigma_data * torch.exp(self.mean + self.std * torch.special.ndtri(rank))

    def grid(self, n_levels: int, n_std: float) -> Tensor:
        """Return noise levels in angstrom whose logarithms are evenly spaced, `[n_levels]`.

        Args:
            n_levels: The middles of as many equal parts of the range.
            n_std: Standard deviations of ln sigma on either side of its mean that the range has.
        """
        middle = 2.0 * (torch.arange(n_levels) + 0.5) / n_levels - 1.0
        return self.sigma_data * torch.exp(self.mean + self.std * n_std * middle)

    def deviations(self, sigma: Tensor) -> Tensor:
        """Return by how many standard deviations ln sigma (sigma in angstrom) is off the mean."""
        return (torch.log(sigma / self.sigma_data) - self.mean) / self.std

    def density(self, sigma: Tensor) -> Tensor:
        """Return p(ln sigma) of one drawn level, even if the levels of a step are drawn together.

        Args:
            sigma: Noise levels in angstrom.
        """
        height = 1.0 / (self.std * math.sqrt(2.0 * math.pi))
        return height * torch.exp(-0.5 * self.deviations(sigma) ** 2)
