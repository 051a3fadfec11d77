import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bench_sample
import gpu_check
import gpu_check_parts
from bench_protein import benchmark_protein, windows
from protenix_eba.host.features import compact, complete, protein_features
from protenix_eba.structures.sequences import Protein

# Beside the standard library and torch with what it needs: the wheels that the help names, pytest
# and what it needs, and the checkout.
ALLOWED = """
numpy scipy safetensors yaml ml_collections absl optree protenix configs
torch torchgen functorch sympy mpmath networkx jinja2 markupsafe filelock fsspec typing_extensions
triton py pytest _pytest pluggy iniconfig pygments packaging exceptiongroup
protenix_eba bench_protein bench_train bench_sample gpu_check gpu_check_parts tests test_gpu
"""
BARE = f"""
import sys
from importlib.machinery import PathFinder

ALLOWED = set(sys.stdlib_module_names) | set({ALLOWED!r}.split())

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED or top.startswith("_"):
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""


def rehearse(folder, out):
    """The script on the CPU, in a Python that has no other packages than its help names."""
    words = [sys.executable, gpu_check.__file__, "--rehearse", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_folder_that_is_missing_and_a_second_run_at_once_are_refused(tmp_path, monkeypatch):
    def refused(out, message):
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--rehearse", "--out", str(out)])
        with pytest.raises(SystemExit, match=message):
            gpu_check.main()

    refused(tmp_path / "absent" / "found.json", "there is no folder .*absent")
    out = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--rehearse", "--out", str(out)])
    monkeypatch.setattr(gpu_check, "check", lambda *_: refused(out, "another run writes"))
    gpu_check.main()


def test_a_protein_too_small_for_upstreams_loop_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_sample.py", "--residues", "100", "3"])
    with pytest.raises(SystemExit, match="--residues: expected 8 or more"):
        bench_sample.main()


@pytest.mark.slow
def test_on_a_bare_machine_each_part_gives_figures_and_a_second_run_makes_none_again(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    out = tmp_path / "found.json"
    table = rehearse(tmp_path, out)
    found = json.loads(out.read_text())
    expected = gpu_check_parts.parts(gpu_check_parts.SIZES["rehearsal"], "cpu")
    assert found.keys() == expected.keys()
    assert "No module named 'openmm'" in found.pop("openmm")["error"]
    assert not any("error" in figures for figures in found.values()), found
    assert found["tests"]["status"] == 0 and "skipped" in found["tests"]["summary"]
    assert table.count("| 4 | 2 |") == 4 and "4.3 s, 12.0 GB (A100)" in table
    again = rehearse(tmp_path, out)
    assert "train" not in again.partition("device")[0]
    assert {k: v for k, v in json.loads(out.read_text()).items() if k != "openmm"} == found


def test_the_protein_has_the_features_of_protenix_own():
    ours = benchmark_protein(40)
    theirs = protein_features(Protein("x", ours.protein.chains))
    assert ours.atoms == theirs.atoms and ours.elements == theirs.elements
    both = complete(compact(theirs).features)
    same = ours.features.keys() - {"ref_pos", "ref_charge", "d_lm", "pad_info"}
    assert len(same) > 10
    for key in same:
        assert torch.equal(ours.features[key], both[key].to(ours.features[key].dtype)), key
    made = windows(both)
    for key in ("d_lm", "v_lm"):
        assert torch.equal(made[key], both[key])
    assert torch.equal(made["pad_info"]["mask_trunked"], both["pad_info"]["mask_trunked"])


def test_want_of_memory_and_errors_are_figures():
    def fails(error):
        raise error

    assert gpu_check.attempt(lambda: fails(torch.OutOfMemoryError("no")), "cpu") == {
        "out of memory": True,
        "peak_gb": None,
    }
    found = gpu_check.attempt(lambda: fails(ValueError("a kernel")), "cpu")
    assert found["error"] == "ValueError: a kernel"
    results = {
        "train batched float32 N=100 K=2": {"out of memory": True, "peak_gb": 39.25},
        "train batched float32 N=100 K=3": found,
        "sample float32 N=100": {"seconds_per_sample": 0.5, "chunk": 8, "peak_gb": 2.0},
    }
    table = "\n".join(gpu_check.lines(results))
    assert "| 100 | 2 | batched | float32 | out of memory | out of memory | 39.2 |" in table
    assert "| 100 | 3 | batched | float32 | ValueError: a kernel |" in table
    assert "| 100 | float32 | 0.5 | 8 | 2 | 0.9 s (A100) |" in table


def test_a_part_that_took_its_process_down_is_named(tmp_path):
    out = Path(tmp_path) / "found.json"
    gpu_check.keep(out, "lddt N=4", {"seconds": 1.0})
    gpu_check.keep(out, "openmm", {"begun": 0.0})
    gpu_check.close_begun(out, "the process ended with status -11")
    assert gpu_check.read(out) == {
        "lddt N=4": {"seconds": 1.0},
        "openmm": {"error": "the process ended with status -11"},
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"machine":', "is no JSON"), ("[]", "no results"), ('{"a": 3}', "no results")],
)
def test_a_file_of_something_else_is_kept_and_told(tmp_path, content, said):
    out = tmp_path / "other.json"
    out.write_text(content)
    command = [sys.executable, gpu_check.__file__, "--rehearse", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert said in done.stderr and out.read_text() == content
