"""Objectives by name, which the trainer calls with the errors of one item."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from scipy.stats import spearmanr
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import LOSSES
from protenix_eba.training.denoising_error import ERROR_WEIGHTS, ErrorWeights, by_edm
from protenix_eba.training.energy_losses import (
    eba,
    eba_dpo,
    effective_number,
    energy_weights,
    implicit_reward,
    log_model_weights,
    plackett_luce,
    reduced_energies,
)

__all__ = ["Objective", "ObjectiveFactory", "ObjectiveInput", "alignment_metrics", "error_weights"]


@dataclass(frozen=True)
class ObjectiveInput:
    """What an objective is computed from, for one item.

    Attributes:
        errors: `[K, S]` denoising errors of the model, with gradient.
        reference_errors: `[K, S]` of the frozen start, only if the objective asked for them.
        energy_kj_mol: `[K]` float64.
        n_residues: N.
        keep: `[K]` bool, false for conformers to be left out, as those of outlying energy.
        sampled: `[K]` bool, true for the model's own samples, whose density is not known.
    """

    errors: Tensor
    reference_errors: Tensor | None
    energy_kj_mol: Tensor
    n_residues: int
    keep: Tensor
    sampled: Tensor

    def kept(self) -> ObjectiveInput:
        """Return the item as if the conformers that are left out had not been drawn."""
        return self._only(self.keep)

    def of_known_density(self) -> ObjectiveInput:
        """Return the item without the model's own samples."""
        return self._only(~self.sampled)

    def _only(self, rows: Tensor) -> ObjectiveInput:
        reference = self.reference_errors
        return ObjectiveInput(
            errors=self.errors[rows],
            reference_errors=None if reference is None else reference[rows],
            energy_kj_mol=self.energy_kj_mol[rows],
            n_residues=self.n_residues,
            keep=self.keep[rows],
            sampled=self.sampled[rows],
        )


@dataclass(frozen=True)
class Objective:
    """A loss with its needs; an `ObjectiveFactory` builds it.

    Attributes:
        loss: Function from an item to a scalar.
        needs_reference: Whether a frozen copy of the start must be evaluated beside the model.
        temperature_factor: T at which the objective takes the model for what it is, over the slope
            of -log p by the errors: 1 for weights softmax(-T l), 2 for rewards -T/2 l.
    """

    loss: Callable[[ObjectiveInput], Tensor]
    needs_reference: bool = False
    temperature_factor: float = 1.0


class ObjectiveFactory(Protocol):
    """A function registered in `LOSSES` that builds an objective; `eba.objective` names it."""

    def __call__(self, config: EBAConfig, /) -> Objective:
        """Build an objective.

        Args:
            config: The section `eba`, with the sections of plugins in `config.configs`.

        Returns:
            An objective. Its loss gets conformers that may be few or none after
            `ObjectiveInput.kept`, and must be a finite scalar with a gradient to the errors; what
            is not finite is skipped.

        Raises:
            UserError: A value does not fit the objective.
        """


def error_weights(config: EBAConfig, step: int = 0) -> ErrorWeights:
    """Return the weights of the denoising error that `config.error_weights` names.

    Args:
        config: The section `eba`.
        step: Optimizer steps done: the weight of signed volumes may fade with them.
    """
    if config.error_weights == "custom":
        left = max(0.0, 1.0 - step / config.volume_steps) if config.volume_steps else 1.0
        return ErrorWeights(
            mse=config.weight_mse,
            lddt=config.weight_lddt,
            by_level=partial(by_edm, sigma_data=config.weight_sigma_data),
            bond=config.weight_bond,
            volume=left * config.weight_volume,
        )
    return ERROR_WEIGHTS[config.error_weights]


@LOSSES.register("denoising")
def denoising_objective(config: EBAConfig) -> Objective:
    """Supervised fine-tuning: the mean denoising error of the conformers."""
    return Objective(lambda item: _denoising(config, item.kept()))


@LOSSES.register("eba")
def eba_objective(config: EBAConfig) -> Objective:
    """Energy-based alignment; one forward pass, or two with `eba_with_ref`."""

    def aligned(item: ObjectiveInput) -> Tensor:
        if config.eba_with_ref:
            _reference(item)
        return eba(item.errors, _weights(config, item), **_weight_arguments(config, item))

    return _objective(config, aligned, needs_reference=config.eba_with_ref)


@LOSSES.register("eba_dpo")
def eba_dpo_objective(config: EBAConfig) -> Objective:
    """EBA-DPO, the special case of pairs, against the frozen start."""
    if config.n_conformers != 2:
        raise UserError(
            f"the objective eba_dpo compares 2 conformers, found {config.n_conformers}",
            "set eba.n_conformers to 2, or use the objective eba or plackett_luce",
        )

    def preferred(item: ObjectiveInput) -> Tensor:
        return eba_dpo(
            item.errors,
            _reference(item),
            _reduced(config, item),
            diffusion_temperature=_temperature(config),
            expectation=config.expectation,
            linear_energy_weight=config.linear_energy_weight,
        )

    return _objective(config, preferred, needs_reference=True, temperature_factor=2.0)


@LOSSES.register("plackett_luce")
def plackett_luce_objective(config: EBAConfig) -> Objective:
    """Plackett-Luce: the ranking of all K by their energies, against the frozen start."""

    def preferred(item: ObjectiveInput) -> Tensor:
        return plackett_luce(
            item.errors,
            _reference(item),
            _reduced(config, item),
            diffusion_temperature=_temperature(config),
            expectation=config.expectation,
        )

    return _objective(config, preferred, needs_reference=True, temperature_factor=2.0)


@torch.no_grad()
def alignment_metrics(config: EBAConfig, item: ObjectiveInput) -> dict[str, float]:
    """Compare the model's preferences with the energies', averaged over noise samples.

    The keys depend on the configuration only, so that items can be averaged.

    Returns:
        `effective_energy` and `effective_model`: how many conformers the energies' and the
        model's weights spread over; `cross_entropy` of the two, which is the value of the
        objective `eba`, in nats; `kl`: the model's divergence from the energies, 0 when aligned;
        `rank_correlation`: Spearman's, between energies and mean errors, 1 when the lowest energy
        is denoised best, 0 where it is not defined (fewer than two conformers, or all equal).
        With a reference also those of `_preferences`.
    """
    kept = item.kept()
    target, model = _weights(config, kept), _weight_arguments(config, kept)
    log_model = log_model_weights(kept.errors, **model)
    cross = float(eba(kept.errors.double(), target, **model))
    return {
        "effective_energy": float(effective_number(target)),
        "effective_model": float(effective_number(log_model.exp()).mean()),
        "cross_entropy": cross,
        "kl": cross - float(torch.special.entr(target).sum()),
        "rank_correlation": _rank_correlation(kept.energy_kj_mol, kept.errors.mean(dim=1)),
        **_preferences(config, kept),
    }


def _objective(
    config: EBAConfig,
    term: Callable[[ObjectiveInput], Tensor],
    *,
    needs_reference: bool,
    temperature_factor: float = 1.0,
) -> Objective:
    """Build an objective: a comparison of conformers, and `sft_weight` times their mean error.

    The model's own samples have no part in the second term: its minimum is the density that the
    conformers were drawn from, which would be that of the model.
    """
    if config.n_conformers < 2:
        raise UserError(
            f"the objective {config.objective} compares conformers, found {config.n_conformers}",
            "set eba.n_conformers to 2 or more, or use the objective denoising",
        )

    def loss(item: ObjectiveInput) -> Tensor:
        kept = item.kept()
        compared = term(kept) if len(kept.errors) > 1 else kept.errors.new_zeros(())
        # The second term ties the loss to the model, with a gradient of 0 if need be.
        return compared + config.sft_weight * _denoising(config, kept.of_known_density())

    return Objective(loss, needs_reference, temperature_factor)


def _denoising(config: EBAConfig, item: ObjectiveInput) -> Tensor:
    """Return the mean error under the conformers' importance weights; 0 without conformers."""
    if config.sampling_temperature_K == 0:
        return item.errors.mean() if len(item.errors) else item.errors.sum()
    weights = _weights(config, item).to(item.errors.dtype)
    return (weights * item.errors.mean(dim=1)).sum()


def _reduced(config: EBAConfig, item: ObjectiveInput, temperature_K: float | None = None) -> Tensor:
    return reduced_energies(
        item.energy_kj_mol,
        n_residues=item.n_residues,
        temperature_K=config.temperature_K if temperature_K is None else temperature_K,
        length_exponent=config.length_exponent,
    )


def _log_proposal(config: EBAConfig, item: ObjectiveInput) -> Tensor | None:
    """Return log q of conformers drawn at the sampling temperature; None if drawn uniformly."""
    sampled_at = config.sampling_temperature_K
    return -_reduced(config, item, sampled_at) if sampled_at > 0 else None


def _temperature(config: EBAConfig) -> float:
    if isinstance(config.diffusion_temperature, str):
        raise ValueError("T is auto: the trainer puts a number in its place before the first item")
    return config.diffusion_temperature


def _weights(config: EBAConfig, item: ObjectiveInput) -> Tensor:
    return energy_weights(_reduced(config, item), _log_proposal(config, item))


def _weight_arguments(config: EBAConfig, item: ObjectiveInput) -> dict[str, Any]:
    """Return the arguments that `eba` and `log_model_weights` share."""
    return {
        "diffusion_temperature": _temperature(config),
        "expectation": config.expectation,
        "reference_errors": item.reference_errors if config.eba_with_ref else None,
        "log_proposal": _log_proposal(config, item),
    }


def _reference(item: ObjectiveInput) -> Tensor:
    if item.reference_errors is None:
        raise ValueError("the objective needs the errors of the reference model")
    return item.reference_errors


def _rank_correlation(energy_kj_mol: Tensor, errors: Tensor) -> float:
    if min(len(energy_kj_mol.unique()), len(errors.unique())) < 2:
        return 0.0
    return float(spearmanr(energy_kj_mol.cpu(), errors.cpu()).statistic)


def _leak(drift: Tensor) -> float:
    """Return -ln mean exp(-drift), of K conformers' drift in units of -ln p."""
    return math.log(len(drift)) - float(torch.logsumexp(-drift.double(), dim=0))


def _preferences(config: EBAConfig, item: ObjectiveInput) -> dict[str, float]:
    """Measure what the implicit reward prefers in pairs of conformers that differ in energy.

    Returns:
        `drift`: mean of the errors minus the reference's; `leak`: -ln of the mean over conformers
        of exp(-T drift), by which probability went to what none of them is: 0 where a distribution
        became another one, of conformers that were drawn from the reference; `accuracy`: share of
        pairs and noise samples in which the lower energy has the higher reward, equal rewards as
        half (0.5 for a model that equals its reference, and without pairs); `margin`: the mean
        difference of rewards, 0 without pairs. Nothing if there is no reference.
    """
    if item.reference_errors is None:
        return {}
    reward = implicit_reward(
        item.errors.double(),
        item.reference_errors,
        diffusion_temperature=_temperature(config),
        expectation=config.expectation,
    )
    win, lose = torch.nonzero(
        item.energy_kj_mol[:, None] < item.energy_kj_mol[None, :], as_tuple=True
    )
    margin = reward[win] - reward[lose]
    drift = item.errors - item.reference_errors
    return {
        "drift": float(drift.sum() / max(drift.numel(), 1)),
        "leak": _leak(_temperature(config) * drift.mean(dim=1)) if len(drift) else 0.0,
        "accuracy": 0.5 + 0.5 * float(margin.sign().sum() / max(margin.numel(), 1)),
        "margin": float(margin.sum() / max(margin.numel(), 1)),
    }
