"""Figures, tables, the report in a browser, and comparisons, of targets made up here."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from browser import look, needs_browser

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.definitions import PAPER_ROWS
from protenix_eba.eval.models import compare_evaluations
from protenix_eba.eval.protocol.arrays import shown_frames
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.protocol.panel import PROTOCOL_METRICS
from protenix_eba.eval.published import published_rows
from protenix_eba.eval.report import scene
from protenix_eba.eval.report.figures import MAX_DETAILED, detailed_targets
from protenix_eba.eval.report.plots.curves import rmsf_figure
from protenix_eba.eval.report.plots.training import loss_figure
from protenix_eba.eval.report.render import render_report
from protenix_eba.eval.report.scene import viewer_scripts
from protenix_eba.eval.report.tables import headline, write_csv, write_latex
from protenix_eba.eval.report.training import training_figures
from protenix_eba.eval.report.viewer import md_scenes
from protenix_eba.eval.results import Evaluation, load_evaluation
from protenix_eba.eval.store import target_path, write_target
from protenix_eba.eval.suites.registry import Outcome, Value
from protenix_eba.eval.suites.run import write_outcome
from protenix_eba.eval.target_result import TargetResult

LENGTH = 40
# Where N, CA, C and O of a residue are, about, from its CA; angstrom.
BACKBONE = np.array([[-1.0, 0.5, -0.8], [0.0, 0.0, 0.0], [0.9, 0.4, 0.8], [1.2, 1.4, 0.3]])


def made_up(
    name: str, seed: int, quality: float, *, ca_only: bool = False, length: int = LENGTH
) -> TargetResult:
    """A target's result with every array; `quality` near one is near the MD."""
    random = np.random.default_rng(seed)
    md = 1.0 + 0.5 * np.sin(np.arange(length) / 4.0) ** 2 + 0.1 * random.random(length)
    sample = quality * md + (1.0 - quality) * random.random(length)
    chain = np.cumsum(random.normal(0.0, 2.2, (length, 3)), axis=0)
    backbone = (chain[:, None] + BACKBONE).reshape(-1, 3)
    frames = backbone + random.normal(0.0, 0.2, (2, 12, 4 * length, 3))
    pca = random.normal(0.0, 1.0, (800, 2)) * [2.0, 1.0]
    near = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    values = {m.key: float(quality * random.uniform(0.8, 1.0)) for m in PROTOCOL_METRICS}
    values |= {"rmwd": 3.0 - quality + random.random(), "md_pairwise_rmsd": random.random()}
    values["pairwise_rmsd"] = quality * values["md_pairwise_rmsd"]
    rmsf = np.stack([md, md * random.uniform(0.9, 1.1, length)])
    return TargetResult(
        name=name,
        values=values,
        compat={},
        floor=[{key: 0.95 * value for key, value in values.items()} for _ in range(3)],
        counts={"n_samples": 250, "n_md_frames": 3000, "n_replicas": 3, "n_atoms": length,
                "n_residues": length, "coverage": 1.0, "ca_only": float(ca_only)},
        arrays={
            "residue_numbers": np.arange(length) + 5,
            "residue_names": np.array(["ALA"] * length),
            "chain_ids": np.array(["A"] * length),
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
            "structure_exposed": np.arange(length) % 2 == 0,
            "md_exposed": random.random(length),
            "sample_exposed": random.random(length),
            "md_frames": frames[0].astype(np.float32),
            "sample_frames": frames[1].astype(np.float32),
            "sample_shown": np.arange(12) * 20,
            "sample_from_md": 1.0 + random.permutation(12),
            "atom_names": np.array(["N", "CA", "C", "O"] * length),
            "atom_residue": np.repeat(np.arange(length), 4),
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
    for one, quality in zip(models, (0.6, 0.9), strict=True):
        one.targets["peptide"] = made_up("peptide", 9, quality, length=5)
    found = compare_evaluations(models, published_rows())
    run = folder / "run"
    run.mkdir()
    (run / "log.csv").write_text("step,loss\n1,3\n2,2\n3,1\n")
    (run / "replay.csv").write_text("step,valid,coverage\n0,0.5,nan\n50,0.75,nan\n")
    render_report(
        found,
        folder,
        findings=["Alignment lowers energies <by half>."],
        training=training_figures({"SFT": run}),
        settings={"alignment": {"n_conformers": 3}, "seeds": [1, 2]},
    )
    write_csv(folder / "comparison.csv", found)
    write_latex(folder / "comparison.tex", found)
    return folder


def test_report_stands_alone(report: Path) -> None:
    page = (report / "report.html").read_text().replace(viewer_scripts(), "")
    assert not re.search(r"https?:|<link|@import|url\(|src=\"(?!data:)", page)
    assert "Alignment lowers energies &lt;by half&gt;." in page
    assert "cut &lt;file&gt;" in page
    assert "n_conformers" in page and "1, 2" in page
    assert not re.search(r"\bnan\b|\binf\b|Undefined", page)


def test_every_figure_is_a_file_too(report: Path) -> None:
    page = (report / "report.html").read_text()
    names = {path.stem for path in (report / "figures").iterdir()}
    assert names == {"overview", "rmsf", "pca", "contacts", "exposure", "training", "replay"}
    assert page.count("data:image/svg+xml;base64,") == len(names)
    for name in names:
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (report / "figures" / f"{name}.svg").read_bytes()


# Looks at the first model's nearest sample, and at a peptide; each view with its amount of ink.
PROBE = """
      const place = document.getElementById("viewer"), views = [];
      const copy = new OffscreenCanvas(900, 400);
      const context = copy.getContext("2d", { willReadFrequently: true });
      const look = () => {
        context.fillStyle = "white"; context.fillRect(0, 0, 900, 400);
        context.drawImage(place.querySelector("canvas"), 0, 0, 900, 400);
        const pixels = context.getImageData(0, 0, 900, 400).data;
        const ink = pixels.filter((v, i) => i % 4 === 0 && v < 230).length;
        const style = document.getElementById("viewer-style").value;
        views.push({ink, style, n: +place.dataset.conformations, name: place.dataset.painted});
      };
      const choose = (id, index) => {
        const select = document.getElementById(id);
        select.selectedIndex = index;
        select.dispatchEvent(new Event("change"));
        look();
      };
      const items = [...document.getElementById("viewer-target")].map((o) => o.text);
      choose("viewer-target", items.indexOf("t01"));
      document.querySelector("#viewer-legend input").click();
      look();
      choose("viewer-shown", 1);
      const shown = document.getElementById("viewer-shown").selectedOptions[0].text;
      choose("viewer-style", 1);
      choose("viewer-target", items.indexOf("peptide"));
      const labels = document.querySelectorAll("#viewer-legend label").length;
      return {views, shown, labels};
"""


@needs_browser
def test_a_browser_shows_the_report_without_complaint(report: Path, tmp_path: Path) -> None:
    found, n_pictures = look(report / "report.html", PROBE, tmp_path)
    views = found["views"]
    assert (n_pictures, found["labels"]) == (7, 3)
    protein, without_md, nearest, trace, peptide = views
    assert (protein["name"], protein["style"], peptide["style"]) == ("t01", "cartoon", "stick")
    # MD, SFT and EBA; without MD; the nearest sample of SFT alone; MD stays off
    assert [view["n"] for view in views] == [36, 24, 1, 1, 24]
    distances = made_up("t01", 1, 0.6).arrays["sample_from_md"]
    assert f"SFT, nearest to MD: sample {20 * distances.argmin()}, 1.00" in found["shown"]
    assert protein["ink"] > without_md["ink"] > nearest["ink"] > trace["ink"] > 300
    assert peptide["ink"] > 1000


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
    assert "RMWD" in page and "3Dmol" not in page


def test_figures_repeat_to_the_byte() -> None:
    targets = {"a": {"m": made_up("a", 0, 0.8)}}
    assert rmsf_figure(targets, ["m"]) == rmsf_figure(targets, ["m"])
    loss = [1.0, float("nan"), *np.linspace(1.0, 0.1, 100)]
    assert b"<svg" in loss_figure({"SFT": {"step": range(102), "loss": loss}}).svg


def test_the_view_keeps_shapes_and_hands() -> None:
    one = made_up("a", 0, 0.9)
    shown = md_scenes({"a": {"m": one}}, ["m"])[0].to_json()
    packed = base64.b64decode(shown["layers"][0]["packed"])
    xyz = np.frombuffer(packed, "<i2").reshape(12, 4 * LENGTH, 3) / 100.0
    original = one.arrays["md_frames"].astype(np.float64)
    lengths, expected = (np.linalg.norm(np.diff(x, axis=1), axis=-1) for x in (xyz, original))
    np.testing.assert_allclose(lengths, expected, atol=0.02)

    def handedness(x: np.ndarray) -> float:
        return float(np.linalg.det(x[0, [5, 9, 13]] - x[0, 1]))

    assert handedness(xyz) == pytest.approx(handedness(original), rel=0.05, abs=0.1)


def test_the_view_has_atoms_that_mdtraj_reads_as_they_were(tmp_path: Path) -> None:
    """Its lines with coordinates are a PDB file, whatever the order in which a file had atoms."""
    one = made_up("a", 0, 0.9, length=5)
    backwards = np.arange(20)[::-1]
    for key in ("atom_names", "atom_residue"):
        one.arrays[key] = one.arrays[key][backwards]
    for key in ("md_frames", "sample_frames"):
        one.arrays[key] = one.arrays[key][:, backwards]
    shown = md_scenes({"a": {"m": one}}, ["m"])[0].to_json()
    assert shown["styles"] == ["stick", "trace"]
    xyz = np.frombuffer(base64.b64decode(shown["layers"][1]["packed"]), "<i2").reshape(12, 20, 3)
    lines = [
        line + "".join(f"{x:8.3f}" for x in place / 100.0)
        for line, place in zip(shown["atoms"], xyz[3], strict=True)
    ]
    (tmp_path / "a.pdb").write_text("\n".join([*lines, "END", ""]))
    read = mdtraj.load(tmp_path / "a.pdb")
    assert [(a.name, a.residue.name, a.residue.resSeq) for a in read.topology.atoms] == [
        (name, "ALA", number) for number in range(5, 10) for name in ("N", "CA", "C", "O")
    ]
    np.testing.assert_allclose(10.0 * read.xyz[0], xyz[3] / 100.0, atol=1e-3)


@pytest.mark.parametrize(
    ("names", "length", "styles"),
    [
        (["N", "CA", "C", "O"], 40, ["cartoon", "trace"]),
        (["N", "CA", "C", "O"], 9, ["stick", "trace"]),
        (["CA"], 40, ["trace"]),
    ],
)
def test_what_is_drawn_is_what_the_atoms_allow(
    names: list[str], length: int, styles: list[str]
) -> None:
    one = made_up("a", 0, 0.9, length=length)
    kept = np.isin(one.arrays["atom_names"], names)
    for key in ("atom_names", "atom_residue"):
        one.arrays[key] = one.arrays[key][kept]
    for key in ("md_frames", "sample_frames"):
        one.arrays[key] = one.arrays[key][:, kept]
    shown = md_scenes({"a": {"m": one}}, ["m"])[0].to_json()
    assert shown["styles"] == styles and len(shown["atoms"]) == len(names) * length


def test_of_a_large_protein_fewer_frames_are_shown_but_the_nearest_and_the_farthest() -> None:
    one = made_up("a", 0, 0.9, length=700)
    shown = md_scenes({"a": {"m": one}}, ["m"])[0].to_json()
    md, samples = shown["layers"]
    assert md["frames"] == 2 and samples["frames"] <= 4
    distance, xyz = one.arrays["sample_from_md"], one.arrays["sample_frames"]
    packed = np.frombuffer(base64.b64decode(samples["packed"]), "<i2").reshape(-1, 2800, 3) / 100.0
    for (text, place), row in zip(
        shown["choices"], (distance.argmin(), distance.argmax()), strict=True
    ):
        assert f"sample {20 * row}, {distance[row]:.2f} Å" in text
        # The frame of that name has the shape of that sample.
        steps = np.linalg.norm(np.diff(packed[int(place.split()[1])], axis=0), axis=1)
        expected = np.linalg.norm(np.diff(xyz[row], axis=0), axis=1)
        np.testing.assert_allclose(steps, expected, atol=0.02)


def test_the_nearest_and_the_farthest_sample_are_among_those_shown() -> None:
    """Samples are the one MD structure, moved by known distances: those are their RMSD."""
    random = np.random.default_rng(0)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(6):
        topology.add_atom("CA", mdtraj.element.carbon, topology.add_residue("ALA", chain))
    structure, moved = random.normal(0.0, 5.0, (6, 3)), 0.5 + random.permutation(40) / 8.0
    ways = random.normal(size=(40, 3))
    ways *= (moved / np.linalg.norm(ways, axis=1))[:, None]
    samples = (structure + ways[:, None]).astype(np.float32)
    md = np.repeat(structure[None], 3, axis=0).astype(np.float32)
    found = shown_frames(Drawn(topology, md, np.zeros(3, int), samples), 100 + np.arange(40))
    assert {100 + moved.argmin(), 100 + moved.argmax()} <= set(found["sample_shown"])
    np.testing.assert_allclose(
        found["sample_from_md"], moved[found["sample_shown"] - 100], atol=1e-5
    )
    np.testing.assert_array_equal(found["sample_frames"], samples[found["sample_shown"] - 100])


def test_the_viewer_is_the_release_that_is_named_beside_it() -> None:
    folder = Path(scene.__file__).parent / "3dmol"
    digest = hashlib.sha256((folder / "3Dmol-min.js").read_bytes()).hexdigest()
    assert f"{digest}  3Dmol-min.js" in (folder / "README.md").read_text()
    assert "University of Pittsburgh" in viewer_scripts()


def test_evaluations_on_disk_are_compared(tmp_path: Path) -> None:
    folders = [save(model(label, 3, q), tmp_path / label) for label, q in (("a", 0.5), ("b", 0.9))]
    found = compare_evaluations([load_evaluation(folder) for folder in folders])
    assert found.labels == ["a", "b"]
    with pytest.raises(UserError, match="two evaluations are called"):
        compare_evaluations([load_evaluation(folders[0])] * 2)


def test_answers_of_a_suite_given_with_evaluations_stand_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [save(model(label, 3, 0.8), tmp_path / label) for label in ("SFT", "EBA")]
    record = {
        "suite": "nmr", "measures": "Agreement with couplings.", "reference": "j.csv",
        "settings": {}, "seed": 0, "versions": {"protenix-eba": "0"},
    }  # fmt: skip
    for label, chi2 in (("MD", 0.375), ("EBA", 0.875)):
        values = [Value("AAA", "", "chi2", chi2, "", (0.125, 1.5))]
        outcome = Outcome(values, {"q": "torn"}, ["measured at pH 2"], (), ("chi2",), ["J is far"])
        folders.append(tmp_path / "couplings" / label)
        write_outcome(outcome, record, folders[-1])
    out = tmp_path / "out"
    # In any order: the suites' come after the MD's.
    assert run(["compare", *map(str, reversed(folders)), "--out", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    md, suite = page.split('<h1 id="nmr">The suite nmr</h1>')
    assert "RMWD" in md and '<a href="#nmr">' in md
    said = ["MD: J is far", "EBA: q", "measured at pH 2", ">0.375<", ">0.875<", "0.125 to 1.500"]
    assert all(words in suite for words in said)
    assert "Models side by side: nmr" in suite and "nmr/comparison.csv" in suite
    assert "j.csv" in suite.split("What was run")[1]
    assert not re.search(r"https?:|src=\"(?!data:)", page.replace(viewer_scripts(), ""))
    names = {"comparison.csv", "comparison.json", "report.html", "figures"}
    assert {path.name for path in (out / "nmr").iterdir()} == names
    assert (out / "comparison.tex").is_file()
    shown = capsys.readouterr().out
    assert "0.875" in shown and "RMWD" in shown
    (tmp_path / "couplings" / "MD").rename(tmp_path / "nmr")
    assert run(["compare", *map(str, folders[:2]), f"{tmp_path}/nmr", "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path}: {tmp_path / 'nmr'} is one of" in capsys.readouterr().err
