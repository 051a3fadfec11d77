"""Free energies along one coordinate, of models and of MD."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.coordinate import Interval, Sample, free_energy_kT
from protenix_eba.eval.report.plots.style import (
    MD,
    MD_LIGHT,
    Drawing,
    label_colours,
    small_multiples,
)

__all__ = ["profile_figure", "shifts_figure"]

Floats = NDArray[np.floating]

# More models than colours: those of the next rounds have other markers.
_MARKERS: Final = ("o", "s", "^", "v")


def profile_figure(
    systems: Mapping[str, Mapping[str, Sample]], bin_angstrom: float = 1.0
) -> Drawing:
    """Draw free energies along the distance, with their 95% bootstrap intervals.

    Args:
        systems: A panel's title to its ensembles: title to an ensemble in blocks. Ensembles are the
            same in all panels; those whose titles begin with "MD" are drawn in grey.
        bin_angstrom: Width of a bin.
    """
    everything = [sample for ensembles in systems.values() for sample in ensembles.values()]
    highest = max(float(np.concatenate(list(sample)).max()) for sample in everything)
    edges = np.arange(2.0, highest + bin_angstrom, bin_angstrom)
    first = next(iter(systems.values()))
    models = label_colours([title for title in first if not title.startswith("MD")])

    def draw(axes: Any, sample_of: Mapping[str, Sample]) -> None:
        greys = iter((MD_LIGHT, MD))
        for title, sample in sample_of.items():
            colour = models.get(title) or next(greys)
            value, low, high = _profile(sample, edges)
            centres = (edges[1:] + edges[:-1]) / 2
            axes.plot(centres, value, color=colour, label=title)
            axes.fill_between(centres, low, high, color=colour, alpha=0.2, linewidth=0)
        if sample_of is first:
            axes.legend(loc="best")

    return small_multiples(
        systems, draw, "distance of the ends, Å", "free energy, kT", panel_size=(4.0, 2.8)
    )


def shifts_figure(shifts: Mapping[str, tuple[Interval, ...]]) -> Drawing:
    """Draw the shifts of log-odds in samples against those that the errors imply.

    Args:
        shifts: Title to the shift by the errors and that of the samples.
    """
    colours = label_colours(list(shifts))

    def draw(axes: Any, points: Mapping[str, tuple[Interval, ...]]) -> None:
        for number, (title, (implied, sampled, *_)) in enumerate(points.items()):
            style = {"color": colours[title], "marker": _MARKERS[number // 6 % len(_MARKERS)]}
            bars = {
                f"{name}err": [[one.value - one.low], [one.high - one.value]]
                for name, one in (("x", implied), ("y", sampled))
            }
            axes.errorbar(implied.value, sampled.value, linestyle="", label=title, **style, **bars)
        axes.axline((0.0, 0.0), slope=1.0, color=MD_LIGHT, zorder=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))

    return small_multiples(
        {"": shifts}, draw, "shift by the errors", "shift of the samples", panel_size=(5.0, 3.6)
    )


def _profile(sample: Sample, edges: Floats) -> tuple[Floats, Floats, Floats]:
    """Return free energy and the ends of its interval; NaN in bins that are empty."""
    draw = np.random.default_rng(0)
    n = len(sample)
    again = (np.concatenate([sample[i] for i in draw.integers(n, size=n)]) for _ in range(200))
    made = np.array([free_energy_kT(one, edges) for one in again])
    made[np.isinf(made)] = np.nan
    value = free_energy_kT(np.concatenate(list(sample)), edges)
    with warnings.catch_warnings():  # bins that are empty each time stay NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(made, (0.025, 0.975), axis=0)
    value[np.isinf(value)] = np.nan
    return value, low, high
