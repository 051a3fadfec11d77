"""Maximum entropy: the weights nearest to a prior with which averages agree with measurements.

What is minimised is chi^2 / 2 - theta S, with chi^2 the squared deviations of the weighted
averages in standard deviations, and S = -sum w ln(w / w0), which is 0 for the prior and negative
else. theta says how much the prior is trusted: large leaves it, 0 obeys the measurements. The
weights are w0 exp(-lambda f) up to a factor, with one multiplier for each measurement, so that the
problem is convex in as many unknowns as there are measurements.

Sources: Hummer and Koefinger, J. Chem. Phys. 143, 243150 (2015); Cesari, Reisser and Bussi,
Computation 6, 15 (2018); Bottaro, Bengtsen and Lindorff-Larsen, Methods Mol. Biol. 2112, 219
(2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from protenix_eba.core.errors import UserError
from protenix_eba.eval.metrics.energies import effective_sample_size

__all__ = ["Problem", "Reweighted", "chi_square", "reweight"]

Float64s = NDArray[np.float64]

_TOLERANCE: Final = 1e-9
_MAX_STEPS: Final = 5000


@dataclass(frozen=True)
class Problem:
    """Measurements and each conformation's contribution to them.

    Attributes:
        signals: `[S, M]` of each conformation.
        values: `[M]` measured averages.
        errors: `[M]` their standard deviations, that of the prediction included.
        bounds: `M` words: "upper" and "lower" where only averages beyond are wrong, else "".
        prior: `[S]` weights to start from, which sum to 1.
    """

    signals: Float64s
    values: Float64s
    errors: Float64s
    bounds: Sequence[str]
    prior: Float64s

    @property
    def deviations(self) -> Float64s:
        """Deviations of each conformation, `[S, M]` in standard deviations."""
        result: Float64s = (self.signals - self.values) / self.errors
        return result

    def only(self, rows: Sequence[int]) -> Problem:
        """Return the problem with some of the measurements."""
        chosen = np.asarray(rows, dtype=np.int64)
        bounds = [self.bounds[n] for n in rows]
        return Problem(
            self.signals[:, chosen], self.values[chosen], self.errors[chosen], bounds, self.prior
        )


@dataclass(frozen=True)
class Reweighted:
    """The weights for one theta.

    Attributes:
        theta: Trust in the prior.
        weights: `[S]`, which sum to 1.
        chi2: Mean square deviation of the averages in standard deviations, of these weights.
        relative_entropy: S of the module; 0 for the prior, negative else.
        effective: Kish's effective number of conformations.
    """

    theta: float
    weights: Float64s
    chi2: float
    relative_entropy: float
    effective: float


def chi_square(problem: Problem, weights: Float64s) -> float:
    """Return the mean squared deviation of weighted averages, in units of their errors."""
    off = weights @ problem.deviations
    for n, bound in enumerate(problem.bounds):
        if (bound == "upper" and off[n] < 0.0) or (bound == "lower" and off[n] > 0.0):
            off[n] = 0.0
    return float(np.square(off).mean())


def reweight(problem: Problem, theta: float) -> Reweighted:
    """Find the weights for one theta.

    Args:
        problem: Measurements, conformations and prior.
        theta: Above 0; in the units of chi^2, as all deviations are in standard deviations.

    Raises:
        UserError: theta is not positive, or the minimum was not found.
    """
    if not 0.0 < theta < np.inf:
        raise UserError(f"theta: expected a positive number, found {theta}", "1 is a usual one")
    off = problem.deviations
    kept = problem.prior > 0.0
    log_prior = np.log(problem.prior[kept])

    def dual(multipliers: Float64s) -> tuple[float, Float64s]:
        exponents = log_prior - off[kept] @ multipliers
        log_z = logsumexp(exponents)
        averages = np.exp(exponents - log_z) @ off[kept]
        value = log_z + 0.5 * theta * multipliers @ multipliers
        return float(value), theta * multipliers - averages

    # An average that has to be small is only ever pressed down, one that has to be large only up.
    limits = {"upper": (0.0, None), "lower": (None, 0.0), "": (None, None)}
    found = minimize(
        dual, np.zeros(off.shape[1]), jac=True, method="L-BFGS-B",
        bounds=[limits[bound] for bound in problem.bounds],
        options={"maxiter": _MAX_STEPS, "maxfun": 4 * _MAX_STEPS, "ftol": 1e-15,
                 "gtol": _TOLERANCE},
    )  # fmt: skip
    exponents = log_prior - off[kept] @ found.x
    if not np.isfinite(exponents).all() or found.status == 1:
        raise UserError(
            f"theta {theta:g}: no weights found after {found.nit} steps",
            "a larger theta, or measurements that conformations can agree with",
        )
    weights = np.zeros(len(problem.prior))
    weights[kept] = np.exp(exponents - logsumexp(exponents))
    entropy = float(weights[kept] @ (log_prior - np.log(np.maximum(weights[kept], 1e-300))))
    return Reweighted(
        theta, weights, chi_square(problem, weights), entropy, effective_sample_size(weights)
    )
