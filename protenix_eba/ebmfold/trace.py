"""Geometry of C-alpha traces: distances, the chain rule to coordinates, pseudo atoms, angles."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

__all__ = [
    "PSEUDO_CB",
    "PSEUDO_N",
    "angle",
    "coordinate_score",
    "dihedral",
    "frames",
    "pseudo_atoms",
    "squared_distances",
    "trace_dihedrals",
]

# Mean positions of the atoms in the frames of `frames`, fitted to 2,000 domains of the PDB; root
# mean squared deviation 0.41 (CB) and 0.27 angstrom (N).
PSEUDO_CB: Final = (1.136, -0.925, -0.160)
PSEUDO_N: Final = (-0.787, -0.310, 1.159)


def squared_distances(x: Tensor) -> Tensor:
    """Squared distances `[..., L, L]` of `x` `[..., L, 3]`, in angstrom^2, exactly 0 for i = j.

    From differences: |x|^2 + |y|^2 - 2 x y loses half of the digits in float32.
    """
    difference = x[..., :, None, :] - x[..., None, :, :]
    return difference.square().sum(-1)


def coordinate_score(h: Tensor, x: Tensor) -> Tensor:
    """Convert the score of squared distances to the score of coordinates (Eq. 8).

    g_i = 2 sum_j (h_ij + h_ji)(x_i - x_j), the gradient of sum_ij h_ij D_ij(x) for constant h. The
    forces are central and pairwise: they sum to zero and have no torque, and a mirror image has
    the mirrored score.

    Args:
        h: `[..., L, L]` d log p / d D, zero for pairs that do not count.
        x: `[..., L, 3]` in angstrom.

    Returns:
        `[..., L, 3]` in 1/angstrom.
    """
    pair = 2.0 * (h + h.transpose(-1, -2))
    # The centre cancels; taken off, products of large numbers do not.
    centred = x - x.mean(dim=-2, keepdim=True)
    return pair.sum(-1, keepdim=True) * centred - pair @ centred


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return the dihedral angles of four points `[..., 3]` in radians, -pi to pi (IUPAC's sign)."""
    first, axis, last = b - a, c - b, d - c
    n1, n2 = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    sine = (first * n2).sum(-1) * axis.norm(dim=-1)
    return torch.atan2(sine, (n1 * n2).sum(-1))


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the angles at `b` of three points `[..., 3]` in radians, from 0 to pi."""
    u, v = a - b, c - b
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))


def trace_dihedrals(x: Tensor) -> Tensor:
    """Dihedral angles `[..., L - 3]` of each four C-alpha atoms in a row of `x` `[..., L, 3]`."""
    return dihedral(x[..., :-3, :], x[..., 1:-2, :], x[..., 2:-1, :], x[..., 3:, :])


def frames(x: Tensor) -> Tensor:
    """Return right-handed frames of the residues with two neighbours.

    The first axis points away from both neighbours, the second is b x c of the bonds b to the
    residue and c from it.

    Args:
        x: `[..., L, 3]` C-alpha atoms.

    Returns:
        `[..., L - 2, 3, 3]`, axes in rows; all zero where three atoms lie on a line.
    """
    b, c = x[..., 1:-1, :] - x[..., :-2, :], x[..., 2:, :] - x[..., 1:-1, :]
    first = _unit(b - c)
    second = torch.linalg.cross(b, c)
    # b - c is at right angles to b x c, so the third axis needs no norm.
    second = _unit(second)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def _unit(v: Tensor) -> Tensor:
    return v / (v.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def pseudo_atoms(x: Tensor, offset: tuple[float, float, float]) -> Tensor:
    """Place an atom on each residue with two neighbours, from three C-alpha atoms.

    Args:
        x: `[..., L, 3]`.
        offset: Position in the residue's frame, `PSEUDO_CB` or `PSEUDO_N`.

    Returns:
        `[..., L - 2, 3]`.
    """
    local = torch.tensor(offset, dtype=x.dtype, device=x.device)
    moved: Tensor = x[..., 1:-1, :] + (frames(x) * local[:, None]).sum(-2)
    return moved
