"""Objectives, as functions of the denoising errors and energies of conformers.

Letters: K conformers of one sequence, S noise samples. Errors are `[K, S]`, energies `[K]`.
Equation numbers are those of EBA (Lu et al., ICML 2025) unless said.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol

__all__ = [
    "eba",
    "eba_dpo",
    "effective_number",
    "energy_weights",
    "implicit_reward",
    "log_model_weights",
    "plackett_luce",
    "reduced_energies",
]


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
    """DPO's stand-in for log(model / reference): -T/2 (l_is - l_is(reference)), Appendix A.2.

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
    """Return the errors of each noise sample, or their mean, of which the objective is taken."""
    if expectation == "bound":
        return errors
    if expectation == "official":
        return errors.mean(dim=1, keepdim=True)
    raise ValueError(f"expectation is 'bound' or 'official', found {expectation!r}")


def _importance(log_density: Tensor, log_proposal: Tensor | None) -> Tensor:
    return log_density if log_proposal is None else log_density - log_proposal
