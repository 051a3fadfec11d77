"""Curves of training runs: losses, and the samples that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from protenix_eba.eval.report.plots.style import Drawing, label_colours, small_multiples

__all__ = ["REPLAY_COLUMNS", "loss_figure", "replay_figure"]

_N_SMOOTH: Final = 25
_SHARES: Final = ("valid", "coverage")
REPLAY_COLUMNS: Final = {
    "valid": "Valid, share",
    "above_first_kj_mol": "Energy above the first, kJ/mol",
    "moved_angstrom": "Moved by minimisation, Å",
    "rmsf_ratio": "RMSF, of the first",
    "clusters_ratio": "Clusters, of the first",
    "coverage": "Coverage",
}

Float64s = NDArray[np.float64]
Table = Mapping[str, Sequence[float]]


def loss_figure(losses: Mapping[str, Table]) -> Drawing:
    """Draw training losses, a panel for each series: their scales cannot be compared.

    Args:
        losses: Label to `step` `[n]` and `loss` `[n]`; values that are not finite are left out.
    """
    colours = label_colours(list(losses))

    def draw(axes: Axes, label: str) -> None:
        step, loss = _series(losses[label], "loss")
        window = max(len(loss) // _N_SMOOTH, 1)
        axes.plot(step, loss, color=colours[label], alpha=0.3 if window > 1 else 1.0, lw=1.0)
        if window > 1:
            smooth = np.convolve(loss, np.full(window, 1.0 / window), mode="valid")
            axes.plot(step[window - 1 :], smooth, color=colours[label], lw=2.0)
            axes.set_title(f"mean of {window} steps", loc="right", fontsize=8, fontweight="normal")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return small_multiples({label: label for label in losses}, draw, "Step", "Loss")


def replay_figure(replays: Mapping[str, Table]) -> Drawing:
    """Draw how a model's own samples change while it is trained on them, a panel for each number.

    Args:
        replays: Label to the columns of its `replay.csv`, `[refreshes]` each; values that are not
            finite are left out.
    """
    colours = label_colours(list(replays))

    def draw(axes: Axes, column: str) -> None:
        for label, table in replays.items():
            axes.plot(*_series(table, column), "o-", ms=3, color=colours[label], label=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if column in _SHARES:
            axes.set_ylim(-0.05, 1.05)

    shown = {
        title: column
        for column, title in REPLAY_COLUMNS.items()
        if any(len(_series(table, column)[0]) for table in replays.values())
    }
    return small_multiples(shown, draw, "Step", "", legend=list(replays))


def _series(table: Table, column: str) -> tuple[Float64s, Float64s]:
    """Return steps and values of a column where these are finite; none if there is no column."""
    values = np.asarray(table.get(column, []), dtype=np.float64)
    kept = np.isfinite(values)
    return np.asarray(table["step"], dtype=np.float64)[: len(kept)][kept], values[kept]
