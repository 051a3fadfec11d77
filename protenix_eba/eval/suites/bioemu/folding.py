"""The suite `bioemu-folding`: free energies of folding and of mutations beside experiment."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import GAS_CONSTANT_KJ_MOL_K, KJ_PER_KCAL
from protenix_eba.eval.protocol.metrics import pearson, spearman
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.agreement import Pairs, agreement_figure
from protenix_eba.eval.suites.bioemu.data import LICENCE, find_part, test_cases
from protenix_eba.eval.suites.bioemu.references import Reference, read_reference
from protenix_eba.eval.suites.bioemu.samples import Sampled, by_test_case, joined
from protenix_eba.eval.suites.bioemu.summaries import mean_interval, worst
from protenix_eba.eval.suites.ensembles import bootstrap_interval
from protenix_eba.eval.suites.registry import Float64s, Outcome, Request, Suite, Value, by_target

__all__ = ["FOLDING", "FoldingSettings", "folding_free_energy", "soft_native_contacts"]

_CUTOFF_ANGSTROM: Final = 10.0
_SEPARATION: Final = 3
_STEEPNESS_PER_ANGSTROM: Final = 5.0
_STRETCH: Final = 1.2
_FOLDED_AT: Final = 0.5
_FOLDED_STEEPNESS: Final = 10.0
_SMALLEST: Final = 1e-10


@dataclass(frozen=True)
class FoldingSettings:
    """Settings that `--set` changes.

    Attributes:
        temperature_K: Of the free energies; that of the experiments.
        filter_torn: Leave out conformations with a broken chain or a clash, as published.
        check_data: Whether the data have to be those of the version that results were held to.
        as_published: Take native distances to the nearest image in the crystal's cell, as the
            package does by an oversight.
    """

    temperature_K: float = 295.0
    filter_torn: bool = True
    check_data: bool = True
    as_published: bool = False


def soft_native_contacts(
    ca: NDArray[np.floating], sequence: str, reference: Reference, *, images: bool = False
) -> Float64s:
    """Return `[S]` means over contacts of 1 / (1 + exp(5 (d - 1.2 d_native) / angstrom)).

    Native contacts are C-alpha atoms of the wild type within 10 angstrom, more than three residues
    apart. Contacts of mutated residues are left out, as in the package; there an alignment finds
    these, and of two equal neighbours it may take the wrong one. Here it is the residue at the
    same place.

    Args:
        ca: `[S, L, 3]` angstrom.
        sequence: One-letter code of the samples.
        reference: The wild type.
        images: As in `Reference.ca_distances`.

    Raises:
        UserError: Another number of residues.

    Source: Best, Hummer and Eaton, PNAS 110, 17874 (2013), Eq. 1.
    """
    if len(sequence) != len(reference.sequence):
        raise UserError(
            f"{len(sequence)} residues, the wild type has {len(reference.sequence)}",
            "sample the sequence of testcases.csv",
        )
    same = np.array([a == b for a, b in zip(sequence, reference.sequence, strict=True)])
    i, j = np.triu_indices(len(same), _SEPARATION + 1)
    apart = reference.ca_distances(i, j, images=images)
    chosen = (apart <= _CUTOFF_ANGSTROM) & same[i] & same[j]
    i, j, apart = i[chosen], j[chosen], apart[chosen]
    now = np.linalg.norm(ca[:, i] - ca[:, j], axis=-1)
    exponent = np.clip(_STEEPNESS_PER_ANGSTROM * (now - _STRETCH * apart), -500.0, 500.0)
    result: Float64s = (1.0 / (1.0 + np.exp(exponent))).mean(axis=1)
    return result


def folding_free_energy(contacts: Float64s, weights: Float64s, temperature_K: float) -> Float64s:
    """Return the free energy of folding, kcal/mol: -kT ln(p / (1 - p)).

    p is the weighted mean of a smooth step at half of the native contacts.

    Args:
        contacts: `[S]` shares of native contacts.
        weights: `[..., S]`, which sum to 1.
        temperature_K: Temperature.

    Returns:
        `[...]`.
    """
    folded = 1.0 / (1.0 + np.exp(-2.0 * _FOLDED_STEEPNESS * (contacts - _FOLDED_AT)))
    p = np.clip(weights @ folded, _SMALLEST, 1.0 - _SMALLEST)
    kt = temperature_K * GAS_CONSTANT_KJ_MOL_K / KJ_PER_KCAL
    result: Float64s = -kt * np.log(p / (1.0 - p))
    return result


def _system_info(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "system_info.csv", newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _compute(request: Request) -> Outcome:
    settings: FoldingSettings = request.settings
    folder = find_part(request.reference, "folding_free_energies", settings.check_data)
    info = _system_info(folder)
    cases = by_test_case(request.samples, test_cases(folder))

    def compute(case: str) -> list[Value]:
        reference = read_reference(folder / "reference_wildtypes" / f"{case.split('__')[0]}.pdb")

        def contacts(samples: Sampled) -> Float64s:
            return soft_native_contacts(
                samples.ca, samples.sequence, reference, images=settings.as_published
            )

        both = joined(request, cases[case], contacts, filter_torn=settings.filter_torn)

        def free_energy(drawn: Float64s) -> Float64s:
            return folding_free_energy(both.values, drawn, settings.temperature_K)

        low, high = bootstrap_interval(
            lambda w: free_energy(w)[:, None], both.weights, request.seed
        )
        interval = float(low[0]), float(high[0])
        value = float(free_energy(both.weights))
        return [
            Value(case, "", "dG", value, "kcal/mol", interval),
            Value(case, "", "dG_experiment", float(info[case]["dg_exp"]), "kcal/mol"),
            Value(case, "", "native_contacts_mean", float(both.weights @ both.values)),
            Value(case, "", "whole_conformations", both.whole),
        ]

    values, failed = by_target(cases, compute)
    found = {v.target: v.value for v in values if v.key == "dG"}
    changes = _changes(found, info)
    values += [Value(case, "", "ddG", x, "kcal/mol") for case, (x, _) in changes.items()]
    pairs = {"dG": [(x, float(info[case]["dg_exp"])) for case, x in found.items()],
             "ddG": list(changes.values())}  # fmt: skip
    summary = [v for key, each in pairs.items() for v in _agreement(key, each, request.seed)]
    notes = [f"{len(found)} of {len(info)} systems have samples."]
    headline = ("mae", "pearson", "spearman")
    off = [Value(n, "", "off", abs(x - float(info[n]["dg_exp"]))) for n, x in found.items()]
    findings = [f"Folding free energies farthest from measured (kcal/mol): {worst(off, 'off')}."]
    figures = [_figure(values, info, changes)]
    return Outcome([*summary, *values], failed, notes, figures, headline, findings)


def _figure(
    values: Sequence[Value],
    info: Mapping[str, Mapping[str, str]],
    changes: Mapping[str, tuple[float, float]],
) -> Figure:
    """Draw free energies of folding, and of mutations if there are any, beside experiment."""
    own = [value for value in values if value.key == "dG"]
    x = np.array([value.value for value in own])
    measured = np.array([float(info[value.target]["dg_exp"]) for value in own])
    ends = np.array([value.interval or (value.value, value.value) for value in own]).T
    names = [value.target for value in own]
    panels = {"folding": Pairs(names, measured, x, np.abs(x - measured), interval=ends)}
    if changes:
        x, measured = np.array(list(changes.values())).T
        panels["mutations"] = Pairs(list(changes), measured, x, np.abs(x - measured))
    caption = (
        "By the share of folded samples against experiment; the line is agreement, the bars are "
        "95% intervals over samples. The three that are farthest from it are named."
    )
    drawing = agreement_figure(panels, "measured (kcal/mol)", "from samples (kcal/mol)")
    return Figure("free_energies", "Free energies beside experiment", caption, drawing)


def _changes(
    found: Mapping[str, float], info: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[float, float]]:
    """Return each mutant's free energy less the wild type's, by samples and by experiment."""
    return {
        case: (value - found[row["name_wt"]], float(row["ddg_exp"]))
        for case, value in found.items()
        if (row := info[case])["name_wt"] != case and row["name_wt"] in found
    }


def _agreement(item: str, pairs: Sequence[tuple[float, float]], seed: int) -> list[Value]:
    """Return mean absolute error and correlations with experiment; intervals over systems."""
    if not pairs:
        return []
    x, y = np.array(pairs).T
    error = np.abs(x - y)
    interval = mean_interval(error, seed)
    values = [Value("", item, "mae", float(error.mean()), "kcal/mol", interval)]
    if len(x) >= 2 and np.ptp(x) > 0.0 and np.ptp(y) > 0.0:
        values.append(Value("", item, "pearson", pearson(x, y)))
        values.append(Value("", item, "spearman", spearman(x, y)))
    return values


FOLDING: Final = Suite(
    name="bioemu-folding",
    measures="Free energies of folding and of mutations, from the share of folded samples, beside "
    "experiment.",
    reference="The folder of the unpacked package bioemu-benchmarks; samples are found by their "
    "sequences, those of its testcases.csv.",
    n_samples="by system, some thousands: system_info.csv",
    data=LICENCE,
    compute=_compute,
    settings=FoldingSettings(),
)
