"""The frozen trunk's embeddings: computed once for each sequence, kept as safetensors.

A file is less than a quarter of the float32 tensors (`protenix_eba.data.packing`): the single
embeddings are as accurate as in bfloat16, the pair embeddings have an error of 0.6%.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from protenix_eba.data.features import ProteinFeatures
from protenix_eba.data.packing import pack, unpack
from protenix_eba.data.sequences import Protein
from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path, require_file

__all__ = [
    "EmbeddingFolder",
    "TrunkEmbeddings",
    "as_stored",
    "compute_embeddings",
    "load_embeddings",
    "save_embeddings",
]

# Steps in the root mean square. The single embeddings act on the outputs most and take little
# room: theirs is bfloat16's accuracy.
_STEPS: Final = {"s_inputs": 192, "s_trunk": 192, "z_trunk": 48}
_PARTS: Final = ("low", "high", "exponent", "step", "shape")
_STORAGE: Final = "rounded, " + ", ".join(f"{n} 1/{k}" for n, k in _STEPS.items())


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

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three, in the order of the attributes."""
        return self.s_inputs, self.s_trunk, self.z_trunk

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> TrunkEmbeddings:
        """The same on a device."""
        return TrunkEmbeddings(*(t.to(device, dtype) for t in self.tensors()))

    def crop(self, token_index: Tensor) -> TrunkEmbeddings:
        """Those of some tokens.

        Args:
            token_index: `[n]` token numbers.
        """
        pairs = self.z_trunk[token_index[:, None], token_index]
        return TrunkEmbeddings(self.s_inputs[token_index], self.s_trunk[token_index], pairs)


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


def as_stored(embeddings: TrunkEmbeddings) -> TrunkEmbeddings:
    """What a reader of a file with these embeddings gets, on the same device."""
    device = embeddings.z_trunk.device
    packed = (pack(getattr(embeddings, name), steps) for name, steps in _STEPS.items())
    return TrunkEmbeddings(*(unpack(parts).to(device) for parts in packed))


def _provenance(protein: Protein, trunk: str, n_cycles: int) -> dict[str, str]:
    return {
        "sequence": ":".join(protein.chains),
        "trunk": trunk,
        "n_cycles": str(n_cycles),
        "msa": "none",
        "storage": _STORAGE,
    }


def save_embeddings(
    path: Path, embeddings: TrunkEmbeddings, protein: ProteinFeatures, trunk: str, n_cycles: int
) -> None:
    """Write the tensors with what they were made from.

    A reader gets `as_stored(embeddings)`.

    Args:
        path: `.safetensors` file.
        embeddings: From `compute_embeddings`.
        protein: What they embed.
        trunk: Fingerprint of the trunk's weights (`weights.trunk_fingerprint`).
        n_cycles: Recycling iterations.

    Raises:
        UserError: They are not finite.
    """
    tensors: dict[str, Tensor] = {}
    for name, steps in _STEPS.items():
        try:
            packed = pack(getattr(embeddings, name), steps)
        except ValueError as error:
            raise UserError(
                f"embeddings of {protein.protein.name}: {name}: {error}",
                "the checkpoint's trunk gives numbers that are not finite: check where it is from",
            ) from error
        tensors |= {f"{name}.{part}": value for part, value in packed.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=_provenance(protein.protein, trunk, n_cycles))


def load_embeddings(
    path: Path, protein: ProteinFeatures, trunk: str, n_cycles: int
) -> TrunkEmbeddings:
    """Read embeddings and check that they belong to this sequence, trunk and recycling.

    Returns:
        The embeddings in float32, on the CPU.

    Raises:
        UserError: No such file, a cut one, or one made from something else; it says from what.
    """
    _check(path, protein.protein, trunk, n_cycles)
    return _read(path)


def _check(path: Path, protein: Protein, trunk: str, n_cycles: int) -> None:
    """Compare a file's header with what is asked for; the tensors are not read."""
    require_file(path, f"embeddings of {protein.name}", "run `protenix-eba embed`")
    try:
        with safe_open(path, framework="pt") as handle:
            found = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from error
    for key, expected in _provenance(protein, trunk, n_cycles).items():
        if found.get(key) != expected:
            raise UserError(
                f"{path} was made for another {key}: expected {expected}, found {found.get(key)}",
                "delete it and run `protenix-eba embed` with this configuration and checkpoint",
            )


def _read(path: Path) -> TrunkEmbeddings:
    try:
        with safe_open(path, framework="pt") as handle:  # memory-mapped
            packed = [
                {part: handle.get_tensor(f"{name}.{part}") for part in _PARTS} for name in _STEPS
            ]
        return TrunkEmbeddings(*map(unpack, packed))
    except (SafetensorError, OSError, zlib.error) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is not a whole embedding file: {error}", "delete it and embed again")


class EmbeddingFolder:
    """Embeddings of many proteins, each read when it is asked for.

    Args:
        folder: With a file NAME.safetensors for each.
        trunk: Fingerprint of the trunk's weights.
        n_cycles: Recycling iterations.
        n_kept: How many of the last ones asked for stay in memory.
    """

    def __init__(self, folder: Path, trunk: str, n_cycles: int, *, n_kept: int = 4) -> None:
        self._folder = folder
        self._trunk = trunk
        self._n_cycles = n_cycles
        self._read = lru_cache(maxsize=n_kept)(_read)

    def _path(self, protein: Protein) -> Path:
        return self._folder / f"{protein.name}.safetensors"

    def check(self, protein: Protein) -> None:
        """Whether a protein's file is there and was made from this sequence, trunk and recycling.

        Raises:
            UserError: It is not, or it is cut.
        """
        _check(self._path(protein), protein, self._trunk, self._n_cycles)

    def __call__(self, protein: Protein) -> TrunkEmbeddings:
        """The embeddings of a protein that was checked, float32, on the CPU.

        Raises:
            UserError: The file has vanished or has changed.
        """
        return self._read(self._path(protein))
