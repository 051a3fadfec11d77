"""Objectives by name: what the trainer calls with the errors of one item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from protenix_eba.config import EBAConfig
from protenix_eba.losses import eba, eba_dpo, effective_number, energy_weights
from protenix_eba.plugin_api import LOSSES

__all__ = ["Objective", "ObjectiveInput"]


@dataclass(frozen=True)
class ObjectiveInput:
    """What an objective sees of one item.

    Attributes:
        errors: `[K, S]` denoising errors of the model, with gradient.
        reference_errors: `[K, S]` of the frozen start, only if the objective asked for them.
        energy_kj_mol: `[K]` float64.
        n_residues: N.
    """

    errors: Tensor
    reference_errors: Tensor | None
    energy_kj_mol: Tensor
    n_residues: int


@dataclass(frozen=True)
class Objective:
    """A loss with its needs.

    Attributes:
        loss: From an item to a scalar.
        needs_reference: Whether a frozen copy of the start must be evaluated beside the model.
    """

    loss: Callable[[ObjectiveInput], Tensor]
    needs_reference: bool = False


def _weights(config: EBAConfig, item: ObjectiveInput) -> Tensor:
    return energy_weights(
        item.energy_kj_mol,
        n_residues=item.n_residues,
        temperature_K=config.temperature_K,
        length_exponent=config.length_exponent,
    )


@LOSSES.register("denoising")
def denoising_objective(config: EBAConfig) -> Objective:
    """Supervised fine-tuning: the mean denoising error of all conformers."""
    return Objective(lambda item: item.errors.mean())


@LOSSES.register("eba")
def eba_objective(config: EBAConfig) -> Objective:
    """Energy-based alignment without a reference: one forward pass."""

    def loss(item: ObjectiveInput) -> Tensor:
        weights, temperature = _weights(config, item), config.diffusion_temperature
        aligned = eba(item.errors, weights, diffusion_temperature=temperature)
        return aligned + config.sft_weight * item.errors.mean()

    return Objective(loss)


@LOSSES.register("eba_dpo")
def eba_dpo_objective(config: EBAConfig) -> Objective:
    """The pairwise special case, against the frozen start."""

    def loss(item: ObjectiveInput) -> Tensor:
        if item.reference_errors is None:
            raise ValueError("eba_dpo needs the errors of the reference model")
        preferred = eba_dpo(
            item.errors,
            item.reference_errors,
            item.energy_kj_mol,
            diffusion_temperature=config.diffusion_temperature,
        )
        return preferred + config.sft_weight * item.errors.mean()

    return Objective(loss, needs_reference=True)


@torch.no_grad()
def alignment_metrics(config: EBAConfig, item: ObjectiveInput) -> dict[str, float]:
    """How the model's preferences compare with the energies', averaged over noise samples.

    Returns:
        `kl`: Kullback-Leibler divergence of the model's weights from the energies' (0 when
        aligned); `effective_energy` and `effective_model`: how many conformers each spreads over.
    """
    target = _weights(config, item)
    errors = item.errors.double()
    log_model = torch.log_softmax(-config.diffusion_temperature * errors, dim=0)
    cross = -(target[:, None] * log_model).sum(dim=0).mean()
    return {
        "kl": float(cross - torch.special.entr(target).sum()),
        "effective_energy": float(effective_number(target)),
        "effective_model": float(effective_number(log_model.exp()).mean()),
    }
