"""Table and figure on the hand of peptides, from the results of peptide_hand.py.

A part of proof_report.py.
"""

from __future__ import annotations

from typing import Any, Final

from protenix_eba.eval.report.plots.style import label_colours, small_multiples

HAND_SIGMA: Final = (0.5, 1.0)  # angstrom: noise at which mirror images can be told


def hand_table(hand: dict[str, Any]) -> str:
    """Return a table of how each variant of peptide_hand.py ended."""
    levels = next(iter(hand["variants"].values()))["history"][-1]["sigma"]
    shown = [levels.index(sigma) for sigma in HAND_SIGMA]
    errors = [f"error at {sigma} Å: true, mirrored" for sigma in HAND_SIGMA]
    headings = ("variant", "steps", "D in samples, %", "D of true at 2 Å, %", *errors)
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for variant in hand["variants"].values():
        end = variant["history"][-1]
        wrong = end["inverted_true"][levels.index(2.0)]
        cells = (
            *(variant["title"], f"{end['steps']:,}"),
            *(f"{100 * end['inverted']:.1f}", f"{100 * wrong:.1f}"),
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
