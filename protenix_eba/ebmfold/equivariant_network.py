"""The network that we recommend: coordinates and a dense pair state, equivariant to motions."""

from __future__ import annotations

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
from protenix_eba.ebmfold.trace import frames, squared_distances

__all__ = ["EquivariantNetwork", "EquivariantNetworkConfig"]

_PAIRS_AT_A_TIME: Final = 8192


@dataclass(frozen=True)
class EquivariantNetworkConfig:
    """Sizes of the network.

    Attributes:
        n_layers: Updates of pair state and coordinates.
        channels: C of the pair state.
        chiral: Whether the network sees each residue in the frames of the others, which tell left
            from right. Without it a mirror image is denoised to the mirrored structure.
        sigma_data: Standard deviation of native coordinates in angstrom (Karras et al., 2022);
            8.1 for 100 residues.
    """

    n_layers: int = 5
    channels: int = 32
    chiral: bool = True
    sigma_data: float = 8.0


class EquivariantNetwork(ScoreNetwork):
    """Residues move along the lines between them, by weights from a pair state.

    In the manner of E(n)-equivariant graph networks (Satorras et al., ICML 2021) on the complete
    graph, preconditioned as in Karras et al. (2022), Eq. 7: the first guess is the noisy structure
    shrunk towards its centre by c_skip, and each layer's move has the size c_out.

    Args:
        config: Sizes.
    """

    def __init__(self, config: EquivariantNetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.stem = nn.Sequential(
            nn.Linear(N_FEATURES, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels)
        )
        self.noise = NoiseEmbedding(channels)
        self.start = nn.Linear(N_DISTANCE_FEATURES, channels)
        self.layers = nn.ModuleList(_Layer(channels, config.chiral) for _ in range(config.n_layers))

    def embed(self, features: Tensor) -> Tensor:
        """See `ScoreNetwork`."""
        embedded: Tensor = self.stem(features)
        return embedded

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """See `ScoreNetwork`."""
        mask = condition.mask.expand(x.shape[:-1])
        centre = (mask[..., None] * x).sum(-2, keepdim=True) / mask.sum(-1)[:, None, None]
        centred = (x - centre) * mask[..., None]
        total = sigma**2 + self.config.sigma_data**2
        y = centred * (self.config.sigma_data**2 / total)[:, None, None]
        step = (sigma * self.config.sigma_data / total.sqrt())[:, None, None]
        pair = self._start(x, sigma, condition)
        noise = self.noise(sigma)
        for layer in self.layers:
            pair, move = layer(pair, y, sigma, noise, condition)
            y = y + step * move
        denoised: Tensor = centre + y
        return denoised

    def _start(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Return the pair state before the first layer, from predictions and noisy distances."""
        squared, blocks = squared_distances(x), []
        for rows in _row_blocks(squared):
            expected = condition.expected[..., rows, :, :]
            noisy = distance_features(squared[:, rows], sigma, expected)
            blocks.append(condition.pair[..., rows, :, :] + self.start(noisy))
        return torch.cat(blocks, dim=1)


class _Layer(nn.Module):
    """One update of the pair state, then of the coordinates."""

    def __init__(self, channels: int, chiral: bool) -> None:
        super().__init__()
        self.chiral = chiral
        n_inputs = channels + N_DISTANCE_FEATURES + (6 if chiral else 0)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.modulation = nn.Linear(channels, 2 * channels)
        self.inner = nn.Linear(n_inputs, 2 * channels)
        self.context = nn.Linear(channels, 4 * channels, bias=False)
        self.outer = nn.Linear(2 * channels, channels)
        self.weight = nn.Linear(channels, 1)
        nn.init.normal_(self.weight.weight, std=1e-2)

    def forward(
        self, pair: Tensor, y: Tensor, sigma: Tensor, noise: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """Return the new pair state `[B, L, L, C]` and the move of each residue `[B, L, 3]`."""
        squared = squared_distances(y)
        scale, shift = self.modulation(noise)[:, None, None].chunk(2, dim=-1)
        directions = _directions_from(y, squared, condition.bonded) if self.chiral else None
        share = condition.mask / condition.mask.sum(-1, keepdim=True)
        blocks = _row_blocks(squared)

        def normal(rows: slice) -> Tensor:
            normalised: Tensor = self.norm(pair[:, rows]) * (1 + scale) + shift
            return normalised

        # What residue i knows of all others, and residue j: a complete graph's messages.
        means = [(normal(rows) * share[..., None, :, None]).sum(-2) for rows in blocks]
        of_i, of_j = self.context(torch.cat(means, dim=1)).chunk(2, dim=-1)
        updated, weights = [], []
        for rows in blocks:
            expected = condition.expected[..., rows, :, :]
            inputs = [normal(rows), distance_features(squared[:, rows], sigma, expected)]
            if directions is not None:
                inputs += [directions[:, rows], directions[:, :, rows].transpose(1, 2)]
            inner = self.inner(torch.cat(inputs, dim=-1))
            hidden = F.silu(inner + of_i[:, rows, None] + of_j[:, None])
            updated.append(pair[:, rows] + self.outer(hidden))
            weights.append(self.weight(updated[-1])[..., 0])
        weight = torch.cat(weights, dim=1) * share[..., None, :] / (squared + 1.0).sqrt()
        move = weight.sum(-1, keepdim=True) * y - weight @ y
        return torch.cat(updated, dim=1), 4.0 * move * condition.mask[..., None]


def _row_blocks(squared: Tensor) -> list[slice]:
    """Return rows to work on together: without gradients few, whose tensors fit into a cache."""
    n_batch, n_rows, _ = squared.shape
    step = n_rows if torch.is_grad_enabled() else max(1, _PAIRS_AT_A_TIME // (n_batch * n_rows))
    return [slice(first, first + step) for first in range(0, n_rows, step)]


def _directions_from(y: Tensor, squared: Tensor, bonded: Tensor) -> Tensor:
    """Return directions to all residues in the frame of each; 0 for residues without a frame.

    Args:
        y: `[B, L, 3]`.
        squared: `[B, L, L]`.
        bonded: `[..., L - 1]`.

    Returns:
        `[B, L, L, 3]`.
    """
    whole = (bonded[..., 1:] & bonded[..., :-1])[..., None, None]
    axes = F.pad(frames(y) * whole, (0, 0, 0, 0, 1, 1))
    # F_i (y_j - y_i), without the differences of all pairs in memory.
    projected = torch.einsum("biax,bjx->bija", axes, y)
    own = torch.einsum("biax,bix->bia", axes, y)
    return (projected - own[:, :, None]) / (squared + 1.0).sqrt()[..., None]
