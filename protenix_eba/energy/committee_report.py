"""How several energies of the same frames agree: rank correlations, and the frames that count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from protenix_eba.core.files import atomic_path
from protenix_eba.energy.boltzmann import TEMPERATURE_K, effective_number
from protenix_eba.energy.committee import energies_by_name
from protenix_eba.energy.table import EnergyLabels

__all__ = ["Agreement", "agreement", "agreement_cells", "agreement_lines", "headings", "plot_ranks"]


class Agreement(NamedTuple):
    """One energy of a target, beside the others.

    Attributes:
        target: The target.
        name: The energy.
        n_ok: Rows that can be trained on.
        spread_kj_mol: Standard deviation of the energy; NaN for fewer than two rows.
        effective_number: exp(entropy) of the weights exp(-E / (kT sqrt(N_residues))) at 300 K.
        ranks: Spearman's rank correlation with each energy, itself as well, on the rows that are
            ok in both; NaN where that is not defined.
    """

    target: str
    name: str
    n_ok: int
    spread_kj_mol: float
    effective_number: float
    ranks: tuple[float, ...]


def agreement(labels: EnergyLabels) -> list[Agreement]:
    """Compare the energies of a table, target by target; none for a table of one."""
    energies = energies_by_name(labels)
    if len(energies) < 2:
        return []
    rows = []
    for target in labels.targets:
        parts = {name: table.for_target(target) for name, table in energies.items()}
        for name, part in parts.items():
            ok = part.select(part.ok)
            energy = ok.energy_kj_mol
            spread = float(np.std(energy, ddof=1)) if len(ok) > 1 else math.nan
            n = effective_number(energy, ok.n_residues)
            ranks = tuple(_rank(part, other) for other in parts.values())
            rows.append(Agreement(target, name, len(ok), spread, n, ranks))
    return rows


def _rank(first: EnergyLabels, second: EnergyLabels) -> float:
    both = first.ok & second.ok
    a, b = first.energy_kj_mol[both], second.energy_kj_mol[both]
    if min(len(np.unique(a)), len(np.unique(b))) < 2:
        return math.nan
    return float(spearmanr(a, b).statistic)


def headings(rows: Sequence[Agreement]) -> tuple[str, ...]:
    """Return the headings of `agreement_cells`; energies are numbered, as their names are long."""
    numbers = (str(number + 1) for number in range(len(rows[0].ranks)))
    return ("target", "energy", "ok", "spread (kJ/mol)", "effective n", *numbers)


def agreement_cells(rows: Sequence[Agreement]) -> list[list[str]]:
    """Return the rows as text, with a dash where a number does not exist."""
    n = len(rows[0].ranks)
    return [
        [
            row.target,
            f"{number % n + 1} {row.name}",
            str(row.n_ok),
            *(_text(row.spread_kj_mol, 1), _text(row.effective_number, 1)),
            *(_text(rank, 2) for rank in row.ranks),
        ]
        for number, row in enumerate(rows)
    ]


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def agreement_lines(rows: Sequence[Agreement]) -> list[str]:
    """Return the table as Markdown."""
    cells = [headings(rows), ["---"] * len(headings(rows)), *agreement_cells(rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def plot_ranks(path: Path, rows: Sequence[Agreement]) -> None:
    """Plot for each target the matrix of rank correlations, with effective numbers at its side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(rows[0].ranks)
    targets = [rows[start : start + n] for start in range(0, len(rows), n)]
    columns = min(len(targets), 4)
    height = math.ceil(len(targets) / columns)
    size = (1.5 + (1.2 + 0.5 * n) * columns, (1.4 + 0.5 * n) * height)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(height, columns, squeeze=False)
    for axes in grid.flat[len(targets) :]:
        axes.remove()
    for place, (axes, mine) in enumerate(zip(grid.flat, targets, strict=False)):
        names = [row.name if place % columns == 0 else "" for row in mine]
        _matrix(axes, mine, names)
    figure.suptitle(
        "Rank correlation of energies; right: effective number of conformers at "
        f"{TEMPERATURE_K:.0f} K",
        fontsize="small",
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _matrix(axes: Any, rows: Sequence[Agreement], names: Sequence[str]) -> None:
    ranks: NDArray[np.float64] = np.array([row.ranks for row in rows])
    axes.imshow(ranks, vmin=-1, vmax=1, cmap="RdBu")
    for (y, x), rank in np.ndenumerate(ranks):
        color = "white" if abs(rank) > 0.6 else "black"
        axes.text(x, y, _text(rank, 2), ha="center", va="center", fontsize="x-small", color=color)
    axes.set_xticks(range(len(rows)), [row.name for row in rows], rotation=90, fontsize="small")
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.set_title(rows[0].target, fontsize="small")
    for y, row in enumerate(rows):
        text = f"{_text(row.effective_number, 0)} of {row.n_ok}"
        axes.text(len(rows) - 0.4, y, text, va="center", fontsize="x-small")
