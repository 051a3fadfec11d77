"""Maps: free energy on the MD's principal axes, contacts, and all targets at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.report.plots.style import (
    MD,
    MD_LIGHT,
    Drawing,
    Targets,
    label_colours,
    small_multiples,
)
from protenix_eba.eval.results import Summary
from protenix_eba.eval.target_result import TargetResult

__all__ = ["contact_figure", "overview_figure", "plane_figure", "ramachandran_figure"]

_GRID: Final = 60
# -ln p above the minimum, in units of kT; beyond the last level there was hardly a frame.
_LEVELS: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
_FEWEST_FOR_DENSITY: Final = 10

Float64s = NDArray[np.float64]


def plane_figure(
    targets: Targets, labels: Sequence[str], key: str, axis_labels: tuple[str, str]
) -> Drawing:
    """Draw the MD's free energy on two coordinates, with each model's samples on top.

    Args:
        targets: Those with arrays `md_<key>` and `sample_<key>`, `[n, 2]`.
        labels: Models, in the order of their colours.
        key: Name of the arrays, without `md_` or `sample_`.
        axis_labels: Labels of the two axes.
    """
    colours = label_colours(labels)

    def draw(axes: Axes, results: Mapping[str, TargetResult]) -> None:
        md = np.asarray(next(iter(results.values())).arrays[f"md_{key}"], dtype=np.float64)
        points = {k: np.asarray(r.arrays[f"sample_{key}"]) for k, r in results.items()}
        _free_energy(axes, md)
        # Points are pictures even in an SVG, or thousands of them would fill the report.
        dots: dict[str, Any] = {"s": 7, "lw": 0, "alpha": 0.7, "rasterized": True}
        for label, xy in points.items():
            axes.scatter(xy[:, 0], xy[:, 1], color=colours[label], label=label, **dots)
        axes.set_aspect("equal", adjustable="datalim")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    return small_multiples(targets, draw, *axis_labels, legend=labels, panel_size=(3.3, 3.0))


def _free_energy(axes: Axes, md: Float64s) -> None:
    from scipy.stats import gaussian_kde  # takes a second to import

    dots: dict[str, Any] = {"s": 3, "lw": 0, "color": MD_LIGHT, "rasterized": True, "label": "MD"}
    axes.scatter(md[:, 0], md[:, 1], **dots)
    flat = np.linalg.matrix_rank(md - md.mean(axis=0)) < 2
    if len(md) < _FEWEST_FOR_DENSITY or flat:
        return
    low, high = md.min(axis=0), md.max(axis=0)
    margin = 0.35 * (high - low)
    x, y = (np.linspace(low[i] - margin[i], high[i] + margin[i], _GRID) for i in (0, 1))
    grid = np.stack(np.meshgrid(x, y))
    density = gaussian_kde(md.T)(grid.reshape(2, -1)).reshape(_GRID, _GRID)
    energy = -np.log(np.maximum(density / density.max(), 1e-30))
    axes.contourf(x, y, energy, levels=_LEVELS, cmap="Greys_r", vmin=-3.0, vmax=6.0, alpha=0.85)
    axes.contour(x, y, energy, levels=_LEVELS[1:], colors="white", linewidths=0.4)


def contact_figure(targets: Targets, labels: Sequence[str]) -> Drawing:
    """Draw contact probabilities: the MD above the diagonal, a model below it.

    Args:
        targets: What to draw; a panel for each target and model.
        labels: Models, in their order.
    """
    panels = {
        f"{name}, {label}" if len(labels) > 1 else name: results[label]
        for name, results in targets.items()
        for label in labels
        if label in results
    }

    def draw(axes: Axes, result: TargetResult) -> None:
        md, samples = (
            np.asarray(result.arrays[key], dtype=np.float64)
            for key in ("md_contacts", "sample_contacts")
        )
        shown = np.triu(md, 1) + np.tril(samples, -1)
        n = len(shown) + 0.5
        style: dict[str, Any] = {"cmap": "magma_r", "vmin": 0.0, "vmax": 1.0, "origin": "upper"}
        axes.imshow(shown, interpolation="none", extent=(0.5, n, n, 0.5), **style)
        # Rows count from the top: the MD's triangle is at the upper right.
        text: dict[str, Any] = {"transform": axes.transAxes, "color": MD, "fontsize": 8}
        text["bbox"] = {"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1.5}
        axes.text(0.97, 0.96, "MD", ha="right", va="top", **text)
        axes.text(0.03, 0.04, "samples", **text)
        axes.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    where = "Position in the chain"
    return small_multiples(panels, draw, where, where, panel_size=(3.0, 3.0))


def ramachandran_figure(targets: Targets, labels: Sequence[str]) -> Drawing:
    """Draw the backbone torsions' free energy over all residues: MD beside each model.

    Args:
        targets: Those with Ramachandran histograms.
        labels: Models, in their order.
    """
    panels = {}
    for name, results in targets.items():
        panels[f"{name}, MD"] = next(iter(results.values())).arrays["md_ramachandran"]
        for label in labels:
            if label in results:
                panels[f"{name}, {label}"] = results[label].arrays["sample_ramachandran"]

    def draw(axes: Axes, density: NDArray[Any]) -> None:
        energy = -np.log(np.maximum(np.asarray(density, dtype=np.float64).T, 1e-30))
        shown = np.ma.masked_greater(energy - energy.min(), 15.0)
        box = (-180.0, 180.0, -180.0, 180.0)
        axes.imshow(shown, cmap="viridis", vmin=0.0, vmax=8.0, extent=box, origin="lower")
        axes.set_xticks([-180, -90, 0, 90, 180])
        axes.set_yticks([-180, -90, 0, 90, 180])

    columns = 1 + len(labels) if len(labels) < 4 else 4
    size = (2.6, 2.6) if columns > 3 else (3.0, 3.0)
    return small_multiples(
        panels, draw, "phi (degrees)", "psi (degrees)", panel_size=size, columns=columns
    )


def overview_figure(summaries: Mapping[str, Summary], metrics: Sequence[Metric]) -> Drawing:
    """Draw every target as a dot: medians with their intervals, and the floor.

    Args:
        summaries: Label to summary, over the same targets.
        metrics: A panel for each.
    """
    labels = list(summaries)
    colours = label_colours(labels)

    def draw(axes: Axes, metric: Metric) -> None:
        for row, (label, summary) in enumerate(summaries.items()):
            values = summary.table.values.get(metric.key, np.empty(0))
            values = values[np.isfinite(values)]
            spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(values))
            dots: dict[str, Any] = {"s": 11, "lw": 0, "alpha": 0.45, "rasterized": True}
            axes.scatter(values, row + spread, color=colours[label], **dots)
            if metric.key in summary.intervals:
                axes.plot(summary.intervals[metric.key], (row, row), color=MD, lw=2.2, zorder=3)
            if metric.key in summary.values:
                axes.plot(summary.values[metric.key], row, "D", color=MD, ms=4.5, zorder=4)
            if metric.key in summary.floor:
                dashes: dict[str, Any] = {"color": MD, "lw": 1.3, "ls": (0, (2, 1))}
                axes.vlines(summary.floor[metric.key], row - 0.42, row + 0.42, **dashes)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_yticks(range(len(labels)), labels)
        axes.xaxis.set_major_locator(MaxNLocator(4))

    items = {m.label + (f" ({m.unit})" if m.unit else ""): m for m in metrics}
    height = 0.9 + 0.35 * len(labels)
    return small_multiples(items, draw, "", "", panel_size=(3.3, height))
