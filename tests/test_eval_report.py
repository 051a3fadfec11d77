"""Figures, tables, the report in a browser, and comparisons, of targets made up here."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from protenix_eba.errors import UserError
from protenix_eba.eval.comparison import compare_evaluations
from protenix_eba.eval.definitions import METRICS, PAPER_ROWS
from protenix_eba.eval.figures import MAX_DETAILED, detailed_targets, draw_figures
from protenix_eba.eval.plots.curves import loss_figure
from protenix_eba.eval.published import published_rows
from protenix_eba.eval.report import render_report
from protenix_eba.eval.results import Evaluation, load_evaluation
from protenix_eba.eval.store import target_path, write_target
from protenix_eba.eval.tables import headline, write_csv, write_latex
from protenix_eba.eval.target import TargetResult
from protenix_eba.eval.viewer import viewer_data

LENGTH = 40


def made_up(name: str, seed: int, quality: float, *, ca_only: bool = False) -> TargetResult:
    """A target's result with every array; `quality` near one is near the MD."""
    random = np.random.default_rng(seed)
    md = 1.0 + 0.5 * np.sin(np.arange(LENGTH) / 4.0) ** 2 + 0.1 * random.random(LENGTH)
    sample = quality * md + (1.0 - quality) * random.random(LENGTH)
    chain = np.cumsum(random.normal(0.0, 2.2, (LENGTH, 3)), axis=0)
    frames = chain + random.normal(0.0, 0.8, (2, 12, LENGTH, 3))
    pca = random.normal(0.0, 1.0, (800, 2)) * [2.0, 1.0]
    near = np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)))
    values = {m.key: float(quality * random.uniform(0.8, 1.0)) for m in METRICS
              if "energy" not in m.key and m.key != "boltzmann_ess"}  # fmt: skip
    values |= {"rmwd": 3.0 - quality + random.random(), "md_pairwise_rmsd": random.random()}
    values["pairwise_rmsd"] = quality * values["md_pairwise_rmsd"]
    rmsf = np.stack([md, md * random.uniform(0.9, 1.1, LENGTH)])
    return TargetResult(
        name=name,
        values=values,
        compat={},
        floor=[{key: 0.95 * value for key, value in values.items()} for _ in range(3)],
        counts={"n_samples": 250, "n_md_frames": 3000, "n_replicas": 3, "n_atoms": LENGTH,
                "n_residues": LENGTH, "coverage": 1.0, "ca_only": float(ca_only)},
        arrays={
            "residue_numbers": np.arange(LENGTH) + 5,
            "residue_names": np.array(["ALA"] * LENGTH),
            "chain_ids": np.array(["A"] * LENGTH),
            "md_rmsf": md,
            "sample_rmsf": sample,
            "floor_rmsf": np.stack([rmsf] * 3),
            "md_ca_rmsf": md,
            "md_ca_rmsf_replicas": np.stack([0.9 * md, md, 1.1 * md]),
            "sample_ca_rmsf": sample,
            "md_pca": pca,
            "sample_pca": quality * random.normal(0.0, 1.0, (250, 2)) * [2.0, 1.0],
            "structure_contacts": near < 4,
            "md_contacts": np.exp(-near / 6.0).astype(np.float16),
            "sample_contacts": np.exp(-near / (6.0 * quality)).astype(np.float16),
            "structure_exposed": np.arange(LENGTH) % 2 == 0,
            "md_exposed": random.random(LENGTH),
            "sample_exposed": random.random(LENGTH),
            "md_frames": frames[0].astype(np.float32),
            "sample_frames": frames[1].astype(np.float32),
            "atom_names": np.array(["CA"] * LENGTH),
            "atom_residue": np.arange(LENGTH),
        },
        notes=["2 atoms of the MD are missing."] if seed % 5 == 0 else [],
    )  # fmt: skip


def model(label: str, n: int, quality: float, **failed: str) -> Evaluation:
    names = [f"t{i:02d}" for i in range(n)]
    targets = {name: made_up(name, i, quality) for i, name in enumerate(names)}
    settings = {"seed": 137, "reference": "md"}
    return Evaluation(label, targets, failed, [], [], settings, {"protenix-eba": "0"})


def save(evaluation: Evaluation, folder: Path) -> Path:
    for name, target in evaluation.targets.items():
        write_target(target_path(folder, name), target, "inputs")
    evaluation.write(folder)
    return folder
