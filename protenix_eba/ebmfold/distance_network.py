"""The paper's network: residual convolutions on the matrix of squared distances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protenix_eba.ebmfold.network import (
    N_DISTANCE_FEATURES,
    Condition,
    NoiseEmbedding,
    ScoreNetwork,
    distance_features,
)
from protenix_eba.ebmfold.target import N_FEATURES
from protenix_eba.ebmfold.trace import coordinate_score, squared_distances

__all__ = ["CORRECTED", "PAPER", "DistanceNetwork", "DistanceNetworkConfig"]


@dataclass(frozen=True)
class DistanceNetworkConfig:
    """Sizes and choices of the network; the defaults are the paper's (sections 4.2 and 5.1).

    Attributes:
        n_blocks: Residual blocks, whose dilations are 1, 3, 5, 9 in turn.
        channels: C.
        corrected: False for the paper's network: squared distances as they are, batch
            normalisation with a scale and a shift for each of `n_levels`, and an output that is
            d log p / d D as it is. True for one that trains: distance features at all scales,
            instance normalisation modulated by the noise level, and an output times
            3 / (4 L sigma sqrt(D + 1)), which makes the network's own numbers about 1 at every
            noise level and the score independent of the length.
        n_levels: K of the paper's levels, geometric between the next two. The corrected network
            takes any level.
        sigma_first: Largest level in angstrom.
        sigma_last: Smallest level.
    """

    n_blocks: int = 32
    channels: int = 64
    corrected: bool = False
    n_levels: int = 32
    sigma_first: float = 10.0
    sigma_last: float = 0.01


PAPER: Final = DistanceNetworkConfig()
CORRECTED: Final = DistanceNetworkConfig(n_blocks=8, channels=48, corrected=True)
_DILATIONS: Final = (1, 3, 5, 9)


class DistanceNetwork(ScoreNetwork):
    """Convolutions score squared distances; the chain rule takes the score to coordinates (Eq. 8).

    It cannot tell a structure from its mirror image: the score of one mirrors that of the other.

    Args:
        config: `PAPER`, `CORRECTED` or other sizes.
    """

    def __init__(self, config: DistanceNetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        # One layer on all inputs, in two parts: only that of the distances changes from one
        # evaluation to the next.
        self.embed_features = nn.Linear(N_FEATURES, channels)
        n_distance = N_DISTANCE_FEATURES if config.corrected else 1
        self.embed_distances = nn.Linear(n_distance, channels, bias=False)
        self.noise = NoiseEmbedding(channels) if config.corrected else None
        self.blocks = nn.ModuleList(
            _Block(config, _DILATIONS[n % len(_DILATIONS)]) for n in range(config.n_blocks)
        )
        self.norm = _norm(config)
        self.last = nn.Conv2d(channels, 1, kernel_size=1)

    def embed(self, features: Tensor) -> Tensor:
        """See `ScoreNetwork`."""
        embedded: Tensor = self.embed_features(features)
        return embedded

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """See `ScoreNetwork`."""
        squared = squared_distances(x)
        mask = condition.pair_mask.expand(squared.shape)
        level = self.noise(sigma) if self.noise is not None else self._level(sigma)
        inputs = (
            distance_features(squared, sigma, condition.expected)
            if self.config.corrected
            else squared[..., None]
        )
        z = (condition.pair + self.embed_distances(inputs)).movedim(-1, 1) * mask[:, None]
        for block in self.blocks:
            z = block(z, level, mask)
        h = self.last(F.elu(self.norm(z, level, mask)))[:, 0] * mask
        if self.config.corrected:
            length = condition.mask.sum(-1).expand(len(x))
            scale = 3.0 / (4.0 * length * sigma)
            h = h * scale[:, None, None] / (squared + 1.0).sqrt()
        denoised: Tensor = x + sigma[:, None, None] ** 2 * coordinate_score(h, x)
        return denoised

    def _level(self, sigma: Tensor) -> Tensor:
        """Return the number of the nearest of the K levels, `[B]`."""
        config = self.config
        ratio = math.log(config.sigma_first / config.sigma_last) / (config.n_levels - 1)
        number: Tensor = (math.log(config.sigma_first) - sigma.log()) / ratio
        return number.round().long().clamp(0, config.n_levels - 1)


class _Block(nn.Module):
    """A residual block: z + convolution(ELU(norm(z)))."""

    def __init__(self, config: DistanceNetworkConfig, dilation: int) -> None:
        super().__init__()
        self.norm = _norm(config)
        self.convolution = nn.Conv2d(
            config.channels, config.channels, 3, padding=dilation, dilation=dilation
        )

    def forward(self, z: Tensor, level: Tensor, mask: Tensor) -> Tensor:
        inner = F.elu(self.norm(z, level, mask)) * mask[:, None]
        updated: Tensor = (z + self.convolution(inner)) * mask[:, None]
        return updated


def _norm(config: DistanceNetworkConfig) -> nn.Module:
    if config.corrected:
        return _InstanceNorm(config.channels)
    return _BatchNorm(config.channels, config.n_levels)


class _BatchNorm(nn.Module):
    """Conditional batch normalisation: a scale and a shift of each channel for each level."""

    def __init__(self, channels: int, n_levels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.scale = nn.Embedding.from_pretrained(torch.ones(n_levels, channels), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(n_levels, channels), freeze=False)

    def forward(self, z: Tensor, level: Tensor, mask: Tensor) -> Tensor:
        present = mask > 0
        normal = torch.zeros_like(z).movedim(1, -1)
        # Padding has no say in the statistics.
        normal[present] = self.norm(z.movedim(1, -1)[present])
        scale, shift = self.scale(level)[:, :, None, None], self.shift(level)[:, :, None, None]
        modulated: Tensor = normal.movedim(-1, 1) * scale + shift
        return modulated


class _InstanceNorm(nn.Module):
    """Instance normalisation, its scale and shift linear in the embedding of the noise level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(channels, 2 * channels)

    def forward(self, z: Tensor, level: Tensor, mask: Tensor) -> Tensor:
        weight = mask[:, None] / mask.sum((-1, -2))[:, None, None, None]
        mean = (weight * z).sum((-1, -2), keepdim=True)
        variance = (weight * (z - mean) ** 2).sum((-1, -2), keepdim=True)
        scale, shift = self.modulation(level)[..., None, None].chunk(2, dim=1)
        modulated: Tensor = (z - mean) * (variance + 1e-5).rsqrt() * (1 + scale) + shift
        return modulated
