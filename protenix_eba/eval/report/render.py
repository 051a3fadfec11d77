"""One self-contained HTML page about one model or several: nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protenix_eba.core.files import atomic_path
from protenix_eba.eval.aggregate import CONFIDENCE_PERCENT, MIN_TARGETS, RESAMPLES
from protenix_eba.eval.catalogue import target_metrics
from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.models import Comparison, Group
from protenix_eba.eval.report.figure import Figure, write_figures
from protenix_eba.eval.report.figures import (
    detailed_targets,
    draw_figures,
    with_arrays,
)
from protenix_eba.eval.report.scene import Scene, scenes_json, viewer_scripts
from protenix_eba.eval.report.tables import FLOOR_NAME, headline, leaderboard, number
from protenix_eba.eval.report.templates import template
from protenix_eba.eval.report.viewer import md_scenes
from protenix_eba.eval.results import mean_floor

if TYPE_CHECKING:
    from protenix_eba.eval.suites.page import Page

__all__ = ["render_report"]

_FRAMES: Final = (
    "md_frames", "sample_frames", "atom_names", "atom_residue", "sample_shown", "sample_from_md"
)  # fmt: skip


@dataclass(frozen=True)
class _TargetLine:
    """One line of the table of targets."""

    name: str
    label: str
    n_samples: str
    cells: list[str]
    floor: bool
    notes: str


def render_report(
    comparison: Comparison,
    folder: Path,
    *,
    findings: Sequence[str] = (),
    training: Sequence[Figure] = (),
    settings: Mapping[str, Any] | None = None,
    suites: Sequence[Page] = (),
) -> Path:
    """Write `report.html` and `figures/`.

    Args:
        comparison: One model or several.
        folder: Folder to write to.
        findings: Plain sentences to stand at the top.
        training: Figures of the runs that made the models.
        settings: More of what was run, nested as it likes.
        suites: Answers of suites for the same models, to stand below.

    Returns:
        The path of the page.

    Raises:
        UserError: A file cannot be written.
    """
    sections = [_section(group, comparison) for group in comparison.groups]
    sections[0]["figures"] += training
    viewer = scenes_json(_scenes(comparison.groups[0]))
    shown = {label: dict(e.settings) for label, e in comparison.evaluations.items()}
    page = template("report.html.jinja").render(
        comparison=comparison,
        sections=sections,
        findings=list(findings),
        suites=suites,
        settings=(shown if len(shown) > 1 else next(iter(shown.values())))
        | dict(settings or {})
        | {f"suite {page.suite}": page.settings for page in suites},
        versions=next(iter(comparison.evaluations.values())).versions,
        bootstrap={"percent": CONFIDENCE_PERCENT, "n": RESAMPLES, "min_targets": MIN_TARGETS},
        floor_name=FLOOR_NAME,
        viewer=viewer,
        viewer_scripts=viewer_scripts() if viewer else "",
    )  # fmt: skip
    for section in sections:
        write_figures(folder / "figures" / section["folder"], section["figures"])
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _section(group: Group, comparison: Comparison) -> dict[str, Any]:
    columns, rows = headline(group)
    metrics, lines, cells = leaderboard(group, comparison.published)
    target_metrics = _target_metrics(group)
    return {
        "group": group,
        # Both kinds have a folder of their own only where there are both.
        "folder": "ca_only" if group.ca_only and len(comparison.groups) > 1 else "",
        "columns": columns,
        "rows": {
            heading: [row for row in rows if row.metric.group == heading]
            for heading in dict.fromkeys(row.metric.group for row in rows)
        },
        "board": (metrics, list(zip(lines, cells, strict=True))) if comparison.published else None,
        "sources": dict.fromkeys((r.label, r.cite, r.caveat) for r in comparison.published),
        "figures": draw_figures(group),
        "target_metrics": target_metrics,
        "targets": _target_lines(group, target_metrics),
    }


def _target_metrics(group: Group) -> list[Metric]:
    known = {k for s in group.summaries.values() for t in s.targets.values() for k in t.values}
    return [metric for metric in target_metrics() if metric.key in known]


def _target_lines(group: Group, metrics: Sequence[Metric]) -> list[_TargetLine]:
    """Return every target, in the order of the figures as far as it is shown, then by name."""
    first = detailed_targets(group)
    lines = []
    for name in [*first, *(name for name in group.targets if name not in first)]:
        results = {label: summary.targets[name] for label, summary in group.summaries.items()}
        for label, target in results.items():
            cells = [number(metric, target.values.get(metric.key)) for metric in metrics]
            size = f"{target.counts['n_samples']:.0f}"
            lines.append(_TargetLine(name, label, size, cells, False, " ".join(target.notes)))
        target = next(iter(results.values()))
        if target.floor:
            floor = mean_floor(target)
            cells = [number(metric, floor.get(metric.key)) for metric in metrics]
            lines.append(_TargetLine(name, FLOOR_NAME, "", cells, True, ""))
    return lines


def _scenes(group: Group) -> list[Scene]:
    targets = with_arrays(group, detailed_targets(group), *_FRAMES)
    return md_scenes(targets, list(group.summaries))
