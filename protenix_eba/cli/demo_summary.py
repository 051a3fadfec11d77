"""What `protenix-eba demo` says and draws at its end: populations, findings and couplings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from protenix_eba.cli.demo_stages import CLOSED_ANGSTROM, HELD_OUT, MEASURED, MODELS, Demo
from protenix_eba.core.progress import console, tell

__all__ = ["show_couplings", "summarise"]


def summarise(demo: Demo, seconds: float) -> None:
    """Draw the free energies of the ensembles and print what the numbers say, good or bad."""
    from protenix_eba.eval.models import compare_evaluations
    from protenix_eba.eval.report.findings import findings
    from protenix_eba.eval.results import load_evaluation

    console.rule("[bold]what was learnt", align="left")
    _show_populations(demo)
    folders = [demo.out / "evaluation" / name for name in MODELS.values()]
    comparison = compare_evaluations([load_evaluation(folder) for folder in folders])
    training = {title: demo.out / name for title, name in MODELS.items()}
    for sentence in findings(comparison.groups[0].summaries, training):
        tell(f"- {sentence}")
    show_couplings(demo)
    tell(f"report: {demo.out / 'report.html'}   ({seconds / 60:.1f} minutes)")


def show_couplings(demo: Demo) -> None:
    """Print couplings beside the measured ones, and how far each ensemble is from them."""
    from protenix_eba.cli.suites import screen_table
    from protenix_eba.eval.suites.answers import load_answers
    from protenix_eba.eval.suites.comparison import side_by_side

    answers = load_answers(list(demo.couplings.values()))
    for table in side_by_side(answers):
        if table.title.startswith("predicted"):
            console.print(screen_table(table))
    tell(
        f"{MEASURED} beside measured couplings (Graf et al. 2007: at pH 2, so its C-terminus is "
        "neutral, and here it is charged): chi^2 per coupling; below 1 is within the errors of the "
        "Karplus curves, which see phi alone; frames of MD are taken to be independent"
    )
    for title, answer in zip(demo.couplings, answers.values(), strict=True):
        chi2 = answer.values[MEASURED, "", "chi2", 0]
        low, high = chi2.interval or (chi2.value, chi2.value)
        tell(f"  {title:28}{chi2.value:.2f} ({low:.2f} to {high:.2f})")


def _show_populations(demo: Demo) -> None:
    """Draw the free energy along the distance of the ends, and print populations."""
    from protenix_eba.eval.report.plots.coordinate import profile_figure
    from protenix_eba.structures.trajectories import find_targets

    names = sorted((t.name for t in find_targets(demo.truth)), key=lambda name: name == HELD_OUT)
    systems = {
        f"{name} ({'not trained on' if name == HELD_OUT else 'trained on'})": _ensembles(demo, name)
        for name in names
    }
    drawing = profile_figure(systems, bin_angstrom=0.5)
    for suffix, data in (("svg", drawing.svg), ("png", drawing.png)):
        (demo.out / f"free_energy.{suffix}").write_bytes(data)
    for title, of_system in systems.items():
        tell(
            f"{title}: ends within {CLOSED_ANGSTROM:g} angstrom, W1 of their distance to the truth"
        )
        for line in _populations(of_system):
            tell(f"  {line}")
    tell(f"drawn in {demo.out / 'free_energy.png'}")


def _ensembles(demo: Demo, name: str) -> dict[str, list[Any]]:
    """Return the distances of a peptide's ends in blocks, by ensemble; the last is the truth."""
    from protenix_eba.energy.bias import replica_distances
    from protenix_eba.eval.coordinate import MD_BLOCK_FRAMES, blocks_of
    from protenix_eba.structures.trajectories import find_targets

    def blocks(folder: Path, size: int = MD_BLOCK_FRAMES) -> list[Any]:
        (target,) = (t for t in find_targets(folder) if t.name == name)
        return blocks_of(list(replica_distances(target).values()), size)

    md = (demo.data, demo.truth)
    return {
        title: blocks(folder) if folder in md else blocks(folder, size=1)
        for title, folder in demo.ensembles.items()
    }


def _populations(of_system: dict[str, list[Any]]) -> Iterator[str]:
    """Yield a line for each ensemble: its share of closed chains and W1 to the last ensemble."""
    from protenix_eba.eval.coordinate import closed_share, interval, w1_angstrom

    *_, truth = of_system.values()
    for title, ensemble in of_system.items():
        closed = interval(partial(closed_share, within_angstrom=CLOSED_ANGSTROM), ensemble)
        value, low, high = (100 * one for one in (closed.value, closed.low, closed.high))
        line = f"{title:28}{value:5.1f}% ({low:.1f} to {high:.1f})"
        if ensemble is not truth:
            line += f"   {interval(w1_angstrom, ensemble, truth, n=200)} angstrom"
        yield line
