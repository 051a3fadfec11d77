"""AlphaFold 3's churned Euler sampler: from sequence to ensemble, a random stream per sample."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.seeds import stream_generator
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.plugin_api import Registry
from protenix_eba.protein.rigid_motions import random_rotations
from protenix_eba.sampling.settings import SamplerSettings

__all__ = [
    "CHURNED",
    "DIFFUSION_SAMPLERS",
    "Denoise",
    "DiffusionSampler",
    "DiffusionSamplerFactory",
    "TargetSampler",
    "in_chunks",
    "noise_levels",
    "sample_batches",
    "sample_coordinates",
]

logger = logging.getLogger(__name__)

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy `[B, N, 3]` in angstrom and sigma `[B]` -> denoised `[B, N, 3]`."""


class DiffusionSampler(Protocol):
    """A function that draws samples with a denoiser."""

    def __call__(
        self,
        denoise: Denoise,
        n_atoms: int,
        generators: list[torch.Generator],
        settings: SamplerSettings,
        device: torch.device,
        /,
    ) -> Tensor:
        """Draw samples, without gradients.

        Each draws from its own generator only, so that it is the same in whatever batch it is made.

        Args:
            denoise: The model.
            n_atoms: N.
            generators: B generators on the CPU, one for each sample.
            settings: The options of `protenix-eba sample`; those without a meaning are ignored.
            device: Device of the model.

        Returns:
            `[B, N, 3]` in angstrom; samples that are not finite are reported and left out.

        Raises:
            UserError: The settings do not fit.
        """


class DiffusionSamplerFactory(Protocol):
    """Builds a sampler; registered in `DIFFUSION_SAMPLERS`, named by `sample --sampler`."""

    def __call__(self, configs: Any, /) -> DiffusionSampler:
        """Build a sampler.

        Args:
            configs: The resolved configuration, in which a plugin finds its own section.

        Raises:
            UserError: A value is outside its range.
        """


DIFFUSION_SAMPLERS: Final[Registry[DiffusionSamplerFactory]] = Registry("diffusion sampler")
CHURNED: Final = "churned"


def noise_levels(settings: SamplerSettings) -> Tensor:
    """Return the decreasing noise levels, the last one 0 (Karras et al., 2022, Eq. 5).

    Returns:
        `[n_steps + 1]` in angstrom.
    """
    first, last = settings.s_max ** (1 / settings.rho), settings.s_min ** (1 / settings.rho)
    ramp = torch.linspace(0, 1, settings.n_steps + 1)
    levels: Tensor = settings.sigma_data * (first + ramp * (last - first)) ** settings.rho
    levels[-1] = 0.0
    return levels


@torch.no_grad()
def sample_coordinates(
    denoise: Denoise,
    n_atoms: int,
    generators: list[torch.Generator],
    settings: SamplerSettings,
    device: torch.device,
) -> Tensor:
    """Sample by AlphaFold 3's steps with churn (Algorithm 18), as a `DiffusionSampler`."""

    def normal() -> Tensor:
        return torch.stack([torch.randn(n_atoms, 3, generator=g) for g in generators]).to(device)

    levels = noise_levels(settings).tolist()
    x: Tensor = levels[0] * normal()
    for previous, following in itertools.pairwise(levels):
        x = _random_motion(x, generators)
        gamma = settings.gamma0 if following > settings.gamma_min else 0.0
        sigma = previous * (1.0 + gamma)
        added = settings.noise_scale * (sigma**2 - previous**2) ** 0.5
        noisy = x + added * normal()
        step = settings.step_scale * (following - sigma)
        slope = _slope(denoise, noisy, sigma)
        x = noisy + step * slope
        if settings.order == 2 and following > 0.0:
            x = noisy + step * (slope + _slope(denoise, x, following)) / 2.0
    return x


def _slope(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    """Return the slope dx / dsigma of the probability flow at noise `sigma`, `[B, N, 3]`."""
    return (x - denoise(x, torch.full((len(x),), sigma, device=x.device))) / sigma


@DIFFUSION_SAMPLERS.register(CHURNED)
def _churned(configs: Any) -> DiffusionSampler:
    """Build AlphaFold 3's sampler, whose settings are options of the command."""
    return sample_coordinates


def _random_motion(x: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Centre, rotate and shift each sample at random (Algorithm 19)."""
    rotation = torch.stack([random_rotations((), g) for g in generators]).to(x)
    shift = torch.stack([torch.randn(1, 3, generator=g) for g in generators]).to(x)
    return (x - x.mean(dim=1, keepdim=True)) @ rotation + shift


class TargetSampler:
    """Draws samples of one protein, each by its number.

    What the noise has no part in is computed once, in the beginning.

    Args:
        denoiser: Denoiser in evaluation mode.
        protein: Features, on the device of the embeddings.
        embeddings: Embeddings of the trunk.
        settings: Settings of the sampler.
        seed: Sample n is made from (seed, n), in whatever chunk: chunks differ by the rounding of
            matrix products, in coordinates by less than 1e-4 angstrom in float32 on a CPU.
        sampler: Makes them.
    """

    def __init__(
        self,
        denoiser: ConformerDenoiser,
        protein: ProteinFeatures,
        embeddings: TrunkEmbeddings,
        settings: SamplerSettings,
        seed: int,
        sampler: DiffusionSampler = sample_coordinates,
    ) -> None:
        self._denoiser = denoiser
        self._sampler = sampler
        self._protein = protein
        self._embeddings = embeddings
        self._settings = settings
        self._seed = seed
        with torch.no_grad():
            self._shared = denoiser.prepare(protein.features, embeddings.z_trunk)

    @torch.no_grad()
    def __call__(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Draw the samples with these numbers, `[B, N_atom, 3]` in angstrom."""
        generators = [stream_generator(self._seed, number) for number in numbers]
        device = self._embeddings.s_trunk.device
        n_atoms = len(self._protein.atoms)
        x = self._sampler(self._denoise, n_atoms, generators, self._settings, device)
        return x.cpu().numpy().astype(np.float32)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        # As conformers that share one level: its conditioning is computed once for all of them.
        out: Tensor = self._denoiser(
            self._protein.features, self._embeddings, x[:, None], sigma[:1], self._shared
        )
        return out[:, 0].float()


def in_chunks(
    sampler: Callable[[Sequence[int]], NDArray[np.float32]], numbers: Sequence[int], size: int
) -> Iterator[tuple[Sequence[int], NDArray[np.float32]]]:
    """Sample in chunks, which become smaller where memory does not suffice.

    Args:
        sampler: A `TargetSampler`.
        numbers: Numbers of the samples.
        size: Number of samples in a chunk.

    Yields:
        The numbers of a chunk and its samples `[B, N_atom, 3]` in angstrom.

    Raises:
        UserError: There is no memory for a single sample.
    """
    while numbers:
        chunk = numbers[:size]
        made = _unless_out_of_memory(sampler, chunk)
        if made is not None:
            yield chunk, made
            numbers = numbers[len(chunk) :]
        elif len(chunk) == 1:
            raise UserError(
                "not enough memory for one sample", "sample on a machine with more memory"
            )
        else:
            size = len(chunk) // 2
            logger.warning("out of memory: sampling %d at a time", size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _unless_out_of_memory(
    sampler: Callable[[Sequence[int]], NDArray[np.float32]], chunk: Sequence[int]
) -> NDArray[np.float32] | None:
    """Return the samples, or None for want of memory, with the attempt's tensors freed."""
    try:
        return sampler(chunk)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch's allocator of the CPU
            return None
        raise


def sample_batches(
    denoiser: ConformerDenoiser,
    protein: ProteinFeatures,
    embeddings: TrunkEmbeddings,
    *,
    n_samples: int,
    batch_size: int,
    settings: SamplerSettings,
    seed: int,
) -> Iterator[NDArray[np.float32]]:
    """Draw samples 0 to n_samples - 1 of one protein, batch by batch; see `TargetSampler`.

    Yields:
        `[B, N_atom, 3]` in angstrom.
    """
    sampler = TargetSampler(denoiser, protein, embeddings, settings, seed)
    for _, made in in_chunks(sampler, range(n_samples), batch_size):
        yield made
