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


TRAINED = ("AAA", "FAS", "SAG", "TAL")


def numbers(text, ensemble, peptide):
    """Share of closed chains in percent and W1 to the truth in angstrom, each with its interval."""
    part = text.split(f"{peptide} (")[1]
    line = next(line for line in part.splitlines() if line.strip().startswith(ensemble))
    closed = re.search(r"([\d.]+)% \(([\d.]+) to ([\d.]+)\)", line)
    w1 = re.search(r"([\d.]+) \(([\d.]+) to ([\d.]+)\) angstrom", line)
    return tuple(tuple(map(float, found.groups())) for found in (closed, w1))


@pytest.mark.parametrize("peptide", TRAINED)
def test_alignment_brings_the_samples_nearer_to_the_truth_beyond_their_interval(printed, peptide):
    _, text = printed
    (_, after), (_, before) = (numbers(text, model, peptide) for model in ("EBA", "SFT"))
    assert after[2] < before[1], (after, before)


def test_alignment_opens_the_chains_of_the_sequence_that_training_never_saw(printed):
    _, text = printed
    (after, _), (before, _) = (numbers(text, model, "SAL") for model in ("EBA", "SFT"))
    assert after[2] < before[1], (after, before)


@pytest.mark.parametrize("peptide", TRAINED)
def test_the_samples_of_both_models_are_sound_and_have_the_hand_of_proteins(printed, peptide):
    folder, _ = printed
    for model in ("sft", "eba"):
        record = json.loads((folder / f"samples/{model}/{peptide}/{peptide}.json").read_text())
        assert len(record["invalid"]) <= 0.1 * record["n_samples"], model


def test_stock_protenix_writes_structures_that_are_valid(printed):
    folder, text = printed
    lines = [line for line in text.splitlines() if line.startswith("stock Protenix wrote")]
    assert len(lines) == 4 and sum("a valid structure" in line for line in lines) >= 3
    assert (folder / "free_energy.png").is_file()


def test_the_report_and_the_last_lines_have_couplings_beside_measured_ones(printed):
    folder, text = printed
    page = (folder / "report.html").read_text(encoding="utf-8").split("The suite nmr")[1]
    assert all(name in page for name in ("MD_biased", "SFT", "EBA", "MD_unbiased", "pH 2"))
    assert "beside measured couplings" in text.rsplit("what was learnt", 1)[1]
