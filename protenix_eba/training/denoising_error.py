"""Denoising errors of conformers: rigid-aligned squared error and smooth LDDT.

Letters: K conformers of one sequence, S noise samples, N atoms, P pairs of atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from protenix_eba.protein.rigid_motions import rigid_align
from protenix_eba.training.noise import NoiseSettings

__all__ = [
    "ERROR_WEIGHTS",
    "LIKELIHOOD_RANGE",
    "DenoisingErrors",
    "ErrorWeights",
    "aligned_mse",
    "bond_error",
    "by_edm",
    "by_likelihood",
    "edm_weight",
    "signed_volumes",
    "smooth_lddt",
    "squared_error",
    "uniformly",
    "volume_error",
]

# AlphaFold 3 (Abramson et al., Nature 2024), Algorithm 27: thresholds and the inclusion radius of
# protein atoms, both in angstrom.
LDDT_THRESHOLDS: Final = (0.5, 1.0, 2.0, 4.0)
LDDT_RADIUS: Final = 15.0
# Angstrom: atoms one or two bonds apart, and few others.
BOND_RADIUS: Final = 2.7
# Angstrom: the mean of what more noise leaves possible has no sound bonds, and must not.
BOND_NOISE: Final = 0.5
# Angstrom: heavy atoms with a bond, also those of sulfur to carbon; atoms two bonds apart have 2.2.
BOND_LENGTH: Final = 1.95
# Angstrom: above this noise leaves the orientation open. The mean of all is flat, and must be.
VOLUME_NOISE: Final = 3.0
# Cubic angstrom: the signed volume of a tetrahedral centre with three bonds of 1.5 angstrom.
_TETRAHEDRAL: Final = 4 * 1.5**3 / 27**0.5
# Standard deviations of ln sigma within which noise levels count for the likelihood: 99.7% of those
# drawn; with AlphaFold 3's noise 0.05 to 434 angstrom.
LIKELIHOOD_RANGE: Final = 3.0
# Pairs that smooth LDDT looks at in one go: what fits a CPU's cache, few launches on a GPU.
_PAIRS_AT_ONCE_CPU: Final = 2**13
_PAIRS_AT_ONCE_GPU: Final = 2**17


@dataclass(frozen=True)
class DenoisingErrors:
    """The parts of the denoising error, each `[K, S]`.

    Attributes:
        mse: Mean squared error, superposed or not, with AlphaFold 3's factor 1/3, in square
            angstrom.
        lddt: Smooth LDDT, 0 to about 0.9 (its sigmoids never reach 1).
        bond: Mean squared error of bonds and angles as distances, in square angstrom.
        volume: Squared error of signed volumes and of the ends of chains, see `volume_error`.
        sigma: `[S]` noise levels in angstrom.
        n_atoms: `[K]` atoms that the mean was taken over.
    """

    mse: Tensor
    lddt: Tensor
    bond: Tensor
    volume: Tensor
    sigma: Tensor
    n_atoms: Tensor

    def total(self, weights: ErrorWeights, noise: NoiseSettings) -> Tensor:
        """Return the weighted sum l_is of the terms, `[K, S]`.

        Args:
            weights: Weights of the terms.
            noise: What the noise levels are drawn from.
        """
        bond = self.bond * (self.sigma < BOND_NOISE)
        squared = weights.mse * self.mse + weights.bond * bond
        volume = self.volume * (self.sigma < VOLUME_NOISE)
        others = weights.lddt * (1.0 - self.lddt) + weights.volume * volume
        return weights.by_level(self, noise) * squared + others


def uniformly(errors: DenoisingErrors, noise: NoiseSettings) -> Tensor:
    """Return the same weight for all noise levels, `[S]`."""
    return torch.ones_like(errors.sigma)


def by_edm(errors: DenoisingErrors, noise: NoiseSettings, sigma_data: float = 0.0) -> Tensor:
    """Return the EDM weight, `[S]`, with the network's sigma_d or another one (angstrom)."""
    return edm_weight(errors.sigma, sigma_data or noise.sigma_data)


def by_likelihood(errors: DenoisingErrors, noise: NoiseSettings) -> Tensor:
    """Return 3 N / (sigma^2 p(ln sigma)), `[K, S]`: the mean error is -log p(x) + constant.

    -log p(x) = C + 1/2 int E|x - D(x + sigma n)|^2 d(sigma^-2) for the best denoiser D (Guo,
    Shamai, Verdu, IEEE Trans. Inf. Theory 51, 1261, 2005; for one point, Kong, Brekelmans, Ver
    Steeg, ICLR 2023), and |d(sigma^-2)| = 2 sigma^-2 d(ln sigma). Levels are drawn with
    p(ln sigma), by which each is divided. 3 N times the mean squared error is |x - D|^2.

    Levels beyond `LIKELIHOOD_RANGE` count 0: the integral is one over the levels within. Without
    it the variance is infinite, as 1 / p grows faster than any power of sigma falls. C depends on
    the number of atoms: conformers can be compared if the same atoms are absent in all of them.
    The best rigid motion takes 6 of 3 N directions out of the error. Three are the translation,
    which is independent of the shape; three the rotation, whose share is nearly the same for all
    conformers if the model is narrow beside the molecule, and not if it is as wide
    (docs/theory.md, "What T is").

    Args:
        errors: Denoising errors of K conformers at S noise levels.
        noise: What the levels are drawn from, one by one or in strata: only p of one counts.
    """
    within = noise.deviations(errors.sigma).abs() <= LIKELIHOOD_RANGE
    of_level = within / (errors.sigma**2 * noise.density(errors.sigma))
    return 3.0 * errors.n_atoms[:, None] * of_level


@dataclass(frozen=True)
class ErrorWeights:
    """Weights of the denoising error's terms.

    Attributes:
        mse: Weight of the aligned squared error.
        lddt: Weight of 1 - smooth LDDT.
        by_level: What multiplies squared and bond error besides, by noise level: `[S]` or `[K, S]`.
        bond: Weight of the bond error, at noise below 0.5 angstrom.
        volume: Weight of the volume error, at noise below 3 angstrom.
    """

    mse: float
    lddt: float
    by_level: Callable[[DenoisingErrors, NoiseSettings], Tensor]
    bond: float = 0.0
    volume: float = 0.0


# The paper speaks of a constant weight. The published code has AlphaFold 3's alpha_diffusion = 4
# before both terms and the EDM weight (Abramson et al., 2024, Eq. 6 and 15).
ERROR_WEIGHTS: Final = {
    "paper": ErrorWeights(mse=1.0, lddt=1.0, by_level=uniformly),
    "upstream": ErrorWeights(mse=4.0, lddt=4.0, by_level=by_edm),
    "likelihood": ErrorWeights(mse=1.0, lddt=0.0, by_level=by_likelihood),
}


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


def squared_error(predicted: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error where the noise was added, without a superposition.

    Its minimum is the posterior mean, so that the probability flow samples the distribution that
    was learnt. `aligned_mse` has another minimum: where noise hides the orientation, it is not
    shrunk by that, and samplers that follow it sample too many extended conformations
    (docs/theory.md).

    Args:
        predicted: `[K, S, N, 3]` denoised coordinates in angstrom.
        clean: `[K, S, N, 3]` true ones, in the orientation of each noisy structure.
        mask: `[K, N]`, 1 where the true coordinate exists.

    Returns:
        `[K, S]`, a third of the mean squared distance, in square angstrom.
    """
    weight = mask.to(predicted.dtype)[:, None]
    squared = ((predicted - clean) ** 2).sum(dim=-1)
    return (weight * squared).sum(dim=-1) / weight.sum(dim=-1).clamp_min(1.0) / 3.0


def bond_error(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the distances between atoms within 2.7 angstrom in the target.

    These are bonds and angles. AlphaFold 3 has the same term for the bonds of ligands (Abramson et
    al., 2024, supplement, Eq. 5): an aligned error alone says little about them where most of it is
    the place of whole groups.

    Args:
        predicted: `[K, S, N, 3]` in angstrom.
        target: `[K, N, 3]`.
        mask: `[K, N]`, 1 where the true coordinate exists.

    Returns:
        `[K, S]` in square angstrom; 0 for a conformer without such pairs.
    """
    errors = []
    for x, y, present in zip(predicted, target.detach(), mask.bool(), strict=True):
        first, second, true = _neighbours(y, present, BOND_RADIUS)
        gap = (x.index_select(1, first) - x.index_select(1, second)).norm(dim=-1) - true
        errors.append(gap.square().sum(dim=-1) / max(len(true), 1))
    return torch.stack(errors)


def volume_error(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of the signed volumes that four bonded atoms span.

    The volume (a - x) . ((b - x) x (c - x)) of an atom x and its first three neighbours has the
    sign of its hand, and is 0 where x lies in their plane: the error teaches handedness, and the
    planes of peptide bonds and rings. That of a chain of four atoms goes with the sine of its
    torsion, and the distance of the chain's ends with the cosine: both teach torsions.

    Args:
        predicted: `[K, S, N, 3]` in angstrom.
        target: `[K, N, 3]`, whose bonds are its distances below 1.95 angstrom.
        mask: `[K, N]`, 1 where the true coordinate exists.

    Returns:
        `[K, S]`: the mean over atoms with three bonds or more, in units of the square of a carbon's
        volume, 2.6 cubic angstrom, so that a mirror image of a single such centre has 4; and the
        mean over chains of half of the same and half of the error of the distance between their
        ends, square angstrom. 0 for a conformer without such atoms.
    """
    errors = []
    for x, y, present in zip(predicted, target.detach(), mask.bool(), strict=True):
        bonds, neighbours, exists = _bonded(y, present)
        centre = torch.nonzero(exists[:, 2]).squeeze(1)
        stars = _volume_gap(x, y, centre, neighbours[centre, :3])
        first, second, third, last = _chains(bonds, neighbours, exists).unbind(dim=1)
        chains = _volume_gap(x, y, second, torch.stack([first, third, last], dim=1))
        ends = (x[:, first] - x[:, last]).norm(dim=-1) - (y[first] - y[last]).norm(dim=-1)
        of_chains = (chains.square() + ends.square()).sum(dim=-1) / max(2 * len(first), 1)
        errors.append(stars.square().sum(dim=-1) / max(len(centre), 1) + of_chains)
    return torch.stack(errors)


def _volume_gap(x: Tensor, y: Tensor, centre: Tensor, neighbours: Tensor) -> Tensor:
    """Return how far signed volumes of `[S, N, 3]` are from those of `[N, 3]`, in a carbon's."""
    gap = signed_volumes(x, centre, neighbours) - signed_volumes(y, centre, neighbours)
    return gap / _TETRAHEDRAL


def _bonded(target: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bonds `[B, 2]`, the first four neighbours `[N, 4]` of each atom, which exist."""
    first, second, _ = _neighbours(target, present, BOND_LENGTH)
    bonded = target.new_zeros(len(target), max(len(target), 4), dtype=torch.uint8)
    bonded[first, second] = bonded[second, first] = 1
    neighbours = bonded.argsort(dim=1, descending=True, stable=True)[:, :4]
    exists = bonded.gather(1, neighbours).bool()
    return torch.stack([first, second], dim=1), neighbours, exists


def _chains(bonds: Tensor, neighbours: Tensor, exists: Tensor) -> Tensor:
    """Return all chains of four different atoms, `[C, 4]`, each with a bond in its middle."""
    second, third = bonds.unbind(dim=1)
    first, last = neighbours[second][:, :, None], neighbours[third][:, None, :]
    chain = exists[second][:, :, None] & exists[third][:, None, :]
    chain &= (first != third[:, None, None]) & (last != second[:, None, None]) & (first != last)
    bond, one, other = torch.nonzero(chain, as_tuple=True)
    ends = neighbours[second[bond], one], neighbours[third[bond], other]
    return torch.stack([ends[0], second[bond], third[bond], ends[1]], dim=1)


def signed_volumes(xyz: Tensor, centre: Tensor, neighbours: Tensor) -> Tensor:
    """(a - x) . ((b - x) x (c - x)) of atoms x and three neighbours of each, cubic angstrom.

    Args:
        xyz: `[..., N, 3]` in angstrom.
        centre: `[J]` atoms.
        neighbours: `[J, 3]` their neighbours.

    Returns:
        `[..., J]`; 2.6 for the C-alpha of an L-amino acid with N, C and CB.
    """
    arms = xyz[..., neighbours, :] - xyz[..., centre, :].unsqueeze(-2)
    a, b, c = arms.unbind(dim=-2)
    return torch.sum(a * torch.linalg.cross(b, c), dim=-1)


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
        pairs = _neighbours(y, present, LDDT_RADIUS)
        scores.append(_SmoothLDDT.apply(x, *pairs, torch.is_grad_enabled()))
    return torch.stack(scores)


def _neighbours(target: Tensor, present: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Both atoms and the distance of each pair within the radius, each `[P]`."""
    distance = torch.cdist(target, target, compute_mode="donot_use_mm_for_euclid_dist")
    near = (distance < radius) & present[:, None] & present[None, :]
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
