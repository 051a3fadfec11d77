"""Training by denoising score matching: crops of domains, noise levels, the loss (Eq. 6-9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.network import Condition, ScoreNetwork
from protenix_eba.ebmfold.sampling import geometric_levels
from protenix_eba.ebmfold.standin import standin_predictions
from protenix_eba.ebmfold.target import Target, pair_features
from protenix_eba.protein.rigid_motions import rigid_align

__all__ = [
    "Batch",
    "CropSettings",
    "crop_residues",
    "denoising_loss",
    "draw_batch",
    "draw_levels",
]


@dataclass(frozen=True)
class CropSettings:
    """How domains become training examples.

    Attributes:
        sizes: Residues in a crop; each batch draws one of these.
        two_segments: Share of the crops that are two segments of half the size, so that residues
            which are far from each other in the chain are seen.
        noise_max: The stand-in predictor's noise is uniform from 0 to this.
        sharpness_max: Its sharpness likewise.
        orientation_dropout: Share of the crops without orientations.
        sequence_dropout: Share of the crops without a sequence.
    """

    sizes: tuple[int, ...] = (32, 48, 64)
    two_segments: float = 0.5
    noise_max: float = 1.5
    sharpness_max: float = 0.0
    orientation_dropout: float = 0.4
    sequence_dropout: float = 0.2


@dataclass(frozen=True)
class Batch:
    """Crops of B domains, padded to L residues.

    Attributes:
        features: `[B, L, L, 189]` of `pair_features`.
        native: `[B, L, 3]` C-alpha atoms in angstrom, centred.
        mask: `[B, L]`.
        bonded: `[B, L - 1]`.
    """

    features: Tensor
    native: Tensor
    mask: Tensor
    bonded: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        columns = (self.features, self.native, self.mask, self.bonded)
        return Batch(*(column.to(device) for column in columns))


def crop_residues(
    n_residues: int, size: int, two_segments: bool, generator: torch.Generator
) -> Tensor:
    """Choose residues; rows and columns alike, as Eq. 8 needs all partners of a residue.

    Args:
        n_residues: Length of the chain; all residues are taken if there are at most `size`.
        size: How many to take.
        two_segments: Two stretches of about half the size, anywhere; else one.
        generator: On the CPU.

    Returns:
        `[min(size, n_residues)]` residue numbers, rising.
    """
    if n_residues <= size:
        return torch.arange(n_residues)
    n_left_out = n_residues - size
    if not two_segments:
        return torch.arange(size) + int(torch.randint(n_left_out + 1, (), generator=generator))
    # Residues left out before, between and after the segments, every division equally likely.
    bars = torch.randperm(n_left_out + 2, generator=generator)[:2].sort().values
    before, between = int(bars[0]), int(bars[1] - bars[0]) - 1
    residues = torch.arange(size) + before
    residues[size // 2 :] += between
    return residues


def draw_batch(
    domains: Sequence[Domain], settings: CropSettings, generator: torch.Generator
) -> Batch:
    """Draw one crop of each domain, with stand-in predictions for it.

    Args:
        domains: B of them.
        settings: How crops are drawn.
        generator: On the CPU.
    """

    def chance(share: float) -> bool:
        return bool(torch.rand((), generator=generator) < share)

    size = settings.sizes[int(torch.randint(len(settings.sizes), (), generator=generator))]
    items = []
    for domain in domains:
        two = chance(settings.two_segments)
        residues = crop_residues(len(domain.sequence), size, two, generator)
        noise, sharpness = torch.rand(2, generator=generator).tolist()
        noise, sharpness = settings.noise_max * noise, settings.sharpness_max * sharpness
        backbone = domain.backbone[residues]
        predictions = standin_predictions(backbone, noise, generator, residues, sharpness)
        if chance(settings.orientation_dropout):
            predictions = predictions.without_orientations()
        sequence = "".join(domain.sequence[i] for i in residues)
        known = None if chance(settings.sequence_dropout) else sequence
        items.append((Target(domain.name, predictions, known, residues.numpy()), backbone[:, 1]))
    return _collate(items)


def _collate(items: Sequence[tuple[Target, Tensor]]) -> Batch:
    longest = max(target.n_residues for target, _ in items)
    features, native, mask, bonded = [], [], [], []
    for target, ca in items:
        n = longest - target.n_residues
        pad = torch.nn.functional.pad
        features.append(pad(pair_features(target), (0, 0, 0, n, 0, n)))
        native.append(pad(ca - ca.mean(0), (0, 0, 0, n)))
        mask.append(pad(torch.ones(target.n_residues), (0, n)))
        bonded.append(pad(target.bonded, (0, n)))
    return Batch(*(torch.stack(column) for column in (features, native, mask, bonded)))


def draw_levels(
    n: int, first: float, last: float, generator: torch.Generator, n_levels: int | None = None
) -> Tensor:
    """Draw noise levels for training, uniform in their logarithm.

    Args:
        n: How many.
        first: Largest level in angstrom.
        last: Smallest level.
        generator: On the CPU.
        n_levels: K, to draw from the paper's K geometric levels; None for any level between.

    Returns:
        `[n]`.
    """
    if n_levels is not None:
        levels = torch.tensor(geometric_levels(first, last, n_levels))
        return levels[torch.randint(n_levels, (n,), generator=generator)]
    uniform = torch.rand(n, generator=generator)
    return torch.exp(math.log(last) + uniform * (math.log(first) - math.log(last)))


def denoising_loss(
    network: ScoreNetwork,
    native: Tensor,
    condition: Condition,
    sigma: Tensor,
    generator: torch.Generator,
    *,
    align: bool = True,
) -> Tensor:
    """Compute Eq. 9 with the weight sigma^2, per structure and coordinate; 1 for a zero score.

    |sigma g + (x~ - x) / sigma|^2 = |denoised - x|^2 / sigma^2. A rigid motion of the noise can be
    learned by no equivariant network and is a share 2/L of the loss; with `align` the native
    structure is first superposed on the noisy one, which removes it.

    Args:
        network: The network whose score is trained.
        native: `[B, L, 3]` in angstrom.
        condition: The network's condition for these targets.
        sigma: `[B]`.
        generator: On the CPU.
        align: Whether to superpose.

    Returns:
        `[B]`.
    """
    noise = torch.randn(native.shape, generator=generator).to(native)
    mask = condition.mask.expand(native.shape[:-1])
    noisy = (native + sigma[:, None, None] * noise) * mask[..., None]
    target = rigid_align(native, noisy, mask) if align else native
    denoised = network(noisy, sigma, condition)
    squared: Tensor = ((denoised - target).square().sum(-1) * mask).sum(-1)
    return squared / (3 * mask.sum(-1) * sigma**2)
