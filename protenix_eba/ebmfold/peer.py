"""Folding without a network, for comparison: multidimensional scaling, gradient descent.

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

from protenix_eba.ebmfold.handedness import hand_cost
from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.predictions import DISTANCE_CENTRES, DISTANCE_EDGES
from protenix_eba.ebmfold.target import Target

__all__ = ["PeerFolder", "classical_scaling", "completed_distances"]

Array = NDArray[np.float64]

_BOND: Final = 3.8
# Penalties per residue in nats: of bonds by squared deviation in angstrom^2, of C-alpha atoms that
# are nearer than 3.6 angstrom likewise.
_BOND_WEIGHT: Final = 10.0
_CLASH_WEIGHT: Final = 5.0
_CLASH: Final = 3.6
# Errors of a residue's pairs are not independent, those of orientations least: the ratio of
# curvature to the gradient's variance at native traces is 0.2 times that of distances (0.21 to 0.26
# for the stand-in, 0.06 and 0.16 for two real predictions; scripts/compare_standin.py).
_ORIENTATION_WEIGHT: Final = 0.2
_START_NOISE: Final = 1.0
_STEPS_TO_TELL_HANDS: Final = 40
_STEPS: Final = 400
# Of a descent from a trace, which a normal prior of this width in angstrom holds near it.
_STEPS_NEARBY: Final = 10
_NEARBY: Final = 0.6


def completed_distances(target: Target) -> Array:
    """Return `[L, L]` expected distances; of far pairs the shortest path over near ones.

    A pair counts as near if it is likelier than not within 20 angstrom.
    """
    share = (target.predictions.distance + target.predictions.distance.transpose(1, 0, 2)) / 2
    near = 1.0 - share[..., 0]
    expected = share[..., 1:] @ DISTANCE_CENTRES / np.maximum(near, 1e-9)
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
    """Return `[L, 3]` coordinates of the three largest eigenvalues (Torgerson, 1952)."""
    squared = distances**2
    gram = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
    values, vectors = np.linalg.eigh(gram)
    coordinates = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0.0))
    kept: Array = np.zeros((len(distances), 3))
    kept[:, : min(3, len(distances))] = coordinates[:, :3]
    return kept


class PeerFolder:
    """Makes decoys of a target by scaling and L-BFGS.

    Attributes:
        n_evaluations: Evaluations of the objective and its gradient so far.

    Args:
        target: What is folded.
    """

    def __init__(self, target: Target) -> None:
        self._likelihood = PairLikelihood(target)
        self._bonded = target.bonded
        self._start = classical_scaling(completed_distances(target))
        self.n_evaluations = 0

    def __call__(self, generator: np.random.Generator) -> Tensor:
        """Make one decoy `[L, 3]`."""
        return self._minimise(self.begin(generator), _STEPS)

    def begin(self, generator: np.random.Generator) -> Tensor:
        """Make a rough trace `[L, 3]` from distances, in the likelier of both hands."""
        noise = torch.as_tensor(_START_NOISE * generator.standard_normal(self._start.shape))
        start = torch.as_tensor(self._start)
        begun = [
            self._minimise(hand * start + noise, _STEPS_TO_TELL_HANDS, orientation_weight=0.0)
            for hand in (1, -1)
        ]
        return min(begun, key=lambda x: hand_cost(x, self._bonded, self._likelihood))

    def descend(self, x: Tensor) -> Tensor:
        """Return a likelier trace near `x` `[L, 3]`, after a few steps on a tether."""
        return self._minimise(x, _STEPS_NEARBY, centre=x)

    def _minimise(
        self,
        start: Tensor,
        n_steps: int,
        *,
        orientation_weight: float = _ORIENTATION_WEIGHT,
        centre: Tensor | None = None,
    ) -> Tensor:
        found = minimize(
            self._value_and_gradient,
            start.double().numpy().ravel(),
            args=(orientation_weight, centre),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": n_steps, "maxcor": 20},
        )
        return torch.as_tensor(found.x.reshape(-1, 3), dtype=torch.float32)

    @torch.enable_grad()
    def _value_and_gradient(
        self, flat: Array, orientation_weight: float, centre: Tensor | None
    ) -> tuple[float, Array]:
        self.n_evaluations += 1
        x = torch.tensor(flat.reshape(-1, 3), dtype=torch.float32, requires_grad=True)
        value = self.objective(x, orientation_weight=orientation_weight)
        if centre is not None:
            value = value + (x - centre).square().sum() / (2 * _NEARBY**2 * len(x))
        (gradient,) = torch.autograd.grad(value, x)
        return float(value.detach()), gradient.numpy().astype(np.float64).ravel()

    def objective(self, x: Tensor, *, orientation_weight: float = _ORIENTATION_WEIGHT) -> Tensor:
        """Return negative log-likelihood and penalties of a trace, in nats per residue.

        Args:
            x: `[L, 3]`.
            orientation_weight: Weight of the orientation terms relative to the distance terms.
        """
        per_residue = self._likelihood.n_pairs / len(x)
        steps = ((x[1:] - x[:-1]).square().sum(-1) + 1e-6).sqrt()
        # Neighbours cannot clash.
        clashes = _clash(torch.nn.functional.pdist(x)) - _clash(steps)
        penalties = (
            _BOND_WEIGHT * (steps[self._bonded] - _BOND).square().sum() + _CLASH_WEIGHT * clashes
        )
        cost = self._likelihood(x, orientation_weight=orientation_weight)
        return per_residue * cost + penalties / len(x)


def _clash(distances: Tensor) -> Tensor:
    return (_CLASH - distances).clamp_min(0).square().sum()
