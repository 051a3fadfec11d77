"""The model and the protein that benchmarks time, made without rdkit, biotite and mdtraj.

A random sequence, with the names and elements of its heavy atoms and random coordinates: what a
step costs depends on shapes alone. So the model can be timed on a bare machine, where only torch
and a few small wheels are installed (`gpu_check.py`).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

MODELS = {"tiny": "protenix_tiny_default_v0.5.0", "base": "protenix_base_default_v0.5.0"}
# One letter for each amino acid, in the order of their names.
LETTERS = "ARNDCQEGHILKMFPSTWYV"
NUMBERS = {"C": 6, "N": 7, "O": 8, "S": 16}


def configuration(model: str, **overrides: str) -> Any:
    """Resolve the configuration of a model, with kernels that need no compiler nor packages.

    An environment that names others (LAYERNORM_TYPE=fast_layernorm) has them.
    """
    from protenix_eba.host import environment
    from protenix_eba.host.config import resolve_config
    from protenix_eba.plugin import plugin

    for variable, value in environment.CPU_KERNELS.items():
        os.environ.setdefault(variable, value)
    environment.prepare_environment()
    environment.point_to_ccd_cache()
    return resolve_config([plugin], None, {"model_name": MODELS[model], **overrides})


def atoms_of(sequence: str) -> tuple[tuple[int, int, str], ...]:
    """Return chain, residue and name of each heavy atom."""
    from protenix_eba.protein.residue_names import HEAVY_ATOMS

    residues = dict(zip(LETTERS, sorted(HEAVY_ATOMS), strict=True))
    names = [list(HEAVY_ATOMS[residues[code]]) for code in sequence]
    names[-1].append("OXT")
    return tuple((0, number, name) for number, some in enumerate(names) for name in some)


def benchmark_protein(n_residues: int):
    """Return a protein with all features of the diffusion module, for any length."""
    from protenix_eba.host.features import ProteinFeatures, with_relative_positions
    from protenix_eba.structures.sequences import Protein

    letters = np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), n_residues)
    sequence = "".join(letters.tolist())
    atoms = atoms_of(sequence)
    numbers = torch.tensor([NUMBERS[name[0]] for _, _, name in atoms])
    characters = torch.tensor([[ord(c) - 32 for c in name.ljust(4)] for _, _, name in atoms])
    token = torch.tensor([residue for _, residue, _ in atoms])
    draw = torch.Generator().manual_seed(0)
    one = torch.zeros(n_residues, dtype=torch.int64)
    features = {
        **{"asym_id": one, "entity_id": one, "sym_id": one},
        "residue_index": torch.arange(1, n_residues + 1),
        "token_index": torch.arange(n_residues),
        **{"atom_to_token_idx": token, "ref_space_uid": token},
        "ref_pos": 2.0 * torch.randn(len(atoms), 3, generator=draw),
        "ref_charge": torch.zeros_like(token),
        "ref_mask": torch.ones_like(token),
        "ref_element": torch.nn.functional.one_hot(numbers - 1, 128),
        "ref_atom_name_chars": torch.nn.functional.one_hot(characters, 64),
    }
    features = with_relative_positions(features | windows(features))
    elements = tuple(name[0] for _, _, name in atoms)
    return ProteinFeatures(Protein("x", (sequence,)), features, atoms, elements)


def windows(features: dict[str, Any]) -> dict[str, Any]:
    """Return the windowed atom pair features, whose function in Protenix comes with rdkit."""
    from protenix.model.modules.transformer import rearrange_qk_to_dense_trunk

    both = [features["ref_pos"], features["ref_space_uid"]]
    q, k, pad_info = rearrange_qk_to_dense_trunk(
        both, both, [-2, -1], [-2, -1], n_queries=32, n_keys=128, compute_mask=True
    )
    return {
        "d_lm": q[0][..., None, :] - k[0][..., None, :, :],
        "v_lm": (q[1][..., None].int() == k[1][..., None, :].int())[..., None],
        "pad_info": pad_info,
    }


def awaken(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Give weights values with which nothing is 0: small and random, 1 in layer norms."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = 1.0 if "layernorm" in name and name.endswith("weight") else 0.0
            p.copy_(scale + 0.02 * torch.randn(p.shape, generator=generator))


def embeddings(n_residues: int, generator: torch.Generator):
    """Draw embeddings of the trunk."""
    from protenix_eba.host.embeddings import TrunkEmbeddings

    shapes = ((n_residues, 449), (n_residues, 384), (n_residues, n_residues, 128))
    return TrunkEmbeddings(*(torch.randn(*shape, generator=generator) for shape in shapes))
