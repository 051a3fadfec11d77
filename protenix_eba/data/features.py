"""Input features of a protein, as stock Protenix makes them from a sequence alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from protenix_eba.data.sequences import Protein
from protenix_eba.geometry import random_rotations

__all__ = ["AtomKey", "ProteinFeatures", "protein_features", "to_device", "with_random_references"]

AtomKey = tuple[int, int, str]
"""Chain number from 0, residue number within the chain from 0, atom name."""


@dataclass(frozen=True)
class ProteinFeatures:
    """Everything about a protein that does not depend on its conformation.

    Attributes:
        protein: Name and sequence.
        features: Protenix's input features (`ref_pos [N_atom, 3]`, `restype [N_token, 32]` ...).
        atoms: Chain, residue and name of each atom in Protenix's (the CCD's) order.
        elements: Element symbol of each atom.
    """

    protein: Protein
    features: dict[str, Any]
    atoms: tuple[AtomKey, ...]
    elements: tuple[str, ...]


def protein_features(protein: Protein, *, seed: int = 0) -> ProteinFeatures:
    """Features without MSA and templates.

    Args:
        protein: What to featurise.
        seed: Of the random orientation that Protenix gives each residue's reference conformer.

    Returns:
        The features, on the CPU.
    """
    sequences = [{"proteinChain": {"sequence": s, "count": 1}} for s in protein.chains]
    with _numpy_seed(seed):
        features, atom_array = _host_features({"name": protein.name, "sequences": sequences})
    chain_ids = list(dict.fromkeys(atom_array.chain_id))
    atoms = tuple(
        (chain_ids.index(chain), int(residue) - 1, str(name))
        for chain, residue, name in zip(
            atom_array.chain_id, atom_array.res_id, atom_array.atom_name, strict=True
        )
    )
    elements = tuple(str(e).capitalize() for e in atom_array.element)
    return ProteinFeatures(protein, features, atoms, elements)


def _host_features(sample: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Protenix's own featurisation of an inference input, up to the model's first layer."""
    from protenix.data.inference.json_to_feature import SampleDictToFeatures
    from protenix.data.utils import data_type_transform, make_dummy_feature
    from protenix.model.modules.embedders import RelativePositionEncoding

    features, atom_array, _ = SampleDictToFeatures(sample).get_feature_dict()
    features = make_dummy_feature(features, dummy_feats=["template", "msa"])
    features = data_type_transform(features)
    features = RelativePositionEncoding(c_z=1).generate_relp(features)
    return _with_atom_windows(features), atom_array


def _with_atom_windows(features: dict[str, Any]) -> dict[str, Any]:
    """Add the windowed atom pair features (Algorithm 5, lines 1-3), which depend on `ref_pos`."""
    from protenix.model.protenix import update_input_feature_dict

    return dict(update_input_feature_dict(features))


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Protenix draws from NumPy's global generator: seed it here and leave no trace outside."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def with_random_references(features: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """The same features with each residue's reference conformer freshly rotated and shifted.

    Stock Protenix draws these orientations anew for each example (AlphaFold 3, section 2.8), at
    inference as well: a model that saw only one would not be its own at `protenix pred`.
    """
    ref_pos: Tensor = features["ref_pos"]
    _, space = torch.unique(features["ref_space_uid"], return_inverse=True)
    n_spaces = int(space.max()) + 1
    rotation = random_rotations((n_spaces,), generator)[space]
    shift = (torch.rand(n_spaces, 3, generator=generator) * 2 - 1)[space]
    moved = torch.einsum("nij,nj->ni", rotation, ref_pos.cpu() + shift)
    return _with_atom_windows(features | {"ref_pos": moved.to(ref_pos)})


def to_device(features: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Input features with all their tensors on a device."""
    return {
        key: value.to(device)
        if torch.is_tensor(value)
        else to_device(value, device)
        if isinstance(value, dict)
        else value
        for key, value in features.items()
    }
