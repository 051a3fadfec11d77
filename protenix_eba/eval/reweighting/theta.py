"""How much to trust the prior: theta by measurements that were left out, or by the L-curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.reweighting.entropy import Problem, Reweighted, chi_square, reweight

__all__ = ["THETAS", "Choice", "cross_validated", "l_curve"]

THETAS: Final = tuple(float(t) for t in np.logspace(3.0, -2.0, 21))
_FOLDS: Final = 5


@dataclass(frozen=True)
class Choice:
    """A theta, and what it was chosen from.

    Attributes:
        result: Its weights.
        scan: The same of all thetas, from large to small.
        left_out: chi^2 of measurements that were left out, for each theta; empty for the L-curve.
    """

    result: Reweighted
    scan: Sequence[Reweighted]
    left_out: Sequence[float] = ()


def cross_validated(problem: Problem, seed: int, thetas: Sequence[float] = THETAS) -> Choice:
    """The theta with which measurements that were left out agree best.

    Measurements are dealt to five parts, or to as many as there are measurements; each part is left
    out once. Measurements of the same thing twice make this too hopeful.

    Args:
        problem: Two measurements or more.
        seed: Of the deal.
        thetas: From large to small; of equal ones the largest wins.
    """
    m = len(problem.values)
    order = np.random.default_rng(seed).permutation(m)
    parts = [order[n :: min(_FOLDS, m)] for n in range(min(_FOLDS, m))]
    left_out = []
    for theta in thetas:
        squares = 0.0
        for part in parts:
            rest = [n for n in range(m) if n not in part]
            weights = reweight(problem.only(rest), theta).weights
            squares += chi_square(problem.only(part.tolist()), weights) * len(part)
        left_out.append(squares / m)
    scan = [reweight(problem, theta) for theta in thetas]
    return Choice(scan[int(np.argmin(left_out))], scan, left_out)


def l_curve(problem: Problem, thetas: Sequence[float] = THETAS) -> Choice:
    """The theta at the corner of the curve of chi^2 over the loss of entropy.

    The corner is the point farthest below the line through the ends, both axes scaled to 0 to 1:
    from there on more entropy is paid for less agreement.

    Source: Hansen and O'Leary, SIAM J. Sci. Comput. 14, 1487 (1993), for the curve; Satopaa et al.,
        ICDCS Workshops 2011, 166 ("Kneedle"), for the corner.
    """
    scan = [reweight(problem, theta) for theta in thetas]
    loss = _scaled([-found.relative_entropy for found in scan])
    misfit = _scaled([found.chi2 for found in scan])
    return Choice(scan[int(np.argmax(1.0 - loss - misfit))], scan)


def _scaled(values: Sequence[float]) -> NDArray[np.float64]:
    """To 0 to 1; all 0 where they are alike."""
    x = np.array(values)
    span = np.ptp(x)
    result: NDArray[np.float64] = (x - x.min()) / span if span > 0.0 else np.zeros_like(x)
    return result
