"""Input features of a protein, as stock Protenix makes them from its sequence and alignments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from protenix_eba.host.msa import NO_MSA, ProteinMsa, fingerprint_of
from protenix_eba.protein.rigid_motions import random_rotations
from protenix_eba.structures.sequences import Protein

__all__ = [
    "AtomKey",
    "ProteinFeatures",
    "compact",
    "complete",
    "complex_features",
    "protein_features",
    "to_device",
    "with_atom_windows",
    "with_random_references",
    "with_relative_positions",
]

AtomKey = tuple[int, int, str]
"""Chain number from 0, residue number within the chain from 0, atom name."""

# What the diffusion module reads (AlphaFold 3, Algorithms 5 and 21), and what `relp` and the atom
# windows, which it reads too, are made from.
_OF_DIFFUSION: Final = (
    *("asym_id", "residue_index", "entity_id", "sym_id", "token_index", "atom_to_token_idx"),
    *("ref_pos", "ref_charge", "ref_mask", "ref_element", "ref_atom_name_chars", "ref_space_uid"),
)
_ONE_HOT: Final = ("ref_element", "ref_atom_name_chars")


@dataclass(frozen=True)
class ProteinFeatures:
    """Everything about a protein that does not depend on its conformation.

    Attributes:
        protein: Name and sequence.
        features: Protenix's input features (`ref_pos [N_atom, 3]`, `restype [N_token, 32]` ...).
        atoms: Chain, residue and name of each atom in Protenix's (the CCD's) order.
        elements: Element symbol of each atom.
        msa: Fingerprint of the alignments in the features, or "none".
    """

    protein: Protein
    features: dict[str, Any]
    atoms: tuple[AtomKey, ...]
    elements: tuple[str, ...]
    msa: str = NO_MSA

    @property
    def alpha_carbons(self) -> Tensor:
        """`[N_token]` indices of each residue's C-alpha atom."""
        return torch.tensor([n for n, (_, _, name) in enumerate(self.atoms) if name == "CA"])


def protein_features(
    protein: Protein, *, seed: int = 0, msa: ProteinMsa | None = None
) -> ProteinFeatures:
    """Make the features of a protein, without templates.

    Args:
        protein: What to featurise.
        seed: Seed of the random orientation that Protenix gives each residue's reference conformer.
        msa: Alignments of its chains; None for its sequence alone.

    Returns:
        The features, on the CPU.
    """
    sample = {"name": protein.name, "sequences": _entities(protein, msa)}
    with _numpy_seed(seed):
        features, atom_array = _host_features(sample, with_msa=msa is not None)
    chain_ids = list(dict.fromkeys(atom_array.chain_id))
    atoms = tuple(
        (chain_ids.index(chain), int(residue) - 1, str(name))
        for chain, residue, name in zip(
            atom_array.chain_id, atom_array.res_id, atom_array.atom_name, strict=True
        )
    )
    elements = tuple(str(e).capitalize() for e in atom_array.element)
    return ProteinFeatures(protein, features, atoms, elements, fingerprint_of(msa))


def complex_features(entry: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Make features of proteins with other molecules, without templates and alignments.

    Args:
        entry: An entry of the JSON file that `protenix pred` reads.
        seed: Seed of the random orientation that Protenix gives each residue's reference conformer.

    Returns:
        The features, on the CPU.
    """
    with _numpy_seed(seed):
        return _host_features(entry, with_msa=False)[0]


def _entities(protein: Protein, msa: ProteinMsa | None) -> list[dict[str, Any]]:
    """Return the chains as stock Protenix takes them: equal neighbours are one entity.

    Copies of one entity are symmetric to the model (`relp`), equal chains of two are strangers.
    """
    entities, first = [], 0
    for sequence, copies in groupby(protein.chains):
        chain: dict[str, Any] = {"sequence": sequence, "count": len(list(copies))}
        if msa:
            chain |= {"unpairedMsa": msa.unpaired[first], "pairedMsa": msa.paired[first]}
        first += chain["count"]
        entities.append({"proteinChain": chain})
    return entities


def _host_features(sample: dict[str, Any], *, with_msa: bool) -> tuple[dict[str, Any], Any]:
    """Run Protenix's own featurisation of an input, up to the model's first layer."""
    from protenix.data.inference.json_to_feature import SampleDictToFeatures
    from protenix.data.msa.msa_featurizer import InferenceMSAFeaturizer
    from protenix.data.utils import data_type_transform, make_dummy_feature
    from protenix.utils.torch_utils import dict_to_tensor

    features, atom_array, _ = SampleDictToFeatures(sample).get_feature_dict()
    if with_msa:
        # paired rows also as unpaired ones: the default of `protenix pred`
        alignments = InferenceMSAFeaturizer.make_msa_feature(
            sample["sequences"], atom_array, msa_pair_as_unpair=True
        )
        features |= dict_to_tensor(alignments)
    absent = ["template"] if with_msa else ["template", "msa"]
    features = make_dummy_feature(features, dummy_feats=absent)
    return complete(data_type_transform(features)), atom_array


def compact(protein: ProteinFeatures) -> ProteinFeatures:
    """Return the features that the diffusion module needs, without those of `complete`.

    Of 217 residues 0.8 MB; all features take 63 MB, which grow with the square of the length.
    """
    features = {key: protein.features[key] for key in _OF_DIFFUSION}
    features |= {key: features[key].to(torch.uint8) for key in _ONE_HOT}
    return replace(protein, features=features)


def complete(features: dict[str, Any]) -> dict[str, Any]:
    """Add `relp` and the atom windows to compact features."""
    return with_relative_positions(with_atom_windows(features))


def with_relative_positions(features: dict[str, Any]) -> dict[str, Any]:
    """Add `relp` (Algorithm 3) from the numbers of residues and chains."""
    return dict(_relative_positions().generate_relp(dict(features)))


@lru_cache(maxsize=1)
def _relative_positions() -> Any:
    """Return Protenix's module for `relp`, made without touching global random numbers."""
    from protenix.model.modules.embedders import RelativePositionEncoding

    with _numpy_seed(0), torch.random.fork_rng(devices=[]):
        return RelativePositionEncoding(c_z=1)


def with_atom_windows(features: dict[str, Any]) -> dict[str, Any]:
    """Add the windowed atom pair features (Algorithm 5, lines 1-3), which depend on `ref_pos`."""
    from protenix.model.protenix import update_input_feature_dict

    return dict(update_input_feature_dict(dict(features)))


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which Protenix draws, and restore it afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def with_random_references(features: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """Return features with each residue's reference conformer freshly rotated and shifted.

    Stock Protenix draws these orientations anew for each example (AlphaFold 3, section 2.8), at
    inference as well: a model that saw only one would not be its own at `protenix pred`.
    """
    ref_pos: Tensor = features["ref_pos"]
    _, space = torch.unique(features["ref_space_uid"], return_inverse=True)
    n_spaces = int(space.max()) + 1
    rotation = random_rotations((n_spaces,), generator)[space]
    shift = (torch.rand(n_spaces, 3, generator=generator) * 2 - 1)[space]
    moved = torch.einsum("nij,nj->ni", rotation, ref_pos.cpu() + shift)
    return with_atom_windows(features | {"ref_pos": moved.to(ref_pos)})


def to_device(features: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return input features with all their tensors on a device."""
    return {
        key: value.to(device)
        if torch.is_tensor(value)
        else to_device(value, device)
        if isinstance(value, dict)
        else value
        for key, value in features.items()
    }
