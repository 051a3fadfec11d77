"""Stand-in for a predictor of inter-residue geometry: a native structure, blurred and bent.

It lets the networks be trained and compared where no real predictions are at hand. Its errors have
the parts that those of real predictors have: consistent ones (a structure that is somewhat wrong),
independent ones of each pair that grow with the distance, stated widths that cover both, stretches
of the chain that are known better than others, and residues that the predictor knows little about.
The width is `noise`, 0.25 for a very good prediction, 1.5 for a poor one.

Constants are fitted to two real predictions with their structures, trRosetta's for T1008 (like a
width of 1.2) and RoseTTAFold's for T1078 (like 0.4): the widths of distances and of each angle,
and how far the median error is below the root mean square (scripts/compare_standin.py). With a
`sharpness` of 0 it claims less than it knows, as RoseTTAFold does, with 0.2 as much, as trRosetta
does, with 1 it is overconfident.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.predictions import DISTANCE_EDGES, ORIENTATION_BINS, Predictions
from protenix_eba.ebmfold.trace import angle, dihedral

__all__ = ["background", "orientations", "standin_predictions"]

# Bending: displacement of 2 angstrom times the noise (root mean square of the three components
# together), correlated over 6 residues.
_BEND: Final = 2.0
_BEND_RESIDUES: Final = 6.0
# Error of a pair's distance d: noise times (0.2 angstrom + 0.12 d).
_PAIR: Final = 0.2
_PAIR_SLOPE: Final = 0.12
# Error of an angle in radians: 0.04 and the noise times this. Omega has the errors of both frames.
_ANGLE: Final = 0.04
_ANGLE_SLOPE: Final = {"omega": 1.8, "theta": 1.1, "phi": 0.55}
# Some stretches are known better than others: the logarithm of a residue's share of the noise has
# a standard deviation between these two, and is correlated over 3 residues.
_UNEVEN: Final = (0.5, 1.6)
_UNEVEN_RESIDUES: Final = 3.0
# The largest share of "unknown" of a residue, times the noise.
_UNKNOWN: Final = 0.05


def standin_predictions(
    backbone: Tensor,
    noise: float,
    generator: torch.Generator,
    positions: Tensor | None = None,
    sharpness: float = 0.0,
) -> Predictions:
    """Make predictions of distances and orientations from a known structure.

    Args:
        backbone: `[L, 4, 3]` N, CA, C, CB in angstrom; an ideal CB for glycine.
        noise: The width, 0 or above.
        generator: On the CPU.
        positions: `[L]` residue numbers, if these are not all residues of a chain.
        sharpness: From 0 to 1: at 1 stated widths are halved and nothing is "unknown"; the errors
            are the same.

    Raises:
        UserError: The noise is negative, the sharpness is not in its range, or the coordinates are
            not finite.
    """
    if not noise >= 0 or not 0 <= sharpness <= 1 or not bool(backbone.isfinite().all()):
        raise UserError(
            "stand-in predictions: expected finite coordinates, a noise of 0 or more and a "
            "sharpness from 0 to 1"
        )
    index = torch.arange(len(backbone)) if positions is None else positions
    own = noise * _unevenness(generator, index).to(backbone)
    of_pair = (own[:, None] * own).sqrt()
    bent, spread = _bend(backbone, own, generator, index)
    cb = bent[:, 3]
    true_distance = torch.cdist(cb, cb, compute_mode="donot_use_mm_for_euclid_dist")
    error = of_pair * (_PAIR + _PAIR_SLOPE * true_distance)
    distance = true_distance + error * _symmetric_normal(len(cb), generator)
    stated = 1.0 - 0.5 * sharpness
    width = stated * (error**2 + spread**2 + 0.1**2).sqrt()
    known = 1.0 - _UNKNOWN * (1 - sharpness) * noise * torch.rand(len(cb), generator=generator)
    share = (known[:, None] * known[None])[..., None].clamp_min(0)
    bins = share * _gaussian_bins(distance, width) + (1 - share) * background(index)
    far = bins[..., :1]
    angles = {}
    for name, value in orientations(bent).items():
        n_bins = ORIENTATION_BINS[name] - 1
        draw = torch.randn(value.shape, generator=generator)
        if name == "omega":
            draw = _symmetric_normal(len(cb), generator)
        angle_width = _ANGLE + _ANGLE_SLOPE[name] * of_pair
        drawn = value + angle_width * draw
        near = _angle_bins(drawn, stated * angle_width, n_bins, name != "phi")
        near = share * near + (1 - share) / n_bins
        angles[name] = torch.cat([far, (1 - far) * near], dim=-1).numpy()
    return Predictions(bins.numpy(), **angles)


def orientations(backbone: Tensor) -> dict[str, Tensor]:
    """Return trRosetta's angles of each pair in radians, `[L, L]` each; meaningless for i = j.

    Args:
        backbone: `[L, 4, 3]` N, CA, C, CB.
    """
    n, ca, _, cb = backbone[:, None].unbind(2)
    other_ca, other_cb = ca.transpose(0, 1), cb.transpose(0, 1)
    return {
        "omega": dihedral(ca, cb, other_cb, other_ca),
        "theta": dihedral(n, ca, cb, other_cb),
        "phi": angle(ca, cb, other_cb),
    }


def background(positions: Tensor) -> Tensor:
    """Return `[L, L, 37]` distances of residues of which only the separation is known.

    Maxwell's distribution with root mean square 5.4 s^0.54 angstrom at separation s, at most that
    of two random residues of a globule, 6.1 L^0.256 (fits to 2,000 domains of the PDB).

    Args:
        positions: `[L]` rising residue numbers, from the first to the last of which a globule is.
    """
    separation = (positions[:, None] - positions).abs().clamp_min(1)
    globule = 6.1 * int(positions[-1] - positions[0] + 1) ** 0.256
    rms = (5.4 * separation**0.54).clamp_max(globule)
    scaled = torch.tensor(DISTANCE_EDGES, dtype=torch.float32) * math.sqrt(3) / rms[..., None]
    below = torch.erf(scaled / math.sqrt(2)) - math.sqrt(2 / math.pi) * scaled * torch.exp(
        -(scaled**2) / 2
    )
    return _open_ended(below)


def _unevenness(generator: torch.Generator, positions: Tensor) -> Tensor:
    """Draw `[L]` each residue's share of the noise, smooth along the chain, of mean square 1."""
    least, most = _UNEVEN
    std = least + (most - least) * torch.rand((), generator=generator)
    field = _smooth_normal(1, _UNEVEN_RESIDUES, generator, positions)[:, 0]
    share = torch.exp(std * field)
    return share / share.square().mean().sqrt()


def _bend(
    backbone: Tensor, noise: Tensor, generator: torch.Generator, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Bend the backbone smoothly along the chain, each residue `[L]` by its noise.

    Returns:
        The backbone, and the standard deviation `[L, L]` of its change of distances.
    """
    std = _BEND * noise / math.sqrt(3)
    field = std[:, None] * _smooth_normal(3, _BEND_RESIDUES, generator, positions).to(backbone)
    correlation = _correlation(positions, _BEND_RESIDUES).to(backbone)
    variance = std[:, None] ** 2 + std**2 - 2 * correlation * std[:, None] * std
    return backbone + field[:, None], variance.clamp_min(0).sqrt()


def _smooth_normal(
    n: int, residues: float, generator: torch.Generator, positions: Tensor
) -> Tensor:
    """Draw n normal numbers `[L, n]` of each residue, correlated along the chain."""
    values, vectors = torch.linalg.eigh(_correlation(positions, residues))
    root = vectors * values.clamp_min(0).sqrt()
    drawn: Tensor = root @ torch.randn(len(positions), n, generator=generator, dtype=torch.float64)
    return drawn


def _correlation(positions: Tensor, residues: float) -> Tensor:
    lag = (positions[:, None] - positions).double()
    return torch.exp(-0.5 * (lag / residues) ** 2)


def _symmetric_normal(n: int, generator: torch.Generator) -> Tensor:
    draws = torch.randn(n, n, generator=generator).triu(1)
    return draws + draws.T


def _gaussian_bins(mean: Tensor, width: Tensor) -> Tensor:
    edges = torch.tensor(DISTANCE_EDGES, dtype=torch.float32)
    return _open_ended(torch.special.ndtr((edges - mean[..., None]) / width[..., None]))


def _open_ended(below: Tensor) -> Tensor:
    """Return bins from the shares below each edge; the first takes all below, channel 0 above."""
    inner = below.diff(dim=-1)
    first = below[..., 1:2]
    return torch.cat([1 - below[..., -1:], first, inner[..., 1:]], dim=-1)


def _angle_bins(mean: Tensor, width: Tensor, n_bins: int, periodic: bool) -> Tensor:
    """Return Gaussian shares of 15-degree bins: wrapped, or reflected at 0 and 180 degrees."""
    low = -math.pi if periodic else 0.0
    edges = torch.linspace(low, math.pi, n_bins + 1)
    images = [mean + 2 * math.pi * turn for turn in (-1, 0, 1)]
    if not periodic:
        images += [-image for image in images]
    below = torch.special.ndtr((edges - torch.stack(images)[..., None]) / width[..., None])
    shares: Tensor = below.diff(dim=-1).sum(0)
    return shares / shares.sum(-1, keepdim=True)
