"""Tables of on-policy alignment, on ensembles whose numbers can be written down."""

import pytest

import on_policy_report

COUNTS = [[0] * 144]
COUNTS[0][7] = 10


def row(arm, target, **values):
    return {
        "arm": arm,
        "seed": 0,
        "target": target,
        "distance_pm": [[500, 1500] * 5],
        "torsions": COUNTS,
        "valid": 10,
        "inverted": 0,
        "bond_rms_angstrom": 0.04,
        "energy_kj_mol": [0.0, 10.0, 20.0],
    } | values


@pytest.fixture
def rows():
    model = {"rmwd": 0.5, "coverage": 0.75, "training_s": 60, "sampling_s": 0, "waiting_s": 0}
    made = []
    for target in ("AAA", "SAL"):
        made.append(row("unbiased", target))
        made.append(row("sft", target, kind="", **model))
        aligned = model | {"energy_kj_mol": [3.0, 13.0, 23.0], "waiting_s": 7.0}
        made.append(row("on_policy", target, kind="minimised", **aligned))
    return made


def cells(table, title, group):
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    (found,) = (line[2:] for line in lines if line[:2] == [title, group])
    return found


@pytest.mark.parametrize("group", ["trained on", "held out"])
def test_energies_are_quantiles_above_the_same_ones_of_the_md(rows, group):
    table = on_policy_report.tables(rows)["on-policy-minimised-quality"]
    title = "EBA on policy, lr 1e-4"
    assert cells(table, title, group) == ["3.0", "3.0", "3.0", "0.50", "75", "60", "0", "7"]
    before = cells(table, "before alignment (supervised)", group)
    assert before[:3] == ["0.0", "0.0", "0.0"]


def test_an_arm_stands_in_the_tables_of_its_energy_alone(rows):
    made = on_policy_report.tables(rows)
    assert "on policy" in made["on-policy-minimised"]
    assert "on policy" not in made["on-policy-bias"] + made["on-policy-bias-quality"]


def test_the_document_is_what_the_stored_results_give():
    assert on_policy_report.check() == 0
