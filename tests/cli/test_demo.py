"""The demo, whole: what README says of it. Minutes on two cores."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The demo's folder, and what it prints."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    program = Path(sys.executable).parent / "protenix-eba"
    done = subprocess.run(
        [program, "demo", "--out", folder, "--jobs", "1"],
        env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stderr


def w1(text, ensemble, chain):
    """Value and interval of the W1 to the truth, angstrom."""
    part = text.split(f"{chain} (")[1]
    line = next(line for line in part.splitlines() if line.strip().startswith(ensemble))
    return tuple(
        map(float, re.search(r"([\d.]+) \(([\d.]+) to ([\d.]+)\) angstrom", line).groups())
    )


def test_alignment_brings_the_samples_nearer_to_the_truth_beyond_their_interval(printed):
    _, text = printed
    for chain in ("gly4", "gly5"):
        after, before = w1(text, "EBA", chain), w1(text, "SFT", chain)
        assert after[2] < before[1], (chain, after, before)


def test_the_samples_of_both_models_are_sound(printed):
    folder, _ = printed
    for model in ("sft", "eba"):
        record = json.loads((folder / f"samples/{model}/gly4/gly4.json").read_text())
        assert len(record["invalid"]) <= 0.1 * record["n_samples"], model


def test_stock_protenix_writes_structures_that_are_valid(printed):
    folder, text = printed
    lines = [line for line in text.splitlines() if line.startswith("stock Protenix wrote")]
    assert len(lines) == 4 and sum("a valid structure" in line for line in lines) >= 3
    assert (folder / "report.html").is_file() and (folder / "free_energy_gly5.png").is_file()
