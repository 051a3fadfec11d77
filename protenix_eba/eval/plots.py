"""Figures of a report: small multiples by target, safe for colour-blind readers and for print.

Drawn with matplotlib's objects, without pyplot, so that no global state is touched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from protenix_eba.eval.energies import effective_sample_size
from protenix_eba.eval.results import Profile

__all__ = [
    "MAX_PANELS",
    "energy_figure",
    "label_colours",
    "loss_figure",
    "pca_figure",
    "rmsf_figure",
]

Format = Literal["svg", "png"]

# More small multiples than this are no longer read; the tables hold every target.
MAX_PANELS: Final = 24
# Okabe and Ito (2008), the yellow left out: too light for lines on white.
_PALETTE: Final = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MD: Final = "#3a3a3a"
_MD_LIGHT: Final = "#b8bcc2"
_FEW_RESIDUES: Final = 25
_N_BINS: Final = 24
_N_SMOOTH: Final = 25
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
    "savefig.dpi": 180,
}


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """One colour for each ensemble, the same in all figures."""
    return {label: _PALETTE[i % len(_PALETTE)] for i, label in enumerate(labels)}


def rmsf_figure(
    profiles: Mapping[str, Profile], labels: Sequence[str], fmt: Format = "svg"
) -> bytes:
    """C-alpha RMSF by residue: MD with the band of its replicas, and each ensemble.

    Args:
        profiles: Target to profile; the first `MAX_PANELS` are drawn.
        labels: Ensembles, in the order of their colours.
        fmt: "svg" or "png".
    """
    colours = label_colours(labels)

    def draw(axes: Axes, profile: Profile) -> None:
        x = _positions(profile.residue_numbers)
        marker = "o" if len(x) <= _FEW_RESIDUES else ""
        axes.fill_between(x, *profile.md_rmsf_band, color=_MD_LIGHT, lw=0, label="MD, replicas")
        axes.plot(x, profile.md_rmsf, color=_MD, marker=marker, ms=4, label="MD")
        for label in labels:
            if label in profile.sample_rmsf:
                numbers, rmsf = profile.sample_rmsf[label]
                style: dict[str, Any] = {"color": colours[label], "marker": marker, "ms": 4}
                axes.plot(_positions(numbers), rmsf, label=label, **style)
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    return _by_target(profiles, labels, draw, "Residue", "C-alpha RMSF (Å)", fmt)


def energy_figure(
    profiles: Mapping[str, Profile], labels: Sequence[str], fmt: Format = "svg"
) -> bytes:
    """Distributions of minimised energies: MD, MD with Boltzmann weights, and each ensemble.

    The outermost bins collect what lies beyond them.

    Args:
        profiles: Target to profile, those with MD energies.
        labels: Ensembles, in the order of their colours.
        fmt: "svg" or "png".
    """
    colours = label_colours(labels)

    def draw(axes: Axes, profile: Profile) -> None:
        zero = float(profile.md_energy.mean())
        samples = {k: profile.sample_energy[k] - zero for k in labels if k in profile.sample_energy}
        md = profile.md_energy - zero
        edges = _energy_bins([md, *samples.values()])
        inside = np.clip(md, edges[0], edges[-1])
        axes.hist(inside, edges.tolist(), density=True, color=_MD_LIGHT, label="MD")
        weighted = np.histogram(inside, edges, density=True, weights=profile.md_weights)[0]
        dashes: dict[str, Any] = {"ls": (0, (3, 1.5)), "color": _MD, "lw": 1.4}
        axes.plot(*_outline(edges, weighted), label="MD, Boltzmann-weighted", **dashes)
        for label, energy in samples.items():
            density = np.histogram(np.clip(energy, edges[0], edges[-1]), edges, density=True)[0]
            axes.plot(*_outline(edges, density), color=colours[label], lw=1.8, label=label)
        size = effective_sample_size(profile.md_weights)
        axes.set_title(
            f"effective MD frames: {size:.0f}", loc="right", fontsize=8, fontweight="normal"
        )
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(6))

    known = {name: p for name, p in profiles.items() if len(p.md_energy)}
    return _by_target(
        known, labels, draw, "Energy above the MD mean (kJ/mol)", "Density (mol/kJ)", fmt
    )


def _outline(
    edges: NDArray[np.float64], density: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Corners of the bars: a line makes a better legend than the box of a step histogram.
    return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(density, 2), [0.0]])


def _energy_bins(energies: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    low = min(float(np.percentile(energy, 0.5)) for energy in energies)
    high = max(float(np.percentile(energy, 98.0)) for energy in energies)
    margin = 0.05 * max(high - low, 1e-3)
    return np.linspace(low - margin, high + margin, _N_BINS + 1)


def pca_figure(
    profiles: Mapping[str, Profile], labels: Sequence[str], fmt: Format = "svg"
) -> bytes:
    """MD and each ensemble on the first two principal components of the MD.

    Args:
        profiles: Target to profile; the first `MAX_PANELS` are drawn.
        labels: Ensembles, in the order of their colours.
        fmt: "svg" or "png".
    """
    colours = label_colours(labels)

    def draw(axes: Axes, profile: Profile) -> None:
        # Points are pictures even in an SVG, or thousands of them would fill the report.
        dots: dict[str, Any] = {"lw": 0, "rasterized": True}
        md = profile.md_pca
        axes.scatter(md[:, 0], md[:, 1], s=7, color=_MD_LIGHT, label="MD", **dots)
        for label in labels:
            if label in profile.sample_pca:
                points = profile.sample_pca[label]
                style: dict[str, Any] = {"color": colours[label], "alpha": 0.55, **dots}
                axes.scatter(points[:, 0], points[:, 1], s=10, label=label, **style)
        axes.set_aspect("equal", adjustable="datalim")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    return _by_target(profiles, labels, draw, "PC1 (Å)", "PC2 (Å)", fmt, panel_size=(3.3, 3.0))


def loss_figure(losses: Sequence[Mapping[str, Any]], fmt: Format = "svg") -> bytes:
    """Training losses, a panel for each series: their scales cannot be compared.

    Args:
        losses: Mappings with `name`, `step` `[n]` and `loss` `[n]`; values that are not finite
            are left out.
        fmt: "svg" or "png".
    """
    colours = label_colours([str(series["name"]) for series in losses])

    def draw(axes: Axes, series: Mapping[str, Any]) -> None:
        loss = np.asarray(series["loss"], dtype=np.float64)
        step = np.asarray(series["step"], dtype=np.float64)[np.isfinite(loss)]
        loss = loss[np.isfinite(loss)]
        colour = colours[str(series["name"])]
        window = max(len(loss) // _N_SMOOTH, 1)
        axes.plot(step, loss, color=colour, alpha=0.3 if window > 1 else 1.0, lw=1.0)
        if window > 1:
            smooth = np.convolve(loss, np.full(window, 1.0 / window), mode="valid")
            axes.plot(step[window - 1 :], smooth, color=colour, lw=2.0)
            axes.set_title(f"mean of {window} steps", loc="right", fontsize=8, fontweight="normal")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    by_name = {str(series["name"]): series for series in losses}
    return _small_multiples(by_name, draw, "Step", "Loss", fmt, (3.3, 2.5), legend=None)


def _positions(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    # With several chains residue numbers repeat: count along the chains instead.
    return numbers if bool((np.diff(numbers) > 0).all()) else np.arange(1, len(numbers) + 1)


def _by_target(
    profiles: Mapping[str, Profile],
    labels: Sequence[str],
    draw: Callable[[Axes, Profile], None],
    x_label: str,
    y_label: str,
    fmt: Format,
    panel_size: tuple[float, float] = (3.3, 2.5),
) -> bytes:
    shown = dict(list(profiles.items())[:MAX_PANELS])
    return _small_multiples(shown, draw, x_label, y_label, fmt, panel_size, legend=labels)


def _small_multiples(
    items: Mapping[str, Any],
    draw: Callable[[Axes, Any], None],
    x_label: str,
    y_label: str,
    fmt: Format,
    panel_size: tuple[float, float],
    *,
    legend: Sequence[str] | None,
) -> bytes:
    if not items:
        raise ValueError("expected at least one panel to draw, got none")
    n_columns = min(len(items), 2 if len(items) == 4 else 3)
    n_rows = -(-len(items) // n_columns)
    with matplotlib.rc_context(_STYLE):
        size = (panel_size[0] * n_columns, panel_size[1] * n_rows + 0.35 * bool(legend))
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
        return _encode(figure, fmt)


def _shared_legend(figure: Figure, labels: Sequence[str]) -> None:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    # MD first, then the ensembles in their order, whichever panel has them.
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


def _encode(figure: Figure, fmt: Format) -> bytes:
    buffer = io.BytesIO()
    # Without the date the same data give the same bytes.
    metadata = {"Date": None} if fmt == "svg" else None
    figure.savefig(buffer, format=fmt, metadata=metadata, facecolor="white")
    return buffer.getvalue()
