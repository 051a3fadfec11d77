"""Annealed sampling: schedules of noise levels, predictors, correctors, and their combination.

A denoiser is a function of `x` `[B, L, 3]` and a level sigma in angstrom; the score at that level
is (denoised - x) / sigma^2. A corrector moves samples at one level towards its distribution, a
predictor carries them from one level to the next (Song et al., ICLR 2021). All take random numbers
from one generator for each sample: a sample is the same in whatever batch it is made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import torch
from torch import Tensor

from protenix_eba.core.errors import UserError

__all__ = [
    "SAMPLERS",
    "ChurnedEuler",
    "Denoiser",
    "Generators",
    "Heun",
    "Langevin",
    "Replacement",
    "Sampler",
    "anneal",
    "geometric_levels",
    "karras_levels",
    "noised",
    "refiner",
]

Denoiser = Callable[[Tensor, float], Tensor]
Generators = Sequence[torch.Generator]


def geometric_levels(first: float, last: float, n: int) -> list[float]:
    """Return the paper's schedule: K levels in angstrom at a constant ratio."""
    if n == 1:
        return [first]
    return [first * (last / first) ** (k / (n - 1)) for k in range(n)]


def karras_levels(first: float, last: float, n: int, rho: float = 7.0) -> list[float]:
    """Return levels whose rho-th roots are equally spaced, then 0 (Karras et al., 2022, Eq. 5).

    Args:
        first: Largest level in angstrom.
        last: Smallest level above 0.
        n: Levels above 0, so that the predictor takes n steps.
        rho: Larger values have more of the levels at small noise.
    """
    high, low = first ** (1 / rho), last ** (1 / rho)
    return [(high + k / max(n - 1, 1) * (low - high)) ** rho for k in range(n)] + [0.0]


def noised(x: Tensor, sampler: Sampler, generators: Generators) -> Tensor:
    """Return traces `[B, L, 3]` with noise of a sampler's first level, for it to refine."""
    return x + sampler.levels[0] * normal_like(x, generators)


def normal_like(x: Tensor, generators: Generators) -> Tensor:
    """Draw normal numbers in the shape of `x`, each sample's from its own generator."""
    draws = [torch.randn(x.shape[1:], generator=generator) for generator in generators]
    return torch.stack(draws).to(x)


class Corrector(Protocol):
    """Moves samples at one noise level."""

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigma: float, generators: Generators
    ) -> Tensor:
        """Return the moved samples `[B, L, 3]`."""


class Predictor(Protocol):
    """Carries samples from one noise level to a smaller one."""

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigma: float, following: float, generators: Generators
    ) -> Tensor:
        """Return the samples `[B, L, 3]` at the level `following`."""


@dataclass(frozen=True)
class Langevin:
    """Langevin steps of size alpha = step_size sigma^2 (Eq. 10; Algorithm 1, lines 4-7).

    x <- x + alpha/2 g(x) + sqrt(alpha) z, with the score of the same x (the paper's Eq. 10 prints
    that of the next x). On a Gaussian of variance sigma^2 a deviation shrinks by 1 - step_size/2 a
    step, and the steps' own distribution has the variance sigma^2 / (1 - step_size/4).

    Attributes:
        n_steps: T.
        step_size: lambda_0.
    """

    n_steps: int = 64
    step_size: float = 0.1

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigma: float, generators: Generators
    ) -> Tensor:
        """See `Corrector`."""
        for _ in range(self.n_steps):
            drift = 0.5 * self.step_size * (denoise(x, sigma) - x)
            x = x + drift + math.sqrt(self.step_size) * sigma * normal_like(x, generators)
        return x


@dataclass(frozen=True)
class ChurnedEuler:
    """AlphaFold 3's step (Algorithm 18): noise is added, then a long Euler step is taken.

    Attributes:
        gamma: The level is raised by this share first.
        gamma_min: No noise is added where the following level is below, in angstrom.
        noise_scale: lambda, of the added noise.
        step_scale: eta, of the step; 1 with gamma 0 is the probability flow's Euler step.
    """

    gamma: float = 0.8
    gamma_min: float = 0.05
    noise_scale: float = 1.0
    step_scale: float = 1.5

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigma: float, following: float, generators: Generators
    ) -> Tensor:
        """See `Predictor`."""
        raised = sigma * (1.0 + (self.gamma if following > self.gamma_min else 0.0))
        if raised > sigma:
            added = self.noise_scale * math.sqrt(raised**2 - sigma**2)
            x = x + added * normal_like(x, generators)
        return x + self.step_scale * (following - raised) / raised * (x - denoise(x, raised))


@dataclass(frozen=True)
class Heun:
    """Heun's second-order step of the probability flow (Karras et al., 2022, Algorithm 1)."""

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigma: float, following: float, generators: Generators
    ) -> Tensor:
        """See `Predictor`."""
        slope = (x - denoise(x, sigma)) / sigma
        guess = x + (following - sigma) * slope
        if following == 0.0:
            return guess
        second = (guess - denoise(guess, following)) / following
        return x + (following - sigma) * 0.5 * (slope + second)


@dataclass(frozen=True)
class Replacement:
    """A predictor that takes the denoised structure, without new noise.

    For samples that are nearer to their target than the level says: the network is told how much
    it may change, and the level falls as they improve.
    """

    def __call__(
        self, denoise: Denoiser, x: Tensor, sigma: float, following: float, generators: Generators
    ) -> Tensor:
        """See `Predictor`."""
        return denoise(x, sigma)


@dataclass(frozen=True)
class Sampler:
    """A schedule with a predictor, a corrector or both.

    Attributes:
        levels: Noise levels in angstrom, falling, from where they rise again too; a last 0 is
            reached by the predictor only.
        predictor: Carries samples to the next level; None leaves them as they are.
        corrector: Moves samples at each level above 0, or None.
        initial_std: Standard deviation of the first samples; None for that of noised native
            coordinates, sqrt(sigma_1^2 + 8^2).
        denoise_last: Whether the result is what the denoiser makes of the last samples.
        hand_level: Noise level in angstrom from which a sample and its mirror image are refined, to
            keep the one that looks more native; None only reflects samples.
        with_likelihood: Whether samples begin as rough traces of the peer, and descend on the
            likelihood of the predictions before each level that is higher than the one before.
    """

    levels: tuple[float, ...]
    predictor: Predictor | None = None
    corrector: Corrector | None = None
    initial_std: float | None = None
    denoise_last: bool = False
    hand_level: float | None = None
    with_likelihood: bool = False


_NATIVE_STD: Final = 8.0

SAMPLERS: Final[dict[str, Sampler]] = {
    # Algorithm 1 with the paper's values: 2,048 evaluations, from N(0, I).
    "algorithm1": Sampler(
        tuple(geometric_levels(10.0, 0.01, 32)), corrector=Langevin(64, 0.1), initial_std=1.0
    ),
    # Steps of size 1 follow the schedule with T = 4; levels below 0.1 angstrom change no score.
    "langevin": Sampler(
        tuple(geometric_levels(10.0, 0.1, 21)), corrector=Langevin(4, 1.0), denoise_last=True
    ),
    "churned": Sampler(
        tuple(karras_levels(10.0, 0.1, 20)), predictor=ChurnedEuler(), hand_level=1.0
    ),
    "churned64": Sampler(
        tuple(karras_levels(10.0, 0.1, 64)), predictor=ChurnedEuler(), hand_level=1.0
    ),
    # From the peer's rough trace, without new noise, in small steps: many small ones are better
    # than few large ones. Descents between know nearly exact distances better than any network.
    "hybrid": Sampler(
        (
            *geometric_levels(8.0, 0.35, 16),
            *(1.0, 0.8, 0.65, 0.5, 0.42, 0.35, 0.3, 0.25),
            *(0.5, 0.42, 0.35, 0.3, 0.25, 0.0),
        ),
        predictor=Replacement(),
        with_likelihood=True,
    ),
    # For comparison: a deterministic flow does not repair what an imperfect score did.
    "heun": Sampler(tuple(karras_levels(10.0, 0.1, 16)), predictor=Heun()),
}
"""Named samplers; "hybrid" is the commands' default."""


def refiner(sampler: Sampler, sigma: float) -> Sampler:
    """Return the part of a sampler that starts at the level `sigma`, for a known trace.

    Raises:
        UserError: The sampler has no level that small.
    """
    below = [level for level in sampler.levels if level < sigma]
    if not below:
        raise UserError(
            f"refinement: expected to start above {min(sampler.levels)} angstrom, found {sigma}",
            "choose a larger starting level",
        )
    return replace(sampler, levels=(sigma, *below))


@torch.no_grad()
def anneal(
    denoise: Denoiser,
    shape: tuple[int, int],
    generators: Generators,
    sampler: Sampler,
    *,
    start: Tensor | None = None,
    after_level: Callable[[Tensor], Tensor] = lambda x: x,
    before_rise: Callable[[Tensor], Tensor] = lambda x: x,
    on_level: Callable[[float, Tensor], None] = lambda level, x: None,
) -> Tensor:
    """Draw samples with a denoiser.

    Args:
        denoise: The model; tensors are made on the CPU and moved by it.
        shape: (L, 3) of a sample.
        generators: B generators on the CPU.
        sampler: What to do.
        start: `[B, L, 3]` the first samples, see `noised`; None for noise.
        after_level: Applied to the samples after each level, as the paper does with HIRM. The score
            of distances mirrors with the structure: HIRM once to the result gives the same in law.
        before_rise: Applied to the samples before each level that is higher than the one before.
        on_level: Told each level and the samples after its moves, for a trajectory.

    Returns:
        `[B, L, 3]` in angstrom.
    """
    x = start
    if x is None:
        std = sampler.initial_std or math.hypot(sampler.levels[0], _NATIVE_STD)
        x = std * normal_like(torch.empty(len(generators), *shape), generators)
    for level, following in itertools.zip_longest(sampler.levels, sampler.levels[1:]):
        if level and sampler.corrector is not None:
            x = sampler.corrector(denoise, x, level, generators)
        if sampler.predictor is not None and following is not None:
            x = sampler.predictor(denoise, x, level, following, generators)
        x = after_level(x)
        if following is not None and following > level:
            x = before_rise(x)
        on_level(level, x)
    return denoise(x, min(filter(None, sampler.levels))) if sampler.denoise_last else x
