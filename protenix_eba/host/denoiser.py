"""Protenix's diffusion module on many noisy structures of one sequence at once.

Letters: K conformers, S noise samples, N atoms.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.windows import one_window, window_size, with_one_window

__all__ = ["ConformerDenoiser"]


Shared = tuple[Tensor, ...]
"""Pair conditioning, windowed atom pair features and atom features of a sequence."""

# What Protenix's atom encoder caches from (AlphaFold 3, Algorithm 5).
_ATOM_FEATURES: Final = (
    *("ref_pos", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars"),
    *("atom_to_token_idx", "d_lm", "v_lm", "pad_info"),
)


class ConformerDenoiser(nn.Module):
    """Protenix's diffusion module on K x S noisy structures of one sequence.

    What does not depend on the noise (pair conditioning, atom features) is computed once for all
    of them, and what depends on the noise level only (the single conditioning and each block's
    modulation by it) once for the K conformers of a level. The host's own modules do the work:
    their leading dimensions broadcast.

    Args:
        diffusion_module: `protenix.model.modules.diffusion.DiffusionModule`.
        dtype: Type of matrix multiplications; bfloat16 by autocast, the weights stay in float32.
        input_embedder: `protenix.model.modules.embedders.InputFeatureEmbedder`, if it is trained
            too: it then makes `s_inputs` anew. The trunk's other embeddings stay the cached ones.
    """

    def __init__(
        self,
        diffusion_module: nn.Module,
        dtype: torch.dtype = torch.float32,
        input_embedder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.diffusion_module = diffusion_module
        self.input_embedder = input_embedder
        self._dtype = dtype

    def prepare(self, features: dict[str, Any], z_trunk: Tensor) -> Shared:
        """Compute what all noise samples of a sequence share: `pair_z`, `p_lm` and `c_l`.

        With activation checkpointing it is computed again in the backward pass, as the host does:
        its intermediate results have the size of the pairs of residues, many times.
        """
        module: Any = self.diffusion_module
        if module.blocks_per_ckpt and torch.is_grad_enabled():
            kept: Shared = checkpoint(self._prepare, features, z_trunk, use_reentrant=False)
            return kept
        return self._prepare(features, z_trunk)

    def _prepare(self, features: dict[str, Any], z_trunk: Tensor) -> Shared:
        module: Any = self.diffusion_module
        size = window_size(module, len(features["ref_pos"]))
        windowed = with_one_window(features, size)
        pair_z = module.diffusion_conditioning.prepare_cache(features["relp"], z_trunk, False)
        with one_window(module, size):
            p_lm, c_l = module.atom_attention_encoder.prepare_cache(
                **{name: windowed[name] for name in _ATOM_FEATURES}, r_l=True, z=pair_z
            )
        return pair_z, p_lm, c_l

    def forward(
        self,
        features: dict[str, Any],
        embeddings: TrunkEmbeddings,
        coordinates: Tensor,
        sigma: Tensor,
        shared: Shared | None = None,
    ) -> Tensor:
        """Denoise structures.

        Args:
            features: Protenix's input features.
            embeddings: Embeddings of the frozen trunk.
            coordinates: `[K, S, N, 3]` noisy coordinates in angstrom, or `[B, N, 3]`.
            sigma: `[S]` noise levels that the K conformers share, or `[B]`.
            shared: Result of `prepare`, to save its cost over many calls.

        Returns:
            Denoised coordinates, of the shape of `coordinates`.
        """
        if coordinates.dim() == 4 and coordinates.is_cuda:
            # Fused attention kernels want one batch dimension; without them the attention of all
            # K x S structures is written out to memory, which costs more there than it saves.
            flat = coordinates.flatten(0, 1)
            repeated = sigma.repeat(len(coordinates))
            one: Tensor = self.forward(features, embeddings, flat, repeated, shared)
            denoised: Tensor = one.unflatten(0, tuple(coordinates.shape[:2]))
            return denoised
        module: Any = self.diffusion_module
        reduced = self._dtype != torch.float32
        with torch.autocast(coordinates.device.type, dtype=self._dtype, enabled=reduced):
            shared = shared or self.prepare(features, embeddings.z_trunk)
            if coordinates.dim() == 4:
                shared = tuple(part[None] for part in shared)  # the dimension of the conformers
            pair_z, p_lm, c_l = shared
            ratio = (sigma / module.sigma_data)[..., None, None]
            with one_window(module, window_size(module, coordinates.shape[-2])):
                update = module.f_forward(
                    r_noisy=coordinates / (module.sigma_data * (1 + ratio**2).sqrt()),
                    t_hat_noise_level=sigma,
                    input_feature_dict=features,
                    s_inputs=self._s_inputs(features, embeddings),
                    s_trunk=embeddings.s_trunk,
                    z_trunk=None,
                    pair_z=pair_z,
                    p_lm=p_lm,
                    c_l=c_l,
                )
        # The host combines both in the update's type (Karras et al., 2022, Eq. 7); coordinates of
        # 50 angstrom in bfloat16 are a quarter of an angstrom apart.
        scale = sigma[..., None, None] / (1 + ratio**2).sqrt()
        denoised = coordinates / (1 + ratio**2) + scale * update.to(coordinates.dtype)
        return denoised

    def _s_inputs(self, features: dict[str, Any], embeddings: TrunkEmbeddings) -> Tensor:
        """Return `[N_token, 449]`: atom features of each residue, then constants (Algorithm 2)."""
        if self.input_embedder is None:
            return embeddings.s_inputs
        embedder: Any = self.input_embedder
        names = (name for name in _ATOM_FEATURES if name != "atom_to_token_idx")
        inputs = {name: features[name] for name in names}
        of_atoms = embedder.atom_attention_encoder(features["atom_to_token_idx"], **inputs)[0]
        return torch.cat([of_atoms, embeddings.s_inputs[:, embedder.c_token :]], dim=-1)
