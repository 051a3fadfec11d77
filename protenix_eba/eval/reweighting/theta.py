"""Choice of theta, the trust in the prior: by left-out measurements, or by the L-curve."""

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


def cross_validated(
    problem: Problem,
    seed: int,
    thetas: Sequence[float] = THETAS,
    groups: Sequence[object] | None = None,
) -> Choice:
    """Return the largest theta with which left-out values agree about as well as they can.

    Groups of measurements are dealt to five parts, or to as many as there are groups; each part is
    left out once. Nearly: worse than the best theta by no more than the standard error of that
    difference over parts; a smaller theta would fit what the parts do not tell apart.

    Args:
        problem: Measurements of two groups or more.
        seed: Seed of the random assignment of groups to parts.
        thetas: Values of theta, from large to small.
        groups: What is left out together, a label for each measurement; each its own when None.
            Couplings of one torsion predict each other, and nothing of another residue's: by
            single values one asks whether they agree, by residues whether others gain.

    Source: Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 2009, section
        7.10, for the rule of one standard error.
    """
    labels = list(range(len(problem.values))) if groups is None else list(groups)
    known = list(dict.fromkeys(labels))
    n_parts = min(_FOLDS, len(known))
    order = np.random.default_rng(seed).permutation(len(known))
    part_of = {known[label]: n % n_parts for n, label in enumerate(order.tolist())}
    left_out = np.empty((len(thetas), n_parts))
    for part in range(n_parts):
        rest = [n for n, label in enumerate(labels) if part_of[label] != part]
        out = [n for n, label in enumerate(labels) if part_of[label] == part]
        for row, theta in enumerate(thetas):
            weights = reweight(problem.only(rest), theta).weights
            left_out[row, part] = chi_square(problem.only(out), weights)
    mean = left_out.mean(axis=1)
    best = int(mean.argmin())
    # Of the same parts: what makes a part hard for both does not widen the error.
    worse = left_out - left_out[best]
    error = worse.std(axis=1, ddof=1) / np.sqrt(n_parts)
    chosen = int(np.flatnonzero(worse.mean(axis=1) <= error)[0])
    scan = [reweight(problem, theta) for theta in thetas]
    return Choice(scan[chosen], scan, [float(x) for x in mean])


def l_curve(problem: Problem, thetas: Sequence[float] = THETAS) -> Choice:
    """Return the theta at the corner of the curve of chi^2 against the loss of entropy.

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
    """Scale values to 0 to 1; all 0 where they are equal."""
    x = np.array(values)
    span = np.ptp(x)
    result: NDArray[np.float64] = (x - x.min()) / span if span > 0.0 else np.zeros_like(x)
    return result
