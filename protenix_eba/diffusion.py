"""Denoising errors of K conformers at shared noise levels, in one forward pass.

Letters: K conformers, S noise samples, N atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from protenix_eba.embeddings import TrunkEmbeddings
from protenix_eba.geometry import random_rotations
from protenix_eba.losses import DenoisingErrors, aligned_mse, smooth_lddt

__all__ = ["ConformerDenoiser", "NoisyConformers", "add_noise", "denoising_errors"]


# What Protenix's atom encoder caches from (AlphaFold 3, Algorithm 5).
_ATOM_FEATURES: Final = (
    *("ref_pos", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars"),
    *("atom_to_token_idx", "d_lm", "v_lm", "pad_info"),
)


@dataclass(frozen=True)
class NoisyConformers:
    """Conformers with noise.

    Attributes:
        coordinates: `[K, S, N, 3]` in angstrom.
        sigma: `[S]` noise levels in angstrom, shared by the conformers.
    """

    coordinates: Tensor
    sigma: Tensor


def add_noise(
    coordinates: Tensor,
    mask: Tensor,
    *,
    n_noise: int,
    noise_mean: float,
    noise_std: float,
    sigma_data: float,
    generator: torch.Generator,
) -> NoisyConformers:
    """Noise as in training an AlphaFold 3 diffusion module.

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
    """
    n_conformers, n_atoms, _ = coordinates.shape
    drawn = torch.randn(n_noise, generator=generator)
    sigma = sigma_data * torch.exp(noise_mean + noise_std * drawn)
    noise = torch.randn(n_noise, n_atoms, 3, generator=generator) * sigma[:, None, None]
    rotation = random_rotations((n_conformers, n_noise), generator)
    shift = torch.randn(n_conformers, n_noise, 1, 3, generator=generator)
    rotation, shift, noise, sigma = (t.to(coordinates) for t in (rotation, shift, noise, sigma))
    present = mask.to(coordinates.dtype)[..., None]
    centre = (coordinates * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)
    centred = (coordinates - centre) * present
    moved = centred[:, None] @ rotation + shift
    return NoisyConformers(moved + noise, sigma)


class ConformerDenoiser(nn.Module):
    """Protenix's diffusion module on K x S noisy structures of one sequence.

    What does not depend on the noise (pair conditioning, atom features) is computed once for all
    of them, through Protenix's own cache functions, with gradients.

    Args:
        diffusion_module: `protenix.model.modules.diffusion.DiffusionModule`.
    """

    def __init__(self, diffusion_module: nn.Module) -> None:
        super().__init__()
        self.diffusion_module = diffusion_module

    def prepare(self, features: dict[str, Any], z_trunk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What all noise samples of a sequence share: `pair_z`, `p_lm` and `c_l`."""
        module: Any = self.diffusion_module
        pair_z = module.diffusion_conditioning.prepare_cache(features["relp"], z_trunk, False)
        p_lm, c_l = module.atom_attention_encoder.prepare_cache(
            **{name: features[name] for name in _ATOM_FEATURES}, r_l=True, z=pair_z
        )
        return pair_z, p_lm, c_l

    def forward(
        self,
        features: dict[str, Any],
        embeddings: TrunkEmbeddings,
        coordinates: Tensor,
        sigma: Tensor,
        shared: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Denoise.

        Args:
            features: Protenix's input features.
            embeddings: Of the frozen trunk.
            coordinates: `[B, N, 3]` noisy coordinates in angstrom; B = K x S.
            sigma: `[B]`.
            shared: From `prepare`, to save its cost over many calls.

        Returns:
            `[B, N, 3]` denoised coordinates.
        """
        pair_z, p_lm, c_l = shared or self.prepare(features, embeddings.z_trunk)
        denoised: Tensor = self.diffusion_module(
            x_noisy=coordinates,
            t_hat_noise_level=sigma,
            input_feature_dict=features,
            s_inputs=embeddings.s_inputs,
            s_trunk=embeddings.s_trunk,
            z_trunk=None,
            pair_z=pair_z,
            p_lm=p_lm,
            c_l=c_l,
        )
        return denoised


def denoising_errors(
    denoiser: nn.Module,
    features: dict[str, Any],
    embeddings: TrunkEmbeddings,
    noisy: NoisyConformers,
    target: Tensor,
    mask: Tensor,
) -> DenoisingErrors:
    """Errors of all K x S structures, from one forward pass of `denoiser`.

    Args:
        denoiser: A `ConformerDenoiser`, or the DeepSpeed engine around it.
        features: Protenix's input features.
        embeddings: Of the frozen trunk.
        noisy: From `add_noise`.
        target: `[K, N, 3]` true coordinates.
        mask: `[K, N]`.

    Returns:
        `mse` and `lddt`, each `[K, S]`.
    """
    n_conformers, n_noise = noisy.coordinates.shape[:2]
    flat = noisy.coordinates.flatten(0, 1)
    sigma = noisy.sigma.repeat(n_conformers)
    denoised = denoiser(features, embeddings, flat, sigma)
    predicted = denoised.float().unflatten(0, (n_conformers, n_noise))
    return DenoisingErrors(
        aligned_mse(predicted, target, mask), smooth_lddt(predicted, target, mask), noisy.sigma
    )
