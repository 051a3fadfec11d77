"""The likelihood of a C-alpha trace under predictions, by pseudo C-beta atoms; differentiable."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.ebmfold.target import Target
from protenix_eba.ebmfold.trace import PSEUDO_CB, PSEUDO_N, pseudo_atoms

__all__ = ["PairLikelihood"]

Array = NDArray[np.float32]

# Share of a uniform distribution: a predictor that is sure and wrong costs a bounded amount.
_FLOOR: Final = 1e-3
# Distances above 20 angstrom have a constant density over this range, and so no gradient.
_BEYOND: Final = 20.0
_BIN: Final = 0.5
_FIRST_CENTRE: Final = 2.25
_ANGLE_BIN: Final = math.pi / 12
# Angles count for pairs that are likelier than this to be within 20 angstrom, by that likelihood.
_NEAR: Final = 0.5


class PairLikelihood:
    """Negative log-likelihood of traces under a target's predictions.

    Distances are those of C-beta atoms, which a trace has only as pseudo atoms; a residue without
    two bonded neighbours is represented by its C-alpha atom. Densities are interpolated linearly
    between the centres of bins, in their logarithm. Pseudo atoms of a mirror image lie elsewhere:
    unlike distances of C-alpha atoms, this knows left from right.

    Attributes:
        pairs: `[P]` and `[P]`, the residues i < j of each pair.

    Args:
        target: The predictions, with or without orientations.
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
        self._angles = _Angles(target, self._whole) if predictions.has_orientations else None

    @property
    def n_pairs(self) -> int:
        """Number of pairs of residues, L (L - 1) / 2."""
        return len(self.pairs[0])

    def __call__(self, x: Tensor, *, orientation_weight: float = 1.0) -> Tensor:
        """Return the mean over pairs of -log p, in nats.

        Args:
            x: `[L, 3]` in angstrom.
            orientation_weight: Weight of the orientation terms, if orientations are predicted.

        Returns:
            A scalar: the term of the distances plus the weighted one of the orientations.
        """
        cb = self._pseudo(x, PSEUDO_CB)
        total = self._terms(self._between(cb)).sum()
        if self._angles is not None and orientation_weight > 0:
            total = total + orientation_weight * self._angles(self._pseudo(x, PSEUDO_N), x, cb)
        return total / self.n_pairs

    def distances(self, x: Tensor) -> Tensor:
        """Return `[P]` distances of the pseudo atoms of `x` `[L, 3]`, in the order of `pairs`."""
        return self._between(self._pseudo(x, PSEUDO_CB))

    def distance_terms(self, x: Tensor) -> Tensor:
        """Return `[P]` -log p of these distances, in nats."""
        return self._terms(self.distances(x))

    def _between(self, cb: Tensor) -> Tensor:
        i, j = self.pairs
        return (cb.index_select(0, i) - cb.index_select(0, j)).square().sum(-1).add(1e-6).sqrt()

    def _terms(self, distance: Tensor) -> Tensor:
        return -_interpolate(self._distance, (distance - _FIRST_CENTRE) / _BIN)

    def _pseudo(self, x: Tensor, offset: tuple[float, float, float]) -> Tensor:
        """Return `[L, 3]` pseudo atoms; C-alpha atoms where there is no frame."""
        if len(x) < 3:
            return x
        atoms = torch.cat([x[:1], pseudo_atoms(x, offset), x[-1:]])
        return torch.where(self._whole[:, None], atoms, x)


class _Angles:
    """Negative log-likelihood of orientations, all angles of all near pairs at once.

    Of the Q pairs i < j, theta and phi differ from those of (j, i), omega does not.

    Args:
        target: The predictions, which must include orientations.
        whole: `[L]` which residues have pseudo atoms.
    """

    def __init__(self, target: Target, whole: Tensor) -> None:
        i, j = np.triu_indices(target.n_residues, 1)
        both = (np.concatenate([i, j]), np.concatenate([j, i]))
        shares: dict[str, Array] = {
            name: getattr(target.predictions, name)[(i, j) if name == "omega" else both]
            for name in ("omega", "theta", "phi")
        }
        near = {name: 1 - share[:, 0] for name, share in shares.items()}
        known = (whole[i] & whole[j]).numpy()
        kept = {
            name: (value > _NEAR) & np.resize(known, len(value)) for name, value in near.items()
        }
        pairs = kept["omega"] | np.logical_or(*np.split(kept["theta"] | kept["phi"], 2))
        self._n = int(pairs.sum())
        self._i, self._j = (torch.as_tensor(part[pairs]) for part in (i, j))
        self._terms = {}
        for name, share in shares.items():
            rows = np.resize(pairs, len(share))
            weight = np.where(kept[name], near[name], 0.0)[rows]
            given = share[rows, 1:] / np.maximum(near[name][rows, None], _NEAR)
            self._terms[name] = (torch.as_tensor(weight, dtype=torch.float32), _log_density(given))

    def __call__(self, n: Tensor, ca: Tensor, cb: Tensor) -> Tensor:
        """Return the sum over orientations in nats, from the atoms `[L, 3]`."""
        outward = cb - ca
        normal = torch.linalg.cross(ca - n, outward)
        i, j = self._i, self._j
        v = cb.index_select(0, j) - cb.index_select(0, i)
        length = (v.square().sum(-1) + 1e-6).sqrt()
        v = torch.cat([v, -v])
        first = torch.cat([i, j])
        a, above = outward.index_select(0, first), normal.index_select(0, first)
        c = torch.linalg.cross(a, v)
        # The same angles as of `dihedral` and `angle`, with the cross products shared.
        c_ij, c_ji = c[: self._n], c[self._n :]
        sine = (a[: self._n] * c_ji).sum(-1) * length
        angles = {
            "omega": torch.atan2(-sine, -(c_ij * c_ji).sum(-1)),
            "theta": torch.atan2((above * v).sum(-1) * a.norm(dim=-1), (above * c).sum(-1)),
            "phi": torch.atan2(c.norm(dim=-1), -(a * v).sum(-1)),
        }
        total = ca.new_zeros(())
        for name, (weight, log_share) in self._terms.items():
            periodic = name != "phi"
            position = (angles[name] + (math.pi if periodic else 0.0)) / _ANGLE_BIN - 0.5
            total = total - (weight * _interpolate(log_share, position, periodic)).sum()
        return total


def _log_density(share: NDArray[np.floating]) -> Tensor:
    floored = (1 - _FLOOR) * share + _FLOOR / share.shape[-1]
    return torch.as_tensor(np.log(floored), dtype=torch.float32)


def _interpolate(table: Tensor, position: Tensor, periodic: bool = False) -> Tensor:
    """Interpolate rows of `table` `[P, n]` linearly at `position` `[P]`; constant outside."""
    n = table.shape[-1]
    if not periodic:
        position = position.clamp(0, n - 1)
    low = position.detach().floor().long()
    if not periodic:
        low = low.clamp_max(n - 2)
    share = position - low
    left, right = (table.gather(-1, (low + k)[:, None] % n)[:, 0] for k in (0, 1))
    return left + share * (right - left)
