import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmfold_benchmark import bent_trace, folding_rows, joined_domains
from ebmfold_summary import best_of_first, interval, paired, selected
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.checkpoint import build_network, save_network
from protenix_eba.ebmfold.domains import Domain, write_domains
from protenix_eba.ebmfold.metrics import lddt_ca
from protenix_eba.ebmfold.trace import PSEUDO_CB, PSEUDO_N, pseudo_atoms

SCRIPTS = Path(__file__).parents[2] / "scripts"


def domain(name, length):
    """A right-handed helix with a kink."""
    t = torch.arange(length + 2) * np.deg2rad(100)
    ca = torch.stack([2.3 * t.cos(), 2.3 * t.sin(), 1.5 * torch.arange(length + 2)], -1)
    n, cb = pseudo_atoms(ca, PSEUDO_N), pseudo_atoms(ca, PSEUDO_CB)
    return Domain(name, "test", "1.1", "A" * length, torch.stack([n, ca[1:-1], ca[1:-1], cb], 1))


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("bench_ebmfold", SCRIPTS / "bench_ebmfold.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench_ebmfold"] = module
        spec.loader.exec_module(module)
        import bench_ebmfold_report

        module.reporting = bench_ebmfold_report
        yield module
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in ("bench_ebmfold", "bench_ebmfold_report"):
            sys.modules.pop(name, None)


@pytest.fixture
def arguments(tmp_path):
    torch.manual_seed(0)
    network = build_network("equivariant", {"n_layers": 1, "channels": 4})
    save_network(tmp_path / "w.safetensors", network)
    write_domains(tmp_path / "d.npz", [domain("a", 20), domain("b", 24)])
    return Namespace(
        domains=tmp_path / "d.npz",
        weights=tmp_path / "w.safetensors",
        every=1,
        noises=(0.5,),
        decoys=2,
        both_settings=False,
        seed=0,
        jobs=1,
        out=tmp_path / "out",
        real=[],
        sections=["folding", "hands", "stages"],
    )


def without_times(rows):
    return {
        section: [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in found]
        for section, found in rows.items()
    }


def test_a_run_that_was_stopped_goes_on_to_the_same_rows_and_report(script, arguments):
    rows, failures = script.measure(arguments)
    assert not failures
    kept, lost = (arguments.out / "rows" / f"folding_{name}.json" for name in "ab")
    before = kept.stat().st_mtime_ns
    lost.write_text(lost.read_text()[:100])
    again, _ = script.measure(arguments)
    assert without_times(again) == without_times(rows)
    assert kept.stat().st_mtime_ns == before
    text = script.reporting.report(again)
    assert "| 0.5 | no | hybrid | 1 |" in text and "0 of 2 native domains" in text
    script.reporting.draw(again, arguments.out / "figures")
    assert len(list((arguments.out / "figures").glob("*.png"))) == 5


def test_rows_made_with_other_settings_are_not_mixed(script, arguments):
    arguments.sections = ["hands"]
    script.measure(arguments)
    arguments.seed = 1
    with pytest.raises(UserError, match="other seed"):
        script.measure(arguments)


def test_a_target_that_fails_is_named_and_the_others_are_measured(script, arguments, monkeypatch):
    def fold_task(plan, weights, domain, number):
        if domain.name == "a":
            raise UserError("too odd")
        return [{"target": domain.name}]

    monkeypatch.setitem(script.TASKS, "folding", fold_task)
    arguments.sections = ["folding"]
    rows, failures = script.measure(arguments)
    assert rows == {"folding": [{"target": "b"}]}
    assert failures == {"folding a": "too odd"}


def test_methods_see_the_same_predictions_and_rows_can_be_written(script):
    network = build_network("equivariant", {"n_layers": 1, "channels": 4}).eval()
    rows = folding_rows(domain("a", 20), 0.5, True, ("peer", "hybrid"), network, 2, 0)
    assert [row["method"] for row in rows] == ["peer", "hybrid"]
    assert json.loads(json.dumps(rows)) == rows
    assert rows[1]["n_evaluations"] == 32
    assert all(len(row["lddt_ca"]) == 2 for row in rows)


@pytest.mark.parametrize("asked", [0.8, 0.5])
def test_a_bent_trace_has_the_lddt_that_is_asked_for(asked):
    ca = domain("a", 40).ca
    assert float(lddt_ca(bent_trace(ca, asked, 0)[None], ca)) == pytest.approx(asked, abs=0.02)


def test_joined_domains_are_one_chain_of_the_length():
    joined = joined_domains([domain("a", 20), domain("b", 24)], 30)
    assert joined.backbone.shape == (30, 4, 3) and len(joined.sequence) == 30
    assert float((joined.ca[20] - joined.ca[19]).norm()) == pytest.approx(3.8, abs=1e-4)


def test_intervals_shrink_with_the_root_of_the_number_of_targets():
    draw = np.random.default_rng(0).normal(0.8, 0.1, 900)
    few, many = interval(draw[:100]), interval(draw)
    assert few.low < 0.8 < few.high
    assert few.high - few.low == pytest.approx(4 * 0.1 / 10, rel=0.15)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(3, rel=0.15)
    assert np.isnan(interval([0.5, 0.7]).low) and str(interval([0.5, 0.7])) == "0.600"


def test_a_paired_difference_is_more_certain_than_its_parts():
    generator = np.random.default_rng(0)
    level = generator.uniform(0.4, 0.9, 40)
    ours = [{"target": k, "lddt_ca": [v + 0.01, v + 0.03]} for k, v in enumerate(level)]
    theirs = [{"target": k, "lddt_ca": [v]} for k, v in enumerate(level)][::-1]
    difference = paired(ours, theirs, "lddt_ca")
    assert difference.mean == pytest.approx(0.02)
    assert difference.high - difference.low < 1e-9 and difference.n == 40


def test_the_selected_decoy_is_the_likeliest_of_those_that_count():
    row = {"lddt_ca": [0.5, 0.9, 0.7], "negative_log_likelihood": [2.0, 3.0, 1.0]}
    assert [selected(row, "lddt_ca", n) for n in (1, 2, 3)] == [0.5, 0.5, 0.7]
    assert [best_of_first(row, "lddt_ca", n) for n in (1, 2, 3)] == [0.5, 0.9, 0.9]
