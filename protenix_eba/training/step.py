"""The loss and gradient of one item: in one pass, or a few structures at a time in less memory.

Letters: K conformers, S noise samples, N atoms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from protenix_eba.host.config import EBAConfig
from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.features import to_device
from protenix_eba.training.data.item import Item
from protenix_eba.training.denoising_error import DenoisingErrors
from protenix_eba.training.noise import NoiseSettings
from protenix_eba.training.noisy_conformers import NoisyConformers, add_noise, denoising_errors
from protenix_eba.training.objectives import (
    Objective,
    ObjectiveInput,
    alignment_metrics,
    error_weights,
)

__all__ = ["DenoisedItem", "ItemStep", "NoisyItem", "backwards_per_item"]

Denoiser = Callable[..., Tensor]


def backwards_per_item(config: EBAConfig, noise_at_once: int) -> int:
    """Return the number of backward passes for one item: 1, or its parts in low memory."""
    if not config.low_memory:
        return 1
    return config.n_conformers * math.ceil(config.n_noise / noise_at_once)


@dataclass(frozen=True)
class NoisyItem:
    """An item with noise on the device of the model.

    Attributes:
        features: Protenix's input features.
        embeddings: Embeddings of the frozen trunk.
        noisy: `[K, S, N, 3]` with its noise levels.
        target: `[K, N, 3]` true coordinates.
        mask: `[K, N]`.
        partners: `[N]` of each atom that with which it may change places, or None to keep all in
            their places.
    """

    features: dict[str, Any]
    embeddings: TrunkEmbeddings
    noisy: NoisyConformers
    target: Tensor
    mask: Tensor
    partners: Tensor | None = None

    def parts(self, n_noise: int) -> Iterator[NoisyItem]:
        """Yield parts of one conformer and at most `n_noise` noise samples, in order."""
        starts = range(0, len(self.noisy.sigma), n_noise)
        for k, first in itertools.product(range(len(self.target)), starts):
            one, some = slice(k, k + 1), slice(first, first + n_noise)
            noisy = NoisyConformers(
                coordinates=self.noisy.coordinates[one, some],
                sigma=self.noisy.sigma[some],
                clean=self.noisy.clean[one, some],
            )
            yield replace(self, noisy=noisy, target=self.target[one], mask=self.mask[one])


@dataclass(frozen=True)
class DenoisedItem:
    """An item, the model's errors of denoising it, and what the objective is computed from.

    Attributes:
        item: The item with its noise.
        errors: `[K, S]` parts of the denoising error.
        objective_input: Errors and energies that the objective is computed from.
    """

    item: NoisyItem
    errors: DenoisingErrors
    objective_input: ObjectiveInput


class ItemStep:
    """Turns an item into the scalars whose gradients train the model.

    In low memory an item is passed twice: without gradients, for all K x S errors and so the
    derivative of the objective by each of them; then part by part, with these derivatives as
    constant factors. By the chain rule the gradient is the same, for any objective.

    Args:
        denoiser: A `ConformerDenoiser`, or the DeepSpeed engine around it.
        objective: What is minimised.
        config: The section `eba`.
        noise: Distribution of the noise levels.
        device: Device of the model.
        reference: The frozen start, if the objective asks for it.
        noise_at_once: Noise samples of a part, in low memory.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        config: EBAConfig,
        noise: NoiseSettings,
        device: torch.device,
        reference: Denoiser | None = None,
        noise_at_once: int = 4,
    ) -> None:
        self._denoiser = denoiser
        self._objective = objective
        self._config = config
        self.noise = noise
        self._device = device
        self._reference = reference
        self._weights = error_weights(config)
        self._noise_at_once = min(noise_at_once, config.n_noise)
        self.n_backwards = backwards_per_item(config, noise_at_once)

    def set_step(self, step: int) -> None:
        """Use the weights of the error's terms that hold after this number of optimizer steps."""
        self._weights = error_weights(self._config, step)

    def denoise(
        self, item: Item, generator: torch.Generator, levels: Tensor | None = None
    ) -> DenoisedItem:
        """Add noise to an item and denoise it, with the model and with the reference, if any.

        Args:
            item: Conformers of one sequence.
            generator: Generator of the noise.
            levels: `[S]` noise levels instead of drawn ones.
        """
        noisy = self._with_noise(item, generator, levels)
        energy, keep, sampled = (
            values.to(self._device) for values in (item.energy_kj_mol, item.keep, item.sampled)
        )
        return self.denoise_noisy(noisy, energy, item.n_residues, keep, sampled)

    def denoise_noisy(
        self,
        item: NoisyItem,
        energy_kj_mol: Tensor,
        n_residues: int,
        keep: Tensor,
        sampled: Tensor,
    ) -> DenoisedItem:
        """Denoise an item that has its noise, see `denoise`.

        Args:
            item: Conformers with noise.
            energy_kj_mol: `[K]` float64.
            n_residues: N of the whole protein.
            keep: `[K]` false for conformers that the objective leaves out.
            sampled: `[K]` true for the model's own samples.
        """
        split = self._config.low_memory
        with torch.set_grad_enabled(torch.is_grad_enabled() and not split):
            errors = self._errors(self._denoiser, item, split)
        total = self._total(errors)
        reference = None
        if self._reference is not None:
            with torch.no_grad():
                reference = self._total(self._errors(self._reference, item, split))
        if split:
            total.requires_grad_(torch.is_grad_enabled())
        objective_input = ObjectiveInput(total, reference, energy_kj_mol, n_residues, keep, sampled)
        return DenoisedItem(item, errors, objective_input)

    def loss(self, denoised: DenoisedItem) -> Tensor:
        """Return the value of the objective."""
        return self._objective.loss(denoised.objective_input)

    def metrics(self, denoised: DenoisedItem, loss: Tensor) -> dict[str, float]:
        """Return the loss, the denoising error and measures of alignment, under the log's names."""
        return {
            "loss": float(loss.detach()),
            "mse": float(denoised.errors.mse.detach().mean()),
            "lddt": float(denoised.errors.lddt.detach().mean()),
            "bond": float(denoised.errors.bond.detach().mean()),
            **self._volume(denoised),
            **alignment_metrics(self._config, denoised.objective_input),
        }

    def _volume(self, denoised: DenoisedItem) -> dict[str, float]:
        """Return the volume error, but only if it is part of the loss, because it takes time."""
        wanted = self._config.weight_volume > 0
        return {"volume": float(denoised.errors.volume.detach().mean())} if wanted else {}

    def backward_terms(self, denoised: DenoisedItem, loss: Tensor) -> Iterator[Tensor]:
        """Yield `n_backwards` scalars whose mean has the gradient of `loss`, one at a time."""
        if not self._config.low_memory:
            yield loss
            return
        (slopes,) = torch.autograd.grad(loss, denoised.objective_input.errors)
        rows = [row for slope in slopes for row in slope.split(self._noise_at_once)]
        for row, part in zip(rows, denoised.item.parts(self._noise_at_once), strict=True):
            errors = self._total(self._errors(self._denoiser, part, split=False))
            yield self.n_backwards * (row * errors).sum()

    def zero_terms(self, denoised: DenoisedItem) -> Iterator[Tensor]:
        """Yield `n_backwards` scalars with a gradient of zero, through the whole model.

        What a process adds to the reductions that all take part in when an item is skipped.
        """
        embeddings = TrunkEmbeddings(
            *(torch.zeros_like(t) for t in denoised.item.embeddings.tensors())
        )
        coordinates = torch.zeros_like(denoised.item.target[:1, None])
        sigma = torch.ones_like(denoised.item.noisy.sigma[:1])
        for _ in range(self.n_backwards):
            out = self._denoiser(denoised.item.features, embeddings, coordinates, sigma)
            yield 0.0 * out.float().sum()

    def _with_noise(
        self, item: Item, generator: torch.Generator, levels: Tensor | None
    ) -> NoisyItem:
        coordinates, mask = item.coordinates.to(self._device), item.mask.to(self._device)
        if levels is None and self._config.stratified_noise:
            levels = self.noise.quantiles(self._config.n_noise, generator)
        noisy = add_noise(
            coordinates,
            mask,
            n_noise=self._config.n_noise,
            noise_mean=self.noise.mean,
            noise_std=self.noise.std,
            sigma_data=self.noise.sigma_data,
            generator=generator,
            levels=levels,
        )
        features = to_device(item.features, self._device)
        embeddings = item.embeddings.to(self._device)
        partners = None
        if self._config.symmetric_atoms and item.partners is not None:
            partners = item.partners.to(self._device)
        return NoisyItem(features, embeddings, noisy, coordinates, mask, partners)

    def _errors(self, denoiser: Denoiser, item: NoisyItem, split: bool) -> DenoisingErrors:
        if split:
            parts = [
                self._errors(denoiser, part, split=False)
                for part in item.parts(self._noise_at_once)
            ]
            shape = item.noisy.coordinates.shape[:2]
            joined = {
                name: torch.cat([getattr(part, name).flatten() for part in parts]).view(shape)
                for name in ("mse", "lddt", "bond", "volume")
            }
            n_atoms = item.mask.sum(dim=-1)
            return DenoisingErrors(**joined, sigma=item.noisy.sigma, n_atoms=n_atoms)
        rest = (item.features, item.embeddings, item.noisy, item.target, item.mask, item.partners)
        volumes = self._weights.volume > 0
        return denoising_errors(denoiser, *rest, aligned=self._config.aligned, volumes=volumes)

    def _total(self, errors: DenoisingErrors) -> Tensor:
        return errors.total(self._weights, self.noise)
