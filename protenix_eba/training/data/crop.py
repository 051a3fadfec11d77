"""Crops: a part of a long protein, small enough to be trained on.

A protein has one token for each residue. What is cropped keeps its numbers of residues and chains,
so that its relative positions are those it has in the whole protein.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from protenix_eba.host.features import with_atom_windows

__all__ = [
    "atoms_of",
    "choose_crop",
    "contiguous_crop",
    "crop_features",
    "renumbered",
    "spatial_crop",
]

# What each dimension of a feature counts: t tokens, a atoms, - something else.
_DIMENSIONS: Final = {
    **dict.fromkeys(("asym_id", "entity_id", "residue_index", "sym_id", "token_index"), "t"),
    **dict.fromkeys(("deletion_mean", "has_frame"), "t"),
    **dict.fromkeys(("profile", "restype", "frame_atom_index"), "t-"),
    **dict.fromkeys(("deletion_value", "has_deletion", "msa", "template_restype"), "-t"),
    "template_all_atom_mask": "-t-",
    "template_all_atom_positions": "-t--",
    "token_bonds": "tt",
    "relp": "tt-",
    # constraint_feature
    **dict.fromkeys(("contact", "contact_atom", "pocket", "substructure"), "tt-"),
    **dict.fromkeys(("is_dna", "is_ligand", "is_protein", "is_rna", "modified_res_mask"), "a"),
    **dict.fromkeys(("entity_mol_id", "mol_atom_index", "mol_id"), "a"),
    **dict.fromkeys(("distogram_rep_atom_mask", "pae_rep_atom_mask", "plddt_m_rep_atom_mask"), "a"),
    **dict.fromkeys(("ref_charge", "ref_mask", "ref_space_uid"), "a"),
    **dict.fromkeys(("atom_to_token_idx", "atom_to_tokatom_idx"), "a"),
    **dict.fromkeys(("ref_element", "ref_pos"), "a-"),
    "ref_atom_name_chars": "a--",
    "bond_mask": "aa",
    "resolution": "-",
    **dict.fromkeys(("prot_pair_num_alignments", "prot_unpair_num_alignments"), ""),
    **dict.fromkeys(("rna_pair_num_alignments", "rna_unpair_num_alignments"), ""),
}
# Features that hold numbers of tokens or atoms, which change.
_NUMBERS: Final = {"atom_to_token_idx": "t", "frame_atom_index": "a"}
_NESTED: Final = ("constraint_feature",)
# Made anew: windows over neighbouring atoms.
_WINDOWS: Final = ("d_lm", "v_lm", "pad_info")


def choose_crop(
    alpha: Tensor,
    present: Tensor,
    chain: Tensor,
    *,
    size: int,
    spatial: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw a crop of a protein (AlphaFold 3, section 2.7).

    Args:
        alpha: `[K, N_token, 3]` C-alpha coordinates of the conformers, angstrom.
        present: `[N_token]` bool, whether a residue has one.
        chain: `[N_token]` number of its chain; a chain's residues are neighbours.
        size: Largest number of residues.
        spatial: Share of crops that are spatial, in a conformer drawn at random; the others are
            contiguous.
        generator: On the CPU.

    Returns:
        `[min(size, N_token)]` int64 token numbers, ascending.
    """
    if len(chain) <= size:
        return torch.arange(len(chain))
    if torch.rand((), generator=generator) < spatial:
        conformer = _draw(0, len(alpha) - 1, generator)
        return spatial_crop(alpha[conformer], present, size, generator)
    return contiguous_crop(chain, size, generator)


def contiguous_crop(chain: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crop one run of residues from each chain, of random length and place.

    Algorithm 1 of Evans et al., "Protein complex prediction with AlphaFold-Multimer" (2022),
    supplement, section 7.2.1.

    Args:
        chain: `[N_token]` number of each residue's chain.
        size: Number of residues, at most `N_token`.
        generator: On the CPU.

    Returns:
        `[size]` int64 token numbers, ascending.
    """
    lengths = torch.unique_consecutive(chain, return_counts=True)[1].tolist()
    starts = [sum(lengths[:k]) for k in range(len(lengths))]
    added, remaining = 0, sum(lengths)
    runs = []
    for k in torch.randperm(len(lengths), generator=generator).tolist():
        remaining -= lengths[k]
        longest = min(size - added, lengths[k])
        shortest = min(lengths[k], max(0, size - added - remaining))
        length = _draw(shortest, longest, generator)
        first = starts[k] + _draw(0, lengths[k] - length, generator)
        added += length
        runs.append(torch.arange(first, first + length))
    return torch.cat(runs).sort().values


def spatial_crop(alpha: Tensor, present: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crop the residues whose C-alpha atoms are nearest to that of a random residue.

    Evans et al. (2022), supplement, section 7.2.2, without the choice of an interface.

    Args:
        alpha: `[N_token, 3]` C-alpha coordinates, angstrom.
        present: `[N_token]` bool, whether a residue has one; the others come last.
        size: Number of residues, at most `N_token`.
        generator: On the CPU.

    Returns:
        `[size]` int64 token numbers, ascending.
    """
    candidates = present.nonzero().flatten()
    centre = candidates[_draw(0, len(candidates) - 1, generator)]
    distance = (alpha - alpha[centre]).norm(dim=-1).masked_fill(~present, torch.inf)
    nearest: Tensor = distance.argsort(stable=True)[:size]
    return nearest.sort().values


def _draw(lowest: int, highest: int, generator: torch.Generator) -> int:
    """Draw an integer, both ends included."""
    return int(torch.randint(lowest, highest + 1, (), generator=generator))


def atoms_of(features: Mapping[str, Any], token_index: Tensor) -> Tensor:
    """Return the atoms of some tokens.

    Args:
        features: Protenix's input features.
        token_index: `[n]` token numbers.

    Returns:
        Int64 atom numbers, ascending.
    """
    return torch.isin(features["atom_to_token_idx"], token_index).nonzero().flatten()


def crop_features(features: Mapping[str, Any], token_index: Tensor) -> dict[str, Any]:
    """Crop Protenix's input features to some tokens.

    Everything is cut out of the whole protein's; numbers of tokens and atoms count within the
    crop, and windows over neighbouring atoms are made anew if there are any.

    Args:
        features: Features from `protein_features`, or a part of them.
        token_index: `[n]` token numbers, strictly ascending.

    Raises:
        ValueError: Tokens out of order, a feature that is not known here, or one of another shape.
    """
    if len(token_index) > 1 and not bool((token_index.diff() > 0).all()):
        raise ValueError("expected token numbers in ascending order, each once")
    chosen = {"t": token_index, "a": atoms_of(features, token_index)}
    whole = {"t": len(features["residue_index"]), "a": len(features["atom_to_token_idx"])}
    cropped = _cut(features, chosen, whole)
    return with_atom_windows(cropped) if "d_lm" in features else cropped


def _cut(
    features: Mapping[str, Any], chosen: Mapping[str, Tensor], whole: Mapping[str, int]
) -> dict[str, Any]:
    cropped: dict[str, Any] = {}
    for key, value in features.items():
        if key in _WINDOWS:
            continue
        if key in _NESTED:
            cropped[key] = _cut(value, chosen, whole)
            continue
        cropped[key] = _slice(key, value, chosen, whole)
        if kind := _NUMBERS.get(key):
            cropped[key] = renumbered(cropped[key], chosen[kind], whole[kind])
    return cropped


def _slice(
    key: str, value: Tensor, chosen: Mapping[str, Tensor], whole: Mapping[str, int]
) -> Tensor:
    if key not in _DIMENSIONS:
        raise ValueError(f"cannot crop the unknown feature {key!r}: say what its dimensions count")
    kinds = _DIMENSIONS[key]
    expected = [whole.get(kind, "any") for kind in kinds]
    if len(kinds) != value.dim() or any(
        size not in ("any", found) for size, found in zip(expected, value.shape, strict=True)
    ):
        raise ValueError(f"feature {key!r}: expected shape {expected}, found {list(value.shape)}")
    for dimension, kind in enumerate(kinds):
        if kind in chosen:
            value = value.index_select(dimension, chosen[kind])
    return value


def renumbered(numbers: Tensor, chosen: Tensor, n_whole: int) -> Tensor:
    """Renumber from the whole to the crop, -1 for what lies outside of it."""
    place = torch.full((n_whole + 1,), -1, dtype=numbers.dtype)  # the last is for -1
    place[chosen] = torch.arange(len(chosen), dtype=numbers.dtype)
    return place[numbers]
