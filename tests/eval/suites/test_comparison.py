"""Answers of one suite for several models, side by side."""

import csv
import json
import re

import pytest

from protenix_eba.cli.main import run
from protenix_eba.eval.suites.answers import load_answers
from protenix_eba.eval.suites.comparison import side_by_side
from protenix_eba.eval.suites.differences import paired_differences
from protenix_eba.eval.suites.registry import Outcome, Value
from protenix_eba.eval.suites.run import write_outcome


def record(**changed):
    plain = {"suite": "states", "measures": "Which.", "reference": "known", "samples": ["s"]}
    return {**plain, "settings": {"cutoff": 3.0}, "seed": 0, "versions": {"protenix-eba": "0"},
            **changed}  # fmt: skip


def answer(folder, share, *, targets=("p",), **changed):
    """Two states of each target, visited with a known share and its interval."""
    values = [
        Value(name, state, "population", x, "", (x - 0.1, x + 0.1))
        for name in targets
        for state, x in (("apo", share), ("holo", 1.0 - share))
    ]
    values.append(Value("p", "apo", "nearest_rmsd", float("nan"), "Å"))
    values += [Value("p", "", "J", x, "Hz") for x in (1.0, 2.0)]  # two of one name
    outcome = Outcome(values, {"q": "torn"}, ["a note"], (), ("population",), ["apo is near"])
    write_outcome(outcome, record(**changed), folder)
    return folder


def compare(out, *folders):
    return run(["compare", *map(str, folders), "--out", str(out)])


@pytest.fixture
def two(tmp_path):
    return answer(tmp_path / "sft" / "states", 0.25), answer(tmp_path / "eba" / "states", 0.75)


def test_an_answer_is_read_as_it_was_given(two):
    (found,) = load_answers(two[:1]).values()
    values = list(found.values.values())
    assert values[0] == Value("p", "apo", "population", 0.25, "", (0.15, 0.35))
    assert [value.value for value in values if value.key == "J"] == [1.0, 2.0]
    assert found.record["notes"] == ["a note"]


def test_models_stand_side_by_side_with_their_intervals(two, tmp_path, capsys):
    assert compare(tmp_path / "out", *two) == 0
    with open(tmp_path / "out" / "comparison.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["key"] == "population"]
    assert [(r["model"], r["item"], float(r["value"]), float(r["low"])) for r in rows] == [
        ("sft/states", "apo", 0.25, 0.15),
        ("sft/states", "holo", 0.75, 0.65),
        ("eba/states", "apo", 0.75, 0.65),
        ("eba/states", "holo", 0.25, 0.15),
    ]
    first, *others = side_by_side(load_answers(two))
    assert (first.title, first.main) == ("population", True)
    assert first.headings == [("sft/states", ""), ("eba/states", "")]
    assert first.rows[0] == (
        "p", "apo", [("0.250", "0.150 to 0.350"), ("0.750", "0.650 to 0.850")]
    )  # fmt: skip
    assert {table.title for table in others} == {"nearest rmsd (Å)", "J (Hz)"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "sft/states: apo is near" in page and "Models side by side" in page
    assert "sft/states: q" in page and "torn" in page
    assert not re.search(r"\bnan\b|https?:|src=\"(?!data:)", page)
    assert "0.750" in capsys.readouterr().out


def test_differences_are_taken_target_by_target(tmp_path, capsys):
    """Targets differ by tens, models by exactly 0.5: in pairs the interval has no width."""
    for name, shift in (("a", 0.0), ("b", 0.5)):
        values = [Value(f"p{n}", "", "rmsd", 10.0 * n + shift, "Å") for n in range(4)]
        values += [Value(f"p{n}", "apo", "rmsd", n + shift * n, "Å") for n in range(4)]
        outcome = Outcome(values, headline=("rmsd",))
        write_outcome(outcome, record(), tmp_path / name)
    assert compare(tmp_path / "out", tmp_path / "a", tmp_path / "b") == 0
    made = json.loads((tmp_path / "out" / "comparison.json").read_text())["differences"]
    assert list(made) == ["b"]
    whole, apo = made["b"]
    assert (whole["item"], whole["value"], whole["interval"]) == ("", 0.5, [0.5, 0.5])
    assert apo["value"] == 0.75 and apo["interval"][0] < 0.75 < apo["interval"][1]
    said = "rmsd (Å): difference from a, mean over targets in pairs"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_difference_needs_three_targets_and_one_value_of_its_name_in_both(two):
    assert paired_differences(load_answers(two)) == {"eba/states": {}}


def test_what_was_not_the_same_is_said(tmp_path):
    folders = [
        answer(tmp_path / "a", 0.5),
        answer(tmp_path / "b", 0.5, targets=("p", "r"), settings={"cutoff": 2.0}),
    ]
    assert compare(tmp_path / "out", *folders) == 0
    notes = json.loads((tmp_path / "out" / "comparison.json").read_text())["notes"]
    assert "another settings each (a: {'cutoff': 3.0}, b: {'cutoff': 2.0})" in notes[0]
    assert "different targets (a: 1, b: 2)" in notes[1]
    (table, *_) = side_by_side(load_answers(folders))
    assert table.rows[2][2] == [("\u2013", ""), ("0.500", "0.400 to 0.600")]


def test_a_note_of_all_models_is_said_once(two, tmp_path):
    assert compare(tmp_path / "out", *two) == 0
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["notes"] == ["a note"]


def predicted(folder, x, measured):
    """A coupling that is measured and predicted, and one that is predicted only."""
    values = [Value("p", "J 2", "measured", measured, "Hz"), Value("p", "J 2", "off", 9.0)]
    values += [Value("p", f"J {n}", "predicted", x + n, "Hz") for n in (2, 3)]
    write_outcome(Outcome(values, of_data=("measured",)), record(suite="nmr"), folder)
    return folder


def test_measured_values_stand_once_in_front_of_what_models_predict(tmp_path):
    folders = [predicted(tmp_path / name, x, 7.0) for name, x in (("a", 0.5), ("b", 1.5))]
    tables = {table.title: table for table in side_by_side(load_answers(folders))}
    assert set(tables) == {"predicted (Hz)", "off"}
    shown = tables["predicted (Hz)"]
    assert [label for label, _ in shown.headings] == ["measured", "a", "b"]
    assert shown.rows == [
        ("p", "J 2", [("7.000", ""), ("2.500", ""), ("3.500", "")]),
        ("p", "J 3", [("\u2013", ""), ("3.500", ""), ("4.500", "")]),
    ]
    assert [label for label, _ in tables["off"].headings] == ["a", "b"]  # of another unit


def test_measured_values_that_nothing_is_predicted_for_keep_their_table(tmp_path):
    for name in ("a", "b"):
        given = Value("p", "J 2", "measured", 7.0, "Hz")
        values = [given, Value("p", "J 3", "predicted", 5.0, "Hz")]
        outcome = Outcome(values, of_data=("measured",))
        write_outcome(outcome, record(suite="nmr"), tmp_path / name)
    tables = side_by_side(load_answers([tmp_path / "a", tmp_path / "b"]))
    assert {table.title for table in tables} == {"measured (Hz)", "predicted (Hz)"}


def test_measured_values_have_no_differences_between_models(tmp_path):
    for name, x in (("a", 1.0), ("b", 2.0)):
        values = [
            Value(f"p{n}", "J", key, value, "Hz")
            for n in range(3)
            for key, value in (("measured", 7.0), ("predicted", x))
        ]
        outcome = Outcome(values, of_data=("measured",))
        write_outcome(outcome, record(suite="nmr"), tmp_path / name)
    tables = side_by_side(load_answers([tmp_path / "a", tmp_path / "b"]))
    titles = [table.title.partition(" (")[0] for table in tables]
    assert titles == ["predicted", "predicted"] and "difference" in tables[1].title
    assert [label for label, _ in tables[1].headings] == ["b"]


def test_measured_values_that_differ_between_models_keep_their_own_table(tmp_path):
    folders = [predicted(tmp_path / name, 0.5, x) for name, x in (("a", 7.0), ("b", 8.0))]
    tables = {table.title: table for table in side_by_side(load_answers(folders))}
    assert tables["measured (Hz)"].rows == [("p", "J 2", [("7", ""), ("8", "")])]
    assert [label for label, _ in tables["predicted (Hz)"].headings] == ["a", "b"]


def test_what_cannot_be_compared_is_refused(two, tmp_path, capsys):
    def refused(message, *folders, more=()):
        assert run(["compare", *map(str, folders), "--out", str(tmp_path / "x"), *more]) == 2
        assert message in capsys.readouterr().err

    refused("a folder is given twice", two[0], two[0])
    refused("no published results of suites", *two, more=["--published"])
    refused("expected a file at", two[0], tmp_path / "absent")
    nmr = answer(tmp_path / "nmr", 0.5, suite="nmr")
    refused("expected answers of one suite, found states: states, nmr: nmr", two[0], nmr)
    (tmp_path / "md").mkdir()
    (tmp_path / "md" / "metrics.json").write_text('{"format": 1, "label": "m", "values": []}')
    refused("not the metrics of an evaluation of this version", two[0], tmp_path / "md")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda c: c["values"][1].update(value="x"),
         "values[1].value: expected a number or null, found 'x'"),
        (lambda c: c["values"][0].update(interval=[0.1]),
         "values[0].interval: expected two numbers or null, found [0.1]"),
        (lambda c: c["values"][0].update(value=10**400), "values[0].value: expected a number"),
        (lambda c: c["values"][0].update(interval=[0.1, float("nan")]),
         "values[0].interval: expected two numbers or null, found [0.1, nan]"),
        (lambda c: c["values"][0].pop("target"), "values[0].target: expected text, found nothing"),
        (lambda c: c["values"].insert(0, 3), "values[0]: expected names with values, found 3"),
        (lambda c: c.update(values=None), "values: expected a list of values, found None"),
        (lambda c: c.update(seed=-1), "seed: expected a whole number, 0 or more, found -1"),
        (lambda c: c.update(headline=["population", []]), "headline: expected a list of texts"),
        (lambda c: c.update(failed=["q"]), "failed: expected names with texts, found ['q']"),
        (lambda c: c.pop("settings"), "settings: expected names with values, found nothing"),
    ],
)  # fmt: skip
def test_a_damaged_answer_is_refused_with_its_file_and_key(two, tmp_path, capsys, damage, said):
    path = two[1] / "metrics.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    assert compare(tmp_path / "x", *two) == 2
    err = capsys.readouterr().err
    assert f"{path}: " in err and said in err


def test_a_suite_without_a_headline_has_all_its_values_in_front(tmp_path):
    for name in ("a", "b"):
        outcome = Outcome([Value("p", "", "size", 3.0)])
        write_outcome(outcome, record(suite="size"), tmp_path / name)
    assert compare(tmp_path / "out", tmp_path / "a", tmp_path / "b") == 0
    assert ">3<" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
