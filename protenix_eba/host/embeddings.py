"""The frozen trunk's embeddings: computed once for each sequence, kept as safetensors.

A file is less than a quarter of the float32 tensors (`protenix_eba.host.packing`): the single
embeddings are as accurate as in bfloat16, the pair embeddings have an error of 0.6%. It also holds
the features of the diffusion module, and says what all this was made from.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file
from protenix_eba.host.features import ProteinFeatures, to_device
from protenix_eba.host.msa import NO_MSA
from protenix_eba.host.packing import pack, unpack
from protenix_eba.host.stored_features import pack_features, unpack_features
from protenix_eba.structures.sequences import Protein

__all__ = [
    "EmbeddingFolder",
    "TrunkEmbeddings",
    "as_stored",
    "compute_embeddings",
    "save_embeddings",
]

logger = logging.getLogger(__name__)

# Of what the trunk draws: in each cycle it reads another part of an MSA.
_SEED: Final = 0
# Steps in the root mean square. The single embeddings act on the outputs most and take little
# room: theirs is bfloat16's accuracy. The pair embeddings' make a file of 80 residues, with the
# features, a quarter of float32.
_STEPS: Final = {"s_inputs": 192, "s_trunk": 192, "z_trunk": 47}
_PARTS: Final = ("low", "high", "exponent", "step", "shape")
_STORAGE: Final = "features; rounded, " + ", ".join(f"{n} 1/{k}" for n, k in _STEPS.items())
_FEATURES: Final = "features"
_DAMAGE: Final = (SafetensorError, OSError, ValueError, zlib.error)  # of a file that has changed


@dataclass(frozen=True)
class TrunkEmbeddings:
    """The trunk's embeddings, on which the diffusion module is conditioned.

    Attributes:
        s_inputs: `[N_token, 449]`.
        s_trunk: `[N_token, 384]`.
        z_trunk: `[N_token, N_token, 128]`.
    """

    s_inputs: Tensor
    s_trunk: Tensor
    z_trunk: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three tensors, in the order of the attributes."""
        return self.s_inputs, self.s_trunk, self.z_trunk

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> TrunkEmbeddings:
        """Return the embeddings on a device."""
        return TrunkEmbeddings(*(t.to(device, dtype) for t in self.tensors()))

    def crop(self, token_index: Tensor) -> TrunkEmbeddings:
        """Return the embeddings of some tokens.

        Args:
            token_index: `[n]` token numbers.
        """
        pairs = self.z_trunk[token_index[:, None], token_index]
        return TrunkEmbeddings(self.s_inputs[token_index], self.s_trunk[token_index], pairs)


@torch.no_grad()
def compute_embeddings(model: Any, protein: ProteinFeatures, n_cycles: int) -> TrunkEmbeddings:
    """Run the trunk of a Protenix model that is in evaluation mode.

    From an MSA it draws rows at random in each cycle, by torch's generator of the model's device:
    here always from the same seed.

    Args:
        model: `protenix.model.protenix.Protenix`.
        protein: Features without templates.
        n_cycles: Recycling iterations.
    """
    device = next(model.pairformer_stack.parameters()).device
    features = to_device(protein.features, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_SEED)
        outputs = model.get_pairformer_output(
            features,
            N_cycle=n_cycles,
            inplace_safe=False,
            chunk_size=model.configs.infer_setting.chunk_size,
        )
    return TrunkEmbeddings(*(t.float() for t in outputs))


def as_stored(embeddings: TrunkEmbeddings) -> TrunkEmbeddings:
    """Return these embeddings as a reader of their file gets them, on the same device."""
    device = embeddings.z_trunk.device
    packed = (pack(getattr(embeddings, name), steps) for name, steps in _STEPS.items())
    return TrunkEmbeddings(*(unpack(parts).to(device) for parts in packed))


def _provenance(protein: Protein, trunk: str, n_cycles: int) -> dict[str, str]:
    """Return the header of a file, which every reader compares."""
    return {
        "sequence": ":".join(protein.chains),
        "trunk": trunk,
        "n_cycles": str(n_cycles),
        "storage": _STORAGE,
    }


def save_embeddings(
    path: Path, embeddings: TrunkEmbeddings, protein: ProteinFeatures, trunk: str, n_cycles: int
) -> None:
    """Write the tensors and the features with what they were made from.

    A reader gets `as_stored(embeddings)` and `compact(protein)`.

    Args:
        path: `.safetensors` file.
        embeddings: Embeddings from `compute_embeddings`.
        protein: The features that they were made from.
        trunk: Fingerprint of the trunk's weights (`weights.trunk_fingerprint`).
        n_cycles: Recycling iterations.

    Raises:
        UserError: They are not finite.
    """
    tensors: dict[str, Tensor] = {_FEATURES: pack_features(protein)}
    for name, steps in _STEPS.items():
        try:
            packed = pack(getattr(embeddings, name), steps)
        except ValueError as error:
            raise UserError(
                f"embeddings of {protein.protein.name}: {name}: {error}",
                "the checkpoint's trunk gives numbers that are not finite: check where it is from",
            ) from error
        tensors |= {f"{name}.{part}": value for part, value in packed.items()}
    made_from = _provenance(protein.protein, trunk, n_cycles) | {
        "msa": protein.msa,
        "msa_sequences": str(len(protein.features["msa"])),
        "seed": str(_SEED),
    }
    with atomic_path(path) as temporary:  # `save_file` would close it to the user's group
        temporary.write_bytes(save(tensors, metadata=made_from))


def _check(path: Path, protein: Protein, trunk: str, n_cycles: int, msa: str | None) -> str:
    """Compare a file's header with what is expected; the tensors are not read.

    Returns:
        The fingerprint of the file's MSA.
    """
    require_file(path, f"embeddings of {protein.name}", "run `protenix-eba embed`")
    try:
        with safe_open(path, framework="pt") as handle:
            found: dict[str, str] = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _not_whole(path, error) from error
    stated = {} if msa is None else {"msa": msa, "seed": str(_SEED)}
    for key, expected in (_provenance(protein, trunk, n_cycles) | stated).items():
        if found.get(key) != expected:
            raise UserError(
                f"{path} was made for another {key}: expected {expected}, found {found.get(key)}",
                "delete it and run `protenix-eba embed` with this configuration, checkpoint and "
                "MSA, or choose another folder",
            )
    return found.get("msa", NO_MSA)


def _read(path: Path) -> TrunkEmbeddings:
    try:
        with safe_open(path, framework="pt") as handle:  # memory-mapped
            packed = [
                {part: handle.get_tensor(f"{name}.{part}") for part in _PARTS} for name in _STEPS
            ]
        return TrunkEmbeddings(*map(unpack, packed))
    except _DAMAGE as error:
        raise _not_whole(path, error) from error


def _read_features(path: Path, protein: Protein) -> ProteinFeatures:
    try:
        with safe_open(path, framework="pt") as handle:
            msa = (handle.metadata() or {}).get("msa", NO_MSA)
            return unpack_features(handle.get_tensor(_FEATURES), protein, msa)
    except _DAMAGE as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is not a whole embedding file: {error}", "delete it and embed again")


class EmbeddingFolder:
    """Embeddings of many proteins, each read when it is asked for.

    Args:
        folder: Folder with a file NAME.safetensors for each protein.
        trunk: Fingerprint of the trunk's weights.
        n_cycles: Recycling iterations.
        n_kept: How many of the last ones asked for stay in memory.
    """

    def __init__(self, folder: Path, trunk: str, n_cycles: int, *, n_kept: int = 4) -> None:
        self._folder = folder
        self._trunk = trunk
        self._n_cycles = n_cycles
        self._read = lru_cache(maxsize=n_kept)(_read)
        self._made_with: dict[bool, str] = {}  # without MSA or not -> the first such target

    def path(self, protein: Protein) -> Path:
        """Return the path of a protein's file, whether or not it exists."""
        return self._folder / f"{protein.name}.safetensors"

    def check(self, protein: Protein, msa: str | None = None) -> str:
        """Check that a protein's file exists and fits its sequence, trunk, recycling and MSA.

        Args:
            protein: The protein.
            msa: Fingerprint of the alignments, or "none"; None for any. Where any will do, the
                first target that differs from the others in having one or not is logged.

        Returns:
            The fingerprint of the file's alignments, or "none".

        Raises:
            UserError: It is not there, made from something else, or cut.
        """
        found = _check(self.path(protein), protein, self._trunk, self._n_cycles, msa)
        kinds = len(self._made_with)
        self._made_with.setdefault(found == NO_MSA, protein.name)
        if msa is None and len(self._made_with) > kinds == 1:
            logger.warning(
                "%s: the embeddings of %s were made with an MSA, those of %s without",
                self._folder,
                self._made_with[False],
                self._made_with[True],
            )
        return found

    def features(self, protein: Protein) -> ProteinFeatures:
        """Return the features of a protein that was checked, as from `features.compact`.

        Raises:
            UserError: The file has vanished or has changed.
        """
        return _read_features(self.path(protein), protein)

    def __call__(self, protein: Protein) -> TrunkEmbeddings:
        """Read the embeddings of a protein that was checked, float32, on the CPU.

        Raises:
            UserError: The file has vanished or has changed.
        """
        return self._read(self.path(protein))
