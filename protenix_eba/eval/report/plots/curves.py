"""Curves and histograms, a panel for each target: fluctuations, exposure, energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from protenix_eba.eval.metrics.energies import effective_sample_size
from protenix_eba.eval.report.plots.style import (
    MD,
    MD_LIGHT,
    Drawing,
    Targets,
    label_colours,
    positions,
    small_multiples,
)
from protenix_eba.eval.target_result import TargetResult

__all__ = [
    "distribution_figure",
    "energy_figure",
    "exposure_figure",
    "profile_figure",
    "rmsf_figure",
]

_FEW_RESIDUES: Final = 25
_N_BINS: Final = 24

Float64s = NDArray[np.float64]
Results = Mapping[str, TargetResult]


def rmsf_figure(targets: Targets, labels: Sequence[str]) -> Drawing:
    """Draw the C-alpha RMSF by residue: MD with the band of its replicas, and each model.

    Args:
        targets: What to draw.
        labels: Models, in the order of their colours.
    """
    colours = label_colours(labels)

    def draw(axes: Axes, results: Results) -> None:
        first = next(iter(results.values()))
        x, single = positions(first), first.arrays["md_ca_rmsf_replicas"]
        style: dict[str, Any] = {"marker": "o" if len(x) <= _FEW_RESIDUES else "", "ms": 4}
        if len(single) > 1:
            band = (single.min(axis=0), single.max(axis=0))
            axes.fill_between(x, *band, color=MD_LIGHT, lw=0, label="MD, replicas")
        axes.plot(x, first.arrays["md_ca_rmsf"], color=MD, label="MD", **style)
        for label, result in results.items():
            y = result.arrays["sample_ca_rmsf"]
            axes.plot(positions(result), y, color=colours[label], label=label, **style)
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return small_multiples(targets, draw, "Residue", "C-alpha RMSF (Å)", legend=labels)


def exposure_figure(targets: Targets, labels: Sequence[str]) -> Drawing:
    """Draw how often side chains buried in the structure become exposed, by residue.

    Args:
        targets: Those with exposures.
        labels: Models, in the order of their colours.
    """
    colours = label_colours(labels)

    def draw(axes: Axes, results: Results) -> None:
        first = next(iter(results.values()))
        x, buried = positions(first), ~first.arrays["structure_exposed"].astype(bool)
        md = np.asarray(first.arrays["md_exposed"], dtype=np.float64)
        axes.vlines(x[buried], 0.0, md[buried], lw=3.0, color=MD_LIGHT, label="MD")
        for label, result in results.items():
            x, buried = positions(result), ~result.arrays["structure_exposed"].astype(bool)
            y = np.asarray(result.arrays["sample_exposed"], dtype=np.float64)
            style: dict[str, Any] = {"marker": "o", "ms": 3, "ls": "", "alpha": 0.8}
            axes.plot(x[buried], y[buried], color=colours[label], label=label, **style)
        axes.axhline(0.1, color=MD, lw=0.8, ls=(0, (4, 3)))
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return small_multiples(targets, draw, "Residue", "Probability of exposure", legend=labels)


def profile_figure(targets: Targets, labels: Sequence[str], key: str, y_label: str) -> Drawing:
    """Draw a fraction by residue: MD, and each model.

    Args:
        targets: Those with arrays `md_<key>` and `sample_<key>`, `[L]`.
        labels: Models, in the order of their colours.
        key: Name of the arrays, without `md_` or `sample_`.
        y_label: Label of the vertical axis.
    """
    colours = label_colours(labels)

    def draw(axes: Axes, results: Results) -> None:
        first = next(iter(results.values()))
        md = np.nan_to_num(np.asarray(first.arrays[f"md_{key}"], dtype=np.float64))
        axes.fill_between(positions(first), md, step="mid", color=MD_LIGHT, lw=0, label="MD")
        for label, result in results.items():
            y = np.asarray(result.arrays[f"sample_{key}"], dtype=np.float64)
            axes.step(positions(result), y, where="mid", lw=1.3, color=colours[label], label=label)
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return small_multiples(targets, draw, "Residue", y_label, legend=labels, panel_size=(3.3, 2.0))


def distribution_figure(targets: Targets, labels: Sequence[str], key: str, name: str) -> Drawing:
    """Draw histograms of one quantity: MD, and each model.

    Args:
        targets: Those with arrays `md_<key>` and `sample_<key>`.
        labels: Models, in the order of their colours.
        key: Name of the arrays, without `md_` or `sample_`.
        name: Name of the quantity with its unit, for the axis.
    """
    colours = label_colours(labels)

    def draw(axes: Axes, results: Results) -> None:
        md = _finite(next(iter(results.values())).arrays[f"md_{key}"])
        samples = {label: _finite(r.arrays[f"sample_{key}"]) for label, r in results.items()}
        edges = _bins([md, *samples.values()], 0.5, 99.5)
        axes.hist(_inside(md, edges), edges.tolist(), density=True, color=MD_LIGHT, label="MD")
        for label, values in samples.items():
            density = np.histogram(_inside(values, edges), edges, density=True)[0]
            axes.plot(*_outline(edges, density), color=colours[label], lw=1.6, label=label)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return small_multiples(targets, draw, name, "Density", legend=labels, panel_size=(3.3, 2.1))


def energy_figure(targets: Targets, labels: Sequence[str]) -> Drawing:
    """Draw minimised energies: MD, MD with Boltzmann weights, and each model.

    The outermost bins collect what lies beyond them.

    Args:
        targets: Those with MD energies.
        labels: Models, in the order of their colours.
    """
    colours = label_colours(labels)

    def draw(axes: Axes, results: Results) -> None:
        first = next(iter(results.values()))
        md, weights = (_finite(first.arrays[key]) for key in ("md_energy", "md_weights"))
        zero = float(md.mean())
        samples = {
            label: _finite(result.arrays["sample_energy"]) - zero
            for label, result in results.items()
            if "sample_energy" in result.arrays
        }
        edges = _bins([md - zero, *samples.values()], 0.5, 98.0)
        inside = _inside(md - zero, edges)
        axes.hist(inside, edges.tolist(), density=True, color=MD_LIGHT, label="MD")
        weighted = np.histogram(inside, edges, density=True, weights=weights)[0]
        dashes: dict[str, Any] = {"ls": (0, (3, 1.5)), "color": MD, "lw": 1.4}
        axes.plot(*_outline(edges, weighted), label="MD, Boltzmann-weighted", **dashes)
        for label, energy in samples.items():
            density = np.histogram(_inside(energy, edges), edges, density=True)[0]
            axes.plot(*_outline(edges, density), color=colours[label], lw=1.8, label=label)
        note = f"effective MD frames: {effective_sample_size(weights):.0f}"
        axes.set_title(note, loc="right", fontsize=8, fontweight="normal")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(6))

    x_label, y_label = "Energy above the MD mean (kJ/mol)", "Density (mol/kJ)"
    return small_multiples(targets, draw, x_label, y_label, legend=labels)


def _finite(values: NDArray[Any]) -> Float64s:
    values = np.asarray(values, dtype=np.float64).ravel()
    return values[np.isfinite(values)]


def _inside(values: Float64s, edges: Float64s) -> Float64s:
    return np.clip(values, edges[0], edges[-1])


def _outline(edges: Float64s, density: Float64s) -> tuple[Float64s, Float64s]:
    # Corners of the bars: a line makes a better legend than the box of a step histogram.
    return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(density, 2), [0.0]])


def _bins(values: Sequence[Float64s], lowest: float, highest: float) -> Float64s:
    filled = [side for side in values if len(side)] or [np.zeros(1)]
    low = min(float(np.percentile(side, lowest)) for side in filled)
    high = max(float(np.percentile(side, highest)) for side in filled)
    margin = 0.05 * max(high - low, 1e-3)
    return np.linspace(low - margin, high + margin, _N_BINS + 1)
