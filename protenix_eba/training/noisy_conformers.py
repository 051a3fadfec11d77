"""Conformers with noise, and the errors of denoising them all in one forward pass.

Letters: K conformers, S noise samples, N atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.protein.rigid_motions import random_rotations
from protenix_eba.training.denoising_error import (
    DenoisingErrors,
    aligned_mse,
    bond_error,
    smooth_lddt,
    squared_error,
    volume_error,
)
from protenix_eba.training.symmetry import with_best_order

__all__ = ["NoisyConformers", "add_noise", "denoising_errors"]


@dataclass(frozen=True)
class NoisyConformers:
    """Conformers with noise.

    Attributes:
        coordinates: `[K, S, N, 3]` in angstrom.
        sigma: `[S]` noise levels in angstrom, shared by the conformers.
        clean: `[K, S, N, 3]` the same without the noise, each in its own place and orientation.
    """

    coordinates: Tensor
    sigma: Tensor
    clean: Tensor


def add_noise(
    coordinates: Tensor,
    mask: Tensor,
    *,
    n_noise: int,
    noise_mean: float,
    noise_std: float,
    sigma_data: float,
    generator: torch.Generator,
    levels: Tensor | None = None,
) -> NoisyConformers:
    """Add noise to conformers as in the training of AlphaFold 3's diffusion module.

    Sigma = sigma_d exp(mean + std n) and the noise are shared by the conformers, so that their
    errors differ by the conformer only; each has its own random rigid motion (Algorithm 19).

    Args:
        coordinates: `[K, N, 3]`, 0 where absent.
        mask: `[K, N]`.
        n_noise: S.
        noise_mean: Mean of ln(sigma / sigma_d), -1.2 in AlphaFold 3.
        noise_std: Its standard deviation, 1.5.
        sigma_data: sigma_d in angstrom.
        generator: On the CPU, so that every device sees the same draws.
        levels: `[S]` noise levels in angstrom, on the CPU, in the place of drawn ones.
    """
    n_conformers, n_atoms, _ = coordinates.shape
    drawn = torch.randn(n_noise, generator=generator)
    sigma = sigma_data * torch.exp(noise_mean + noise_std * drawn) if levels is None else levels
    noise = torch.randn(n_noise, n_atoms, 3, generator=generator) * sigma[:, None, None]
    rotation = random_rotations((n_conformers, n_noise), generator)
    shift = torch.randn(n_conformers, n_noise, 1, 3, generator=generator)
    rotation, shift, noise, sigma = (t.to(coordinates) for t in (rotation, shift, noise, sigma))
    present = mask.to(coordinates.dtype)[..., None]
    centre = (coordinates * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)
    centred = (coordinates - centre) * present
    moved = centred[:, None] @ rotation + shift
    return NoisyConformers(moved + noise, sigma, moved)


def denoising_errors(
    denoiser: Callable[..., Tensor],
    features: dict[str, Any],
    embeddings: TrunkEmbeddings,
    noisy: NoisyConformers,
    target: Tensor,
    mask: Tensor,
    partners: Tensor | None = None,
    *,
    aligned: bool = True,
    volumes: bool = False,
) -> DenoisingErrors:
    """Compute the errors of all K x S structures, from one forward pass of `denoiser`.

    Args:
        denoiser: A `ConformerDenoiser`, or the DeepSpeed engine around it.
        features: Protenix's input features.
        embeddings: Embeddings of the frozen trunk.
        noisy: Noisy conformers, from `add_noise`.
        target: `[K, N, 3]` true coordinates.
        mask: `[K, N]`.
        partners: `[N]` from `symmetric_partners`, to compare symmetric atoms in the better order
            of each structure; None compares them by their names.
        aligned: Whether the squared error is that of the best superposition; see `squared_error`.
        volumes: Whether to compute the volume error, which is 0 otherwise.

    Returns:
        The parts of the errors, each `[K, S]`.
    """
    predicted = denoiser(features, embeddings, noisy.coordinates, noisy.sigma).float()
    if partners is not None:
        residue = features["atom_to_token_idx"]
        predicted = with_best_order(predicted, target, mask, partners, residue)
    return DenoisingErrors(
        mse=aligned_mse(predicted, target, mask)
        if aligned
        else squared_error(predicted, noisy.clean, mask),
        lddt=smooth_lddt(predicted, target, mask),
        bond=bond_error(predicted, target, mask),
        volume=volume_error(predicted, target, mask)
        if volumes
        else predicted.new_zeros(predicted.shape[:2]),
        sigma=noisy.sigma,
        n_atoms=mask.sum(dim=-1),
    )
