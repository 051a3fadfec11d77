"""The page of a suite: tables of any values, and what the suites of this package draw."""

import base64
import csv
import json
import re
from collections import Counter

import mdtraj
import numpy as np
import pytest
from browser import look, needs_browser
from matplotlib.figure import Figure

from protenix_eba.cli.main import run
from protenix_eba.eval.report.plots.agreement import Pairs, _draw
from protenix_eba.eval.suites.page import render_outcome, tables
from protenix_eba.eval.suites.registry import Outcome, Value

RECORD = {"suite": "size", "measures": "How many.", "versions": {"protenix-eba": "0"}, "seed": 0}


def rows(table):
    return [(target, item) for target, item, _ in table.rows]


def test_a_table_holds_the_rows_that_have_its_keys_and_no_value_is_lost():
    values = [
        Value("p", "apo", "population", 0.25, "", (0.1, 0.4)),
        Value("p", "apo", "nearest", 1.5, "Å"),
        Value("p", "elsewhere", "population", 0.75),
        Value("p", "", "visited", 2.0),
        Value("", "apo", "population", 0.3),
    ]
    first, of_all, means = tables(values)
    assert rows(first) == [("p", "apo"), ("p", "elsewhere")]
    assert first.headings == [("population", ""), ("nearest", "Å")]
    assert [cells for *_, cells in first.rows] == [
        [("0.250", "0.100 to 0.400"), ("1.500", "")],
        [("0.750", ""), ("\u2013", "")],
    ]
    assert (rows(of_all), rows(means)) == ([("p", "")], [("", "apo")])
    assert of_all.rows[0][2] == [("2", "")]  # a count has no decimals


def test_two_measurements_of_one_name_are_two_rows():
    values = [Value("p", "J", key, x) for x in (1.5, 2.5) for key in ("measured", "predicted")]
    (table,) = tables(values)
    assert [cells[0][0] for *_, cells in table.rows] == ["1.500", "2.500"]


def test_the_headline_comes_first_and_units_that_differ_stand_beside_the_numbers():
    values = [Value("p", "", "size", 3.0), *(Value("p", u, "rmsd", 0.5, u) for u in ("Hz", "Å"))]
    first, second = tables(values, ["rmsd"])
    assert (first.main, second.main) == (True, False)
    assert first.headings == [("rmsd", "")]
    assert [cells[0][0] for *_, cells in first.rows] == ["0.500 Hz", "0.500 Å"]


def test_what_is_not_defined_is_a_dash_and_names_are_text(tmp_path):
    values = [
        Value("<b>", "", "x", float("nan"), "", (float("nan"), 1.0)),
        Value("c", "", "x", 1.5),
    ]
    outcome = Outcome(values, {"d": "cut <file>"}, findings=["a < b"])
    page = render_outcome(outcome, RECORD, tmp_path).read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page and "cut &lt;file&gt;" in page and "a &lt; b" in page
    assert not re.search(r"\bnan\b|https?:|<link|@import|url\(|src=\"(?!data:)", page)


def test_a_long_table_is_folded(tmp_path):
    values = [Value("p", str(n), "x", n / 7.0) for n in range(200)]
    page = render_outcome(Outcome(values), RECORD, tmp_path).read_text(encoding="utf-8")
    assert "<summary>200 rows</summary>" in page and page.count('<td class="name">p</td>') == 200


def test_the_three_worst_are_named():
    random = np.random.default_rng(0)
    measured = random.normal(size=10)
    off = np.array([0.1, 3.0, 0.2, 0.3, 5.0, 0.1, 0.4, 4.0, 0.2, 0.3])
    axes = Figure().subplots()
    _draw(axes, Pairs([f"n{n}" for n in range(10)], measured, measured + off, off))
    assert [text.get_text() for text in axes.texts] == ["n4", "n7", "n1"]


@pytest.fixture(scope="module")
def couplings(demo_data, tmp_path_factory):
    """The folder of the suite `nmr` for the shipped MD of penta-alanine."""
    out = tmp_path_factory.mktemp("nmr")
    data, samples = demo_data / "penta_alanine_couplings.csv", demo_data / "penta_alanine"
    words = ["--reference", str(data), "--samples", str(samples), "--out", str(out)]
    assert run(["evaluate", "--suite", "nmr", *words]) == 0
    return out


def test_the_page_names_the_observable_that_is_farthest_from_measured(couplings):
    with open(couplings / "metrics.csv", newline="", encoding="utf-8") as file:
        off = {r["item"]: abs(float(r["value"])) for r in csv.DictReader(file)
               if r["key"] == "deviation_in_errors"}  # fmt: skip
    page = (couplings / "report.html").read_text(encoding="utf-8")
    assert f"farthest from measured: {max(off, key=off.get)} (measured" in page
    assert all(item in page for item in off)


@needs_browser
def test_a_browser_shows_the_page_of_a_suite_without_complaint(couplings, tmp_path):
    probe = """return [...document.querySelectorAll("section")].map((s) => {
      return [s.querySelector("h2").textContent, s.querySelectorAll("tbody tr").length];
    });"""
    found, n_pictures = look(couplings / "report.html", probe, tmp_path)
    shown = Counter()
    for title, n_rows in found:
        shown[title] += n_rows
    # Four kinds and all; 15 couplings.
    assert (n_pictures, shown["Values"], shown["More values"]) == (1, 5, 15)
    assert shown.keys() >= {"Findings", "Predicted against measured", "What was run", "Versions"}


def test_the_page_of_states_names_the_nearest_sample_of_each(tmp_path):
    """Of two straight chains, one of them stretched; sample 3 is the one, sample 1 the other."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for n in range(8):
        residue = topology.add_residue("ALA", chain, resSeq=n + 1)
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    straight = np.outer(3.8 * np.arange(8), [1.0, 0.0, 0.0])
    samples = np.array([straight * factor for factor in (1.1, 1.49, 1.2, 1.01, 1.3)])
    (tmp_path / "known" / "p").mkdir(parents=True)
    (tmp_path / "samples").mkdir()
    for name, xyz in (
        ("known/p/short", straight[None]),
        ("known/p/long", 1.5 * straight[None]),
        ("samples/p", samples),
    ):
        mdtraj.Trajectory(xyz / 10.0, topology).save_pdb(tmp_path / f"{name}.pdb")
    words = ["--reference", str(tmp_path / "known"), "--samples", str(tmp_path / "samples")]
    changes = ["--set", "cutoff_angstrom=0.5", "--set", "tm_score=false"]
    out = tmp_path / "out"
    assert run(["evaluate", "--suite", "states", *words, *changes, "--out", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 of 2 states are visited" in page
    assert "nearest to long sample 1 (0.09 Å), to short sample 3 (0.09 Å)" in page
    scene = json.loads(re.search(r'id="ensembles">(.*?)</script>', page)[1])["targets"][0]
    shown = dict(scene["choices"])
    assert list(shown) == [
        "nearest to long: sample 1, 0.09 Å",
        "nearest to short: sample 3, 0.09 Å",
    ]
    layers = {layer["label"]: layer for layer in scene["layers"]}
    assert {label: layer["frames"] for label, layer in layers.items()} == {
        "samples": 5, "long": 1, "short": 1
    }  # fmt: skip
    # Residues of the sample that is shown are 1.49 times 3.8 angstrom apart.
    frames = np.frombuffer(base64.b64decode(layers["samples"]["packed"]), "<i2").reshape(5, 8, 3)
    frame = frames[int(shown["nearest to long: sample 1, 0.09 Å"].split()[1])] / 100.0
    steps = np.linalg.norm(np.diff(frame, axis=0), axis=1)
    np.testing.assert_allclose(steps, 1.49 * 3.8, atol=0.03)
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ("states", "populations") for suffix in ("svg", "png")
    }
