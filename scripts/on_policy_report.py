"""Tables of on-policy alignment beside alignment on MD, from what on_policy_study.py stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from proof_report import DOCS, store_and_show, tell_wrong, wrong_tables
from seeds_report import Row, by_seed, over_seeds, peptide_groups, seeds_table

__all__ = ["METRICS", "check", "tables", "write"]

PAGE: Final = DOCS / "benchmarks.md"
RESULTS: Final = DOCS / "proof" / "on_policy.json"
# Of `protenix-eba evaluate`.
METRICS: Final = ("rmwd", "coverage")
TITLES: Final = {
    "biased": "MD with the bias",
    "sft": "before alignment (supervised)",
    "eba": "EBA on MD",
    "eba_long": "EBA on MD, twice the steps",
    "mixture": "EBA, half on policy",
    "on_policy": "EBA on policy, lr 1e-4",
    "newest": "the same, on the newest samples alone",
}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the generated parts of the page by name."""
    shared = [row for row in rows if not row.get("kind")]
    made = {}
    for kind in ("bias", "minimised"):
        own = [row for row in rows if row.get("kind") == kind]
        made[f"on-policy-{kind}"] = seeds_table([*shared, *own], TITLES)
        made[f"on-policy-{kind}-quality"] = quality_table([*shared, *own])
    return made


def quality_table(rows: Sequence[Row]) -> str:
    """Return a table of soundness, energies, spread and cost of each method, by peptides."""
    truth = {row["target"]: row for row in rows if row["arm"] == "unbiased"}
    headings = (
        *("method", "peptides", "energy above MD, kJ/mol: median", "lowest tenth", "highest tenth"),
        *("RMWD, Å", "coverage, %", "s: training", "sampling", "labels"),
    )
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for group, names in peptide_groups(rows).items():
        for method, title in TITLES.items():
            seeds = list(by_seed(rows, method, names))
            if seeds and METRICS[0] in seeds[0][0]:
                lines.append(f"| {' | '.join((title, group, *_cells(seeds, truth)))} |")
    return "\n".join(lines) + "\n"


def _cells(seeds: Sequence[list[Row]], truth: Mapping[str, Row]) -> list[str]:
    def above(share: float) -> Callable[[Row], float]:
        """Return how far a quantile of the energies is above the same one of the MD's."""

        def quantile(row: Row) -> float:
            md = truth[row["target"]]["energy_kj_mol"]
            return float(np.quantile(row["energy_kj_mol"], share) - np.quantile(md, share))

        return quantile

    measures: list[tuple[Callable[[Row], float], int]] = [
        *((above(share), 1) for share in (0.5, 0.1, 0.9)),
        (lambda row: row["rmwd"], 2),
        (lambda row: 100 * row["coverage"], 0),
        *(
            (lambda row, part=part: row[f"{part}_s"], 0)
            for part in ("training", "sampling", "waiting")
        ),
    ]
    return [over_seeds(seeds, measure, places) for measure, places in measures]


def write(rows: Sequence[Row]) -> None:
    """Store what on_policy_study.py found, and fill in its parts of the page."""
    store_and_show(rows, RESULTS, tables(rows), PAGE)


def check() -> int:
    """Compare the page with what the stored results give; return 1 on a difference."""
    rows: Any = json.loads(RESULTS.read_text(encoding="utf-8"))
    wrong = wrong_tables(tables(rows), PAGE.read_text(encoding="utf-8"))
    return tell_wrong(wrong, f"{PAGE.name}: all tables follow from {RESULTS.name}")
