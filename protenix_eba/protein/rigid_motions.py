"""Rigid motions of batched coordinates (torch)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["random_rotations", "rigid_align"]


@torch.no_grad()
def rigid_align(mobile: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
    """Move `mobile` onto `fixed` by the proper rotation and translation of least squared distance.

    Kabsch's solution by one batched SVD (Acta Cryst. A32, 922, 1976), the smallest singular
    direction reversed where the best orthogonal matrix is a reflection: a mirror image is not
    turned into its original. No gradient flows through the result.

    Args:
        mobile: `[..., N_atom, 3]`.
        fixed: `[..., N_atom, 3]`; leading dimensions are broadcast against `mobile`'s.
        weight: `[..., N_atom]`, zero for atoms that are absent.

    Returns:
        The moved coordinates, of the broadcast shape and `fixed`'s dtype.
    """
    mobile, fixed = torch.broadcast_tensors(mobile, fixed)
    work = torch.promote_types(fixed.dtype, torch.float32)
    x, y, w = mobile.to(work), fixed.to(work), weight.to(work).unsqueeze(-1)
    total = w.sum(dim=-2, keepdim=True).clamp_min(torch.finfo(work).tiny)
    x_centre = (w * x).sum(dim=-2, keepdim=True) / total
    y_centre = (w * y).sum(dim=-2, keepdim=True) / total
    covariance = (w * (x - x_centre)).transpose(-1, -2) @ (y - y_centre)
    # What is not finite makes the result so through the centres; the SVD would raise.
    u, _, vh = torch.linalg.svd(torch.where(covariance.isfinite(), covariance, 0.0))
    handedness = torch.linalg.det(u @ vh).sign()
    u = torch.cat([u[..., :2], u[..., 2:] * handedness[..., None, None]], dim=-1)
    moved: Tensor = (x - x_centre) @ (u @ vh) + y_centre
    return moved.to(fixed.dtype)


def random_rotations(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw rotation matrices, uniform over SO(3), by normalised Gaussian quaternions.

    Returns:
        `[*shape, 3, 3]` float32.
    """
    q = torch.randn(*shape, 4, generator=generator)
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
