"""How likely the predictions make a C-alpha trace, by pseudo C-beta atoms; differentiable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.ebmfold.target import Target
from protenix_eba.ebmfold.trace import PSEUDO_CB, PSEUDO_N, angle, dihedral, pseudo_atoms

__all__ = ["PairLikelihood"]

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

# Share of a uniform distribution: a predictor that is sure and wrong costs a bounded amount.
_FLOOR: Final = 1e-3
# Distances above 20 angstrom have a constant density over this range, and so no gradient.
_BEYOND: Final = 20.0
_BIN: Final = 0.5
_FIRST_CENTRE: Final = 2.25
_ANGLE_BIN: Final = math.pi / 12
# Angles count for pairs that are likelier than this to be within 20 angstrom, by that likelihood.
_NEAR: Final = 0.5


@dataclass(frozen=True)
class _AngleTerm:
    """An angle of Q pairs: residues, how likely they are near, log shares `[Q, bins]`."""

    name: str
    i: Tensor
    j: Tensor
    near: Tensor
    log_share: Tensor


class PairLikelihood:
    """Negative log-likelihood of traces under a target's predictions.

    Distances are those of C-beta atoms, which a trace has only as pseudo atoms; a residue without
    two bonded neighbours is represented by its C-alpha atom. Densities are interpolated linearly
    between the centres of bins, in their logarithm. Pseudo atoms of a mirror image lie elsewhere:
    unlike distances of C-alpha atoms, this knows left from right.

    Attributes:
        pairs: `[P]` and `[P]`, the residues i < j of each pair.

    Args:
        target: With or without orientations.
    """

    pairs: tuple[Tensor, ...]

    def __init__(self, target: Target) -> None:
        # Residues with a frame, and so with pseudo atoms.
        self._whole = torch.nn.functional.pad(target.bonded[1:] & target.bonded[:-1], (1, 1))
        self.pairs = tuple(torch.triu_indices(target.n_residues, target.n_residues, 1))
        i, j = (part.numpy() for part in self.pairs)
        predictions = target.predictions
        distance = (predictions.distance[i, j] + predictions.distance[j, i]) / 2
        tail = distance[:, :1] * _BIN / _BEYOND
        self._distance = _log_density(np.concatenate([distance[:, 1:], tail], -1))
        self._angles: list[_AngleTerm] = []
        if predictions.has_orientations:
            for name in _ANGLES:
                # theta and phi of (i, j) are not those of (j, i); omega is.
                pairs = [(i, j)] if name == "omega" else [(i, j), (j, i)]
                shares = getattr(predictions, name)
                self._angles += [self._term(name, shares, *pair) for pair in pairs]

    def _term(self, name: str, shares: Array, i: Indices, j: Indices) -> _AngleTerm:
        near = 1 - shares[i, j, 0]
        whole = self._whole.numpy()
        kept = (near > _NEAR) & whole[i] & whole[j]
        i, j, near = i[kept], j[kept], near[kept]
        table = _log_density(shares[i, j, 1:] / near[:, None])
        first, second, weight = (torch.as_tensor(part) for part in (i, j, near))
        return _AngleTerm(name, first, second, weight, table)

    @property
    def n_pairs(self) -> int:
        """Pairs of residues, L (L - 1) / 2."""
        return len(self.pairs[0])

    def __call__(self, x: Tensor) -> Tensor:
        """Mean over pairs of -log p, in nats.

        Args:
            x: `[L, 3]` in angstrom.

        Returns:
            A scalar: of distances, plus that of orientations if they are predicted.
        """
        cb = self._pseudo(x, PSEUDO_CB)
        total = self._terms(self._between(cb)).sum()
        n = self._pseudo(x, PSEUDO_N) if self._angles else x
        for term in self._angles:
            value, periodic = _ANGLES[term.name](n, x, cb, term.i, term.j), term.name != "phi"
            position = (value + (math.pi if periodic else 0.0)) / _ANGLE_BIN - 0.5
            total = total - (term.near * _interpolate(term.log_share, position, periodic)).sum()
        return total / self.n_pairs

    def distances(self, x: Tensor) -> Tensor:
        """`[P]` distances of the pseudo atoms of `x` `[L, 3]`, in the order of `pairs`."""
        return self._between(self._pseudo(x, PSEUDO_CB))

    def distance_terms(self, x: Tensor) -> Tensor:
        """`[P]` -log p of these distances, in nats."""
        return self._terms(self.distances(x))

    def _between(self, cb: Tensor) -> Tensor:
        i, j = self.pairs
        return (cb[i] - cb[j]).square().sum(-1).add(1e-6).sqrt()

    def _terms(self, distance: Tensor) -> Tensor:
        return -_interpolate(self._distance, (distance - _FIRST_CENTRE) / _BIN)

    def _pseudo(self, x: Tensor, offset: tuple[float, float, float]) -> Tensor:
        """`[L, 3]` pseudo atoms; C-alpha atoms where there is no frame."""
        if len(x) < 3:
            return x
        atoms = torch.cat([x[:1], pseudo_atoms(x, offset), x[-1:]])
        return torch.where(self._whole[:, None], atoms, x)


def _log_density(share: Array) -> Tensor:
    floored = (1 - _FLOOR) * share + _FLOOR / share.shape[-1]
    return torch.as_tensor(np.log(floored), dtype=torch.float32)


def _interpolate(table: Tensor, position: Tensor, periodic: bool = False) -> Tensor:
    """Linear interpolation in rows of `table` `[P, n]` at `position` `[P]`; constant outside."""
    n = table.shape[-1]
    if not periodic:
        position = position.clamp(0, n - 1)
    low = position.detach().floor().long()
    if not periodic:
        low = low.clamp_max(n - 2)
    share = position - low
    left, right = (table.gather(-1, (low + k)[:, None] % n)[:, 0] for k in (0, 1))
    return left + share * (right - left)


def _omega(n: Tensor, ca: Tensor, cb: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return dihedral(ca[i], cb[i], cb[j], ca[j])


def _theta(n: Tensor, ca: Tensor, cb: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return dihedral(n[i], ca[i], cb[i], cb[j])


def _phi(n: Tensor, ca: Tensor, cb: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return angle(ca[i], cb[i], cb[j])


_ANGLES: Final = {"omega": _omega, "theta": _theta, "phi": _phi}
