"""The quality of a label table: spread, noise, reliability and outliers of each target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from protenix_eba.core.files import atomic_path
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.boltzmann import TEMPERATURE_K, effective_number
from protenix_eba.energy.committee_report import agreement, agreement_lines, plot_ranks
from protenix_eba.energy.table import EnergyLabels

__all__ = ["HEADINGS", "TargetQuality", "label_quality", "quality_cells", "write_quality_report"]


class TargetQuality(NamedTuple):
    """The quality of one target's labels.

    Attributes:
        target: Its name.
        n_ok: Rows that can be trained on.
        n_outlier: Rows with an energy far from the others.
        n_without: Rows without an energy.
        spread_kj_mol: Standard deviation of the labels; NaN for fewer than two.
        noise_kj_mol: Standard deviation of a single minimisation, root mean square over frames;
            NaN where it was not measured (`--repeat`).
        reliability: 1 - (noise variance of a label) / (variance of the labels): the share of
            their differences that another minimisation would find again.
        effective_number: exp(entropy) of the weights exp(-E / (kT sqrt(N_residues))) at 300 K.
    """

    target: str
    n_ok: int
    n_outlier: int
    n_without: int
    spread_kj_mol: float
    noise_kj_mol: float
    reliability: float
    effective_number: float


def label_quality(labels: EnergyLabels) -> list[TargetQuality]:
    """Measure the quality of each target's labels, sorted by name; only ok rows count."""
    return [_quality(labels.for_target(name)) for name in labels.targets]


def _quality(labels: EnergyLabels) -> TargetQuality:
    ok = labels.select(labels.ok)
    energies = ok.energy_kj_mol
    measured = np.isfinite(ok.noise_kj_mol)
    variance = float(np.var(energies, ddof=1)) if len(ok) > 1 else math.nan
    noise = float(np.mean(ok.noise_kj_mol[measured] ** 2)) if measured.any() else math.nan
    of_label = (
        float(np.mean(ok.noise_kj_mol[measured] ** 2 / ok.repeats[measured]))
        if measured.any()
        else math.nan
    )
    return TargetQuality(
        target=str(labels.target[0]),
        n_ok=len(ok),
        n_outlier=int((labels.status == "outlier").sum()),
        n_without=int((~labels.finished).sum()),
        spread_kj_mol=math.sqrt(variance),
        noise_kj_mol=math.sqrt(noise),
        reliability=1 - of_label / variance if variance > 0 else math.nan,
        effective_number=effective_number(energies, ok.n_residues),
    )


HEADINGS: Final = (
    "target", "ok", "outliers", "no energy", "spread (kJ/mol)", "noise (kJ/mol)",
    "reliability", "effective n",
)  # fmt: skip


def quality_cells(row: TargetQuality) -> list[str]:
    """Return the row as text, with a dash where a number does not exist."""
    numbers = (
        (row.spread_kj_mol, 1), (row.noise_kj_mol, 2), (row.reliability, 3),
        (row.effective_number, 1),
    )  # fmt: skip
    counts = (row.n_ok, row.n_outlier, row.n_without)
    texts = [f"{value:.{digits}f}" if math.isfinite(value) else "-" for value, digits in numbers]
    return [row.target, *map(str, counts), *texts]


def write_quality_report(path: Path, labels: EnergyLabels) -> list[Path]:
    """Write the tables and the outliers as Markdown, and plots beside it.

    Args:
        path: Markdown file to write; the plot has the same name with .png, and that of several
            energies NAME_energies.png.
        labels: All rows.

    Returns:
        The files that were written.
    """
    quality = label_quality(labels)
    plot = path.with_suffix(".png")
    _plot(plot, labels, quality)
    lines = ["# Energy labels", "", *_provenance_lines(labels), ""]
    lines += [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(quality_cells(row)) for row in quality]
    lines += [
        "",
        "Noise: standard deviation of a single minimisation, from repeats that start a rounding "
        "error apart. Reliability: 1 - noise variance of the label / variance of the labels. "
        f"Effective conformers: exp(entropy) of the weights exp(-E / (kT sqrt(N))) at "
        f"{TEMPERATURE_K:.0f} K, N residues.",
        "",
        f"![Labels of each target]({plot.name})",
        "",
    ]
    files = [path, plot]
    if rows := agreement(labels):
        files.append(path.with_name(f"{path.stem}_energies.png"))
        plot_ranks(files[-1], rows)
        lines += [*agreement_lines(rows), ""]
        lines += ["Numbers: Spearman's rank correlation with each of the target's energies.", ""]
        lines += [f"![Rank correlations]({files[-1].name})", ""]
    lines += _exceptions(labels)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def _provenance_lines(labels: EnergyLabels) -> list[str]:
    known = labels.provenance
    protocol = known.get("protocol")
    if not protocol:
        return [f"Imported from {known.get('imported', 'an unknown source')}."]
    energy = protocol.get("function", "force_field")
    what = " + ".join(protocol["force_field"]) if energy == "force_field" else energy
    return [
        f"{what}, protocol {protocol['name']} ({known['protocol_hash']}), "
        f"{protocol['tolerance_kj_mol_nm']:g} kJ/mol/nm, OpenMM {known['openmm']} on "
        f"{known['platform']}."
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _exceptions(labels: EnergyLabels) -> list[str]:
    rows = [row for row in labels.rows() if row["status"] != "ok"]
    if not rows:
        return ["Every row is ok."]
    return ["## Rows that are not ok", ""] + [
        f"- {row['status']}: {row['target']} replica {row['replica']} frame {row['frame']}: "
        f"{row['reason']}"
        for row in rows
    ]


def _plot(path: Path, labels: EnergyLabels, quality: Sequence[TargetQuality]) -> None:
    """Plot labels above each target's lowest in units of kT sqrt(N), with the noise as a bar."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 1.5 + 0.35 * len(quality)), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    generator = np.random.default_rng(0)
    for position, row in enumerate(quality):
        ok = labels.for_target(row.target)
        ok = ok.select(ok.ok)
        if not len(ok):
            continue
        scale = thermal_energy_kj_mol(TEMPERATURE_K) * math.sqrt(max(int(ok.n_residues[0]), 1))
        above = (ok.energy_kj_mol - ok.energy_kj_mol.min()) / scale
        beside = position + generator.uniform(-0.25, 0.25, len(ok))
        axes.plot(beside, above, ".", markersize=3, color="tab:blue")
        if math.isfinite(row.noise_kj_mol):
            noise = row.noise_kj_mol / scale
            axes.errorbar(position, np.median(above), noise, color="tab:red", capsize=3)
    axes.set_xticks(range(len(quality)), [row.target for row in quality], rotation=90)
    axes.set_ylabel("E above lowest (kT sqrt(N), 300 K)")
    axes.set_title("Labels; red: noise of one minimisation", fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
