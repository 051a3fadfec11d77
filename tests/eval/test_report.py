"""Figures, tables, the report in a browser, and comparisons, of targets made up here."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.eval.definitions import PAPER_ROWS
from protenix_eba.eval.models import compare_evaluations
from protenix_eba.eval.protocol.panel import PROTOCOL_METRICS
from protenix_eba.eval.published import published_rows
from protenix_eba.eval.report.figures import MAX_DETAILED, detailed_targets
from protenix_eba.eval.report.plots.curves import loss_figure, rmsf_figure
from protenix_eba.eval.report.render import render_report
from protenix_eba.eval.report.tables import headline, write_csv, write_latex
from protenix_eba.eval.report.viewer import viewer_data
from protenix_eba.eval.results import Evaluation, load_evaluation
from protenix_eba.eval.store import target_path, write_target
from protenix_eba.eval.target_result import TargetResult

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
    values = {m.key: float(quality * random.uniform(0.8, 1.0)) for m in PROTOCOL_METRICS}
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


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    models = [model("SFT", 5, 0.6, t77="cut <file>"), model("EBA", 4, 0.9)]
    found = compare_evaluations(models, published_rows())
    losses = [{"name": "SFT", "step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}]
    render_report(
        found,
        folder,
        findings=["Alignment lowers energies <by half>."],
        losses=losses,
        settings={"alignment": {"n_conformers": 3}, "seeds": [1, 2]},
    )
    write_csv(folder / "comparison.csv", found)
    write_latex(folder / "comparison.tex", found)
    return folder


def test_report_stands_alone(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert not re.search(r"https?:|<link|@import|url\(|src=\"(?!data:)", page)
    assert "Alignment lowers energies &lt;by half&gt;." in page
    assert "cut &lt;file&gt;" in page
    assert "n_conformers" in page and "1, 2" in page
    assert not re.search(r"\bnan\b|\binf\b|Undefined", page)


def test_every_figure_is_a_file_too(report: Path) -> None:
    page = (report / "report.html").read_text()
    names = {path.stem for path in (report / "figures").iterdir()}
    assert names == {"overview", "rmsf", "pca", "contacts", "exposure", "training"}
    assert page.count("data:image/svg+xml;base64,") == len(names)
    for name in names:
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (report / "figures" / f"{name}.svg").read_bytes()


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser")
def test_a_browser_shows_the_report_without_complaint(report: Path, tmp_path: Path) -> None:
    # The page itself says what the browser made of it: sizes of pictures, the painted ensemble.
    probe = """<script>window.addEventListener("load", () => setTimeout(() => {
      const sizes = [...document.images].map((i) => i.complete ? i.naturalWidth : 0);
      const canvas = document.getElementById("viewer");
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const ink = pixels.filter((v, i) => i % 4 === 0 && v < 200).length;
      document.body.dataset.found = JSON.stringify({sizes, ink, name: canvas.dataset.painted});
    }, 500))</script>"""
    page = tmp_path / "page.html"
    page.write_text((report / "report.html").read_text().replace("</body>", probe + "</body>"))
    words = "--headless --no-sandbox --disable-gpu --virtual-time-budget=9000 --dump-dom"
    log = ["--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}"]
    command = ["chromium", *words.split(), *log, page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    match = re.search(r'data-found="([^"]*)"', shown.stdout)
    assert match, shown.stderr[-2000:]
    found = json.loads(match.group(1).replace("&quot;", '"'))
    assert len(found["sizes"]) == 6 and min(found["sizes"]) > 200
    assert found["ink"] > 1000 and found["name"] in {"t00", "t01", "t02", "t03"}
    # Groups of the first target, in the legend that the script made.
    assert shown.stdout.count('class="swatch"') == 3


def test_headline_marks_the_best_model_and_pairs_differences() -> None:
    found = compare_evaluations([model("SFT", 5, 0.6), model("EBA", 5, 0.9)])
    columns, rows = headline(found.groups[0])
    assert [column.kind for column in columns] == ["model", "model", "difference", "floor", "floor"]
    by_key = {row.metric.key: row.cells for row in rows}
    assert [cell.best for cell in by_key["weak_contacts_jaccard"]][:2] == [False, True]
    assert not any(cell.best for cell in by_key["md_pairwise_rmsd"])
    assert by_key["weak_contacts_jaccard"][2].text.startswith("+")
    assert " to " in by_key["weak_contacts_jaccard"][0].interval


def test_tables_hold_every_target_and_the_rows_of_the_papers(report: Path) -> None:
    with open(report / "comparison.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    kinds = [(row["kind"], row["model"], row["target"]) for row in rows]
    assert ("samples", "EBA", "t03") in kinds and ("md_floor", "SFT", "(all)") in kinds
    assert ("samples", "SFT", "t04") not in kinds  # the other model lacks it
    assert rows[0].keys() >= set(PAPER_ROWS)
    tex = (report / "comparison.tex").read_text()
    table = tex[tex.index(r"\begin{tabular}") :]
    assert table.count(r"\toprule") == 1 and "AlphaFlow-MD" in table
    lines = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in lines} == {len(PAPER_ROWS)}
    assert r"0.50$^{*}$" in next(line for line in lines if line.startswith("AlphaFlow-MD &"))


def test_details_are_of_the_worst_the_middle_and_the_best() -> None:
    (group,) = compare_evaluations([model("m", 82, 0.8)]).groups
    names = detailed_targets(group)
    assert len(names) == len(set(names)) == MAX_DETAILED
    values = [group.summaries["m"].targets[name].values["rmwd"] for name in names]
    targets = group.summaries["m"].targets.values()
    everyone = sorted((target.values["rmwd"] for target in targets), reverse=True)
    assert values[:8] == everyone[:8] and values[-2:] == everyone[-2:]


def test_a_target_without_arrays_is_no_reason_to_stop(tmp_path: Path) -> None:
    bare = model("m", 3, 0.8)
    for target in bare.targets.values():
        target.arrays.clear()
    page = render_report(compare_evaluations([bare]), tmp_path).read_text()
    assert "RMWD" in page and "canvas id=" not in page


def test_figures_repeat_to_the_byte() -> None:
    targets = {"a": {"m": made_up("a", 0, 0.8)}}
    assert rmsf_figure(targets, ["m"]) == rmsf_figure(targets, ["m"])
    loss = [1.0, float("nan"), *np.linspace(1.0, 0.1, 100)]
    assert b"<svg" in loss_figure([{"name": "SFT", "step": range(102), "loss": loss}]).svg


def test_the_view_keeps_shapes_and_hands() -> None:
    one = made_up("a", 0, 0.9)
    (shown,) = viewer_data({"a": {"m": one}}, ["m"])["targets"]
    packed = base64.b64decode(shown["groups"][0]["packed"])
    xyz = np.frombuffer(packed, "<i2").reshape(12, LENGTH, 3) / 100.0
    original = one.arrays["md_frames"].astype(np.float64)
    lengths, expected = (np.linalg.norm(np.diff(x, axis=1), axis=-1) for x in (xyz, original))
    np.testing.assert_allclose(lengths, expected, atol=0.02)

    def handedness(x: np.ndarray) -> float:
        return float(np.linalg.det(x[0, 1:4] - x[0, 0]))

    assert handedness(xyz) == pytest.approx(handedness(original), rel=0.05, abs=0.1)


def test_evaluations_on_disk_are_compared(tmp_path: Path) -> None:
    folders = [save(model(label, 3, q), tmp_path / label) for label, q in (("a", 0.5), ("b", 0.9))]
    found = compare_evaluations([load_evaluation(folder) for folder in folders])
    assert found.labels == ["a", "b"]
    with pytest.raises(UserError, match="two evaluations are called"):
        compare_evaluations([load_evaluation(folders[0])] * 2)
