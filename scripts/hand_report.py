"""Tables and a figure of peptides with a hand: the gate of peptide_hand.py, and a start.

A part of proof_report.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from protenix_eba.eval.report.plots.style import label_colours, small_multiples

NAMES: Final = ("target", "sampler")
HAND_SIGMA: Final = (0.5, 1.0)  # angstrom: noise at which mirror images can be told


def hand_table(hand: dict[str, Any]) -> str:
    """Return a table of how each variant of peptide_hand.py ended."""
    levels = next(iter(hand["variants"].values()))["history"][-1]["sigma"]
    shown = [levels.index(sigma) for sigma in HAND_SIGMA]
    errors = [f"error at {sigma} Å: true, mirrored" for sigma in HAND_SIGMA]
    headings = (
        *("variant", "steps", "D in samples, %", "JSD of torsions, bits", "D of true at 2 Å, %"),
        *errors,
    )
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for variant in hand["variants"].values():
        end = variant["history"][-1]
        wrong = end["inverted_true"][levels.index(2.0)]
        cells = (
            *(variant["title"], f"{end['steps']:,}"),
            *(f"{100 * end['inverted']:.1f}", str(end.get("torsions", "")), f"{100 * wrong:.1f}"),
            *(f"{end['true'][n]:.3f}, {end['mirrored'][n]:.3f}" for n in shown),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def hand_figure(hand: dict[str, Any]) -> bytes:
    """Draw the share of D residues over the time of training."""
    lines = {
        variant["title"]: [(row["minutes"], 100 * row["inverted"]) for row in variant["history"]]
        for variant in hand["variants"].values()
    }
    colours = label_colours(list(lines))

    def draw(axes: Any, of_variant: dict[str, Any]) -> None:
        for number, (title, points) in enumerate(of_variant.items()):
            style = ("-", "--", ":")[number // 6 % 3]
            axes.plot(*zip(*points, strict=True), style, color=colours[title], label=title)
        axes.set_ylim(0, None)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))

    return small_multiples(
        {"": lines}, draw, "minutes of one core", "D residues, %", panel_size=(4.0, 2.8)
    ).svg


def peptides_table(rows: Sequence[dict[str, Any]], kind: str) -> str:
    """Return a table of a start as judge_start.py found it: means of groups of peptides.

    Args:
        rows: A line for each peptide and sampler.
        kind: What the peptides that are not glycine chains are called.
    """
    headings = (
        *("peptides", "sampler", "valid, %", "with a D residue, %", "bond rms, Å"),
        *("JSD torsions, bits", "of as many draws", "W1 of the ends, Å", "of MD replicas"),
    )
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for title, seen, glycine in (
        (f"{kind}, trained on", True, False),
        (f"{kind}, held out", False, False),
        ("glycine chains, trained on", True, True),
        ("glycine chain, held out", False, True),
    ):
        for sampler in ("exact", "default"):
            group = [
                row
                for row in rows
                if row["seen"] == seen
                and row["sampler"] == sampler
                and row["target"].startswith("gly") == glycine
            ]
            if group:
                lines.append(peptides_line(title, sampler, group))
    return "\n".join(lines) + "\n"


def peptides_line(title: str, sampler: str, group: Sequence[dict[str, Any]]) -> str:
    """Return means over a group of peptides, the worst of them in brackets where it counts."""
    mean = {key: np.mean([row[key] for row in group]) for key in group[0] if key not in NAMES}
    worst = min(row["valid"] for row in group)
    cells = (
        *(f"{title} ({len(group)})", sampler),
        f"{100 * mean['valid']:.1f} (worst {100 * worst:.1f})",
        f"{100 * mean['inverted']:.1f}",
        *(f"{mean[key]:.3f}" for key in ("bond_rms_angstrom", "torsions", "torsions_drawn")),
        *(f"{mean[key]:.2f}" for key in ("w1_angstrom", "w1_md")),
    )
    return f"| {' | '.join(cells)} |"
