"""The choice of figures for a report, and of the targets in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from protenix_eba.eval.models import Group
from protenix_eba.eval.protocol.panel import PROTOCOL_METRICS
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.curves import (
    distribution_figure,
    energy_figure,
    exposure_figure,
    profile_figure,
    rmsf_figure,
)
from protenix_eba.eval.report.plots.maps import (
    contact_figure,
    overview_figure,
    plane_figure,
    ramachandran_figure,
)
from protenix_eba.eval.target_result import TargetResult

__all__ = ["detailed_targets", "draw_figures", "with_arrays"]

# More small multiples than this are no longer read; the tables hold every target.
MAX_DETAILED: Final = 12
_MAX_MAPS: Final = 12
# Figure to the arrays of which many proteins have nothing to show.
_SPARSE: Final = {"helix": "helix", "strand": "strand", "exposure": "exposed"}
_SOME: Final = 0.05
_PANEL_FOR_EACH_MODEL: Final = ("contacts", "ramachandran")
_N_BEST, _N_MEDIAN = 2, 2
_PROTOCOL: Final = (
    "rmsf_pearson", "rmwd", "md_pca_w2", "joint_pca_w2", "pc1_cosine", "weak_contacts_jaccard",
    "transient_contacts_jaccard", "exposed_residue_jaccard", "exposed_mi_spearman",
)  # fmt: skip


def detailed_targets(group: Group) -> list[str]:
    """Return at most `MAX_DETAILED` targets by RMWD: the worst, two median ones, the best two.

    Where several models are compared a target counts as its worst model.
    """

    def badness(name: str) -> float:
        values = [s.targets[name].values.get("rmwd", np.nan) for s in group.summaries.values()]
        finite = [value for value in values if np.isfinite(value)]
        return max(finite) if finite else np.inf

    ordered = sorted(group.targets, key=lambda name: (-badness(name), name))
    if len(ordered) <= MAX_DETAILED:
        return ordered
    middle = len(ordered) // 2
    n_worst = MAX_DETAILED - _N_BEST - _N_MEDIAN
    return ordered[:n_worst] + ordered[middle : middle + _N_MEDIAN] + ordered[-_N_BEST:]


def with_arrays(
    group: Group, names: Sequence[str], *keys: str
) -> dict[str, dict[str, TargetResult]]:
    """Return target to label to result, for results in which these arrays are not empty."""
    found = {
        name: {
            label: summary.targets[name]
            for label, summary in group.summaries.items()
            if all(summary.targets[name].arrays.get(key, np.empty(0)).size for key in keys)
        }
        for name in names
    }
    return {name: results for name, results in found.items() if results}


def draw_figures(group: Group) -> list[Figure]:
    """Draw every figure that the data allow.

    Args:
        group: Models over the same targets.
    """
    labels, names = list(group.summaries), detailed_targets(group)
    n_all = len(group.targets)
    limit = (
        f" {len(names)} of {n_all} targets: the worst by RMWD first, then two in the middle and "
        "the two best."
        if len(names) < n_all
        else " Worst targets by RMWD first."
        if n_all > 1
        else ""
    )
    figures = [_overview(group)] if n_all > 1 else []
    for name, title, caption, keys, draw in _BY_TARGET:
        targets = with_arrays(group, names, *keys)
        if name in _PANEL_FOR_EACH_MODEL:
            targets = dict(list(targets.items())[: max(_MAX_MAPS // len(labels), 1)])
        if name in _SPARSE:
            targets = {k: v for k, v in targets.items() if _has_some(_SPARSE[name], v)}
        if targets:
            figures.append(Figure(name, title, caption + limit, draw(targets, labels)))
    return figures


def _has_some(key: str, results: Mapping[str, TargetResult]) -> bool:
    """Return whether MD or any model has some of it, without side chains exposed from the start."""
    sides = [r.arrays[f"{side}_{key}"] for r in results.values() for side in ("md", "sample")]
    buried = [
        ~np.asarray(r.arrays["structure_exposed"], dtype=bool) if key == "exposed" else slice(None)
        for r in results.values()
        for _ in ("md", "sample")
    ]
    shown = (np.asarray(side, float)[rows] for side, rows in zip(sides, buried, strict=True))
    return any(bool((values > _SOME).any()) for values in shown)


def _overview(group: Group) -> Figure:
    caption = (
        "A dot is a target; the diamond is the median with its bootstrap interval. The dashed line "
        "is MD against itself, with as many frames."
    )
    known = {key for s in group.summaries.values() for key in s.values}
    metrics = [m for m in PROTOCOL_METRICS if m.key in _PROTOCOL and m.key in known]
    return Figure("overview", "All targets", caption, overview_figure(group.summaries, metrics))


_BY_TARGET: Final = (
    (
        "rmsf",
        "Flexibility along the chain",
        "Root mean square fluctuation of each C-alpha atom. The grey band spans the single MD "
        "replicas: a curve within it cannot be told from MD.",
        ("md_ca_rmsf", "md_ca_rmsf_replicas", "sample_ca_rmsf"),
        rmsf_figure,
    ),
    (
        "pca",
        "Free energy and samples",
        "Grey: -ln p of the MD on the first two principal components of its C-alpha coordinates "
        "(divided by the root of the number of residues), darkest at the minimum, levels 0.5 to 5 "
        "kT. Points: samples.",
        ("md_pca", "sample_pca"),
        partial(plane_figure, key="pca", axis_labels=("PC1 of the MD (Å)", "PC2 of the MD (Å)")),
    ),
    (
        "contacts",
        "Contact maps",
        "Probability of two C-alpha atoms to be within 8 Å: MD above the diagonal, samples below. "
        "A symmetric map is a perfect one.",
        ("md_contacts", "sample_contacts"),
        contact_figure,
    ),
    (
        "exposure",
        "Exposure of buried side chains",
        "Residues whose side chain is buried in the structure: bars are the MD, dots the samples. "
        "Above the dashed line (10%) a residue counts as exposed.",
        ("structure_exposed", "md_exposed", "sample_exposed"),
        exposure_figure,
    ),
    (
        "energies",
        "Energies",
        "Energies of minimised conformations. Boltzmann-weighted: MD frames weighted by "
        "softmax(-E / (kT sqrt(N_res))), the distribution that alignment aims for. The outermost "
        "bins collect what lies beyond them.",
        ("md_energy", "md_weights"),
        energy_figure,
    ),
    (
        "ramachandran",
        "Backbone torsions",
        "-ln p of phi and psi over all residues, MD beside the samples; yellow is rare, white was "
        "never seen.",
        ("md_ramachandran", "sample_ramachandran"),
        ramachandran_figure,
    ),
    (
        "rg",
        "Radius of gyration",
        "Of all matched atoms. The outermost bins collect what lies beyond them.",
        ("md_rg", "sample_rg"),
        partial(distribution_figure, key="rg", name="Radius of gyration (Å)"),
    ),
    (
        "helix",
        "Helix content",
        "Fraction of conformations in which a residue is helical (DSSP).",
        ("md_helix", "sample_helix"),
        partial(profile_figure, key="helix", y_label="Fraction helix"),
    ),
    (
        "strand",
        "Strand content",
        "Fraction of conformations in which a residue is in a strand (DSSP).",
        ("md_strand", "sample_strand"),
        partial(profile_figure, key="strand", y_label="Fraction strand"),
    ),
    (
        "tica",
        "Slow motions",
        "As the free energy above, on the two slowest motions of the MD (TICA of C-alpha "
        "distances), in its standard deviations.",
        ("md_tica", "sample_tica"),
        partial(plane_figure, key="tica", axis_labels=("TICA 1", "TICA 2")),
    ),
)
