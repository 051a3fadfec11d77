"""A table of the demo's models over seeds and methods, from what demo_seeds.py stores.

A part of proof_report.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from proof_measures import distances, reweighted_share, torsion_jsd
from protenix_eba.cli.demo_stages import CLOSED_ANGSTROM, HELD_OUT, SAMPLES
from protenix_eba.eval.coordinate import closed_share, log_odds, w1_angstrom

__all__ = ["Row", "by_seed", "over_seeds", "peptide_groups", "seeds_table"]

Row = dict[str, Any]

TITLES: Final = {
    "biased": "MD with the bias",
    "sft": "before alignment (supervised)",
    "eba": "EBA",
    "weighted": "importance-weighted fine-tuning",
    "dpo": "EBA-DPO",
    "plain": "plain fine-tuning, as long",
}
HEADINGS: Final = (
    *("method", "peptides", "folded back, %", "shift of log-odds", "W1 of the ends, Å"),
    *("JSD torsions, bits", "valid, %", "with a D residue, %", "bond rms, Å"),
)
DRAWS: Final = 50
"""Times that as many conformations as a model has samples are drawn from the truth."""


def peptide_groups(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the peptides that were trained on, and the held-out one."""
    return {
        "trained on": sorted({row["target"] for row in rows} - {HELD_OUT}),
        "held out": [HELD_OUT],
    }


def seeds_table(rows: Sequence[Row], titles: Mapping[str, str] = TITLES) -> str:
    """Return a table of each method on the peptides it was trained on and on the held-out one."""
    groups = peptide_groups(rows)
    truth, biased = (
        {row["target"]: row for row in rows if row["arm"] == arm} for arm in ("unbiased", "biased")
    )
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    for group, names in groups.items():
        before = {(row["seed"], row["target"]): row for row in rows if row["arm"] == "sft"}
        lines.append(_truth_line(group, [(truth[name], biased.get(name)) for name in names]))
        for method, title in titles.items():
            seeds = list(by_seed(rows, method, names))
            if seeds:
                lines.append(_line(title, group, seeds, truth, before))
                if method == "sft":
                    lines.append(_reachable_line(group, seeds))
    return "\n".join(lines) + "\n"


def by_seed(rows: Sequence[Row], method: str, names: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows of these peptides for each seed of a method."""
    found = [row for row in rows if row["arm"] == method and row["target"] in names]
    for seed in sorted({row["seed"] for row in found}):
        yield [row for row in found if row["seed"] == seed]


def _distances(row: Row) -> np.ndarray:
    return distances([row])[0]


def _folded(row: Row) -> float:
    return 100 * closed_share(_distances(row), CLOSED_ANGSTROM)


def _log_odds(row: Row) -> float:
    return log_odds(_distances(row), CLOSED_ANGSTROM)


def _w1(row: Row, other: Row) -> float:
    return w1_angstrom(_distances(row), _distances(other))


def _share(row: Row, key: str) -> float:
    return 100 * row[key] / len(_distances(row))


def over_seeds(seeds: Sequence[list[Row]], measure: Callable[[Row], float], places: int) -> str:
    """Return the mean over peptides and seeds, and the range of the seeds' means."""
    means = [np.mean([measure(row) for row in rows]) for rows in seeds]
    text = f"{np.mean(means):.{places}f}"
    if len(means) > 1:
        text += f" ({min(means):.{places}f} to {max(means):.{places}f})"
    return text


def _line(
    title: str,
    group: str,
    seeds: Sequence[list[Row]],
    truth: dict[str, Row],
    before: dict[tuple[int, str], Row],
) -> str:
    def shift(row: Row) -> float:
        return _log_odds(row) - _log_odds(before[row["seed"], row["target"]])

    moved = "" if seeds[0][0]["arm"] in ("biased", "sft") else over_seeds(seeds, shift, 2)
    measures: list[tuple[Callable[[Row], float], int]] = [
        (lambda row: _w1(row, truth[row["target"]]), 2),
        (lambda row: torsion_jsd([row], truth[row["target"]]), 2),
        (lambda row: _share(row, "valid"), 1),
        (lambda row: _share(row, "inverted"), 1),
        (lambda row: row["bond_rms_angstrom"], 3),
    ]
    cells = (
        *(title, group, over_seeds(seeds, _folded, 1), moved),
        *(over_seeds(seeds, measure, places) for measure, places in measures),
    )
    return f"| {' | '.join(cells)} |"


def _reachable_line(group: str, seeds: Sequence[list[Row]]) -> str:
    """Return a row for the supervised model's own samples, weighted by exp(V / kT)."""

    def folded(row: Row) -> float:
        return 100 * reweighted_share("folded", _distances(row), CLOSED_ANGSTROM)

    cells = ("its samples, weighted by exp(V / kT)", group, over_seeds(seeds, folded, 1))
    return f"| {' | '.join(cells)} |" + " |" * 6


def _truth_line(group: str, rows: Sequence[tuple[Row, Row | None]]) -> str:
    """Return a row for MD without the bias.

    Its shift is the one from MD with the bias, its W1 and torsions are the floor: of as many
    conformations as a model has samples, drawn from it.
    """
    w1, torsions = np.mean([_floor(row) for row, _ in rows], axis=0)
    shifts = [_log_odds(row) - _log_odds(biased) for row, biased in rows if biased]
    alone = [[row for row, _ in rows]]
    cells = (
        *("MD without it (the truth)", group, over_seeds(alone, _folded, 1)),
        f"{np.mean(shifts):.2f} from MD with it" if shifts else "",
        *(f"{w1:.2f} of as many draws", f"{torsions:.2f} of as many draws"),
        over_seeds(alone, lambda row: _share(row, "valid"), 1),
        over_seeds(alone, lambda row: _share(row, "inverted"), 1),
        over_seeds(alone, lambda row: row["bond_rms_angstrom"], 3),
    )
    return f"| {' | '.join(cells)} |"


def _floor(row: Row) -> tuple[float, float]:
    """Return the mean W1 and divergence of `SAMPLES` draws from MD to all of it."""
    draw = np.random.default_rng(0)
    distance, counts = _distances(row), np.sum(row["torsions"], axis=0)
    per_frame = counts.sum() // len(distance)
    found = []
    for _ in range(DRAWS):
        few = draw.choice(distance, SAMPLES)
        torsions = [draw.multinomial(SAMPLES * per_frame, counts / counts.sum())]
        found.append((w1_angstrom(few, distance), torsion_jsd([{"torsions": torsions}], row)))
    w1, torsions = np.mean(found, axis=0)
    return float(w1), float(torsions)
