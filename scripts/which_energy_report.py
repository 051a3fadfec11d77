"""Tables and figure of docs/which-energy.md, derived from docs/energies/results.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from proof_report import page_with, wrong_tables
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.boltzmann import TEMPERATURE_K
from protenix_eba.energy.committee import combine
from protenix_eba.energy.committee_report import Agreement, agreement, plot_ranks
from protenix_eba.energy.table import EnergyLabels, labels_from_rows

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
RESULTS: Final = DOCS / "energies" / "results.json"
PAGE: Final = DOCS / "which-energy.md"
FIGURE: Final = DOCS / "energies" / "ranks.png"

Results = Mapping[str, Any]


def energies_of(found: Mapping[str, Any], name: str) -> list[float | None]:
    """One energy of a peptide's frames, none of them where it refuses the molecule."""
    return found["energies"][name]["energy_kj_mol"] or [None] * len(found["helical"])


def labels_of(results: Results, name: str) -> EnergyLabels:
    """One energy of all peptides, as a label table."""
    rows = []
    for target, found in results.items():
        for frame, energy in enumerate(energies_of(found, name)):
            value = math.nan if energy is None else energy
            rows.append(
                {
                    "target": target,
                    "replica": 1,
                    "frame": frame,
                    "initial_energy_kj_mol": value,
                    "energy_kj_mol": value,
                    "rmsd_angstrom": 0.0,
                    "n_residues": found["n_residues"],
                    "status": "failed" if energy is None else "ok",
                    "reason": "",
                    "topology_hash": "",
                    "protocol_hash": name,
                    "frame_hash": "",
                }
            )
    return labels_from_rows(rows, {"imported": name})


def agreements(results: Results) -> list[Agreement]:
    names = next(iter(results.values()))["energies"]
    return agreement(combine({name: labels_of(results, name) for name in names}))


def table(*lines: list[str]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    rows.insert(1, "|---" * len(lines[0]) + "|")
    return "\n".join(rows)


def ranks(results: Results) -> str:
    names = list(next(iter(results.values()))["energies"])
    lines = [
        [row.target, row.name, str(row.n_ok), f"{row.spread_kj_mol:.1f}"]
        + ["-" if math.isnan(rank) else f"{rank:.2f}" for rank in row.ranks]
        for row in agreements(results)
        if row.n_ok
    ]
    return table(["peptide", "energy", "frames", "spread, kJ/mol", *names], *lines)


def weights_of(energy: list[float | None], scale: float) -> np.ndarray:
    """Boltzmann weights of the frames, 0 where there is no energy."""
    values = np.array([math.inf if e is None else e for e in energy])
    weights = np.exp((values.min() - values) / (thermal_energy_kj_mol(TEMPERATURE_K) * scale))
    return weights / weights.sum()


def evaluated(found: Mapping[str, Any]) -> list[str]:
    """Names of the energies that a peptide has."""
    return [name for name, row in found["energies"].items() if row["energy_kj_mol"]]


def populations(results: Results) -> str:
    lines = []
    for target, found in results.items():
        helical, ends = (np.array(found[key]) for key in ("helical", "end_distance_angstrom"))
        even = np.full(len(helical), 1 / len(helical))
        lines.append([target, "MD as it is", *_averages(even, helical, ends), *["", "", ""]])
        for name in evaluated(found):
            scaled, bare = (
                weights_of(energies_of(found, name), scale)
                for scale in (math.sqrt(found["n_residues"]), 1.0)
            )
            lines.append(
                ["", name, *_averages(scaled, helical, ends), *_averages(bare, helical, ends)]
            )
    columns = ["effective n", "helical, %", "end to end, Å"]
    bare_columns = [f"{column} (no scaling)" for column in columns]
    return table(["peptide", "weights", *columns, *bare_columns], *lines)


def _averages(weights: np.ndarray, helical: np.ndarray, ends: np.ndarray) -> list[str]:
    present = weights[weights > 0]
    number = math.exp(-(present * np.log(present)).sum())
    return [f"{number:.1f}", f"{100 * weights @ helical:.0f}", f"{weights @ ends:.1f}"]


def costs(results: Results) -> str:
    names = list(next(iter(results.values()))["energies"])
    lines = [
        [target, str(found["n_atoms"])]
        + [_number(found["energies"][name]["cpu_s"]) for name in names]
        for target, found in results.items()
    ]
    return table(["peptide", "atoms", *names], *lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def charges(results: Results) -> str:
    """How far networks disagree about molecules with charged groups and without."""
    lines = [
        [target, str(found["charged_groups"])]
        + [_number(value) for value in found["disagreement_kj_mol"].values()]
        for target, found in results.items()
    ]
    names = next(iter(results.values()))["disagreement_kj_mol"]
    return table(["peptide", "charged groups", *names], *lines)


def refused(results: Results) -> str:
    lines = [
        [target, name, "; ".join(row["failed"])]
        for target, found in results.items()
        for name, row in found["energies"].items()
        if row["failed"]
    ]
    return table(["peptide", "energy", "reason"], *lines)


def parts(results: Results) -> dict[str, str]:
    return {
        "ranks": ranks(results),
        "populations": populations(results),
        "charges": charges(results),
        "refused": refused(results),
        "costs": costs(results),
    }


def derive(results: Results) -> None:
    """Fill in the page and draw the figure."""
    plot_ranks(FIGURE, agreements(results))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(parts(results), page), encoding="utf-8")


def differences() -> list[str]:
    """Return what on the page is not what the stored numbers give."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    wrong = wrong_tables(parts(results), PAGE.read_text(encoding="utf-8"))
    return [f"{name}: not what {RESULTS.name} gives" for name in wrong]
