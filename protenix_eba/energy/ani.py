"""ANI potentials: a neural network for each atom, of distances and angles to its neighbours.

Written from the equations of Smith, Isayev and Roitberg, Chem. Sci. 2017, 8, 3192, with what
NeuroChem does besides: a factor 1/4 before radial terms, 0.95 before cosines of angles, so that
their arccosine has a slope everywhere, and CELU between layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protenix_eba.energy.ani_weights import AniWeights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ani", "AniEnergy"]

_CELU_ALPHA: Final = 0.1
_COSINE: Final = 0.95


class AniEnergy(NamedTuple):
    """Energy of one conformation.

    Attributes:
        hartree: Mean over the networks.
        spread_hartree: Their standard deviation; NaN for a single one.
        forces: `[M, 3]` of the mean, Hartree/angstrom.
    """

    hartree: float
    spread_hartree: float
    forces: NDArray[np.float64]


class Ani:
    """The potential of one molecule, in double precision.

    Args:
        weights: Of an ensemble of E networks.
        elements: Symbol of each of the M atoms, all of them known to the weights.
    """

    def __init__(self, weights: AniWeights, elements: Sequence[str]) -> None:
        import torch

        known = list(weights.self_energies_hartree)
        self._shape = {name: torch.tensor(value) for name, value in weights.shape.items()}
        self._kind = torch.tensor([known.index(element) for element in elements])
        self._n_kinds = len(known)
        pairs = torch.triu_indices(len(known), len(known))
        table = torch.zeros(len(known), len(known), dtype=torch.long)
        table[pairs[0], pairs[1]] = table[pairs[1], pairs[0]] = torch.arange(pairs.shape[1])
        self._pair_kind = table
        self._networks = [
            (
                torch.nonzero(self._kind == number)[:, 0],
                [
                    (torch.tensor(one.weight).mT, torch.tensor(one.bias)[:, None])
                    for one in weights.networks[element]
                ],
            )
            for number, element in enumerate(known)
            if element in elements
        ]
        self._constant = sum(weights.self_energies_hartree[element] for element in elements)

    def __call__(self, xyz_angstrom: NDArray[np.floating]) -> AniEnergy:
        """Compute energy and forces of a conformation `[M, 3]`."""
        import torch

        xyz = torch.tensor(xyz_angstrom, dtype=torch.float64, requires_grad=True)
        energies = self._energies(self._descriptors(xyz))
        mean = energies.mean()
        (slope,) = torch.autograd.grad(mean, xyz)
        spread = float(energies.detach().numpy().std(ddof=1)) if len(energies) > 1 else math.nan
        return AniEnergy(float(mean.detach()) + self._constant, spread, -slope.numpy())

    def _energies(self, descriptors: Tensor) -> Tensor:
        """Return the sum over atoms `[E]` of what each network of the ensemble gives, Hartree."""
        import torch

        total = descriptors.new_zeros(1)
        for atoms, layers in self._networks:
            values = descriptors[atoms]
            for number, (weight, bias) in enumerate(layers):
                if number:
                    values = torch.nn.functional.celu(values, _CELU_ALPHA)
                values = values @ weight + bias
            total = total + values.sum(dim=(1, 2))
        return total

    def _descriptors(self, xyz: Tensor) -> Tensor:
        """Return what an atom sees, `[M, D]`: radial terms by element, angular ones by pair."""
        import torch

        apart = (xyz[:, None] - xyz).detach().norm(dim=2)
        apart.fill_diagonal_(math.inf)
        radial = self._radial(xyz, *torch.nonzero(apart < self._shape["Rcr"]).T)
        angular = self._angular(xyz, *_triples(apart < self._shape["Rca"]))
        return torch.cat([radial, angular], dim=1)

    def _radial(self, xyz: Tensor, centre: Tensor, other: Tensor) -> Tensor:
        shape = self._shape
        distance = (xyz[other] - xyz[centre]).norm(dim=1, keepdim=True)
        bell = (-shape["EtaR"] * (distance - shape["ShfR"]) ** 2).exp()
        terms = 0.25 * bell * _cutoff(distance, shape["Rcr"])
        return self._by_kind(terms, centre, self._kind[other], self._n_kinds)

    def _angular(self, xyz: Tensor, centre: Tensor, one: Tensor, two: Tensor) -> Tensor:
        shape = self._shape
        first, second = xyz[one] - xyz[centre], xyz[two] - xyz[centre]
        distances = first.norm(dim=1), second.norm(dim=1)
        cosine = (first * second).sum(dim=1) / (distances[0] * distances[1])
        angle = (_COSINE * cosine).acos()[:, None, None]
        sharp = ((1 + (angle - shape["ShfZ"]).cos()) / 2) ** shape["Zeta"]
        mean = (0.5 * (distances[0] + distances[1]))[:, None, None]
        bell = (-shape["EtaA"] * (mean - shape["ShfA"][:, None]) ** 2).exp()
        near = _cutoff(distances[0], shape["Rca"]) * _cutoff(distances[1], shape["Rca"])
        terms = 2 * near[:, None, None] * bell * sharp
        kind = self._pair_kind[self._kind[one], self._kind[two]]
        n_pairs = self._n_kinds * (self._n_kinds + 1) // 2
        return self._by_kind(terms.flatten(1), centre, kind, n_pairs)

    def _by_kind(self, terms: Tensor, centre: Tensor, kind: Tensor, n_kinds: int) -> Tensor:
        """Sum terms `[P, T]` of each atom by kind of partner: `[M, n_kinds * T]`."""
        total = terms.new_zeros(len(self._kind) * n_kinds, terms.shape[1])
        return total.index_add(0, centre * n_kinds + kind, terms).view(len(self._kind), -1)


def _cutoff(distance: Tensor, end: Tensor) -> Tensor:
    """Fall smoothly from 1 at distance 0 to 0 at the end."""
    return 0.5 * (distance * (math.pi / end)).cos() + 0.5


def _triples(near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each atom with all pairs of its neighbours.

    Args:
        near: `[M, M]` whether two atoms are neighbours.
    """
    import torch

    most = int(near.sum(dim=1).max())
    present, neighbours = near.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    first, second = torch.triu_indices(most, most, offset=1)
    centre, pair = torch.nonzero(present[:, second].bool(), as_tuple=True)
    return centre, neighbours[centre, first[pair]], neighbours[centre, second[pair]]
