"""The suite `nmr`: ensembles beside measured couplings, shifts, distances, RDC and S2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.measurements import Measurement, read_commented
from protenix_eba.eval.experiment.prediction import Prediction, residuals
from protenix_eba.eval.metrics.energies import effective_sample_size
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.agreement import Pairs, agreement_figure
from protenix_eba.eval.suites.ensembles import bootstrap_interval
from protenix_eba.eval.suites.registry import Float64s, Outcome, Request, Suite, Value, by_target

__all__ = ["NMR", "agreement", "fitted_constants", "of_target"]

_N_NAMED: Final = 3


def of_target(measurements: Sequence[Measurement], name: str) -> list[Measurement]:
    """Return the measurements that name a protein, or name none.

    Raises:
        UserError: There are none.
    """
    found = [m for m in measurements if m.target in ("", name)]
    if not found:
        raise UserError(
            f"target {name}: no measured value", "fill the column `target`, or leave it out"
        )
    return found


def fitted_constants(prediction: Prediction, weights: Float64s) -> list[str]:
    """Say which constants were fitted to measured shifts, for weights `[S]`."""
    offsets = prediction.offsets(weights)
    families: dict[str, list[int]] = {}
    for n, m in enumerate(prediction.measurements):
        if m.offset:
            families.setdefault(m.family, []).append(n)
    return [
        f"{family}: {offsets[rows[0]]:+.3f} ppm is added to the predicted shifts, the constant "
        f"that was asked for by `offset`, fitted to {len(rows)} values."
        for family, rows in families.items()
    ]


def agreement(
    measurements: Sequence[Measurement], predicted: Float64s, coil: Float64s | None = None
) -> dict[str, Float64s]:
    """Return measures, `[...]` each, of how predictions `[..., M]` agree with measurements.

    `chi2` is the mean square of the deviations in standard deviations, `rmsd` that in the unit of
    the measurement, `pearson` the correlation (three values or more), and `q_factor` the root of
    the mean square deviation over that of the measured values, for RDC (Cornilescu et al., J. Am.
    Chem. Soc. 120, 6836 (1998)). Shifts of different residues differ most by what these are, so
    `pearson_secondary` is the correlation of shifts less `coil`, `[M]` those without structure.
    """
    in_errors = residuals(measurements, predicted)
    error = np.array([m.error for m in measurements])
    value = np.array([m.value for m in measurements])
    square = np.square(in_errors * error).mean(axis=-1)
    found = {"chi2": np.square(in_errors).mean(axis=-1), "rmsd": np.sqrt(square)}
    if len(value) >= 3 and np.ptp(value) > 0.0:
        found["pearson"] = _pearson(predicted, value)
    known = np.isfinite(coil) if coil is not None else np.zeros(len(value), dtype=bool)
    if coil is not None and known.sum() >= 3:
        secondary = (predicted - coil)[..., known]
        found["pearson_secondary"] = _pearson(secondary, (value - coil)[known])
    if all(m.kind == "RDC" for m in measurements):
        found["q_factor"] = np.sqrt(square / np.square(value).mean())
    return found


def _pearson(predicted: Float64s, value: Float64s) -> Float64s:
    """Return the correlation of `[..., M]` with `[M]`, NaN where one of them is constant."""
    x, y = predicted - predicted.mean(axis=-1, keepdims=True), value - value.mean()
    norm = np.sqrt(np.square(x).sum(axis=-1) * np.square(y).sum())
    result: Float64s = (x @ y) / np.where(norm > 0.0, norm, np.nan)
    return result


def _compute(request: Request) -> Outcome:
    every, comment = read_commented(request.reference)
    shown: dict[str, tuple[list[Measurement], Float64s, Float64s]] = {}
    notes = [f"{request.reference.name}: {comment}"] if comment else []

    def compute(name: str) -> list[Value]:
        measurements = of_target(every, name)
        frames = Frames.read(request.samples[name], request.jobs)
        prediction, weights = Prediction(frames, measurements), request.weights_of(name)
        predicted = prediction(weights)
        low, high = bootstrap_interval(prediction, weights, request.seed)
        shown[name] = measurements, predicted, np.stack([low, high])
        said = [*fitted_constants(prediction, weights), *prediction.remarks]
        notes.extend(f"{name}: {words}" for words in said)
        values = _each(name, prediction, predicted, low, high)
        for family in dict.fromkeys(m.family for m in measurements):
            rows = [n for n, m in enumerate(measurements) if m.family == family]
            values += _summary(name, family, prediction, rows, weights, request.seed)
        values += _summary(
            name, "", prediction, range(len(measurements)), weights, request.seed, ("chi2",)
        )
        values.append(Value(name, "", "effective_samples", effective_sample_size(weights)))
        return values

    values, failed = by_target(sorted(request.samples), compute)
    findings = [_worst(name, *found[:2]) for name, found in shown.items()]
    headline = ("chi2", "rmsd", "q_factor")
    return Outcome(
        values, failed, notes, [_figure(shown)], headline, findings,
        of_data=("measured", "random_coil"),
    )  # fmt: skip


def _worst(name: str, measurements: Sequence[Measurement], predicted: Float64s) -> str:
    """Name the values that are farthest from measured, in errors."""
    off = residuals(measurements, predicted)
    named = [
        f"{m.label} (measured {m.value:.2f} {m.unit}, predicted {predicted[n]:.2f}, {off[n]:+.1f} "
        "errors)"
        for n in np.argsort(-np.abs(off))[:_N_NAMED]
        if off[n] and (m := measurements[n])
    ]
    chi2 = f"{name}: chi^2 per value {np.square(off).mean():.2f} over {len(off)} values"
    return chi2 + (f"; farthest from measured: {'; '.join(named)}." if named else ".")


def _figure(
    shown: Mapping[str, tuple[Sequence[Measurement], Float64s, Float64s]],
) -> Figure:
    """Draw predicted against measured values, a panel for each protein and kind."""
    panels = {}
    for name, (measurements, predicted, interval) in shown.items():
        off = np.abs(residuals(measurements, predicted))
        kinds = [m.family.removesuffix(f" {m.group}") for m in measurements]
        for kind in dict.fromkeys(kinds):
            rows = [n for n, own in enumerate(kinds) if own == kind]
            own = [measurements[n] for n in rows]
            value, error = np.array([(m.value, m.error) for m in own]).T
            names = [m.label.removeprefix(f"{m.kind} ").removesuffix(f" {m.group}") for m in own]
            title = f"{name}, {kind}" if len(shown) > 1 else kind
            title += f" ({own[0].unit})" if own[0].unit else ""
            panels[title] = Pairs(
                names, value, predicted[rows], off[rows], error, interval[:, rows]
            )
    caption = (
        "Predicted against measured values; the line is agreement. Horizontal: errors of "
        "measurement and prediction; vertical: 95% intervals over conformations. The three that "
        "are farthest from measured, in errors, are named."
    )
    drawing = agreement_figure(panels, "measured", "predicted")
    return Figure("nmr", "Predicted against measured", caption, drawing)


def _each(
    name: str, prediction: Prediction, predicted: Float64s, low: Float64s, high: Float64s
) -> list[Value]:
    values = []
    in_errors = residuals(prediction.measurements, predicted)
    for n, m in enumerate(prediction.measurements):
        interval = float(low[n]), float(high[n])
        values += [
            Value(name, m.label, "measured", m.value, m.unit),
            Value(name, m.label, "predicted", float(predicted[n]), m.unit, interval),
            Value(name, m.label, "deviation_in_errors", float(in_errors[n])),
        ]
        if m.kind == "SHIFT":
            values.append(Value(name, m.label, "random_coil", float(prediction.coil[n]), m.unit))
    return values


def _summary(
    name: str, item: str, prediction: Prediction, rows: Sequence[int], weights: Float64s, seed: int,
    keys: Sequence[str] = (),
) -> list[Value]:  # fmt: skip
    measurements = [prediction.measurements[n] for n in rows]
    chosen = np.array(rows)
    coil = prediction.coil[chosen]
    found = agreement(measurements, prediction(weights)[chosen], coil)
    names = [key for key in found if not keys or key in keys]

    def statistics(drawn: Float64s) -> Float64s:
        each = agreement(measurements, prediction(drawn)[..., chosen], coil)
        return np.stack([each[key] for key in names], axis=-1)

    low, high = bootstrap_interval(statistics, weights, seed)
    units = {"rmsd": measurements[0].unit}
    return [
        Value(name, item, key, float(found[key]), units.get(key, ""), (float(a), float(b)))
        for key, a, b in zip(names, low, high, strict=True)
    ]


NMR: Final = Suite(
    name="nmr",
    measures="Agreement with measured scalar couplings, chemical shifts, NOE distances, RDC and "
    "order parameters.",
    reference="A CSV file: kind (3J_HN_HA, 3J_HN_CB, 3J_HN_C, 3J_HA_C, SHIFT, NOE, NOE3, DISTANCE, "
    "RG, RDC, S2), atoms, value, error; target, set, bound and offset where needed. SHIFT needs "
    "the extra `shifts`.",
    n_samples="hundreds; intervals stand beside the predictions",
    data="your own measurements, for instance of the BMRB",
    compute=_compute,
    parallel=True,
)
