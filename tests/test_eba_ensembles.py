"""The recipe for the EBA authors' released ensembles, on a small archive of their form."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import mdtraj
import pytest
from command_lines import ROOT

MD = ROOT / "protenix_eba" / "demo_data"
SCRIPT = ROOT / "examples" / "eba_ensembles" / "reproduce.sh"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "tar", "sha256sum"))), reason="needs bash, tar, sha256sum"
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Conformations of the shipped MD, named as by the authors' `runner/dumper.py`."""
    folder = tmp_path / "packing" / "artifacts" / "grgds" / "seed_42" / "predictions"
    folder.mkdir(parents=True)
    source = MD / "grgds"
    frames = mdtraj.load(
        str(source / "grgds_prod_R1_fit.xtc"), top=str(source / "grgds.pdb"), stride=10
    )[:8]
    for number, frame in enumerate(frames):
        frame.save_cif(str(folder / f"grgds_seed_42_sample_{number}.cif"))
    path = tmp_path / "artifacts.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        packed.add(tmp_path / "packing" / "artifacts", "artifacts")
    return path


def reproduce(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "bin" / "protenix-eba"
    program.parent.mkdir(exist_ok=True)
    source = "import sys; from protenix_eba.cli.main import run; sys.exit(run(sys.argv[1:]))"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{source}' \"$@\"\n")
    program.chmod(0o755)
    # As on a machine without a network.
    curl = tmp_path / "bin" / "curl"
    curl.write_text("#!/bin/sh\necho no network >&2\nexit 6\n")
    curl.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "JOBS": "1"}
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, words)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_archive_of_the_authors_form_is_scored_beside_their_row(
    tmp_path: Path, archive: Path
) -> None:
    work = tmp_path / "work"
    done = reproduce(tmp_path, work, archive, MD)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((work / "evaluation" / "metrics.json").read_text())
    assert metrics["counts"]["grgds"]["n_samples"] == 8 and metrics["failed"] == {}
    assert metrics["compat"]["targets"]["grgds"]["rmwd"] == metrics["targets"]["grgds"]["rmwd"]
    comparison = json.loads((work / "comparison" / "comparison.json").read_text())
    (row,) = (row for row in comparison["published"] if row["label"] == "EBA")
    assert row["values"]["rmwd"] == 2.43
    assert (work / "artifacts.sha256").read_text().strip() in done.stdout


def test_what_is_missing_or_changed_is_said_before_anything_is_scored(
    tmp_path: Path, archive: Path
) -> None:
    def refused(said: str, *words: object) -> None:
        done = reproduce(tmp_path, tmp_path / "work", *words)
        assert done.returncode != 0 and said in done.stderr, done.stderr
        assert not (tmp_path / "work" / "evaluation").exists()

    refused("no network")
    refused("no archive at nowhere", "nowhere")
    refused("no MD at nowhere", archive, "nowhere")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(__file__, "readme")
    refused("is not the file of the first run", archive, MD)
    shutil.rmtree(tmp_path / "work")
    refused("the archive has another form", archive, MD)
    shutil.rmtree(tmp_path / "work")
    archive.write_bytes(archive.read_bytes()[:-20])
    refused("it is cut or no .tar.gz", archive, MD)
