"""Refinement of a known trace: the noise level from which to anneal it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.predictions import DISTANCE_CENTRES
from protenix_eba.ebmfold.sampling import Sampler, refiner
from protenix_eba.ebmfold.target import Target

__all__ = ["refining_sampler", "starting_level"]

# Pairs that are surely within the bins, and not neighbours, whose distance says nothing.
_NEAR: Final = 0.9
_SEPARATION: Final = 3
# Fitted to bent and jittered domains with stand-in predictions of width 0.5 and 1.
_LEVEL_PER_ANGSTROM: Final = 0.5
_LOWEST: Final = 0.3
_HIGHEST: Final = 3.0


def refining_sampler(
    sampler: Sampler, target: Target, ca: Tensor, level: float | None = None
) -> Sampler:
    """Return the part of a sampler that refines a trace.

    Args:
        sampler: One of `SAMPLERS`.
        target: The predictions.
        ca: `[L, 3]`.
        level: Noise level to start from, in angstrom; None for what the trace needs.

    Raises:
        UserError: The sampler has no level that small.
    """
    return refiner(sampler, starting_level(target, ca) if level is None else level)


@torch.no_grad()
def starting_level(target: Target, ca: Tensor) -> float:
    """Estimate the noise level in angstrom from which a trace should be refined.

    Enough noise to undo the trace's errors, no more than that: its fold and hand are to stay. The
    error is estimated by the median deviation of its distances from the most likely ones, as far
    as the predictions are surprised by the trace: by less than one nat a pair beyond what they
    expect, the deviation is partly their own error.

    Args:
        target: The predictions.
        ca: `[L, 3]`.

    Returns:
        The level, from 0.3 to 3.
    """
    likelihood = PairLikelihood(target)
    i, j = likelihood.pairs
    share = torch.tensor(target.predictions.distance[i.numpy(), j.numpy()])
    far_apart = (target.positions[j] - target.positions[i]) >= _SEPARATION
    told = (share[:, 0] < 1 - _NEAR) & far_apart
    if not bool(told.any()):
        return _HIGHEST
    share = share[told]
    centres = torch.tensor(DISTANCE_CENTRES, dtype=torch.float32)
    deviation = likelihood.distances(ca)[told] - centres[share[:, 1:].argmax(-1)]
    entropy = -torch.special.xlogy(share, share).sum(-1)
    surprise = float((likelihood.distance_terms(ca)[told] - entropy).mean())
    error = float(deviation.abs().median()) * min(max(surprise, 0.0), 1.0)
    return min(max(_LEVEL_PER_ANGSTROM * error, _LOWEST), _HIGHEST)
