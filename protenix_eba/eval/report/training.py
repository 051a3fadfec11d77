"""Figures of the training runs that made the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.findings import read_curve
from protenix_eba.eval.report.plots.training import REPLAY_COLUMNS, loss_figure, replay_figure

__all__ = ["training_figures"]

_REPLAY: Final = (
    "The model's own samples at each refresh of the replay buffer, means over its targets. "
    "Energies after minimisation; RMSF and the effective number of clusters against those of the "
    "first refresh; coverage is the share of the reference whose clusters are visited."
)


def training_figures(runs: Mapping[str, Path]) -> list[Figure]:
    """Draw the losses of runs, and the samples of those that were trained on their own.

    Args:
        runs: Label of a model to the folder of its training run.

    Raises:
        UserError: A table of a run is missing or damaged.
    """
    losses = {label: read_curve(folder / "log.csv") for label, folder in runs.items()}
    tables = {label: folder / "replay.csv" for label, folder in runs.items()}
    replays = {label: read_curve(path) for label, path in tables.items() if path.is_file()}
    drawn = {label: table for label, table in replays.items() if _has_any(table)}
    figures = []
    if losses:
        caption = "Loss at each training step. The series have scales of their own."
        figures.append(Figure("training", "Training", caption, loss_figure(losses)))
    if drawn:
        figures.append(Figure("replay", "Own samples", _REPLAY, replay_figure(drawn)))
    return figures


def _has_any(table: Mapping[str, Sequence[float]]) -> bool:
    """Tell whether a number is known of any refresh: there may be none yet."""
    return any(np.isfinite(table.get(column, ())).any() for column in REPLAY_COLUMNS)
