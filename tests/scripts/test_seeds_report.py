"""The table of the demo over seeds, on ensembles whose numbers can be written down."""

import math

import pytest

import seeds_report

# Half of these distances (0.01 angstrom) are folded back, at 5 angstrom; the others are at 15.
HALF = [500] * 50 + [1500] * 50
COUNTS = [[0] * 144]
COUNTS[0][7] = 100


def row(arm, seed, target, distances, counts=COUNTS):
    return {
        "arm": arm,
        "seed": seed,
        "target": target,
        "distance_pm": [distances],
        "torsions": counts,
        "valid": len(distances),
        "inverted": 0,
        "bond_rms_angstrom": 0.04,
    }


@pytest.fixture
def rows():
    made = [
        row("unbiased", 0, target, HALF) | {"distance_pm": [HALF, HALF], "torsions": COUNTS * 2}
        for target in ("AAA", "SAL")
    ]
    for target in ("AAA", "SAL"):
        made += [row("sft", seed, target, HALF) for seed in (0, 1)]
        made.append(row("eba", 0, target, [500] * 25 + [1500] * 75))
        made.append(row("eba", 1, target, [500] * 75 + [1500] * 25))
    return made


def cells(rows, title, group):
    lines = [line.split(" | ") for line in seeds_report.seeds_table(rows).splitlines()]
    (found,) = (line[2:] for line in lines if line[0] == f"| {title}" and line[1] == group)
    return found


@pytest.mark.parametrize("group", ["trained on", "held out"])
def test_an_ensemble_that_is_the_truth_is_at_distance_0_from_it(rows, group):
    folded, _, w1, torsions, valid, inverted, _ = cells(
        rows, "before alignment (supervised)", group
    )
    assert folded == "50.0 (50.0 to 50.0)"
    assert (w1, torsions) == ("0.00 (0.00 to 0.00)",) * 2
    assert valid.startswith("100.0") and inverted.startswith("0.0")


def test_seeds_are_averaged_and_their_range_is_shown(rows):
    folded, shift, w1, *_ = cells(rows, "EBA", "trained on")
    assert folded == "50.0 (25.0 to 75.0)"
    # 75 of one state and 25 of the other, with half a conformation added to both.
    moved = f"{math.log(75.5 / 25.5):.2f}"
    assert shift == f"0.00 (-{moved} to {moved})"
    # A quarter of the chains is 10 angstrom from where it should be.
    assert w1 == "2.50 (2.50 to 2.50)"


def test_what_weights_can_reach_is_the_closed_form_of_two_states(rows):
    folded, *_ = cells(rows, "its samples, weighted by exp(V / kT)", "trained on")
    # V = -5 kT / (1 + exp(d - 7.5))
    near, far = (math.exp(-5 / (1 + math.exp(d - 7.5))) for d in (5.0, 15.0))
    assert folded.startswith(f"{100 * near / (near + far):.1f} ")
