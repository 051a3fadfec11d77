"""Quality of a network on domains that it was not trained on: its loss, and its decoys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.fold import fold
from protenix_eba.ebmfold.metrics import gdt_ts, lddt_ca
from protenix_eba.ebmfold.network import ScoreNetwork
from protenix_eba.ebmfold.sampling import SAMPLERS, geometric_levels
from protenix_eba.ebmfold.score_matching import CropSettings, denoising_loss, draw_batch
from protenix_eba.ebmfold.standin import standin_predictions
from protenix_eba.ebmfold.target import Target

__all__ = ["HeldOut", "held_out_decoys", "held_out_loss"]

_N_LEVELS: Final = 6
_CROPS_AT_A_TIME: Final = 16
# Whatever the run's seed: validations of different runs compare.
_SEED: Final = 0


@dataclass(frozen=True)
class HeldOut:
    """The domains and settings of a validation.

    Attributes:
        domains: Domains that are not trained on.
        crops: Crop settings of the training; validation takes the largest size, no dropout.
        first: Largest noise level in angstrom.
        last: Smallest.
        align: Whether the loss superposes.
        n_decoys: Number of decoys that are folded of each domain.
        noise: Noise level of the predictions that decoys are folded from.
    """

    domains: Sequence[Domain]
    crops: CropSettings
    first: float
    last: float
    align: bool
    n_decoys: int
    noise: float


@torch.no_grad()
def held_out_loss(network: ScoreNetwork, held_out: HeldOut) -> dict[str, float]:
    """Return `loss`, the mean over noise levels, and the loss at each level (`loss_at_2.6`).

    The same crops, predictions and noise each time.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(_SEED)
    size = max(held_out.crops.sizes)
    crops = replace(held_out.crops, sizes=(size,), orientation_dropout=0.0, sequence_dropout=0.0)
    levels = geometric_levels(held_out.first, held_out.last, _N_LEVELS)
    sums = dict.fromkeys(levels, 0.0)
    for first in range(0, len(held_out.domains), _CROPS_AT_A_TIME):
        batch = draw_batch(held_out.domains[first : first + _CROPS_AT_A_TIME], crops, generator)
        batch = batch.to(device)
        condition = network.condition_of(batch.features, batch.mask, batch.bonded)
        for level in levels:
            sigma = torch.full((len(batch.mask),), level, device=device)
            losses = denoising_loss(
                network, batch.native, condition, sigma, generator, align=held_out.align
            )
            sums[level] += float(losses.sum())
    by_level = {f"loss_at_{k:.2g}": v / len(held_out.domains) for k, v in sums.items()}
    return {"loss": sum(by_level.values()) / _N_LEVELS, **by_level}


def held_out_decoys(network: ScoreNetwork, held_out: HeldOut) -> list[dict[str, Any]]:
    """Return mean `lddt_ca` and `gdt_ts` of each domain's decoys; NaN where folding diverges."""
    rows = []
    for number, domain in enumerate(held_out.domains):
        generator = torch.Generator().manual_seed(_SEED + number)
        predictions = standin_predictions(domain.backbone, held_out.noise, generator)
        target = Target(domain.name, predictions, domain.sequence)
        row: dict[str, Any] = {
            "target": domain.name,
            "lddt_ca": float("nan"),
            "gdt_ts": float("nan"),
        }
        try:
            ca = fold(network, target, SAMPLERS["churned"], held_out.n_decoys, _SEED).ca
            row["lddt_ca"] = float(lddt_ca(ca, domain.ca).mean())
            row["gdt_ts"] = float(gdt_ts(ca, domain.ca).mean())
        except UserError:
            pass  # a network at its beginning
        rows.append(row)
    return rows
