"""Tables and figures of docs/proof.md, derived from docs/proof/results.json.

Imported by proof.py; `python scripts/proof.py --check` derives all of it anew and compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from hand_report import hand_figure, hand_table, peptides_table
from make_peptide_md import SETS
from proof_measures import Rows, distances, reweighted_share, torsion_jsd
from protenix_eba.core.files import atomic_path
from protenix_eba.core.progress import console
from protenix_eba.eval.coordinate import (
    CLOSED_ANGSTROM,
    Interval,
    blocks_of,
    closed_share,
    distribution_jsd,
    interval,
    log_odds,
    w1_angstrom,
)
from protenix_eba.eval.report.plots.coordinate import profile_figure, shifts_figure
from seeds_report import seeds_table

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
RESULTS: Final = DOCS / "proof" / "results.json"
PAGE: Final = DOCS / "proof.md"
FIGURES: Final = {
    "gly4": DOCS / "proof" / "gly4.svg",
    "gly5": DOCS / "proof" / "gly5.svg",
}
FOLLOWS: Final = DOCS / "proof" / "follows.svg"
HAND: Final = DOCS / "proof" / "hand.json"
# What judge_start.py found of starts with a hand, and the generated part that shows it.
JUDGED: Final = {name: DOCS / "proof" / f"{name}.json" for name in ("tripeptides", "tetrapeptides")}
HAND_FIGURE: Final = HAND.with_suffix(".svg")
# What demo_seeds.py found, and the generated part that shows it.
SEEDS: Final = DOCS / "proof" / "tripeptide_seeds.json"
HEADINGS: Final = (
    *("arm", "closed, %", "by seed", "shift of log-odds", "W1, Å", "JSD distance, bits"),
    *("JSD torsions, bits", "valid, %", "bond rms, Å"),
)
TITLES: Final = {"biased": "biased MD", "strong": "biased MD", "hot": "MD at 450 K"}


class Results:
    """All ensembles of the experiment, found by their properties.

    Args:
        rows: As `proof.py` stores them.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the rows with these values."""
        return [row for row in self.rows if all(row.get(k) == v for k, v in wanted.items())]

    def md(self, system: str, target: str) -> list[np.ndarray]:
        """Return the distances of each replica of the MD, in angstrom."""
        (row,) = self.find(system=system, arm="md", target=target)
        return [np.array(part) / 100 for part in row["distance_pm"]]


def singly(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Return the samples of all seeds as blocks of one, `[F, 1]`."""
    return np.concatenate(samples)[:, None]


def percent(value: Interval) -> str:
    """Format a share with its interval."""
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def table(results: Results, system: str, target: str, sampler: str, arms: dict[str, str]) -> str:
    """Return a table of the MD, the model before alignment and each arm."""
    truth = results.md("unbiased", target)
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    (true_row,) = results.find(system="unbiased", arm="md", target=target)
    for name in ("unbiased", system):
        found = results.find(system=name, arm="md", target=target)
        if found:
            title = "MD without bias (the truth)" if name == "unbiased" else TITLES[system]
            lines.append(md_line(title, results.md(name, target), found[0], truth, true_row))
    before = results.find(system=system, arm="sft", target=target, sampler=sampler)
    expected = shift_expected(results, system, target)
    for arm, title in {"sft": "before alignment (supervised)", **arms}.items():
        rows = results.find(system=system, arm=arm, target=target, sampler=sampler)
        if rows:
            lines.append(model_line(title, rows, before, truth, true_row))
    text = "\n".join(lines) + "\n"
    if expected:
        text += f"\nExpected shift of the log-odds: {expected}, from MD to MD.\n"
    if SETS[system].bias and before:
        text += f"\n{reachable(before, system)}\n"
    return text


def reachable(before: Rows, system: str) -> str:
    """Return what alignment by exp(V / kT) can make of this model, whose samples are not MD."""
    share, moved = (
        interval(partial(statistic, system), singly(distances(before)))
        for statistic in (reweighted_share, reweighted_shift)
    )
    return (
        f"The samples before alignment, weighted by exp(V / kT), hold {percent(share)}% of closed "
        f"chains: a shift of {moved}. This is what alignment of this model can reach."
    )


def reweighted_shift(system: str, distance: np.ndarray) -> float:
    """Return the change of the log-odds by these weights."""
    share = reweighted_share(system, distance)
    return float(np.log(share / (1 - share))) - log_odds(distance)


def shift_expected(results: Results, system: str, target: str) -> Interval | None:
    """Return the right change of ln(closed / open): MD without the bias less MD with it."""
    if not results.find(system=system, arm="md", target=target):
        return None
    truth, biased = results.md("unbiased", target), results.md(system, target)
    return interval(shift, blocks_of(truth), blocks_of(biased))


def shift(after: np.ndarray, before: np.ndarray) -> float:
    """Return the difference of the log-odds of being closed."""
    return log_odds(after) - log_odds(before)


def md_line(
    title: str, replicas: Sequence[np.ndarray], row: dict[str, Any], truth: Any, true_row: Any
) -> str:
    """Return a table row for MD; the truth's own distances are those between its replicas."""
    blocks, itself = blocks_of(replicas), row is true_row
    pooled = np.concatenate(replicas)
    each = ", ".join(f"{100 * closed_share(part):.1f}" for part in replicas)
    cells = [title, percent(interval(closed_share, blocks)), each, ""]
    if itself:
        cells += [f"{among(replicas, w1_angstrom):.2f} (between replicas)"]
        cells += [f"{among(replicas, distribution_jsd):.3f} (between replicas)"]
        cells += [f"{torsions_among(row):.3f} (between replicas)"]
    else:
        cells += [str(interval(w1_angstrom, blocks, blocks_of(truth), n=200))]
        cells += [f"{distribution_jsd(pooled, np.concatenate(truth)):.3f}"]
        cells += [f"{torsion_jsd([row], true_row):.3f}"]
    cells += [f"{100 * row['valid'] / len(pooled):.1f}", f"{row['bond_rms_angstrom']:.3f}"]
    return f"| {' | '.join(cells)} |"


def among(
    replicas: Sequence[np.ndarray], measure: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    """Return the mean over replicas of each one's distance from the others."""
    return float(np.mean([measure(*parts) for parts in one_and_others(replicas)]))


def one_and_others(parts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each part with the others joined together."""
    for n, part in enumerate(parts):
        yield part, np.concatenate([other for m, other in enumerate(parts) if m != n])


def torsions_among(row: dict[str, Any]) -> float:
    """Return the mean `torsion_jsd` of each replica from the others."""
    counts = [np.array(part) for part in row["torsions"]]
    pairs = [({"torsions": [c]}, {"torsions": [sum(counts) - c]}) for c in counts]
    return float(np.mean([torsion_jsd([one], others) for one, others in pairs]))


def model_line(title: str, rows: Rows, before: Rows, truth: Any, true_row: Any) -> str:
    """Return a row of the table for a model, its seeds together."""
    samples = distances(rows)
    blocks, pooled = singly(samples), np.concatenate(samples)
    each = ", ".join(f"{100 * closed_share(part):.1f}" for part in samples)
    moved = "" if rows is before else str(interval(shift, blocks, singly(distances(before))))
    valid = sum(row["valid"] for row in rows) / len(pooled)
    bonds = np.sqrt(np.mean([row["bond_rms_angstrom"] ** 2 for row in rows]))
    cells = (
        title,
        percent(interval(closed_share, blocks)),
        each,
        moved,
        str(interval(w1_angstrom, blocks, blocks_of(truth), n=200)),
        f"{distribution_jsd(pooled, np.concatenate(truth)):.3f}",
        f"{torsion_jsd(rows, true_row):.3f}",
        f"{100 * valid:.1f}",
        f"{bonds:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def start_table(results: Results) -> str:
    """Return a table of the model before alignment and the biased MD of its training."""
    headings = ("chain", "sampler", "closed, %", "W1, Å", "JSD torsions, bits", "valid, %")
    lines = [f"| {' | '.join((*headings, 'bond rms, Å'))} |", "|---" * 7 + "|"]
    for target in FIGURES:
        md = results.md("biased", target)
        (row,) = results.find(system="biased", arm="md", target=target)
        cells = (
            *(target, "MD itself", percent(interval(closed_share, blocks_of(md)))),
            f"{among(md, w1_angstrom):.2f} (between replicas)",
            f"{torsions_among(row):.3f} (between replicas)",
            f"{100 * row['valid'] / sum(map(len, md)):.1f}",
            f"{row['bond_rms_angstrom']:.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
        for sampler in ("exact", "default"):
            lines += [start_line(one, md, row) for one in results.find(
                system="biased", arm="sft", target=target, sampler=sampler
            )]  # fmt: skip
    return "\n".join(lines) + "\n"


def start_line(sampled: dict[str, Any], md: Sequence[np.ndarray], row: dict[str, Any]) -> str:
    """Return a row for the samples of one chain by one sampler."""
    (distance,) = distances([sampled])
    cells = (
        *(sampled["target"], sampled["sampler"]),
        percent(interval(closed_share, distance[:, None])),
        str(interval(w1_angstrom, distance[:, None], blocks_of(md), n=200)),
        f"{torsion_jsd([sampled], row):.3f}",
        f"{100 * sampled['valid'] / len(distance):.1f}",
        f"{sampled['bond_rms_angstrom']:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def figure(results: Results, target: str) -> bytes:
    """Draw the free energy along the distance: MD with and without bias, before and after."""
    find = {"system": "biased", "target": target, "sampler": "exact"}
    before, after = (distances(results.find(arm=arm, **find)) for arm in ("sft", "eba"))
    ensembles = {
        "MD with the bias": blocks_of(results.md("biased", target)),
        "before alignment": singly(before),
        "after EBA": singly(after),
        "MD without it": blocks_of(results.md("unbiased", target)),
    }
    return profile_figure({"": ensembles}).svg


def implied_shift(frames: np.ndarray) -> float:
    """Return the change of log-odds that errors imply, from frames' `[F, 2]` distance, ln ratio."""
    distance, log_ratio = frames.T
    weight = np.exp(log_ratio - log_ratio.max())
    share = weight[distance < CLOSED_ANGSTROM].sum() / weight.sum()
    return float(np.log(share / (1 - share))) - log_odds(distance)


def leak(frames: np.ndarray) -> float:
    """Return -ln of the mean ratio: 0 for a distribution that became another one."""
    return float(-np.log(np.exp(frames[:, 1]).mean()))


def implied(results: Results, system: str, arm: str) -> np.ndarray | None:
    """Return distance and ln ratio of held-out frames, the mean over seeds, `[F, 2]`."""
    rows = [row["implied"] for row in results.find(system=system, arm=arm) if "implied" in row]
    if not rows:
        return None
    ratio = np.mean([row["log_ratio"] for row in rows], axis=0)
    return np.stack([np.array(rows[0]["distance_pm"]) / 100, ratio], axis=1)


def follows(results: Results, titles: dict[str, str]) -> dict[str, tuple[Interval, ...]]:
    """Return for each arm the shift that errors imply, the sampled one, and what leaked."""
    wanted = {"system": "biased", "target": "gly4", "sampler": "exact"}
    before = singly(distances(results.find(arm="sft", **wanted)))
    made = {}
    for arm, title in titles.items():
        frames, rows = implied(results, "biased", arm), results.find(arm=arm, **wanted)
        if frames is not None and rows:
            said, leaked = (interval(f, frames[:, None]) for f in (implied_shift, leak))
            made[title] = (said, interval(shift, singly(distances(rows)), before), leaked)
    return made


def follows_table(results: Results, titles: dict[str, str]) -> str:
    """Return a table that shows whether the samples follow the errors."""
    headings = ("arm", "shift by the errors", "shift of the samples", "leak, nats")
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for title, values in follows(results, titles).items():
        lines.append(f"| {' | '.join([title, *map(str, values)])} |")
    return "\n".join(lines) + "\n"


def kernel_table(results: Results) -> str:
    """Return a table of the denoiser before alignment and of what the MD's frames say."""
    (row,) = [r["kernel"] for r in results.find(system="biased", arm="sft") if "kernel" in r]
    lines = ["| noise, Å | " + " | ".join(map(str, row["sigma_angstrom"])) + " |"]
    lines.append("|---" * (len(row["sigma_angstrom"]) + 1) + "|")
    titles = {"frames": "posterior mean over 4,000 frames", "model": "model before alignment"}
    for name, title in titles.items():
        lines.append(f"| {title} | " + " | ".join(f"{value:.3f}" for value in row[name]) + " |")
    return "\n".join(lines) + "\n"


def write_hand(hand: dict[str, Any]) -> None:
    """Store what peptide_hand.py found beside what it found before; draw it, fill in the page."""
    before = json.loads(HAND.read_text(encoding="utf-8"))
    hand = hand | {"variants": before["variants"] | hand["variants"]}
    HAND_FIGURE.write_bytes(hand_figure(hand))
    store_and_show(hand, HAND, {"hand": hand_table(hand)}, PAGE)


def write_judged(name: str, rows: Rows) -> None:
    """Store what judge_start.py found of one of `JUDGED`, and fill in its part of the page."""
    store_and_show(rows, JUDGED[name], {name: peptides_table(rows, name)}, PAGE)


def write_seeds(rows: Rows) -> None:
    """Store what demo_seeds.py found, and fill in its part of the page."""
    store_and_show(rows, SEEDS, {"tripeptide-seeds": seeds_table(rows)}, PAGE)


def store_and_show(content: Any, path: Path, parts: dict[str, str], page: Path) -> None:
    """Store results, and fill in what a page shows of them."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    page.write_text(page_with(parts, page.read_text(encoding="utf-8")), encoding="utf-8")
    console.print(f"wrote {page}", markup=False)


def blocks(results: Results, titles: dict[str, str]) -> dict[str, str]:
    """Return every generated part of the page, by its name."""
    made = {}
    for system in ("biased", "strong", "hot"):
        if results.find(system=system, arm="sft"):
            made[system] = table(results, system, "gly4", "exact", titles)
    made["start"] = start_table(results)
    made["kernel"] = kernel_table(results)
    made["follows"] = follows_table(results, titles)
    made["held-out"] = table(results, "biased", "gly5", "exact", titles)
    made["default-sampler"] = table(results, "biased", "gly4", "default", titles)
    made["hand"] = hand_table(json.loads(HAND.read_text(encoding="utf-8")))
    for name, path in JUDGED.items():
        made[name] = peptides_table(json.loads(path.read_text(encoding="utf-8")), name)
    made["tripeptide-seeds"] = seeds_table(json.loads(SEEDS.read_text(encoding="utf-8")))
    return made


def page_with(parts: dict[str, str], page: str) -> str:
    """Return the page with its generated parts replaced."""
    for name, text in parts.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        filled = partial(_filled, text)
        page = re.sub(pattern, filled, page, flags=re.DOTALL)
    return page


def _filled(text: str, found: re.Match[str]) -> str:
    return f"{found[1]}\n{text}\n{found[2]}"


def write(rows: Rows, titles: dict[str, str]) -> None:
    """Store the results, draw the figures and fill in the page."""
    results = Results(rows)
    for target, path in FIGURES.items():
        path.write_bytes(figure(results, target))
        console.print(f"wrote {path}", markup=False)
    FOLLOWS.write_bytes(shifts_figure(follows(results, titles)).svg)
    content = {"titles": titles, "ensembles": rows}
    store_and_show(content, RESULTS, blocks(results, titles), PAGE)


def check() -> int:
    """Compare page and figures with what the stored results give; return 1 on a difference."""
    wrong = wrong_tables(derived(), PAGE.read_text(encoding="utf-8")) + wrong_figures()
    return tell_wrong(wrong, f"{PAGE.name}: all tables and figures follow from {RESULTS.name}")


def tell_wrong(names: Sequence[str], else_said: str) -> int:
    """Say which parts are not what the stored results give; return 1 if any, else 0."""
    for name in names:
        console.print(f"{name}: not what the stored results give", markup=False)
    if not names:
        console.print(else_said)
    return 1 if names else 0


def derived() -> dict[str, str]:
    """Return the page's generated parts by name, from the stored results."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    return blocks(Results(content["ensembles"]), content["titles"])


def wrong_tables(parts: dict[str, str], page: str) -> list[str]:
    """Return the names of generated parts of a page that differ from these."""
    empty = set(re.findall(r"<!-- generated: ([\w-]+) -->", page)) - parts.keys()
    return sorted(empty) + [
        name
        for name, text in parts.items()
        if f"<!-- generated: {name} -->\n\n{text}\n<!-- end -->" not in page
    ]


def wrong_figures() -> list[str]:
    """Return figures that differ, as other versions of matplotlib may draw them otherwise."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    results = Results(content["ensembles"])
    drawn = {path: figure(results, target) for target, path in FIGURES.items()}
    drawn[FOLLOWS] = shifts_figure(follows(results, content["titles"])).svg
    drawn[HAND_FIGURE] = hand_figure(json.loads(HAND.read_text(encoding="utf-8")))
    return [path.name for path, svg in drawn.items() if path.read_bytes() != svg]
