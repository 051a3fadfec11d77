"""Denoising errors of conformers and the objectives that compare them.

Letters: K conformers of one sequence, S noise samples, N atoms, P pairs of atoms. Errors are
`[K, S]`, energies `[K]`. Equation numbers are those of EBA (Lu et al., ICML 2025) unless said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from protenix_eba.errors import UserError
from protenix_eba.geometry import rigid_align
from protenix_eba.units import thermal_energy_kj_mol

__all__ = [
    "ERROR_WEIGHTS",
    "DenoisingErrors",
    "ErrorWeights",
    "aligned_mse",
    "eba",
    "eba_dpo",
    "edm_weight",
    "effective_number",
    "energy_weights",
    "implicit_reward",
    "log_model_weights",
    "plackett_luce",
    "reduced_energies",
    "smooth_lddt",
]

# AlphaFold 3 (Abramson et al., Nature 2024), Algorithm 27: thresholds and the inclusion radius of
# protein atoms, both in angstrom.
LDDT_THRESHOLDS: Final = (0.5, 1.0, 2.0, 4.0)
LDDT_RADIUS: Final = 15.0
# Pairs that smooth LDDT looks at in one go: what fits a CPU's cache, few launches on a GPU.
_PAIRS_AT_ONCE_CPU: Final = 2**13
_PAIRS_AT_ONCE_GPU: Final = 2**17


@dataclass(frozen=True)
class ErrorWeights:
    """Weights of the denoising error's terms.

    Attributes:
        mse: Of the aligned squared error.
        lddt: Of 1 - smooth LDDT.
        edm: Whether the EDM weight multiplies the squared error.
    """

    mse: float
    lddt: float
    edm: bool


# The paper speaks of a constant weight. The published code has AlphaFold 3's alpha_diffusion = 4
# before both terms and the EDM weight (Abramson et al., 2024, Eq. 6 and 15).
ERROR_WEIGHTS: Final = {
    "paper": ErrorWeights(mse=1.0, lddt=1.0, edm=False),
    "upstream": ErrorWeights(mse=4.0, lddt=4.0, edm=True),
}


@dataclass(frozen=True)
class DenoisingErrors:
    """The parts of the denoising error, each `[K, S]`.

    Attributes:
        mse: Rigid-aligned mean squared error, with AlphaFold 3's factor 1/3, in square angstrom.
        lddt: Smooth LDDT, 0 to about 0.9 (its sigmoids never reach 1).
        sigma: `[S]` noise levels in angstrom.
    """

    mse: Tensor
    lddt: Tensor
    sigma: Tensor

    def total(self, weights: ErrorWeights, *, sigma_data: float) -> Tensor:
        """l_is: the weighted sum of both terms. `[K, S]`.

        Args:
            weights: Of the terms.
            sigma_data: sigma_d of the EDM weight, angstrom.
        """
        scaled = edm_weight(self.sigma, sigma_data) * self.mse if weights.edm else self.mse
        return weights.mse * scaled + weights.lddt * (1.0 - self.lddt)


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """(sigma^2 + sigma_d^2) / (sigma sigma_d)^2 (Karras et al., 2022; AlphaFold 3, Eq. 6)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def aligned_mse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error after the target was moved onto the prediction (AlphaFold 3, Eq. 2-4).

    The gradient flows to `predicted` only, not through the motion.

    Args:
        predicted: `[K, S, N, 3]` denoised coordinates in angstrom.
        target: `[K, N, 3]` true coordinates.
        mask: `[K, N]`, 1 where the true coordinate exists.

    Returns:
        `[K, S]`, a third of the mean squared distance, in square angstrom.
    """
    weight = mask.to(predicted.dtype)[:, None]
    moved = rigid_align(target[:, None], predicted.detach(), weight)
    squared = ((predicted - moved) ** 2).sum(dim=-1)
    return (weight * squared).sum(dim=-1) / weight.sum(dim=-1).clamp_min(1.0) / 3.0


def smooth_lddt(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Smooth LDDT with each conformer's own neighbours (AlphaFold 3, Algorithm 27).

    Only pairs below the diagonal are visited: the score is symmetric. The gradient flows to
    `predicted` only and is computed with the score, a chunk of pairs at a time: what stays for the
    backward pass has the size of `predicted`, not of its pairs. Second derivatives are refused.

    Args:
        predicted: `[K, S, N, 3]` in angstrom.
        target: `[K, N, 3]`.
        mask: `[K, N]`, 1 where the true coordinate exists.

    Returns:
        `[K, S]`; 0 for a conformer without neighbours.
    """
    scores = []
    for x, y, present in zip(predicted, target.detach(), mask.bool(), strict=True):
        pairs = _neighbours(y, present)
        scores.append(_SmoothLDDT.apply(x, *pairs, torch.is_grad_enabled()))
    return torch.stack(scores)


def _neighbours(target: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both atoms and the distance of each pair within the radius, each `[P]`."""
    distance = torch.cdist(target, target, compute_mode="donot_use_mm_for_euclid_dist")
    near = (distance < LDDT_RADIUS) & present[:, None] & present[None, :]
    first, second = torch.nonzero(torch.tril(near, diagonal=-1), as_tuple=True)
    return first, second, distance[first, second]


class _SmoothLDDT(torch.autograd.Function):
    """Smooth LDDT of `[S, N, 3]` structures over given pairs, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, second: Tensor, true: Tensor, differentiate: bool
    ) -> Tensor:
        # `needs_input_grad` does not know about torch.no_grad, and grad mode is off in here.
        wanted = differentiate and ctx.needs_input_grad[0]
        rows = x.permute(1, 2, 0).flatten(1)  # [N, 3 S]: an atom's numbers side by side
        slope = torch.zeros_like(rows) if wanted else None
        score = x.new_zeros(len(x))
        size = _PAIRS_AT_ONCE_GPU if x.is_cuda else _PAIRS_AT_ONCE_CPU
        chunks = (pair.split(size) for pair in (first, second, true))
        for i, j, distance in zip(*chunks, strict=True):
            score += _add_pairs(rows, i, j, distance, slope)
        terms = max(len(true), 1) * len(LDDT_THRESHOLDS)
        if slope is not None:
            ctx.save_for_backward(slope.view(len(rows), 3, -1).permute(2, 0, 1) / terms)
        return score / terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return upstream[:, None, None] * slope, None, None, None, None


def _add_pairs(rows: Tensor, i: Tensor, j: Tensor, true: Tensor, slope: Tensor | None) -> Tensor:
    """Sum over pairs and thresholds of sigmoid(t - | |x_i - x_j| - true |), `[S]`.

    Args:
        rows: `[N, 3 S]` coordinates.
        i: `[P]` first atoms.
        j: `[P]` second atoms.
        true: `[P]` distances in the target.
        slope: `[N, 3 S]`, to which the derivative by the coordinates is added, or None.
    """
    difference = (rows.index_select(0, i) - rows.index_select(0, j)).unflatten(1, (3, -1))
    distance = difference.square().sum(dim=1).sqrt()
    gap = distance - true[:, None]
    passed = [torch.sigmoid(threshold - gap.abs()) for threshold in LDDT_THRESHOLDS]
    if slope is not None:
        # d sigmoid = sigmoid (1 - sigmoid); two atoms in one place have no direction: 0 there.
        steepness = torch.stack([p * (1 - p) for p in passed]).sum(dim=0) * -gap.sign()
        steepness /= distance.clamp_min(torch.finfo(distance.dtype).tiny)
        pull = (difference * steepness[:, None]).flatten(1)
        slope.index_add_(0, i, pull).index_add_(0, j, pull, alpha=-1)
    return torch.stack([p.sum(dim=0) for p in passed]).sum(dim=0)


def reduced_energies(
    energy_kj_mol: Tensor, *, n_residues: int, temperature_K: float, length_exponent: float
) -> Tensor:
    """E_i / (kT N^a), without a unit; a = 0.5 in the paper (Eq. 8).

    In float64: in bfloat16 neighbouring numbers near -30,000 kJ/mol are 128 apart.

    Args:
        energy_kj_mol: `[K]` float64.
        n_residues: N, at least 1.
        temperature_K: T, above 0.
        length_exponent: a; 0 for no scaling by length.

    Returns:
        `[K]` float64.

    Raises:
        UserError: An energy is not finite.
    """
    if not bool(torch.isfinite(energy_kj_mol).all()):
        raise UserError(
            f"energies must be finite, found {energy_kj_mol.tolist()} kJ/mol",
            "leave frames without an `ok` label out of the training set",
        )
    scale: float = thermal_energy_kj_mol(temperature_K) * float(n_residues) ** length_exponent
    return energy_kj_mol.double() / scale


def energy_weights(reduced_energy: Tensor, log_proposal: Tensor | None = None) -> Tensor:
    """Boltzmann weights w_i = softmax_i(-E_i / (kT N^a)), Eq. 8.

    Conformers that were drawn with probabilities q_i have the weights of self-normalised
    importance sampling, w_i proportional to exp(-E_i / (kT N^a)) / q_i (Owen, Monte Carlo theory,
    methods and examples, 2013, chapter 9).

    Args:
        reduced_energy: `[K]` from `reduced_energies`.
        log_proposal: `[K]` log q_i up to a constant; None for equal q_i.

    Returns:
        `[K]` float64 that sum to 1.
    """
    return torch.softmax(_importance(-reduced_energy, log_proposal), dim=0)


def log_model_weights(
    errors: Tensor,
    *,
    diffusion_temperature: float,
    expectation: str = "bound",
    reference_errors: Tensor | None = None,
    log_proposal: Tensor | None = None,
) -> Tensor:
    """The model's own log weights, log m_i = log_softmax_i(-T l_i - log q_i), Eq. 9.

    Args:
        errors: `[K, S]` denoising errors l_is.
        diffusion_temperature: T, the published `beta_dpo`.
        expectation: "bound" for weights at each noise sample; "official" for those of the errors'
            mean over S, as the published code has it.
        reference_errors: `[K, S]` of a frozen model; l_is - l_is(reference) replaces l_is.
        log_proposal: `[K]` as for `energy_weights`.

    Returns:
        `[K, S]` float64, or `[K, 1]` for "official".

    Raises:
        ValueError: No such expectation.
    """
    relative = _over_noise(_relative(errors, reference_errors), expectation)
    logits = _importance((-diffusion_temperature * relative.double()).T, log_proposal).T
    return torch.log_softmax(logits, dim=0)


def eba(
    errors: Tensor,
    weights: Tensor,
    *,
    diffusion_temperature: float,
    expectation: str = "bound",
    reference_errors: Tensor | None = None,
    log_proposal: Tensor | None = None,
) -> Tensor:
    """Energy-based alignment: cross-entropy between energy weights and the model's own, Eq. 9-10.

    L = mean_s [ -sum_i w_i log_softmax_i(-T l_is) ]; the expectation over noise stands outside the
    log-softmax, as Jensen's bound in Appendix A.1 has it. The published code has it inside
    ("official"), L = -sum_i w_i log_softmax_i(-T mean_s l_is): never larger, as log-sum-exp is
    convex. At the minimum of either -T l_i = log w_i + log q_i + constant: the ratios of the model
    are those of exp(-E_i / (kT N^a)), whatever the conformers were drawn with.

    Args:
        errors: `[K, S]` denoising errors l_is.
        weights: `[K]` energy weights, summing to 1; made with the same `log_proposal`.
        diffusion_temperature: T, the published `beta_dpo`.
        expectation: "bound" or "official".
        reference_errors: `[K, S]` of a frozen model, whose errors are then subtracted, or None.
        log_proposal: `[K]` log q_i up to a constant, if the conformers were drawn with
            probabilities q_i that differ; it stands on both sides of the divergence.

    Returns:
        A scalar of the errors' dtype, at least the entropy of `weights`; log K for equal errors.

    Raises:
        ValueError: No such expectation.
    """
    log_model = log_model_weights(
        errors,
        diffusion_temperature=diffusion_temperature,
        expectation=expectation,
        reference_errors=reference_errors,
        log_proposal=log_proposal,
    )
    return -(weights[:, None] * log_model).sum(dim=0).mean().to(errors.dtype)


def implicit_reward(
    errors: Tensor,
    reference_errors: Tensor,
    *,
    diffusion_temperature: float,
    expectation: str = "bound",
) -> Tensor:
    """What DPO takes for log(model / reference): -T/2 (l_is - l_is(reference)), Appendix A.2.

    Args:
        errors: `[K, S]`.
        reference_errors: `[K, S]` of the frozen reference.
        diffusion_temperature: T.
        expectation: "official" averages over S.

    Returns:
        `[K, S]`, or `[K, 1]` for "official".

    Raises:
        ValueError: No such expectation.
    """
    relative = _over_noise(_relative(errors, reference_errors), expectation)
    return -0.5 * diffusion_temperature * relative


def eba_dpo(
    errors: Tensor,
    reference_errors: Tensor,
    reduced_energy: Tensor,
    *,
    diffusion_temperature: float,
    expectation: str = "bound",
    linear_energy_weight: bool = False,
) -> Tensor:
    """EBA-DPO, Appendix A.2: -log sigmoid(-T/2 [(l_win - l_lose) - (the same of the reference)]).

    The lower energy wins. Two equal energies express no preference: 0, without a gradient.

    With `linear_energy_weight` the margin is multiplied by the difference in energy over kT N^a:
    the published code's `linear_ew`, which takes the difference in kJ/mol. A T of 5000 there is a
    T of 5000 kT N^a / (1 kJ/mol) here, by which nearly every pair is decided: choose a smaller one.

    Args:
        errors: `[2, S]`.
        reference_errors: `[2, S]` of the frozen reference.
        reduced_energy: `[2]` from `reduced_energies`.
        diffusion_temperature: T.
        expectation: "bound" for the mean over noise outside of the log-sigmoid, "official" for
            the mean of the errors, as the published code has it.
        linear_energy_weight: Whether to multiply the margin by the difference in energy.

    Returns:
        A scalar; log 2 for a model that equals its reference.

    Raises:
        UserError: K is not 2.
        ValueError: No such expectation.
    """
    if errors.shape[0] != 2:
        raise UserError(
            f"the objective eba_dpo compares 2 conformers, found {errors.shape[0]}",
            "set eba.n_conformers to 2, or use the objective eba or plackett_luce",
        )
    reward = implicit_reward(
        errors,
        reference_errors,
        diffusion_temperature=diffusion_temperature,
        expectation=expectation,
    )
    gap = reduced_energy[1] - reduced_energy[0]
    factor = gap if linear_energy_weight else gap.sign()
    margin = factor.to(reward.dtype) * (reward[0] - reward[1])
    return (gap != 0).to(reward.dtype) * -F.logsigmoid(margin).mean()


def plackett_luce(
    errors: Tensor,
    reference_errors: Tensor,
    reduced_energy: Tensor,
    *,
    diffusion_temperature: float,
    expectation: str = "bound",
) -> Tensor:
    """Preference over a ranking of K conformers, the lowest energy first.

    L = mean_s [ -sum_k (r_(k) - log sum_{j >= k} exp r_(j)) ] with the implicit reward r
    (Plackett, Applied Statistics 24, 193, 1975; Rafailov et al., DPO, 2023, Appendix A.3). For
    K = 2 it is `eba_dpo`. Conformers of equal energy are not compared with each other: each is
    compared with those of higher energy only.

    Args:
        errors: `[K, S]`.
        reference_errors: `[K, S]` of the frozen reference.
        reduced_energy: `[K]`; only their order counts.
        diffusion_temperature: T.
        expectation: As for `eba_dpo`.

    Returns:
        A scalar; log K! for a model that equals its reference.

    Raises:
        ValueError: No such expectation.
    """
    reward = implicit_reward(
        errors,
        reference_errors,
        diffusion_temperature=diffusion_temperature,
        expectation=expectation,
    )
    behind = reduced_energy[None, :] > reduced_energy[:, None]
    behind |= torch.eye(len(behind), dtype=torch.bool, device=behind.device)
    candidates = reward.masked_fill(~behind[:, :, None], -torch.inf)  # [K, K, S]
    return (torch.logsumexp(candidates, dim=1) - reward).sum(dim=0).mean()


def effective_number(weights: Tensor, dim: int = 0) -> Tensor:
    """exp(entropy): how many conformers a distribution is spread over; K for a uniform one."""
    return torch.exp(torch.special.entr(weights).sum(dim=dim))


def _relative(errors: Tensor, reference_errors: Tensor | None) -> Tensor:
    return errors if reference_errors is None else errors - reference_errors.detach()


def _over_noise(errors: Tensor, expectation: str) -> Tensor:
    """Errors whose objective is then averaged: of each noise sample, or their mean."""
    if expectation == "bound":
        return errors
    if expectation == "official":
        return errors.mean(dim=1, keepdim=True)
    raise ValueError(f"expectation is 'bound' or 'official', found {expectation!r}")


def _importance(log_density: Tensor, log_proposal: Tensor | None) -> Tensor:
    return log_density if log_proposal is None else log_density - log_proposal
