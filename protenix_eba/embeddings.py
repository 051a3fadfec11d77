"""The frozen trunk's embeddings: computed once for each sequence, kept as safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from protenix_eba.data.features import ProteinFeatures
from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path, require_file

__all__ = ["TrunkEmbeddings", "compute_embeddings", "load_embeddings", "save_embeddings"]

_NAMES = ("s_inputs", "s_trunk", "z_trunk")


@dataclass(frozen=True)
class TrunkEmbeddings:
    """What the diffusion module is conditioned on.

    Attributes:
        s_inputs: `[N_token, 449]`.
        s_trunk: `[N_token, 384]`.
        z_trunk: `[N_token, N_token, 128]`.
    """

    s_inputs: Tensor
    s_trunk: Tensor
    z_trunk: Tensor

    def to(self, device: torch.device) -> TrunkEmbeddings:
        """The same on a device."""
        return TrunkEmbeddings(*(getattr(self, name).to(device) for name in _NAMES))


@torch.no_grad()
def compute_embeddings(model: Any, protein: ProteinFeatures, n_cycles: int) -> TrunkEmbeddings:
    """Run the trunk of a Protenix model that is in evaluation mode.

    Args:
        model: `protenix.model.protenix.Protenix`.
        protein: Features without MSA and templates.
        n_cycles: Recycling iterations.
    """
    device = next(model.pairformer_stack.parameters()).device
    features = {k: v.to(device) if torch.is_tensor(v) else v for k, v in protein.features.items()}
    outputs = model.get_pairformer_output(features, N_cycle=n_cycles, inplace_safe=False)
    return TrunkEmbeddings(*(t.float() for t in outputs))


def _provenance(protein: ProteinFeatures, trunk: str, n_cycles: int) -> dict[str, str]:
    return {
        "sequence": ":".join(protein.protein.chains),
        "trunk": trunk,
        "n_cycles": str(n_cycles),
        "msa": "none",
    }


def save_embeddings(
    path: Path, embeddings: TrunkEmbeddings, protein: ProteinFeatures, trunk: str, n_cycles: int
) -> None:
    """Write the tensors with what they were made from.

    Args:
        path: `.safetensors` file.
        embeddings: From `compute_embeddings`.
        protein: What they embed.
        trunk: Fingerprint of the trunk's weights (`weights.trunk_fingerprint`).
        n_cycles: Recycling iterations.
    """
    tensors = {name: getattr(embeddings, name).cpu().contiguous() for name in _NAMES}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=_provenance(protein, trunk, n_cycles))


def load_embeddings(
    path: Path, protein: ProteinFeatures, trunk: str, n_cycles: int
) -> TrunkEmbeddings:
    """Read embeddings and check that they belong to this sequence, trunk and recycling.

    Raises:
        UserError: No such file, a cut one, or one made from something else; it says from what.
    """
    path = require_file(path, f"embeddings of {protein.protein.name}", "run `protenix-eba embed`")
    try:
        with safe_open(path, framework="pt") as handle:
            found = handle.metadata() or {}
            tensors = [handle.get_tensor(name) for name in _NAMES]
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a whole embedding file: {error}", "delete it and embed again"
        ) from error
    for key, expected in _provenance(protein, trunk, n_cycles).items():
        if found.get(key) != expected:
            raise UserError(
                f"{path} was made for another {key}: expected {expected}, found {found.get(key)}",
                "delete it and run `protenix-eba embed` with this configuration and checkpoint",
            )
    return TrunkEmbeddings(*tensors)
