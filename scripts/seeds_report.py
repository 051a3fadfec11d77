"""A table of the demo's models over seeds and methods, from what demo_seeds.py stores.

A part of proof_report.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from make_peptide_md import SETS
from protenix_eba.cli.demo_stages import CLOSED_ANGSTROM, HELD_OUT, SAMPLES
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.eval.coordinate import w1_angstrom
from protenix_eba.eval.metrics.distributions import jsd_bits

__all__ = ["seeds_table"]

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


def seeds_table(rows: Sequence[Row]) -> str:
    """Return a table of each method on the peptides it was trained on and on the held-out one."""
    groups = {
        "trained on": sorted({row["target"] for row in rows} - {HELD_OUT}),
        "held out": [HELD_OUT],
    }
    truth, biased = (
        {row["target"]: row for row in rows if row["arm"] == arm} for arm in ("unbiased", "biased")
    )
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    for group, names in groups.items():
        before = {(row["seed"], row["target"]): row for row in rows if row["arm"] == "sft"}
        lines.append(_truth_line(group, [(truth[name], biased.get(name)) for name in names]))
        for method, title in TITLES.items():
            seeds = list(_by_seed(rows, method, names))
            if seeds:
                lines.append(_line(title, group, seeds, truth, before))
                if method == "sft":
                    lines.append(_reachable_line(group, seeds))
    return "\n".join(lines) + "\n"


def _by_seed(rows: Sequence[Row], method: str, names: Sequence[str]) -> Iterator[list[Row]]:
    """Yield the rows of these peptides for each seed of a method."""
    found = [row for row in rows if row["arm"] == method and row["target"] in names]
    for seed in sorted({row["seed"] for row in found}):
        yield [row for row in found if row["seed"] == seed]


def _distances(row: Row) -> np.ndarray:
    return np.concatenate([np.array(part) for part in row["distance_pm"]]) / 100


def _folded(distance: np.ndarray) -> float:
    return float(100 * (distance < CLOSED_ANGSTROM).mean())


def _torsions(one: Any, other: Any) -> float:
    shares = [np.sum(counts, axis=0) / np.sum(counts) for counts in (one, other)]
    return float(jsd_bits(shares[0][None], shares[1][None])[0])


def _log_odds(row: Row) -> float:
    """Return ln(folded / stretched), with half a conformation added to both."""
    near = _distances(row) < CLOSED_ANGSTROM
    return float(np.log((near.sum() + 0.5) / ((~near).sum() + 0.5)))


def _line(
    title: str,
    group: str,
    seeds: Sequence[list[Row]],
    truth: dict[str, Row],
    before: dict[tuple[int, str], Row],
) -> str:
    def over_seeds(measure: Callable[[Row], float], places: int) -> str:
        means = [np.mean([measure(row) for row in rows]) for rows in seeds]
        text = f"{np.mean(means):.{places}f}"
        if len(means) > 1:
            text += f" ({min(means):.{places}f} to {max(means):.{places}f})"
        return text

    def shift(row: Row) -> float:
        return _log_odds(row) - _log_odds(before[row["seed"], row["target"]])

    def of_all(key: str) -> Callable[[Row], float]:
        return lambda row: 100 * row[key] / len(_distances(row))

    cells = (
        *(title, group, over_seeds(lambda row: _folded(_distances(row)), 1)),
        over_seeds(shift, 2) if seeds[0][0]["arm"] not in ("biased", "sft") else "",
        over_seeds(lambda row: w1_angstrom(_distances(row), _distances(truth[row["target"]])), 2),
        over_seeds(lambda row: _torsions(row["torsions"], truth[row["target"]]["torsions"]), 2),
        *(over_seeds(of_all("valid"), 1), over_seeds(of_all("inverted"), 1)),
        over_seeds(lambda row: row["bond_rms_angstrom"], 3),
    )
    return f"| {' | '.join(cells)} |"


def _reachable_line(group: str, seeds: Sequence[list[Row]]) -> str:
    """Return a row for the supervised model's own samples, weighted by exp(V / kT)."""
    bias = SETS["folded"].bias
    assert bias is not None

    def folded(row: Row) -> float:
        distance = _distances(row)
        weight = np.exp(bias.energy_kj_mol(distance) / thermal_energy_kj_mol(300.0))
        return float(100 * weight[distance < CLOSED_ANGSTROM].sum() / weight.sum())

    means = [np.mean([folded(row) for row in rows]) for rows in seeds]
    told = f"{np.mean(means):.1f} ({min(means):.1f} to {max(means):.1f})"
    return f"| its samples, weighted by exp(V / kT) | {group} | {told} |" + " |" * 6


def _truth_line(group: str, rows: Sequence[tuple[Row, Row | None]]) -> str:
    """Return a row for MD without the bias.

    Its shift is the one from MD with the bias, its W1 and torsions are the floor: of as many
    conformations as a model has samples, drawn from it.
    """
    floors = [_floor(row) for row, _ in rows]
    w1, torsions = np.mean(floors, axis=0)
    shifts = [_log_odds(row) - _log_odds(biased) for row, biased in rows if biased]
    valid = np.mean([100 * row["valid"] / len(_distances(row)) for row, _ in rows])
    cells = (
        *("MD without it (the truth)", group),
        f"{np.mean([_folded(_distances(row)) for row, _ in rows]):.1f}",
        f"{np.mean(shifts):.2f} from MD with it" if shifts else "",
        *(f"{w1:.2f} of as many draws", f"{torsions:.2f} of as many draws"),
        *(f"{valid:.1f}", f"{np.mean([_inverted(row) for row, _ in rows]):.1f}"),
        f"{np.mean([row['bond_rms_angstrom'] for row, _ in rows]):.3f}",
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
        torsions = draw.multinomial(SAMPLES * per_frame, counts / counts.sum())
        found.append((w1_angstrom(few, distance), _torsions([torsions], [counts])))
    w1, torsions = np.mean(found, axis=0)
    return float(w1), float(torsions)


def _inverted(row: Row) -> float:
    return float(100 * row["inverted"] / len(_distances(row)))
