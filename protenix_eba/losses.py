"""Denoising errors of conformers and the objectives that compare them.

Letters: K conformers of one sequence, S noise samples, N atoms. Errors are `[K, S]`, energies
`[K]` in kJ/mol. Equation numbers are those of EBA (Lu et al., ICML 2025) unless said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from protenix_eba.errors import UserError
from protenix_eba.geometry import rigid_align
from protenix_eba.units import thermal_energy_kj_mol

__all__ = [
    "DenoisingErrors",
    "aligned_mse",
    "eba",
    "eba_dpo",
    "edm_weight",
    "effective_number",
    "energy_weights",
    "smooth_lddt",
]

# AlphaFold 3 (Abramson et al., Nature 2024), Algorithm 27: thresholds and the inclusion radius of
# protein atoms, both in angstrom.
LDDT_THRESHOLDS: Final = (0.5, 1.0, 2.0, 4.0)
LDDT_RADIUS: Final = 15.0


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

    def total(self, *, weight_mse: float, weight_lddt: float, sigma_data: float) -> Tensor:
        """l_is: the weighted sum of both terms, the first scaled by the EDM weight. `[K, S]`."""
        scaled = edm_weight(self.sigma, sigma_data) * self.mse
        return weight_mse * scaled + weight_lddt * (1.0 - self.lddt)


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

    Only pairs below the diagonal are visited: the score is symmetric.

    Args:
        predicted: `[K, S, N, 3]`.
        target: `[K, N, 3]`.
        mask: `[K, N]`.

    Returns:
        `[K, S]`.
    """
    scores = []
    for x, y, present in zip(predicted, target, mask.bool(), strict=True):
        distance = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist")
        near = (distance < LDDT_RADIUS) & present[:, None] & present[None, :]
        first, second = torch.nonzero(torch.tril(near, diagonal=-1), as_tuple=True)
        true = distance[first, second]
        error = ((x[:, first] - x[:, second]).norm(dim=-1) - true).abs()
        passed = sum(torch.sigmoid(threshold - error) for threshold in LDDT_THRESHOLDS)
        scores.append(torch.as_tensor(passed).mean(dim=-1) / len(LDDT_THRESHOLDS))
    return torch.stack(scores)


def energy_weights(
    energy_kj_mol: Tensor, *, n_residues: int, temperature_K: float, length_exponent: float
) -> Tensor:
    """Boltzmann weights w_i = softmax_i(-E_i / (kT N^a)), Eq. 8; a = 0.5 in the paper.

    Everything in float64, the lowest energy subtracted first: in bfloat16 neighbouring numbers
    near -30,000 kJ/mol are 128 apart.

    Args:
        energy_kj_mol: `[K]` float64.
        n_residues: N, at least 1.
        temperature_K: T, above 0.
        length_exponent: a; 0 gives the plain Boltzmann distribution.

    Returns:
        `[K]` float64 that sum to 1.

    Raises:
        UserError: An energy is not finite.
    """
    energy = energy_kj_mol.double()
    if not bool(torch.isfinite(energy).all()):
        raise UserError(
            f"energies must be finite, found {energy.tolist()} kJ/mol",
            "leave frames without an `ok` label out of the training set",
        )
    scale = thermal_energy_kj_mol(temperature_K) * float(n_residues) ** length_exponent
    return torch.softmax(-(energy - energy.min()) / scale, dim=0)


def eba(
    errors: Tensor,
    weights: Tensor,
    *,
    diffusion_temperature: float,
    reference_errors: Tensor | None = None,
) -> Tensor:
    """Energy-based alignment: cross-entropy between energy weights and the model's own, Eq. 9-10.

    L = mean_s [ -sum_i w_i log_softmax_i(-T l_is) ]; the expectation over noise stands outside the
    log-softmax, as Jensen's bound in Appendix A.1 has it. With a reference, l_is is replaced by
    l_is - l_is(reference).

    Args:
        errors: `[K, S]` denoising errors l_is.
        weights: `[K]` energy weights, summing to 1.
        diffusion_temperature: T, the published `beta_dpo`.
        reference_errors: `[K, S]` of a frozen model, or None.

    Returns:
        A scalar, at least the entropy of `weights`; log K for equal errors.
    """
    relative = errors if reference_errors is None else errors - reference_errors.detach()
    log_model = torch.log_softmax(-diffusion_temperature * relative, dim=0)
    return -(weights.to(log_model.dtype)[:, None] * log_model).sum(dim=0).mean()


def eba_dpo(
    errors: Tensor, reference_errors: Tensor, energy_kj_mol: Tensor, *, diffusion_temperature: float
) -> Tensor:
    """EBA-DPO, Appendix A.2: -log sigmoid(-T/2 [(l_win - l_lose) - (the same of the reference)]).

    Args:
        errors: `[2, S]`.
        reference_errors: `[2, S]` of the frozen reference.
        energy_kj_mol: `[2]`; the lower one wins.
        diffusion_temperature: T.

    Returns:
        A scalar; log 2 for a model that equals its reference.

    Raises:
        UserError: K is not 2.
    """
    if errors.shape[0] != 2:
        raise UserError(
            f"the objective eba_dpo compares 2 conformers, found {errors.shape[0]}",
            "set eba.n_conformers to 2, or use the objective eba",
        )
    win = int(torch.argmin(energy_kj_mol))
    relative = errors - reference_errors.detach()
    margin = relative[win] - relative[1 - win]
    return -F.logsigmoid(-0.5 * diffusion_temperature * margin).mean()


def effective_number(weights: Tensor, dim: int = 0) -> Tensor:
    """exp(entropy): how many conformers a distribution is spread over; K for a uniform one."""
    return torch.exp(torch.special.entr(weights).sum(dim=dim))
