"""The suite `saxs`: the scattering curve of an ensemble beside a measured one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from matplotlib.axes import Axes

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.eval.experiment.groups import groups_of
from protenix_eba.eval.experiment.saxs import (
    Curve,
    Fit,
    fit_curve,
    open_shares,
    partial_curves,
    read_curve,
)
from protenix_eba.eval.metrics.energies import effective_sample_size
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.style import small_multiples
from protenix_eba.eval.suites.ensembles import bootstrap_interval, coordinates
from protenix_eba.eval.suites.registry import Float64s, Outcome, Request, Suite, Value, by_target

__all__ = ["SAXS", "SaxsSettings"]

# Each draw is a fit of 1,281 pairs of c1 and c2.
_RESAMPLES: Final = 20
_MOST_POINTS: Final = 200


@dataclass(frozen=True)
class SaxsSettings:
    """Settings that `--set` changes.

    Attributes:
        per_nm: Whether q is in 1 / nm in the file.
        q_max: Points beyond are left out, 1 / angstrom.
        background: Whether a constant background is fitted.
    """

    per_nm: bool = False
    q_max: float = 0.5
    background: bool = False


def _find_curve(reference: Path, target: str) -> Path:
    if reference.is_file():
        return reference
    found = [p for p in sorted(reference.iterdir()) if p.name.partition(".")[0] == target]
    if len(found) != 1:
        raise UserError(
            f"target {target}: {len(found)} curves called {target}.* in {reference}",
            "one file NAME.dat for each target, or one file for one target",
        )
    return found[0]


def _partials(request: Request, name: str, q: Float64s) -> Float64s:
    """Return the partial curves of each conformation, `[S, 3, 3, Q]`."""
    source = request.samples[name]
    atoms, groups = groups_of(source.topology)
    topology = source.topology.subset(atoms)
    found = []
    for xyz in coordinates(source, atoms):
        frame = mdtraj.Trajectory(xyz[None] / ANGSTROM_PER_NM, topology)
        found.append(partial_curves(xyz, groups, q, open_shares(frame)))
    return np.array(found)


def _thinned(curve: Curve) -> Curve:
    """Return evenly chosen points of a curve, since neighbours say the same."""
    rows = np.unique(np.linspace(0, len(curve.q) - 1, _MOST_POINTS).astype(int))
    return Curve(curve.q[rows], curve.intensity[rows], curve.error[rows])


def _compute(request: Request) -> Outcome:
    settings: SaxsSettings = request.settings
    shown: dict[str, tuple[Curve, Fit]] = {}
    notes = ["Free parameters of the fit: scale, c1, c2" + (", background." if settings.background
             else ".")]  # fmt: skip

    def compute(name: str) -> list[Value]:
        path = _find_curve(request.reference, name)
        whole = read_curve(path, per_nm=settings.per_nm, q_max=settings.q_max)
        if whole.n_beyond:
            notes.append(
                f"{name}: left out beyond q = {settings.q_max:g} per angstrom: {whole.n_beyond} "
                f"of {whole.n_beyond + len(whole.q)} points. Is q in 1/nm? --set per_nm=true"
            )
        curve = _thinned(whole)
        partials, weights = _partials(request, name, curve.q), request.weights_of(name)

        def fit(averaged: Float64s) -> Fit:
            return fit_curve(averaged, curve, background=settings.background)

        best = fit(np.tensordot(weights, partials, axes=1))
        shown[name] = curve, best
        if best.at_end:
            notes.append(
                f"{name}: {' and '.join(best.at_end)} at an end of what is tried: the fit makes up "
                "for what the ensemble, the buffer or the unit of q have wrong."
            )

        def statistic(drawn: Float64s) -> Float64s:
            return np.array([[fit(np.tensordot(w, partials, axes=1)).chi2] for w in drawn])

        low, high = bootstrap_interval(statistic, weights, request.seed, _RESAMPLES)
        return [
            Value(name, "", "chi2", best.chi2, "", (float(low[0]), float(high[0]))),
            Value(name, "", "c1", best.c1),
            Value(name, "", "c2", best.c2),
            Value(name, "", "scale", best.scale),
            Value(name, "", "background", best.background),
            Value(name, "", "effective_samples", effective_sample_size(weights)),
        ]

    values, failed = by_target(sorted(request.samples), compute)
    findings = [_worst(name, *both) for name, both in shown.items()]
    return Outcome(values, failed, notes, _figures(shown), ("chi2", "c1", "c2"), findings)


def _deviations(curve: Curve, fit: Fit) -> Float64s:
    """Return calculated less measured, in errors, `[Q]`."""
    result: Float64s = (fit.intensity - curve.intensity) / curve.error
    return result


def _worst(name: str, curve: Curve, fit: Fit) -> str:
    off = _deviations(curve, fit)
    worst = int(np.abs(off).argmax())
    return (
        f"{name}: chi^2 per point {fit.chi2:.2f} over {len(off)} points; farthest from measured at "
        f"q = {curve.q[worst]:.3f} per angstrom ({off[worst]:+.1f} errors)."
    )


def _figures(shown: Mapping[str, tuple[Curve, Fit]]) -> list[Figure]:
    curves = small_multiples(shown, _draw, "q (1/Å)", "intensity")
    deviations = small_multiples(shown, _draw_deviations, "q (1/Å)", "deviation (errors)",
                                 panel_size=(3.3, 1.9))  # fmt: skip
    caption = "Measured points with their errors, and the fitted curve of the ensemble."
    more = (
        "Calculated less measured intensity over the error, at each point: the band is one error. "
        "A trend is a misfit that chi^2 alone does not show."
    )
    return [
        Figure("saxs", "Calculated beside measured", caption, curves),
        Figure("deviations", "Deviations", more, deviations),
    ]


def _draw(axes: Axes, item: tuple[Curve, Fit]) -> None:
    curve, fit = item
    axes.errorbar(curve.q, curve.intensity, curve.error, fmt=".", markersize=2.0, color="#b8bcc2",
                  linewidth=0.5, label="measured")  # fmt: skip
    axes.plot(curve.q, fit.intensity, color="#0072B2", label="ensemble")
    axes.set_yscale("log")
    axes.legend(fontsize=7.0)


def _draw_deviations(axes: Axes, item: tuple[Curve, Fit]) -> None:
    axes.axhspan(-1.0, 1.0, color="#e8eef4", zorder=0)
    axes.plot(item[0].q, _deviations(*item), ".", markersize=3.0, color="#0072B2")


SAXS: Final = Suite(
    name="saxs",
    measures="Agreement with a measured small-angle scattering curve: chi^2, with the fitted "
    "parameters scale, c1 (displaced volume) and c2 (surface water).",
    reference="A text file of q, intensity and error for one target, or a folder of NAME.dat.",
    n_samples="hundreds",
    data="your own measurements, for instance of the SASBDB",
    compute=_compute,
    settings=SaxsSettings(),
)
