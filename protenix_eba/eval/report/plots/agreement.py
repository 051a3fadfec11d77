"""Computed beside measured values, with the errors of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from protenix_eba.eval.report.plots.style import MD_LIGHT, Drawing, label_colours, small_multiples

__all__ = ["Pairs", "agreement_figure"]

_N_NAMED: Final = 3
_COLOUR: Final = label_colours(["first", "computed"])["computed"]

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Pairs:
    """Values that were measured, and computed from an ensemble.

    Attributes:
        names: `n` names.
        measured: `[n]`.
        computed: `[n]`.
        badness: `[n]` how far they disagree, in whatever measure; the worst are named.
        error: `[n]` standard deviations of `measured`; None where they are not known.
        interval: `[2, n]` lower and upper ends for `computed`; None where there are none.
    """

    names: Sequence[str]
    measured: Floats
    computed: Floats
    badness: Floats
    error: Floats | None = None
    interval: Floats | None = None


def agreement_figure(panels: Mapping[str, Pairs], x_label: str, y_label: str) -> Drawing:
    """Draw computed against measured values with the diagonal, and name the three worst.

    Args:
        panels: Title to the values of one panel, which have one unit.
        x_label: Label of the measured values.
        y_label: Label of the computed ones.
    """
    return small_multiples(panels, _draw, x_label, y_label, panel_size=(3.0, 3.0))


def _draw(axes: Axes, pairs: Pairs) -> None:
    bars = None
    if pairs.interval is not None:
        # A percentile interval need not hold the value itself.
        ends = pairs.interval - pairs.computed
        bars = np.maximum([-ends[0], ends[1]], 0.0)
    axes.errorbar(
        pairs.measured, pairs.computed, bars, pairs.error, fmt="o", markersize=3.5, color=_COLOUR,
        ecolor=MD_LIGHT, elinewidth=0.9,
    )  # fmt: skip
    axes.axline((float(pairs.measured[0]),) * 2, slope=1.0, color="#888888", linewidth=0.8)
    for n in np.argsort(-pairs.badness)[:_N_NAMED]:
        at = float(pairs.measured[n]), float(pairs.computed[n])
        axes.annotate(
            pairs.names[n], at, xytext=(5, 4), textcoords="offset points", fontsize=7, color="#444"
        )
    axes.margins(0.15)
    axes.set_aspect("equal", adjustable="datalim")
