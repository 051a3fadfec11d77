"""Measures of how near a C-alpha trace is to the native one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from protenix_eba.protein.rigid_motions import rigid_align

__all__ = ["ca_rmsd", "gdt_ts", "is_mirror_image", "lddt_ca", "tm_score"]

# Zemla, Nucleic Acids Res. 31, 3370, 2003.
_GDT_CUTOFFS: Final = (1.0, 2.0, 4.0, 8.0)
# Lengths of the fragments that a superposition is seeded with, shares of the chain.
_SEED_SHARES: Final = (1.0, 0.5, 0.25, 0.125)
_SEEDS_PER_LENGTH: Final = 12
_ITERATIONS: Final = 10
_SMALLEST_SEED: Final = 4


def lddt_ca(x: Tensor, native: Tensor) -> Tensor:
    """Compute the local distance difference test on C-alpha atoms, by biotite.

    The share of native distances below 15 angstrom that are kept (Mariani et al., Bioinformatics
    29, 2722, 2013), without a superposition: a mirror image has the same as its original.

    Args:
        x: `[B, L, 3]` decoys in angstrom.
        native: `[L, 3]`.

    Returns:
        `[B]` from 0 to 1.
    """
    from biotite.structure import AtomArray, lddt

    reference = AtomArray(len(native))
    reference.coord = native.cpu().numpy()
    reference.res_id = np.arange(len(native))
    return torch.as_tensor(lddt(reference, x.cpu().numpy()), dtype=x.dtype)


def ca_rmsd(x: Tensor, native: Tensor) -> Tensor:
    """Return the root mean square deviation after superposition, `[...]` in angstrom."""
    moved = rigid_align(x, native, torch.ones(len(native)))
    return (moved - native).square().sum(-1).mean(-1).sqrt()


def gdt_ts(x: Tensor, native: Tensor) -> Tensor:
    """GDT-TS: mean of the largest shares of atoms within 1, 2, 4 and 8 angstrom, from 0 to 1.

    Each cutoff has its own superposition, found as for `tm_score`: a lower bound of the largest
    share, like every program's.

    Args:
        x: `[..., L, 3]`.
        native: `[L, 3]`.
    """

    def share(cutoff: float) -> Tensor:
        return _best_over_superpositions(x, native, cutoff, lambda d2: (d2 <= cutoff**2).float())

    return torch.stack([share(cutoff) for cutoff in _GDT_CUTOFFS]).mean(0)


def tm_score(x: Tensor, native: Tensor) -> Tensor:
    """TM-score for equal residues (Zhang & Skolnick, Proteins 57, 702, 2004), from 0 to 1.

    The superposition is searched: fragments of several lengths seed it, then atoms within a cutoff
    are superposed anew until they stay the same, as the authors' program does.

    Args:
        x: `[..., L, 3]`.
        native: `[L, 3]`.
    """
    d0 = max(1.24 * math.cbrt(max(len(native) - 15, 0)) - 1.8, 0.5)
    cutoff = min(max(d0, 4.5), 8.0)
    return _best_over_superpositions(x, native, cutoff, lambda d2: 1 / (1 + d2 / d0**2))


def is_mirror_image(x: Tensor, native: Tensor) -> Tensor:
    """Return `[...]` whether the reflected trace has the higher TM-score to the native one."""
    return tm_score(-x, native) > tm_score(x, native)


def _best_over_superpositions(
    x: Tensor, native: Tensor, cutoff: float, score: Callable[[Tensor], Tensor]
) -> Tensor:
    """Search superpositions for the best mean score of an atom.

    Args:
        x: `[..., L, 3]`.
        native: `[L, 3]`.
        cutoff: Atoms within it are superposed anew, at least three.
        score: Function from squared deviations in angstrom^2 to scores.

    Returns:
        `[...]`.
    """
    weight = _seeds(len(native)).to(x)
    mobile = x[..., None, :, :]
    best = torch.zeros(x.shape[:-2], dtype=x.dtype, device=x.device)
    for _ in range(_ITERATIONS):
        deviation = (rigid_align(mobile, native, weight) - native).square().sum(-1)
        best = torch.maximum(best, score(deviation).mean(-1).amax(-1))
        third = deviation.kthvalue(min(3, len(native)), dim=-1, keepdim=True).values
        weight = (deviation <= third.clamp_min(cutoff**2)).to(x.dtype)
    return best


def _seeds(n_residues: int) -> Tensor:
    """Return `[S, L]`, 1 in the fragment that a superposition starts from."""
    rows = []
    for share in _SEED_SHARES:
        length = min(max(int(share * n_residues), _SMALLEST_SEED), n_residues)
        last = n_residues - length
        for start in sorted(
            {round(last * k / _SEEDS_PER_LENGTH) for k in range(_SEEDS_PER_LENGTH + 1)}
        ):
            row = torch.zeros(n_residues)
            row[start : start + length] = 1.0
            rows.append(row)
    return torch.stack(rows)
