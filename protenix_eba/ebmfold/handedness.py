"""The hand of a C-alpha trace, by the paper's HIRM (section 4.4).

The score of a network that reads distances mirrors with the structure: no such network can tell a
fold from its mirror image. C-alpha dihedral angles can.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.trace import trace_dihedrals

__all__ = [
    "REFERENCE_DIHEDRALS",
    "dihedral_divergence",
    "hand_cost",
    "is_mirrored",
    "with_native_hand",
]

# Shares of C-alpha dihedral angles in 36 bins from -180 degrees, of 2,000 domains of the PDB with
# 317 CATH topologies (246,000 angles).
REFERENCE_DIHEDRALS: Final = (
    *(0.04688, 0.05738, 0.05040, 0.04044, 0.03541, 0.03647, 0.03337, 0.02873, 0.01956),
    *(0.01309, 0.00804, 0.00587, 0.00556, 0.00415, 0.00328, 0.00453, 0.00573, 0.00709),
    *(0.00955, 0.01242, 0.01652, 0.02624, 0.16563, 0.16448, 0.03485, 0.01559, 0.01160),
    *(0.01218, 0.01268, 0.01314, 0.01196, 0.01117, 0.01170, 0.01349, 0.01935, 0.03147),
)


def dihedral_divergence(x: Tensor, bonded: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of a trace's dihedral angles from native ones.

    Args:
        x: `[..., L, 3]`.
        bonded: `[L - 1]`; angles across a break do not count.

    Returns:
        `[...]`, 0 for a trace without any angle.
    """
    whole = bonded[:-2] & bonded[1:-1] & bonded[2:]
    n_bins = len(REFERENCE_DIHEDRALS)
    angles = trace_dihedrals(x)[..., whole.to(x.device)]
    number = ((angles / (2 * math.pi) + 0.5) * n_bins).long().clamp(0, n_bins - 1)
    counts = torch.nn.functional.one_hot(number, n_bins).sum(-2).to(x.dtype)
    share = counts / counts.sum(-1, keepdim=True).clamp_min(1)
    reference = torch.tensor(REFERENCE_DIHEDRALS, dtype=x.dtype, device=x.device)
    divergence: Tensor = torch.special.xlogy(share, share / reference).sum(-1)
    return divergence


def hand_cost(x: Tensor, bonded: Tensor, likelihood: PairLikelihood) -> float:
    """Return a cost that tells a trace `[L, 3]` from its mirror image, in nats per residue.

    The negative log-likelihood of the predictions, which is sure where there are orientations, and
    the divergence of dihedral angles.
    """
    per_residue = likelihood.n_pairs / len(x)
    return float(per_residue * likelihood(x) + dihedral_divergence(x, bonded))


def is_mirrored(x: Tensor, bonded: Tensor) -> Tensor:
    """Return `[...]` whether the mirror images of traces `[..., L, 3]` look more native.

    Below 4 residues there is no angle and the answer is no. Traces with noise of more than about
    1.5 angstrom per coordinate are beyond telling.
    """
    return dihedral_divergence(x, bonded) > dihedral_divergence(-x, bonded)


def with_native_hand(x: Tensor, bonded: Tensor) -> Tensor:
    """Return the traces `[..., L, 3]`, with mirrored ones reflected through the origin."""
    return torch.where(is_mirrored(x, bonded)[..., None, None], -x, x)
