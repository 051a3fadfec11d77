import importlib.metadata
import json
import os
import re
import subprocess
import sys

import openmm
import pytest

from protenix_eba.cli.doctor_checks import CHECKS, run_check
from protenix_eba.cli.main import run


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a program on the path that answers as nvidia-smi does beside a driver."""

    def install(version):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, {version}, 40960 MiB'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def test_it_says_what_is_installed(capsys):
    assert run(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = {check["name"]: check["found"] for check in answer["checks"]}
    assert answer["usable"] and list(found) == list(CHECKS)
    for name in ("protenix-eba", "protenix", "torch", "deepspeed", "openmm", "mdtraj"):
        assert found[name] == importlib.metadata.version(name)
    assert "CPU" in found["OpenMM platforms"].split(", ")
    assert "protenix_eba" in found["plugins"]


def test_it_fits_one_screen(capsys):
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert lines[-1] == "ready for a run on a CPU"


def test_a_broken_package_is_a_line_and_a_status(tmp_path):
    (tmp_path / "openmm.py").write_text("raise ImportError('libOpenMM.so.8: cannot open')")
    code = "import sys; from protenix_eba.cli.main import run; sys.exit(run(['doctor']))"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 2
    assert re.search(r"failed +openmm .*libOpenMM\.so\.8: cannot open", ended.stdout)
    assert "What to do: pip install --force-reinstall" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_cache_that_cannot_be_made_is_needed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PROTENIX_ROOT_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check = run_check("CCD cache", CHECKS["CCD cache"])
    assert check.state == "failed" and "XDG_CACHE_HOME" in check.advice
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    assert run_check("CCD cache", CHECKS["CCD cache"]).state == "ok"


@pytest.mark.parametrize(
    ("version", "extra"), [("580.65.06", "cuda13"), ("560.35.03", "cuda12"), ("470.82.01", None)]
)
def test_the_extra_for_cuda_is_one_that_openmm_has(driver, version, extra):
    names = [
        openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())
    ]
    if "CUDA" in names:
        pytest.skip("advice on how to get CUDA is for an OpenMM without it: this one has CUDA")
    driver(version)
    check = run_check("OpenMM platforms", CHECKS["OpenMM platforms"])
    assert check.state == "note" and check.found == ", ".join(names)
    named = re.findall(r"openmm\[(\w+)\]", check.advice)
    assert named == ([extra] if extra else [])
    assert set(named) <= set(importlib.metadata.metadata("openmm").get_all("Provides-Extra"))


def test_a_gpu_that_torch_does_not_see_is_said(driver):
    import torch

    if torch.cuda.is_available():
        pytest.skip("about a GPU that torch does not see: here it sees one")
    driver("560.35.03")
    check = run_check("GPU", CHECKS["GPU"])
    assert check.state == "note" and "A100" in check.found and "driver 560.35.03" in check.found
