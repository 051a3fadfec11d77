"""The common look of all figures, safe for colour-blind readers and for print.

Drawn with matplotlib's objects, without pyplot, so that no global state is touched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from protenix_eba.eval.target_result import TargetResult

__all__ = [
    "MD",
    "MD_LIGHT",
    "Drawing",
    "Targets",
    "label_colours",
    "positions",
    "small_multiples",
]

# Target to label to result: what a figure shows.
Targets = Mapping[str, Mapping[str, TargetResult]]

# Okabe and Ito (2008), the yellow left out: too light for lines on white.
_PALETTE: Final = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# One or two panels have room to be larger.
_ENLARGED: Final = {1: 1.6, 2: 1.3}
MD: Final = "#3a3a3a"
MD_LIGHT: Final = "#b8bcc2"
_STYLE: Final[dict[str, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "protenix-eba",
    "savefig.dpi": 150,
}


@dataclass(frozen=True)
class Drawing:
    """A figure in both formats; the same data give the same bytes.

    Attributes:
        svg: The drawing as SVG, for the report and for print.
        png: The drawing as PNG, for slides.
    """

    svg: bytes
    png: bytes


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """Return one colour for each model, the same in all figures."""
    return {label: _PALETTE[i % len(_PALETTE)] for i, label in enumerate(labels)}


def positions(result: TargetResult) -> NDArray[np.int64]:
    """Return residue numbers `[L]`, or a count where chains have numbers in common."""
    numbers = np.asarray(result.arrays["residue_numbers"], dtype=np.int64)
    return numbers if bool((np.diff(numbers) > 0).all()) else np.arange(1, len(numbers) + 1)


def small_multiples(
    items: Mapping[str, Any],
    draw: Callable[[Axes, Any], None],
    x_label: str,
    y_label: str,
    *,
    legend: Sequence[str] = (),
    panel_size: tuple[float, float] = (3.3, 2.5),
    columns: int = 3,
) -> Drawing:
    """Draw a panel for each item.

    Args:
        items: Title to what `draw` gets.
        draw: Draws one panel.
        x_label: Label of all horizontal axes.
        y_label: Label of all vertical axes.
        legend: Models in their order; what else has a label stands before them.
        panel_size: Width and height of one panel, inches.
        columns: Largest number of columns.

    Raises:
        ValueError: No items.
    """
    if not items:
        raise ValueError("expected at least one panel to draw, got none")
    n_columns = min(len(items), 2 if len(items) == 4 and columns == 3 else columns)
    n_rows = -(-len(items) // n_columns)
    enlarged = _ENLARGED.get(len(items), 1.0)
    width, height = (enlarged * side for side in panel_size)
    with matplotlib.rc_context(_STYLE):
        size = (width * n_columns, height * n_rows + 0.35 * bool(legend))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for axes, (name, item) in zip(grid, items.items(), strict=False):
            draw(axes, item)
            axes.set_title(name)
        for axes in grid[len(items) :]:
            axes.remove()
        figure.supxlabel(x_label, fontsize=9.5, color="#222222")
        figure.supylabel(y_label, fontsize=9.5, color="#222222")
        if legend:
            _shared_legend(figure, legend)
        svg = _encode(figure, "svg")
        figure.set_layout_engine("none")  # what was laid out once need not be again
        return Drawing(svg, _encode(figure, "png"))


def _shared_legend(figure: Figure, labels: Sequence[str]) -> None:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    # MD first, then the models in their order, whichever panel has them.
    order = [text for text in entries if text not in labels]
    order += [label for label in labels if label in entries]
    columns = max(1, min(len(entries), int(figure.get_figwidth() / 1.6)))
    figure.legend(
        [entries[text] for text in order],
        order,
        loc="outside upper left",
        ncols=columns,
        markerscale=1.6,
    )


def _encode(figure: Figure, fmt: str) -> bytes:
    buffer = io.BytesIO()
    # Without the date the same data give the same bytes.
    metadata = {"Date": None} if fmt == "svg" else None
    figure.savefig(buffer, format=fmt, metadata=metadata, facecolor="white")
    return buffer.getvalue()
