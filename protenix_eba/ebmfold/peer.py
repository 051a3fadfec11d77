"""Folding without a network, to compare with: multidimensional scaling, then gradient descent.

What one would write otherwise: a start from expected distances, L-BFGS on the negative
log-likelihood of the predictions (as trRosetta's protocol does with Rosetta's energy beside it).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from protenix_eba.ebmfold.handedness import dihedral_divergence
from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.predictions import DISTANCE_EDGES
from protenix_eba.ebmfold.target import Target
from protenix_eba.ebmfold.trace import squared_distances

__all__ = ["PeerFolder", "classical_scaling", "completed_distances"]

Array = NDArray[np.float64]

_BOND: Final = 3.8
# Penalties per residue in nats: of bonds by squared deviation in angstrom^2, of C-alpha atoms that
# are nearer than 3.6 angstrom likewise.
_BOND_WEIGHT: Final = 10.0
_CLASH_WEIGHT: Final = 5.0
_CLASH: Final = 3.6
_START_NOISE: Final = 1.0
_STEPS_TO_TELL_HANDS: Final = 40
_STEPS: Final = 400


def completed_distances(target: Target) -> Array:
    """`[L, L]` expected distances; the shortest path over near pairs where a pair is far.

    A pair counts as near if it is likelier than not within 20 angstrom.
    """
    share = (target.predictions.distance + target.predictions.distance.transpose(1, 0, 2)) / 2
    near = 1.0 - share[..., 0]
    centres = (DISTANCE_EDGES[1:] + DISTANCE_EDGES[:-1]) / 2
    expected = share[..., 1:] @ centres / np.maximum(near, 1e-9)
    graph = np.where(near > 0.5, expected, 0.0)
    neighbour = np.arange(target.n_residues - 1)
    bonded = target.bonded.numpy()
    # Residues across a break are joined too, loosely, so that all are connected.
    step = np.where(bonded, _BOND, DISTANCE_EDGES[-1])
    empty = graph[neighbour, neighbour + 1] == 0
    graph[neighbour[empty], neighbour[empty] + 1] = step[empty]
    np.fill_diagonal(graph, 0.0)
    complete: Array = shortest_path(graph, directed=False)
    return complete


def classical_scaling(distances: Array) -> Array:
    """`[L, 3]` coordinates of the three largest eigenvalues (Torgerson, 1952)."""
    squared = distances**2
    gram = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
    values, vectors = np.linalg.eigh(gram)
    coordinates = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0.0))
    kept: Array = np.zeros((len(distances), 3))
    kept[:, : min(3, len(distances))] = coordinates[:, :3]
    return kept


class PeerFolder:
    """Decoys of a target by scaling and L-BFGS.

    Attributes:
        n_evaluations: Of the objective and its gradient, so far.

    Args:
        target: What is folded.
    """

    def __init__(self, target: Target) -> None:
        self._likelihood = PairLikelihood(target)
        self._bonded = target.bonded
        self._start = classical_scaling(completed_distances(target))
        self.n_evaluations = 0

    def __call__(self, generator: np.random.Generator) -> Tensor:
        """One decoy `[L, 3]`.

        Both hands are begun. That with the lower sum of the objective and of the divergence of its
        dihedral angles from native ones, both in nats per residue, is finished.
        """
        noise = _START_NOISE * generator.standard_normal(self._start.shape)
        begun = [
            self._minimise(hand * self._start + noise, _STEPS_TO_TELL_HANDS) for hand in (1, -1)
        ]
        return self._minimise(min(begun, key=self._cost).numpy(), _STEPS)

    def _cost(self, x: Tensor) -> float:
        return float(self.objective(x) + dihedral_divergence(x, self._bonded))

    def _minimise(self, start: Array, n_steps: int) -> Tensor:
        found = minimize(
            self._value_and_gradient,
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": n_steps, "maxcor": 20},
        )
        return torch.as_tensor(found.x.reshape(-1, 3), dtype=torch.float32)

    def _value_and_gradient(self, flat: Array) -> tuple[float, Array]:
        self.n_evaluations += 1
        x = torch.tensor(flat.reshape(-1, 3), dtype=torch.float32, requires_grad=True)
        value = self.objective(x)
        (gradient,) = torch.autograd.grad(value, x)
        return float(value.detach()), gradient.numpy().astype(np.float64).ravel()

    def objective(self, x: Tensor) -> Tensor:
        """Negative log-likelihood of the predictions and penalties, nats per residue.

        Args:
            x: `[L, 3]`.
        """
        n_residues = len(x)
        per_residue = self._likelihood.n_pairs / n_residues
        bonds = ((x[1:] - x[:-1]).square().sum(-1) + 1e-6).sqrt()[self._bonded]
        distance = (squared_distances(x) + 1e-6).sqrt().triu(2)
        clash = torch.where(distance > 0, (_CLASH - distance).clamp_min(0), 0.0)
        penalties = (
            _BOND_WEIGHT * (bonds - _BOND).square().sum() + _CLASH_WEIGHT * clash.square().sum()
        )
        return per_residue * self._likelihood(x) + penalties / n_residues
