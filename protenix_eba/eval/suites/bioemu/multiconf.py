"""The suite `bioemu-multiconf`: are known conformations of a protein among its samples?

Held to the package `bioemu-benchmarks`, with two differences on purpose: coverage and recall are
expectations of its random draws (`recall`), and atoms are matched by name.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from protenix_eba.core.errors import UserError
from protenix_eba.eval.protocol.alignment import placements
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.style import small_multiples
from protenix_eba.eval.suites.bioemu.data import LICENCE, find_part, test_cases
from protenix_eba.eval.suites.bioemu.recall import Summary, summary
from protenix_eba.eval.suites.bioemu.references import (
    Local,
    Reference,
    aligned_residues,
    read_local,
    read_references,
)
from protenix_eba.eval.suites.bioemu.samples import Sampled, by_test_case, joined
from protenix_eba.eval.suites.bioemu.summaries import mean_interval, worst
from protenix_eba.eval.suites.registry import Float64s, Outcome, Request, Suite, Value
from protenix_eba.eval.suites.superposition import rmsd

__all__ = ["MULTICONF", "MulticonfSettings", "distances_to", "native_contacts"]

_CONTACT_ANGSTROM: Final = 8.0
_NEIGHBOURS: Final = 3
_RMSD_GRID: Final = 10.0

Distances = dict[str, tuple[Float64s, Float64s]]


@dataclass(frozen=True)
class MulticonfSettings:
    """Settings that `--set` changes.

    Attributes:
        benchmark: ood60, oodval, domainmotion, crypticpocket, localunfolding, or all that the
            samples have sequences of.
        filter_torn: Leave out conformations with a broken chain or a clash, as published.
        check_data: Whether the data have to be those of the version that results were held to.
        as_published: Count contacts across the crystal's cell in local unfolding, as the package
            does by an oversight.
    """

    benchmark: str = "all"
    filter_torn: bool = True
    check_data: bool = True
    as_published: bool = False


@dataclass(frozen=True)
class _Measure:
    """The recipe of one curve of a benchmark: which column of the distances, and its scale."""

    item: str
    threshold: float
    largest: float
    above: bool = False
    # Position of a reference among those of a case, or all of them.
    column: Callable[[str, Sequence[str]], int] | None = None


def distances_to(samples: Sampled, reference: Reference, local: Local | None) -> Float64s:
    """Return the distance of conformations from a reference, `[S]` in angstrom.

    Without ranges the backbone RMSD of the residues that both have. With ranges some residues are
    superposed, and the distance is the mean over the backbone atoms of others; the package calls
    that an RMSD too, but it averages distances, not their squares.
    """
    ours, theirs = aligned_residues(reference.sequence, samples.sequence)
    target, moving = reference.backbone[ours], samples.backbone[:, theirs]
    if local is None:
        return rmsd(moving.reshape(len(moving), -1, 3), target.reshape(-1, 3))
    numbers = reference.numbers[ours]
    chosen = np.isin(numbers, list(local.alignment)) if local.alignment is not None else slice(None)
    fitted = target[chosen].reshape(-1, 3)
    centre = fitted.mean(axis=0)
    shifts, turns = placements(
        np.asarray(moving[:, chosen], dtype=np.float64).reshape(len(moving), -1, 3), fitted - centre
    )
    compared = np.isin(numbers, list(local.metric))
    atoms = np.asarray(moving[:, compared], dtype=np.float64).reshape(len(moving), -1, 3)
    placed = (atoms - shifts[:, None]) @ turns + centre
    off = np.linalg.norm(placed - target[compared].reshape(-1, 3), axis=-1)
    result: Float64s = off.mean(axis=1)
    return result


def native_contacts(
    samples: Sampled, reference: Reference, local: Local, *, images: bool = False
) -> Float64s:
    """Return the share of a region's contacts, with itself and the rest, in samples, `[S]`.

    Contacts are C-alpha atoms within 8 angstrom, of residues whose numbers differ by 3 or more;
    `images` as in `Reference.ca_distances`.
    """
    ours, theirs = aligned_residues(reference.sequence, samples.sequence)
    numbers = reference.numbers[ours]
    inside = np.isin(numbers, list(local.metric))
    i, j = np.triu_indices(len(numbers), 1)
    wanted = (np.abs(numbers[i] - numbers[j]) >= _NEIGHBOURS) & (inside[i] | inside[j])
    i, j = i[wanted], j[wanted]
    native = reference.ca_distances(ours[i], ours[j], images=images) < _CONTACT_ANGSTROM
    one, two = theirs[i[native]], theirs[j[native]]
    apart = np.linalg.norm(samples.ca[:, one] - samples.ca[:, two], axis=-1)
    result: Float64s = (apart < _CONTACT_ANGSTROM).mean(axis=1)
    return result


def _measures(part: str, folder: Path) -> list[_Measure]:
    if part == "localunfolding":
        return [
            _Measure("localunfolding unfolded", 0.3, 1.0),
            _Measure("localunfolding folded", 0.7, 1.0, above=True),
        ]
    if part != "crypticpocket":
        return [_Measure(part, 3.0, _RMSD_GRID)]
    with open(folder / "references.csv", newline="", encoding="utf-8") as file:
        holo = {row["test_case"]: row["holo_pdbidchain"].upper() for row in csv.DictReader(file)}

    def column(case: str, names: Sequence[str]) -> int:
        return list(names).index(holo[case])

    return [
        _Measure("crypticpocket holo", 1.5, _RMSD_GRID, column=column),
        _Measure("crypticpocket apo", 1.5, _RMSD_GRID, column=lambda c, n: 1 - column(c, n)),
    ]


class _Part:
    """One of the benchmarks, with the samples that it has."""

    def __init__(self, request: Request, part: str) -> None:
        settings: MulticonfSettings = request.settings
        self.request, self.part, self.settings = request, part, settings
        self.folder = find_part(request.reference, part, settings.check_data)
        self.cases = by_test_case(request.samples, test_cases(self.folder))
        self.measured: Distances = {}
        self.names: dict[str, list[str]] = {}
        self.curves: dict[str, Summary] = {}
        self.values: list[Value] = []
        self.failed: dict[str, str] = {}

    def measure(self) -> None:
        for case, ensembles in self.cases.items():
            try:
                self._measure(case, ensembles)
            except UserError as error:
                self.failed[f"{self.part} {case}"] = str(error)

    def _measure(self, case: str, ensembles: Sequence[str]) -> None:
        references = read_references(self.folder / "reference" / case)
        local = None
        if self.part in ("ood60", "crypticpocket", "localunfolding"):
            local = read_local(self.folder, case, references)

        def compute(samples: Sampled) -> Float64s:
            return np.stack([self._measured(samples, r, local) for r in references], axis=1)

        found = joined(self.request, ensembles, compute, filter_torn=self.settings.filter_torn)
        self.names[case] = [reference.name for reference in references]
        self.measured[case] = found.values, found.weights
        self.values += [
            Value(case, f"{self.part} {name}", key, float(value), unit)
            for n, name in enumerate(self.names[case])
            for key, value, unit in self._nearest(found.values[:, n], found.weights)
        ]
        self.values.append(Value(case, self.part, "whole_conformations", found.whole))

    def _measured(self, samples: Sampled, reference: Reference, local: Local | None) -> Float64s:
        if self.part != "localunfolding":
            return distances_to(samples, reference, local)
        if local is None:
            raise UserError(f"{reference.name}: no residue ranges", "download the data again")
        return native_contacts(samples, reference, local, images=self.settings.as_published)

    def _nearest(self, column: Float64s, weights: Float64s) -> list[tuple[str, float, str]]:
        mean = float(weights @ column)
        if self.part == "localunfolding":
            return [("native_contacts_mean", mean, "")]
        nearest = ("nearest_distance", float(column.min()), "Å")
        return [
            nearest,
            ("nearest_sample", float(column.argmin()), ""),
            ("mean_distance", mean, "Å"),
        ]

    def summarise(self) -> None:
        for measure in _measures(self.part, self.folder):
            cases = {case: self._columns(case, measure) for case in self.measured}
            found = summary(
                list(cases.values()), measure.threshold, measure.largest, above=measure.above
            )
            self.curves[measure.item] = found
            unit = "" if self.part == "localunfolding" else "Å"
            for key, each in found.values.items():
                own = unit if key == "krecall" else ""
                self.values += [
                    Value(case, measure.item, key, float(x), own)
                    for case, x in zip(cases, each, strict=True)
                ]
                interval = mean_interval(each, self.request.seed)
                mean = Value("", measure.item, key, float(each.mean()), own, interval)
                self.values.append(mean)

    def _columns(self, case: str, measure: _Measure) -> tuple[Float64s, Float64s]:
        distances, weights = self.measured[case]
        if measure.column is None:
            return distances, weights
        column = measure.column(case, self.names[case])
        return distances[:, [column]], weights


def _compute(request: Request) -> Outcome:
    wanted = request.settings.benchmark
    known = ("ood60", "oodval", "domainmotion", "crypticpocket", "localunfolding")
    if wanted not in (*known, "all"):
        raise UserError(f"benchmark: found {wanted!r}", f"one of all, {', '.join(known)}")
    parts = []
    for name in known if wanted == "all" else (wanted,):
        try:
            parts.append(_Part(request, name))
        except UserError as error:
            if wanted != "all" or "sequence of a test case" not in str(error):
                raise
    if not parts:
        raise UserError(
            f"none of the {len(request.samples)} ensembles has the sequence of a test case",
            "sample the sequences of the benchmarks' testcases.csv, whole and unchanged",
        )
    for part in parts:
        part.measure()
        if part.measured:
            part.summarise()
    failed = {name: why for part in parts for name, why in part.failed.items()}
    values = [value for part in parts for value in part.values]
    if not values:
        name, why = next(iter(failed.items()))
        raise UserError(f"no test case could be evaluated: {name}: {why}")
    # The aggregates first: a reader asks for them.
    values.sort(key=lambda value: value.target != "")
    notes = [
        f"{part.part}: {len(part.measured)} of {_n_cases(part.folder)} test cases have samples."
        for part in parts
    ]
    headline = ("krecall", "coverage_auc", "coverage_threshold")
    findings = [
        f"{item}: least covered are {worst(own, 'coverage_auc', lowest=True)}, area under the "
        "curve of coverage."
        for item in dict.fromkeys(v.item for v in values if v.key == "coverage_auc")
        if (own := [value for value in values if value.item == item])
    ]
    return Outcome(values, failed, notes, _figures(parts), headline, findings)


def _n_cases(folder: Path) -> int:
    return len({case for cases in test_cases(folder).values() for case in cases})


def _figures(parts: Sequence[_Part]) -> list[Figure]:
    curves = {item: curve for part in parts for item, curve in part.curves.items()}
    if not curves:
        return []
    x_label = "threshold: distance (Å), or share of native contacts"
    drawing = small_multiples(curves, _draw, x_label, "coverage of references")
    caption = (
        "Share of the reference structures that one of 1,000 samples comes as near to: each test "
        "case in grey, their mean in blue."
    )
    return [Figure("coverage", "Coverage of known conformations", caption, drawing)]


def _draw(axes: Axes, found: Summary) -> None:
    """Draw the curve of each test case, and their mean."""
    axes.plot(found.thresholds, found.curves.T, color="#b8bcc2", linewidth=0.5)
    axes.plot(found.thresholds, found.curves.mean(axis=0), color="#0072B2")
    axes.set_ylim(-0.02, 1.02)


MULTICONF: Final = Suite(
    name="bioemu-multiconf",
    measures="Which known conformations are among the samples: unlike those of the training set, "
    "domain motions, cryptic pockets, local unfolding; coverage and recall.",
    reference="The folder of the unpacked package bioemu-benchmarks; samples are found by their "
    "sequences, those of its testcases.csv.",
    n_samples="4000",
    data=LICENCE,
    compute=_compute,
    settings=MulticonfSettings(),
)
