"""The suite `bioemu-md`: free-energy surfaces of 17 domains beside those of long MD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.eval.metrics.distributions import evenly
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.style import small_multiples
from protenix_eba.eval.suites.bioemu.data import LICENCE, find_part, test_cases
from protenix_eba.eval.suites.bioemu.landscapes import Landscape
from protenix_eba.eval.suites.bioemu.samples import Sampled, by_test_case, joined
from protenix_eba.eval.suites.bioemu.summaries import mean_values, worst
from protenix_eba.eval.suites.registry import Outcome, Request, Suite, Value, by_target

__all__ = ["MD", "MdSettings", "contact_features"]

_TRIMMED: Final = 2
_NEIGHBOURS: Final = 2
_SCALE_NM: Final = 0.8
_N_SHOWN: Final = 400


@dataclass(frozen=True)
class MdSettings:
    """Settings that `--set` changes.

    Attributes:
        temperature_K: Of the free energies.
        filter_torn: Leave out conformations with a broken chain or a clash, as published.
        check_data: Whether the data have to be those of the version that results were held to.
    """

    temperature_K: float = 300.0
    filter_torn: bool = True
    check_data: bool = True


def contact_features(ca: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return what projections are made of: exp(-d / 8 angstrom) of C-alpha pairs, `[S, F]`.

    Two residues at each end are left out. Pairs of up to two residues apart, and each residue with
    itself, have the feature 1.

    Args:
        ca: `[S, L, 3]` angstrom.

    Source: `bioemu_benchmarks.eval.md_emulation.projections`.
    """
    xyz = ca[:, _TRIMMED : ca.shape[1] - _TRIMMED] / ANGSTROM_PER_NM
    i, j = np.triu_indices(xyz.shape[1])
    distances = np.linalg.norm(xyz[:, i] - xyz[:, j], axis=-1)
    distances[:, j - i <= _NEIGHBOURS] = 0.0
    result: NDArray[np.floating] = np.exp(-distances / _SCALE_NM)
    return result


def _arrays(folder: Path, name: str, case: str) -> NDArray[np.floating]:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        return np.asarray(archive[case])


def _compute(request: Request) -> Outcome:
    settings: MdSettings = request.settings
    folder = find_part(request.reference, "md_emulation", settings.check_data)
    known = test_cases(folder)
    cases = by_test_case(request.samples, known)

    shown: dict[str, tuple[Landscape, NDArray[np.floating]]] = {}

    def compute(case: str) -> list[Value]:
        mean = _arrays(folder, "projections_mean", case)
        turn = _arrays(folder, "projections_sqrt_inv_cov", case)

        def points(samples: Sampled) -> NDArray[np.floating]:
            features = contact_features(samples.ca)
            if features.shape[1] != turn.shape[0]:
                raise UserError(
                    f"{features.shape[1]} features, {turn.shape[0]} expected",
                    "give the samples of the whole sequence",
                )
            projected: NDArray[np.floating] = (features - mean) @ turn
            return projected

        found = joined(request, cases[case], points, filter_torn=settings.filter_torn)
        landscape = Landscape(
            _arrays(folder, "reference_projections", case), settings.temperature_K
        )
        # Equal weights take the draws of the package.
        given = found.weights if np.ptp(found.weights) > 1e-12 else None
        errors = landscape.errors(found.values, given)
        shown[case] = landscape, found.values[evenly(len(found.values), _N_SHOWN)]
        return [
            Value(case, "", "mae", errors.mae, "kcal/mol"),
            Value(case, "", "rmse", errors.rmse, "kcal/mol"),
            Value(case, "", "coverage", errors.coverage),
            Value(case, "", "whole_conformations", found.whole),
        ]

    values, failed = by_target(cases, compute)
    means = mean_values(values, ("mae", "rmse", "coverage"), request.seed)
    n_cases = sum(map(len, known.values()))
    notes = [f"{len(cases)} of {n_cases} test cases have samples."]
    findings = [
        f"Largest errors of free energies (kcal/mol): {worst(values, 'mae')}.",
        f"Least covered: {worst(values, 'coverage', lowest=True)}.",
    ]
    keys = ("mae", "rmse", "coverage")
    return Outcome([*means, *values], failed, notes, [_figure(shown)], keys, findings)


def _figure(shown: Mapping[str, tuple[Landscape, NDArray[np.floating]]]) -> Figure:
    drawing = small_multiples(
        shown, _draw, "first coordinate", "second coordinate", panel_size=(2.6, 2.6), columns=4
    )
    caption = (
        "Grey: free energy of long MD, darkest at the minimum, up to 4 kcal/mol, where surfaces "
        f"are compared. Points: up to {_N_SHOWN} samples of equal spacing, whatever their weights."
    )
    return Figure("surfaces", "Surfaces of long MD and samples", caption, drawing)


def _draw(axes: Axes, item: tuple[Landscape, NDArray[np.floating]]) -> None:
    landscape, samples = item
    x, y, energy = landscape.surface()
    axes.pcolormesh(x, y, energy.T, cmap="Greys_r", vmin=-1.0, vmax=5.0, rasterized=True)
    dots: dict[str, Any] = {"s": 4.0, "lw": 0, "alpha": 0.6, "rasterized": True}
    axes.scatter(samples[:, 0], samples[:, 1], color="#0072B2", **dots)
    axes.grid(visible=False)


MD: Final = Suite(
    name="bioemu-md",
    measures="Free-energy surfaces of 17 domains in given projections beside long MD: mean "
    "absolute error and coverage.",
    reference="The folder of the unpacked package bioemu-benchmarks; samples are found by their "
    "sequences, those of its testcases.csv.",
    n_samples="10000",
    data=LICENCE,
    compute=_compute,
    settings=MdSettings(),
)
