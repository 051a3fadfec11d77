"""Compact storage of a protein's features, in kilobytes, so that they are made only once."""

from __future__ import annotations

import zlib
from typing import Final

import torch
from safetensors.torch import load, save
from torch import Tensor

from protenix_eba.host.features import AtomKey, ProteinFeatures, compact
from protenix_eba.structures.sequences import Protein

__all__ = ["pack_features", "unpack_features"]

# AlphaFold 3, Table 5: atomic numbers from 1 on; characters are code points less 32.
_CLASSES: Final = {"ref_element": 128, "ref_atom_name_chars": 64}


def pack_features(protein: ProteinFeatures) -> Tensor:
    """Compress the features of `features.compact`, one-hots as numbers.

    Args:
        protein: Features of a protein: all of them, or those of `compact`.

    Returns:
        `[n_bytes]` uint8, for `unpack_features`.
    """
    small: dict[str, Tensor] = {}
    for key, value in compact(protein).features.items():
        if key in _CLASSES:
            small[key] = value.argmax(dim=-1).to(torch.uint8)
        else:
            small[key] = value if value.is_floating_point() else value.to(torch.int32)
    data = zlib.compress(save({key: value.contiguous() for key, value in small.items()}), level=9)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def unpack_features(packed: Tensor, protein: Protein, msa: str) -> ProteinFeatures:
    """Return exactly the features that were packed, as `features.compact` gives them.

    Args:
        packed: Tensor from `pack_features`.
        protein: The same.
        msa: Fingerprint of the alignments that its embeddings were made with.

    Raises:
        zlib.error: The bytes have changed.
    """
    # Embeddings alone need no mdtraj.
    from mdtraj.core.element import Element

    small = load(zlib.decompress(packed.numpy().tobytes()))
    features = {
        key: torch.nn.functional.one_hot(value.long(), _CLASSES[key]).to(torch.uint8)
        if key in _CLASSES
        else value
        if value.is_floating_point()
        else value.long()
        for key, value in small.items()
    }
    elements = (Element.getByAtomicNumber(n + 1).symbol for n in small["ref_element"].tolist())
    return ProteinFeatures(protein, features, _atom_keys(small, protein), tuple(elements), msa)


def _atom_keys(small: dict[str, Tensor], protein: Protein) -> tuple[AtomKey, ...]:
    """Return chain, residue and name of each atom; each residue is one token."""
    characters = small["ref_atom_name_chars"].tolist()
    names = ("".join(chr(32 + c) for c in row).strip() for row in characters)
    residues = [(c, r) for c, chain in enumerate(protein.chains) for r in range(len(chain))]
    tokens = small["atom_to_token_idx"].tolist()
    return tuple((*residues[token], name) for token, name in zip(tokens, names, strict=True))
