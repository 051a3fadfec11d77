"""One self-contained HTML page about an evaluation: no script, no resource from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from protenix_eba.eval import plots
from protenix_eba.eval.definitions import AGGREGATES, METRICS, Metric, best_labels
from protenix_eba.eval.results import Evaluation, TargetResult
from protenix_eba.files import atomic_path

__all__ = ["Cell", "Row", "headline_table", "render_report"]

FLOOR_NAME = "MD vs MD"


@dataclass(frozen=True)
class Cell:
    """A number to print, and whether it is the best of its row."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One metric of the headline table."""

    metric: Metric
    cells: list[Cell]


@dataclass(frozen=True)
class _Image:
    title: str
    caption: str
    source: str


def render_report(
    result: Evaluation,
    out_path: Path | str,
    *,
    findings: Sequence[str] = (),
    losses: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the report.

    Args:
        result: From `evaluate`.
        out_path: The HTML file.
        findings: Plain sentences to stand at the top.
        losses: Training curves: mappings with `name`, `step` `[n]` and `loss` `[n]`.
        settings: More of what was run, nested as it likes; shown beside the evaluation's own.

    Raises:
        UserError: The file cannot be written.
    """
    columns, rows = headline_table(result)
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            result=result,
            findings=list(findings),
            columns=columns,
            rows=rows,
            figures=_figures(result, losses),
            targets=_target_rows(result),
            target_metrics=_present(METRICS, [t.values for _, _, t in _all_targets(result)]),
            settings={**result.settings, **(settings or {})},
            n_targets=len(result.common_targets),
            floor_name=FLOOR_NAME,
        )
    )
    with atomic_path(out_path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def headline_table(result: Evaluation) -> tuple[list[str], list[Row]]:
    """Column names (ensembles, then the MD floor) and a row for each metric that has a value.

    Taken over the targets that all ensembles have, so that columns can be compared; `metrics.json`
    has each ensemble's own medians. Where ensembles differ in size each has a floor of its own.
    """
    common = result.common_targets
    ensembles = {label: e.restricted_to(common) for label, e in result.ensembles.items()}
    models = {label: ensemble.aggregate() for label, ensemble in ensembles.items()}
    floors = {label: ensemble.floor_aggregate() for label, ensemble in ensembles.items()}
    floors = {label: floor for label, floor in floors.items() if floor}
    if len({str(sorted(floor.items())) for floor in floors.values()}) == 1:
        floors = {FLOOR_NAME: next(iter(floors.values()))}
    else:
        floors = {f"{FLOOR_NAME}, as {label}": floor for label, floor in floors.items()}
    rows = []
    for metric in _present(METRICS + AGGREGATES, list(models.values())):
        best = best_labels(metric, models)
        cells = [Cell(_number(metric, row), label in best) for label, row in models.items()]
        rows.append(Row(metric, cells + [Cell(_number(metric, row)) for row in floors.values()]))
    return [*models, *floors], rows


def _present(metrics: Sequence[Metric], rows: Sequence[Mapping[str, float]]) -> list[Metric]:
    return [metric for metric in metrics if any(metric.key in row for row in rows)]


def _number(metric: Metric, row: Mapping[str, float]) -> str:
    value = row.get(metric.key, np.nan)
    # A true minus sign is as wide as a digit.
    return f"{value:.{metric.digits}f}".replace("-", "\u2212") if np.isfinite(value) else "\u2013"


def _all_targets(result: Evaluation) -> list[tuple[str, str, TargetResult]]:
    return [
        (name, label, ensemble.targets[name])
        for name in result.profiles
        for label, ensemble in result.ensembles.items()
        if name in ensemble.targets
    ]


def _target_rows(result: Evaluation) -> list[dict[str, Any]]:
    targets = _all_targets(result)
    metrics = _present(METRICS, [target.values for _, _, target in targets])
    rows: list[dict[str, Any]] = []
    for position, (name, label, target) in enumerate(targets):
        cells = [_number(metric, target.values) for metric in metrics]
        size = int(target.values["n_samples"])
        rows.append({"name": name, "label": label, "n": size, "cells": cells, "floor": False})
        following = targets[position + 1 : position + 2]
        if target.floor and not (following and following[0][0] == name):
            cells = [_number(metric, target.floor) for metric in metrics]
            floor = {"name": name, "label": FLOOR_NAME, "n": size, "cells": cells, "floor": True}
            rows.append(floor)
    return rows


def _figures(result: Evaluation, losses: Sequence[Mapping[str, Any]]) -> list[_Image]:
    labels, profiles = list(result.ensembles), result.profiles
    limit = (
        f" The first {plots.MAX_PANELS} of {len(profiles)} targets are shown."
        if len(profiles) > plots.MAX_PANELS
        else ""
    )
    images = [
        _image(
            "Flexibility along the chain",
            "Root mean square fluctuation of each C-alpha atom. The grey band spans the single MD "
            "replicas: a curve within it cannot be told from MD." + limit,
            plots.rmsf_figure(profiles, labels),
        )
    ]
    if any(len(profile.md_energy) for profile in profiles.values()):
        caption = (
            "Energies of minimised conformations. Boltzmann-weighted: MD frames weighted by "
            "softmax(-E / (kT sqrt(N_res))), the distribution that alignment aims for. The "
            "outermost bins collect what lies beyond them." + limit
        )
        image = plots.energy_figure(profiles, labels)
        images.append(_image("Energies", caption, image))
    caption = (
        "MD frames and samples on the first two principal components of the MD's C-alpha "
        "coordinates, divided by the root of the number of residues." + limit
    )
    images.append(_image("Conformations", caption, plots.pca_figure(profiles, labels)))
    if losses:
        caption = "Loss at each training step. The series have scales of their own."
        images.append(_image("Training", caption, plots.loss_figure(losses)))
    return images


def _image(title: str, caption: str, svg: bytes) -> _Image:
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
    return _Image(title, caption, source)


def _environment() -> jinja2.Environment:
    template = resources.files("protenix_eba.eval").joinpath("report.html.jinja")
    loader = jinja2.DictLoader({"report.html.jinja": template.read_text(encoding="utf-8")})
    return jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
