"""The temperature T of `eba.diffusion_temperature: auto`, measured on the start of a run.

Letters: K conformers of one sequence, S noise levels, B groups of conformers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import write_json
from protenix_eba.core.progress import track
from protenix_eba.core.ranks import from_first, gather_rows
from protenix_eba.core.run_folder import read_json
from protenix_eba.training.data.interfaces import Loader
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.prefetch import prefetch
from protenix_eba.training.denoising_error import (
    ERROR_WEIGHTS,
    LIKELIHOOD_RANGE,
    DenoisingErrors,
    ErrorWeights,
)
from protenix_eba.training.noise import NoiseSettings
from protenix_eba.training.step import ItemStep

__all__ = ["Calibration", "calibrate", "measure_items", "moments", "read_or_measure"]

# Groups of conformers and noise levels of each half: about ten steps of a recipe.
N_ITEMS: Final = 64
N_LEVELS: Final = 32
# Stream of an item's noise here, beside those of its training and of its loader.
_STREAM: Final = 2**42


@dataclass(frozen=True)
class Calibration:
    """The slope of -log p against the denoising error.

    Attributes:
        slope: T of weights softmax(-T l).
        standard_error: Standard error of the slope, from differences between groups of conformers.
        correlation: Correlation of the two errors with their noise removed; 1 if they agree.
        n_items: B.
    """

    slope: float
    standard_error: float
    correlation: float
    n_items: int


def moments(
    halves: Sequence[DenoisingErrors], weights: ErrorWeights, noise: NoiseSettings, keep: Tensor
) -> dict[str, float]:
    """Sum over K the products of both errors' deviations from their means, free of noise.

    The two halves have the same conformers and independent noise, so that the mean of a product of
    one half's deviations and the other's holds no noise: it is the (co)variance of the means.

    Args:
        halves: Two, on `NoiseSettings.grid` levels.
        weights: Weights of the terms of the training's error l.
        noise: What levels are drawn from in training.
        keep: `[K]` conformers that count.

    Returns:
        `bound_error`, `error_error`, `bound_bound`: b is the bound on -log p.
    """
    kinds = (ERROR_WEIGHTS["likelihood"], weights)
    (b1, e1), (b2, e2) = (
        [_expectation(errors, kind, noise)[keep] for kind in kinds] for errors in halves
    )
    return {
        "bound_error": float(_product(b1, e2) + _product(b2, e1)) / 2,
        "error_error": float(_product(e1, e2)),
        "bound_bound": float(_product(b1, b2)),
    }


def _expectation(errors: DenoisingErrors, weights: ErrorWeights, noise: NoiseSettings) -> Tensor:
    """Return the mean error over the training's noise levels, from evenly spaced ones: `[K]`."""
    density = noise.density(errors.sigma).double()
    total = errors.total(weights, noise).double()
    return (total * density).sum(dim=1) / density.sum()


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum over K of the products of deviations from the mean."""
    return ((first - first.mean()) * (second - second.mean())).sum()


def calibrate(rows: Iterable[dict[str, float]]) -> Calibration:
    """Fit the slope of the bound on -log p against the training's error, within groups.

    Args:
        rows: `moments` of B groups.

    Raises:
        UserError: The errors say nothing about the bound, or too little for a number.
    """
    names = ("bound_error", "error_error", "bound_bound")
    table = np.array([[row[name] for name in names] for row in rows], dtype=np.float64)
    table = table.reshape(-1, 3)
    both, error, bound = table.sum(axis=0).tolist()
    slope = both / error if error > 0 < bound else math.nan
    residuals = table[:, 0] - slope * table[:, 1]
    standard_error = float(np.linalg.norm(residuals)) / error if error > 0 else math.nan
    if not slope > 2 * standard_error:
        raise UserError(
            "eba.diffusion_temperature: auto finds no T: on the training conformers the start's "
            f"denoising error does not rise with its bound on -log p (slope {slope:.3g}, standard "
            f"error {standard_error:.3g}, {len(table)} groups)",
            "train the start longer, compare conformers that differ more, or set a number",
        )
    return Calibration(slope, standard_error, both / math.sqrt(error * bound), len(table))


@torch.no_grad()
def measure_items(
    step: ItemStep, loader: Loader, weights: ErrorWeights, n_noise: int
) -> Calibration:
    """Measure the slope for the model of `step`, on the first groups of training conformers.

    Args:
        step: Around the start, before any engine: processes pass it independently.
        loader: Loader of the training conformers.
        weights: Weights of the terms of the training's error.
        n_noise: S of a step, passed at once here too.

    Raises:
        UserError: No slope can be found.
    """
    rank = dist.get_rank()
    mine = range(rank, N_ITEMS, dist.get_world_size())
    rows: list[dict[str, Any]] = []
    with contextlib.closing(prefetch(loader, mine)) as coming:
        for index, item in track(coming, "measuring the start", len(mine), visible=rank == 0):
            if item.problem:
                continue
            generator = loader.generator(index + _STREAM)
            halves = [_errors(step, item, n_noise, generator) for _ in range(2)]
            row = moments(halves, weights, step.noise, item.keep)
            rows.append({"index": index, **row})
    return calibrate(sorted(gather_rows(rows), key=lambda row: int(row["index"])))


def _errors(
    step: ItemStep, item: Item, n_noise: int, generator: torch.Generator
) -> DenoisingErrors:
    """Compute the errors on an item at evenly spaced noise levels, `n_noise` of them at a time."""
    levels = step.noise.grid(n_noise * math.ceil(N_LEVELS / n_noise), LIKELIHOOD_RANGE)
    parts = [step.denoise(item, generator, some).errors for some in levels.split(n_noise)]
    return DenoisingErrors(
        mse=torch.cat([part.mse for part in parts], dim=1).cpu(),
        lddt=torch.cat([part.lddt for part in parts], dim=1).cpu(),
        bond=torch.cat([part.bond for part in parts], dim=1).cpu(),
        volume=torch.cat([part.volume for part in parts], dim=1).cpu(),
        sigma=torch.cat([part.sigma for part in parts]).cpu(),
        n_atoms=parts[0].n_atoms.cpu(),
    )


def read_or_measure(path: Path, measure: Callable[[], Calibration]) -> Calibration:
    """Read the calibration from `path`, or measure and write it; all ranks get the same.

    Args:
        path: The run's `temperature.json`.
        measure: Called by all processes, or by none.

    Raises:
        UserError: The file is damaged, or `measure` finds nothing.
    """
    first = dist.get_rank() == 0
    known = from_first(read_json(path) if first and path.is_file() else None)
    if known is None:
        known = from_first(asdict(measure()))
        if first:
            write_json(path, known)
    return Calibration(**known)
