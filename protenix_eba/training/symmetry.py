"""Side-chain atoms whose names are a convention, such as the two oxygens of ASP.

A prediction that exchanges them is as good: they are compared in the better of both orders. The
methyl groups of LEU and VAL, which handedness tells apart, count among them: as in the published
code, it is bonds that make atoms equivalent.

Letters: K conformers of one sequence, S noise samples, N atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from protenix_eba.protein.rigid_motions import rigid_align

__all__ = ["SYMMETRIC_ATOMS", "symmetric_partners", "with_best_order"]

# Pairs that change places together, of each residue by its one-letter code.
SYMMETRIC_ATOMS: Final = {
    "D": (("OD1", "OD2"),),
    "E": (("OE1", "OE2"),),
    "F": (("CD1", "CD2"), ("CE1", "CE2")),
    "L": (("CD1", "CD2"),),
    "R": (("NH1", "NH2"),),
    "V": (("CG1", "CG2"),),
    "Y": (("CD1", "CD2"), ("CE1", "CE2")),
}
_PARTNER: Final = {
    (residue, name): partner
    for residue, pairs in SYMMETRIC_ATOMS.items()
    for pair in pairs
    for name, partner in (pair, pair[::-1])
}


def symmetric_partners(atoms: Sequence[tuple[int, int, str]], chains: Sequence[str]) -> Tensor:
    """Return for each atom the one with which it may change places.

    Args:
        atoms: Chain, residue (both from 0) and name of each atom.
        chains: Sequence of each chain.

    Returns:
        `[N]` int64; an atom's own number where there is none.
    """
    number = {atom: n for n, atom in enumerate(atoms)}
    named = ((c, r, _PARTNER.get((chains[c][r], name), name)) for c, r, name in atoms)
    return torch.tensor([number.get(key, n) for n, key in enumerate(named)])


def with_best_order(
    predicted: Tensor, target: Tensor, mask: Tensor, partners: Tensor, residue: Tensor
) -> Tensor:
    """Return the prediction with symmetric atoms in the order that is nearer to the target.

    The target is moved onto the prediction as it is; each residue is then exchanged if that lowers
    the sum of squared distances of its atoms. To reorder the prediction or the target is the same
    for losses that do not depend on the order of atoms. The gradient flows through the reordered
    coordinates, not through the choice.

    Args:
        predicted: `[K, S, N, 3]` in angstrom.
        target: `[K, N, 3]` true coordinates.
        mask: `[K, N]`, 1 where the true coordinate exists.
        partners: `[N]` from `symmetric_partners`.
        residue: `[N]` number of each atom's residue, below N.

    Returns:
        `[K, S, N, 3]`.
    """
    exchanged = predicted.index_select(-2, partners)
    with torch.no_grad():
        weight = mask.to(predicted.dtype)[:, None]
        moved = rigid_align(target[:, None], predicted, weight)
        rise = (exchanged - moved).square() - (predicted - moved).square()
        of_atom = weight * rise.sum(dim=-1)
        of_residue = torch.zeros_like(of_atom).index_add_(-1, residue, of_atom)
        better = (of_residue < 0).index_select(-1, residue)
    return torch.where(better[..., None], exchanged, predicted)
