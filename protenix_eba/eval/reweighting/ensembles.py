"""Reweighting of ensembles on disk with a file of measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.averages import averaged
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.measurements import AVERAGED, Measurement, read_measurements
from protenix_eba.eval.experiment.prediction import Prediction
from protenix_eba.eval.metrics.energies import effective_sample_size
from protenix_eba.eval.reweighting.entropy import Problem, chi_square
from protenix_eba.eval.reweighting.entropy import reweight as weights_of_theta
from protenix_eba.eval.reweighting.theta import Choice, cross_validated, l_curve
from protenix_eba.eval.suites.nmr import agreement, fitted_constants, of_target
from protenix_eba.eval.weighting import refuse_strangers, require_length
from protenix_eba.structures.sources import Conformations, find_samples

__all__ = ["Report", "reweight_ensembles"]

Float64s = NDArray[np.float64]

# Below this share of the prior's effective number the averages rest on few conformations.
WARN_BELOW: Final = 0.2


@dataclass(frozen=True)
class Report:
    """The weights of one ensemble, and their agreement with measurements.

    Attributes:
        target: Its name.
        weights: `[S]`, which sum to 1.
        numbers: theta, chi^2 and effective size before and after, and those of held-out values.
        rows: Each measurement before and after, as plain values.
        notes: Sentences for the reader.
    """

    target: str
    weights: Float64s
    numbers: dict[str, float]
    rows: list[dict[str, Any]]
    notes: list[str]


def reweight_ensembles(
    samples: Sequence[Path],
    data: Path,
    *,
    theta: str,
    held_out: Path | None = None,
    prior: Mapping[str, Float64s] | None = None,
    min_effective: float = 10.0,
    seed: int = 0,
    jobs: int = 1,
) -> list[Report]:
    """Reweight each ensemble for which there are measurements.

    Args:
        samples: Ensembles, as `find_samples` takes them.
        data: File of measurements to agree with.
        theta: A number, `l-curve`, or `cv` for cross-validation; `cv-residues` leaves out all that
            is measured of a residue together. Of a single value or residue the L-curve decides.
        held_out: File of measurements that only judge.
        prior: Target to the weights `[S]` to start from; equal ones where there are none.
        min_effective: Fewest effective conformations.
        seed: Seed of the cross-validation.
        jobs: Number of processes for predictions that cost seconds for each conformation.

    Raises:
        UserError: Nothing that can be used, or weights that rest on fewer conformations.
    """
    found, failed = find_samples(samples)
    if failed:
        name, why = next(iter(failed.items()))
        raise UserError(f"target {name}: {why}", "leave it out, or mend it")
    fit = read_measurements(data)
    left_out = read_measurements(held_out) if held_out else []
    if prior is not None:
        refuse_strangers(prior, found, "--prior")
    known = prior or {}
    reports = []
    for name, source in found.items():
        start = known.get(name)
        frames = Frames.read(source, jobs)
        ensemble = _Ensemble(source, frames, of_target(fit, name), left_out, start)
        reports.append(ensemble.report(theta, seed))
        _refuse_collapse(reports[-1], min_effective)
    return reports


def _refuse_collapse(report: Report, least: float) -> None:
    """Make sure that enough conformations have weight.

    Raises:
        UserError: They are fewer, by the fit or already without it.
    """
    numbers, count = report.numbers, len(report.weights)
    if numbers["effective_after"] >= least:
        return
    if numbers["effective_before"] < least:
        raise UserError(
            f"target {report.target}: {numbers['effective_before']:.1f} effective conformations of "
            f"{count} before any fit, at least {least:g} are needed",
            "sample more, or set a lower --min-effective",
        )
    raise UserError(
        f"target {report.target}: the weights rest on {numbers['effective_after']:.1f} effective "
        f"conformations of {count}, at least {least:g} are needed; chi^2 per value is "
        f"{numbers['chi2_before']:.1f} before",
        "the ensemble does not hold what was measured: sample more, give larger errors or a larger "
        "--theta; --min-effective sets the limit",
    )


class _Ensemble:
    """One ensemble with its measurements."""

    def __init__(
        self, source: Conformations, frames: Frames, fit: Sequence[Measurement],
        left_out: Sequence[Measurement], prior: Float64s | None,
    ) -> None:  # fmt: skip
        self.name = source.name
        self.unused = [m for m in fit if m.kind not in AVERAGED]
        self.fit = [m for m in fit if m.kind in AVERAGED]
        if not self.fit:
            raise UserError(
                f"target {self.name}: no measured value that is an average over conformations",
                f"use {', '.join(AVERAGED)}; others can judge: --held-out",
            )
        self.prior = np.full(len(frames), 1.0 / len(frames)) if prior is None else prior
        require_length(self.prior, source, "the prior belongs to other files")
        ready = averaged(frames, self.fit)
        self.problem = Problem(ready.signals, ready.values, ready.errors, ready.bounds, self.prior)
        self.predict = Prediction(frames, self.fit)
        # What is no plain average cannot be fitted here, but it can judge.
        own = [*self.unused, *(m for m in left_out if m.target in ("", self.name))]
        self.judge = Prediction(frames, own) if own else None

    def report(self, theta: str, seed: int) -> Report:
        choice = self._choice(theta, seed)
        result = choice.result
        before = effective_sample_size(self.prior)
        numbers = {
            "theta": result.theta,
            "chi2_before": chi_square(self.problem, self.prior),
            "chi2_after": result.chi2,
            "effective_before": before,
            "effective_after": result.effective,
            "relative_entropy": result.relative_entropy,
        }
        rows = self._rows(self.predict, result.weights, "fitted")
        if self.judge:
            rows += self._rows(self.judge, result.weights, "held out")
            for when, weights in (("before", self.prior), ("after", result.weights)):
                found = agreement(self.judge.measurements, self.judge(weights))
                numbers[f"held_out_chi2_{when}"] = float(found["chi2"])
        if choice.left_out:
            best = list(choice.scan).index(result)
            numbers["cross_validated_chi2"] = choice.left_out[best]
        notes = self._notes(numbers) + self._of_shifts(result.weights)
        return Report(self.name, result.weights, numbers, rows, notes)

    def _choice(self, theta: str, seed: int) -> Choice:
        labels = [m.groups[0][0].residue if m.groups else m.label for m in self.fit]
        groups = labels if theta == "cv-residues" else list(range(len(self.fit)))
        if theta in ("cv", "cv-residues") and len(set(groups)) > 1:
            return cross_validated(self.problem, seed, groups=groups)
        if theta in ("cv", "cv-residues", "l-curve"):
            return l_curve(self.problem)
        try:
            result = weights_of_theta(self.problem, float(theta))
        except ValueError as error:
            raise UserError(
                f"theta: expected a number, cv, cv-residues or l-curve, found {theta!r}",
                "cv is the default",
            ) from error
        return Choice(result, [result])

    def _rows(self, prediction: Prediction, weights: Float64s, role: str) -> list[dict[str, Any]]:
        before, after = prediction(self.prior), prediction(weights)
        return [
            {"target": self.name, "measurement": m.label, "role": role, "measured": m.value,
             "error": m.error, "before": float(a), "after": float(b), "unit": m.unit}
            for m, a, b in zip(prediction.measurements, before, after, strict=True)
        ]  # fmt: skip

    def _of_shifts(self, weights: Float64s) -> list[str]:
        """Say what was fitted and assumed of chemical shifts."""
        notes = []
        for prediction in filter(None, (self.predict, self.judge)):
            notes += [*fitted_constants(prediction, weights), *prediction.remarks]
        return list(dict.fromkeys(notes))

    def _notes(self, numbers: dict[str, float]) -> list[str]:
        notes = []
        if self.unused:
            kinds = ", ".join(sorted({m.kind for m in self.unused}))
            notes.append(f"{kinds}: no plain averages over conformations, so they only judge.")
        share = numbers["effective_after"] / numbers["effective_before"]
        if share < WARN_BELOW:
            notes.append(
                f"{share:.0%} of the effective conformations are left: averages rest on few."
            )
        chi2 = [numbers.get(f"held_out_chi2_{when}") for when in ("before", "after")]
        if chi2[0] is not None and chi2[1] is not None and chi2[1] > chi2[0]:
            notes.append("Held-out values agree less than before: the fit is to noise or to errors "
                         "of the prediction.")  # fmt: skip
        return notes
