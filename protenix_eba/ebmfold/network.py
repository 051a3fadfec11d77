"""Parts that all score networks share: inputs, features of distances and noise levels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from protenix_eba.ebmfold.predictions import DISTANCE_CENTRES, DISTANCE_EDGES
from protenix_eba.ebmfold.target import Target, pair_features

__all__ = [
    "N_DISTANCE_FEATURES",
    "Condition",
    "NoiseEmbedding",
    "ScoreNetwork",
    "distance_features",
    "expected_distances",
]

# Rows of the pair matrix whose features exist at once.
_ROWS: Final = 64
# The distance channels among those of `pair_features`.
_FIRST_DISTANCE: Final = 40 + 48
_RBF_CENTRES: Final = torch.linspace(1.0, 24.0, 16)
N_DISTANCE_FEATURES: Final = 4 + len(_RBF_CENTRES)


@dataclass(frozen=True)
class Condition:
    """A network's inputs of a target, computed once; `...` is a batch of targets or nothing.

    Attributes:
        pair: `[..., L, L, C]` embedded features.
        expected: `[..., L, L, 2]` mean and standard deviation of the predicted distances.
        mask: `[..., L]` 1 for residues, 0 for padding.
        bonded: `[..., L - 1]` whether a residue is bonded to the next.
    """

    pair: Tensor
    expected: Tensor
    mask: Tensor
    bonded: Tensor

    @property
    def pair_mask(self) -> Tensor:
        """The mask of pairs, `[..., L, L]`."""
        return self.mask[..., :, None] * self.mask[..., None, :]


class ScoreNetwork(nn.Module, ABC):
    """A network that denoises C-alpha traces of a target at any noise level.

    The score of the noised distribution is (denoised - x) / sigma^2.

    Attributes:
        config: Dataclass that the network is built from.
    """

    config: Any

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """Embed the features `[..., L, L, 189]` as `[..., L, L, C]`."""

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Denoise traces.

        Args:
            x: `[B, L, 3]` noisy traces in angstrom.
            sigma: `[B]` noise levels in angstrom.
            condition: Condition of one target, or of B targets.

        Returns:
            `[B, L, 3]`.
        """

    def condition_of(self, features: Tensor, mask: Tensor, bonded: Tensor) -> Condition:
        """Return the condition of a batch in training.

        Args:
            features: `[B, L, L, 189]` of `pair_features`.
            mask: `[B, L]`.
            bonded: `[B, L - 1]`.
        """
        return Condition(self.embed(features), expected_distances(features), mask, bonded)

    @torch.no_grad()
    def prepare(self, target: Target) -> Condition:
        """Compute the condition of a target for sampling, some rows at a time."""
        device = next(self.parameters()).device
        pairs, expected = [], []
        for first in range(0, target.n_residues, _ROWS):
            features = pair_features(target, slice(first, first + _ROWS)).to(device)
            pairs.append(self.embed(features))
            expected.append(expected_distances(features))
        mask = torch.ones(target.n_residues, device=device)
        return Condition(torch.cat(pairs), torch.cat(expected), mask, target.bonded.to(device))


def expected_distances(features: Tensor) -> Tensor:
    """Return mean and standard deviation of the predicted distances, in angstrom.

    What is beyond 20 angstrom counts as 24.

    Args:
        features: `[..., 189]`.

    Returns:
        `[..., 2]`.
    """
    share = features[..., _FIRST_DISTANCE : _FIRST_DISTANCE + len(DISTANCE_EDGES)]
    centres = torch.tensor([24.0, *DISTANCE_CENTRES], dtype=share.dtype, device=share.device)
    mean = share @ centres
    variance = (share @ centres**2 - mean**2).clamp_min(0)
    return torch.stack([mean, variance.sqrt()], dim=-1)


def distance_features(squared: Tensor, sigma: Tensor, expected: Tensor) -> Tensor:
    """Compute 20 features of distances, for all scales.

    Raw squared distances hide everything below 1 angstrom; the logarithm, radial basis functions
    and the deviation from what is predicted show it.

    Args:
        squared: `[B, L, L]` in angstrom^2.
        sigma: `[B]`.
        expected: `[..., L, L, 2]` of `Condition`.

    Returns:
        `[B, L, L, 20]`.
    """
    level = sigma[:, None, None]
    distance = (squared + 1e-6).sqrt()
    mean, deviation = expected.unbind(-1)
    parts = [
        distance / 10,
        squared.log1p() / 4,
        squared / (6 * level**2 + 300) - 1,
        ((distance - mean) / (deviation**2 + level**2 + 0.1).sqrt()).clamp(-5, 5),
    ]
    centres = _RBF_CENTRES.to(squared)
    radial = torch.exp(-(((distance[..., None] - centres) / 1.5) ** 2))
    return torch.cat([torch.stack(parts, dim=-1), radial], dim=-1)


class NoiseEmbedding(nn.Module):
    """Embeds a noise level by sines and cosines of its logarithm.

    Args:
        channels: Length of the vector.
    """

    frequency: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequency", 2.0 ** torch.arange(-3, 3), persistent=False)
        self.layers = nn.Sequential(nn.Linear(12, channels), nn.SiLU())

    def forward(self, sigma: Tensor) -> Tensor:
        """Return `[B, channels]` for `sigma` `[B]` in angstrom."""
        phase = math.pi * sigma.log()[:, None] * self.frequency
        embedded: Tensor = self.layers(torch.cat([phase.sin(), phase.cos()], dim=-1))
        return embedded
