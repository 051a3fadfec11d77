"""Labelling at scale: shares, clusters, runs that are killed, and what labels are worth."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from toy_plugin import program_with

from protenix_eba.cli.label import label
from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.core.sharding import Shard
from protenix_eba.energy.functions import ENERGIES, python_system
from protenix_eba.energy.journal import add_to_journal, read_journal
from protenix_eba.energy.label import Workers, label_targets
from protenix_eba.energy.protocol import PROTOCOLS
from protenix_eba.energy.report import label_quality
from protenix_eba.energy.resume import LabelFiles
from protenix_eba.energy.shards import merge_shards
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.system import TargetEnergy
from protenix_eba.energy.table import EnergyLabels, labels_from_rows, read_labels, write_labels
from protenix_eba.energy.work import Chunk, Job, label_chunk
from protenix_eba.structures.frame_choice import FrameChoice

DATA = Path(__file__).parents[1] / "data" / "cobrotoxin"
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
AS_IS = replace(PROTOCOLS["published"], minimise=False)
SOME = FrameChoice(stride=60)


def _text(labels: EnergyLabels) -> str:
    """For comparison: NaN is not equal to itself."""
    return json.dumps(labels.rows())


def test_few_frames_are_shared_out_to_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Path] = []
    monkeypatch.setattr(LabelFiles, "remove", lambda files, keep: parts.extend(files.parts))
    (tmp_path / "grgds").mkdir()
    for name in ("grgds.pdb", "grgds_prod_R1_fit.xtc"):
        shutil.copy(DEMO / "grgds" / name, tmp_path / "grgds")
    label_targets(
        tmp_path, tmp_path / "l.parquet", AS_IS,
        choice=FrameChoice(per_target=5), workers=Workers(jobs=2),
    )  # fmt: skip
    assert sorted(len(read_journal(path)) for path in parts) == [2, 3]


def test_a_structure_is_prepared_once_for_all_processes(tmp_path: Path) -> None:
    """A worker needs no file, and knows a structure that is sent to it again."""
    path = Path(shutil.copy(DEMO / "grgds" / "grgds.pdb", tmp_path))
    structure = complete_structure(path)
    path.unlink()
    sent, again = (pickle.loads(pickle.dumps(structure)) for _ in range(2))
    assert sent == again and hash(sent) == hash(again)
    assert sent != complete_structure(DEMO / "met_enkephalin" / "met_enkephalin.pdb")
    frame = (10 * structure.reference_nm[None]).astype(np.float32)
    chunk = Chunk("grgds", 1, np.array([0]), frame, [""], sent)
    job = Job(AS_IS, "Reference", tmp_path, generated=False, timeout_s=None)
    assert label_chunk(chunk, job) == (1, 0)


@pytest.mark.slow
def test_shares_together_are_the_table_and_leave_nothing_behind(tmp_path: Path) -> None:
    whole = label_targets(DEMO, tmp_path / "whole.parquet", AS_IS, choice=SOME).labels
    out = tmp_path / "l.parquet"
    for i in (3, 1):
        label_targets(DEMO, out, AS_IS, choice=SOME, shard=Shard(i, 3))
    assert not out.exists()
    with pytest.raises(UserError, match="of 3 shares 2 are missing"):
        merge_shards(out)
    again = label_targets(DEMO, out, AS_IS, choice=SOME, shard=Shard(1, 3))
    assert again.computed == 0
    label_targets(DEMO, out, AS_IS, choice=SOME, shard=Shard(2, 3))
    assert run(["label", "merge", str(out)]) == 0
    assert _text(read_labels(out)) == _text(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.parquet", "whole.parquet"]
    with pytest.raises(UserError, match="no shares of"):
        merge_shards(out)


def test_run_without_a_share_takes_what_shares_have_done(tmp_path: Path) -> None:
    """And more jobs than targets leave empty shares, which are complete."""
    out = tmp_path / "l.parquet"
    done = label_targets(DEMO, out, AS_IS, choice=SOME, shard=Shard(2, 3)).computed
    empty = label_targets(DEMO, out, AS_IS, choice=SOME, shard=Shard(9, 9))
    assert len(empty.labels) == 0
    rest = label_targets(DEMO, out, AS_IS, choice=SOME)
    assert rest.computed + done == len(rest.labels) and done > 0
    assert [path.name for path in tmp_path.iterdir()] == ["l.parquet"]


@given(st.integers(1, 40), st.integers(0, 100))
def test_shares_are_all_targets_each_once(count: int, targets: int) -> None:
    shares = [Shard(i, count).of(range(targets)) for i in range(1, count + 1)]
    assert sorted(target for share in shares for target in share) == list(range(targets))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(deadline=None)
@given(st.text("0123456789/- ", max_size=6))
def test_share_is_read_or_refused(text: str) -> None:
    try:
        shard = Shard.parse(text)
    except UserError:
        return
    assert 1 <= shard.index <= shard.count
    assert [int(word) for word in text.split("/")] == [shard.index, shard.count]


SLOW = '''
import hashlib
import os
import time

from protenix_eba.energy.functions import ENERGIES, python_system


@ENERGIES.register("slow")
def slow(topology, protocol, constrained):
    """Half k r^2; the file BEGUN gets a line for each evaluation, the same for the same frame."""
    def compute(xyz_nm):
        with open(os.environ["BEGUN"], "a") as file:
            file.write(hashlib.sha256(xyz_nm.tobytes()).hexdigest() + "\\n")
        time.sleep(0.02)
        return 50.0 * float((xyz_nm**2).sum()), -100.0 * xyz_nm
    return python_system(topology, compute)
'''


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(openmm, "PythonForce"), reason="OpenMM without PythonForce")
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_run_loses_a_frame_of_each_process_and_goes_on_to_the_same_table(
    tmp_path: Path, jobs: int
) -> None:
    """SIGKILL at no moment of the program's choosing, within chunks."""
    program = program_with(tmp_path / "site", SLOW)
    words = ["label", "--input", str(DEMO / "grgds"), "--no-minimize", "--stride", "5"]
    words += ["--plugin", "toy", "--energy", "slow", "--jobs", str(jobs)]
    whole, out, begun = (tmp_path / name for name in ("whole.parquet", "l.parquet", "begun"))
    environment = {**os.environ, "BEGUN": str(begun)}
    killed = [*program, *words, "--out", str(out)]
    process = subprocess.Popen(killed, start_new_session=True, env=environment)
    while process.poll() is None and not (begun.exists() and len(_lines(begun)) > 26):
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    kept = sum(map(len, LabelFiles.beside(out).read()))
    assert 0 <= len(set(_lines(begun))) - kept <= jobs
    told = [
        subprocess.run(
            [*program, *words, "--out", str(path)],
            env=environment, check=True, capture_output=True, text=True,
        ).stderr
        for path in (whole, out)
    ]  # fmt: skip
    labels = read_labels(out)
    assert f"{len(labels) - kept} computed now" in told[1]
    assert _text(labels) == _text(read_labels(whole))
    assert not list(tmp_path.glob("*.parts"))


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]


def test_a_row_that_is_cut_anywhere_is_left_out_and_others_are_not(tmp_path: Path) -> None:
    rows = _rows(np.array([1.5, math.nan, -2.25]), math.nan, 1)
    path = tmp_path / "l.jsonl"
    for row in rows[:2]:
        add_to_journal(path, row, {"platform": "CPU"})
    both = path.read_bytes()
    for end in range(len(both)):
        path.write_bytes(both[:end])
        add_to_journal(path, rows[2], {"platform": "CPU"})
        expected = [rows[2]] if end < both.rindex(b"\n") else [rows[0], rows[2]]
        found = read_journal(path)
        assert _text(found) == _text(labels_from_rows(expected, {}))
        assert found.provenance == {"platform": "CPU"}


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_clusters_give_the_same_rows_bit_for_bit(
    backend: str, package: str, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    protocol = replace(PROTOCOLS["two-stage"], max_iterations=20)
    few = FrameChoice(per_target=3)
    tables = [
        label_targets(
            DEMO / "grgds",
            tmp_path / f"{workers.backend}.parquet",
            protocol,
            choice=few,
            workers=workers,
        ).labels
        for workers in (Workers(), Workers(jobs=2, backend=backend))
    ]
    assert _text(tables[0]) == _text(tables[1])


def test_backends_that_are_not_there_are_told(tmp_path: Path) -> None:
    words = ["--input", str(DEMO / "grgds"), "--out", str(tmp_path / "l.parquet")]
    result = CliRunner().invoke(label, [*words, "--scheduler", "tcp://127.0.0.1:1"])
    assert "without a backend" in str(result.exception)
    if importlib.util.find_spec("ray") is None:
        result = CliRunner().invoke(label, [*words, "--backend", "ray"])
        assert "not installed" in str(result.exception)


def _rows(energies: NDArray[Any], noise: float, repeats: int, n_residues: int = 100) -> Any:
    blank = {"replica": 1, "rmsd_angstrom": 0.5, "n_residues": n_residues, "reason": ""}
    hashes = {"topology_hash": "t", "protocol_hash": "p", "frame_hash": "f"}
    return [
        {
            **blank, **hashes, "target": "a", "frame": i, "energy_kj_mol": energy,
            "initial_energy_kj_mol": 0.0, "status": "ok", "noise_kj_mol": noise,
            "repeats": repeats,
        }
        for i, energy in enumerate(energies)
    ]  # fmt: skip


def test_reliability_is_the_variance_that_another_labelling_would_find_again() -> None:
    """True energies with sd 30, labels as means of 2 minimisations with noise 20 each."""
    generator = np.random.default_rng(0)
    true = generator.normal(0, 30, 4000)
    labels, others = (true + generator.normal(0, 20 / math.sqrt(2), 4000) for _ in range(2))
    (quality,) = label_quality(labels_from_rows(_rows(labels, 20.0, 2), {}))
    assert quality.reliability == pytest.approx(900 / (900 + 200), abs=0.02)
    assert quality.reliability == pytest.approx(np.corrcoef(labels, others)[0, 1], abs=0.02)
    assert quality.noise_kj_mol == pytest.approx(20)


def test_effective_number_is_that_of_the_objective() -> None:
    torch = pytest.importorskip("torch")
    from protenix_eba.training.energy_losses import (
        effective_number,
        energy_weights,
        reduced_energies,
    )

    energies = np.random.default_rng(1).normal(-20000, 40, 50)
    (quality,) = label_quality(labels_from_rows(_rows(energies, math.nan, 1, 217), {}))
    reduced = reduced_energies(
        torch.tensor(energies), n_residues=217, temperature_K=300.0, length_exponent=0.5
    )
    expected = effective_number(energy_weights(reduced))
    assert quality.effective_number == pytest.approx(float(expected), rel=1e-9)
    assert math.isnan(quality.reliability) and math.isnan(quality.noise_kj_mol)
    (equal,) = label_quality(labels_from_rows(_rows(np.zeros(7), 1.0, 2), {}))
    assert equal.effective_number == pytest.approx(7)


def test_report_names_what_is_not_ok(tmp_path: Path) -> None:
    rows = _rows(np.arange(5.0), 0.5, 3)
    rows[2] |= {"status": "outlier", "reason": "far away"}
    rows[4] |= {"status": "skipped", "reason": "torn", "energy_kj_mol": math.nan}
    write_labels(tmp_path / "l.parquet", labels_from_rows(rows, {}))
    out = tmp_path / "r.md"
    assert run(["label", "report", str(tmp_path / "l.parquet"), "--out", str(out)]) == 0
    text = out.read_text()
    assert "| a | 3 | 1 | 1 |" in text
    assert "outlier: a replica 1 frame 2: far away" in text
    assert (tmp_path / "r.png").stat().st_size > 1000


def test_repeats_are_averaged_and_their_noise_is_stored(tmp_path: Path) -> None:
    single = label_targets(
        DEMO / "grgds", tmp_path / "1.parquet", PROTOCOLS["two-stage"],
        choice=FrameChoice(per_target=2),
    ).labels  # fmt: skip
    repeated = label_targets(
        DEMO / "grgds", tmp_path / "3.parquet", replace(PROTOCOLS["two-stage"], repeats=3),
        choice=FrameChoice(per_target=2),
    ).labels  # fmt: skip
    assert (repeated.repeats == 3).all() and (repeated.noise_kj_mol >= 0).all()
    assert (np.abs(repeated.energy_kj_mol - single.energy_kj_mol) < 30).all()
    assert (repeated.iterations > 2 * single.iterations).all()


def test_default_ends_in_the_same_minimum_from_starts_a_rounding_apart() -> None:
    """Where the frames of this peptide differ by tens of kJ/mol."""
    folder = DEMO / "met_enkephalin"
    top = str(folder / "met_enkephalin.pdb")
    frames = mdtraj.load(str(folder / "met_enkephalin_prod_R1_fit.xtc"), top=top)[[0, 60, 120]]
    structure = complete_structure(top)
    target = TargetEnergy(structure, replace(PROTOCOLS["default"], repeats=2))
    labels = [target.label(xyz) for xyz in structure.fill(frames.xyz * 10)]
    assert [label.status for label in labels] == ["ok"] * 3
    noise = np.sqrt(np.mean([label.noise_kj_mol**2 for label in labels]))
    spread = np.std([label.energy_kj_mol for label in labels], ddof=1)
    assert 1 - noise**2 / 2 / spread**2 > 0.9


@pytest.fixture
def toy(request: pytest.FixtureRequest) -> Callable[..., TargetEnergy]:
    """A spring on every atom, to 0.2 angstrom from where it is, that fails at chosen calls."""
    structure = complete_structure(DEMO / "grgds" / "grgds.pdb")
    generator = np.random.default_rng(0)
    rest_nm = structure.reference_nm + 0.02 * generator.standard_normal((len(structure.source), 3))

    def make(fails: Callable[[int], bool], **options: Any) -> TargetEnergy:
        calls = [0]

        def build(topology: Any, protocol: Any, constrained: bool) -> openmm.System:
            def compute(xyz_nm: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
                calls[0] += 1
                if fails(calls[0]):
                    raise RuntimeError("no convergence")
                apart = xyz_nm - rest_nm
                return 50.0 * float((apart**2).sum()), -100.0 * apart

            return python_system(topology, compute)

        name = request.node.name
        ENERGIES.register(name)(build)
        protocol = replace(PROTOCOLS["default"], function=name)
        return TargetEnergy(structure, protocol, "Reference", **options)

    return make


def test_failure_is_tried_again_softer_and_the_reason_says_so(
    toy: Callable[..., TargetEnergy],
) -> None:
    target = toy(lambda call: call == 20)
    label = target.label(target.structure.reference_nm)
    assert label.status == "ok"
    assert "second attempt" in label.reason and "no convergence" in label.reason


def test_frame_that_fails_twice_is_failed(toy: Callable[..., TargetEnergy]) -> None:
    target = toy(lambda call: call >= 20)
    label = target.label(target.structure.reference_nm)
    assert label.status == "failed" and math.isnan(label.energy_kj_mol)
    assert math.isfinite(label.initial_energy_kj_mol)


def test_frame_out_of_time_is_failed(toy: Callable[..., TargetEnergy]) -> None:
    target = toy(lambda call: False, timeout_s=1e-6)
    label = target.label(target.structure.reference_nm)
    assert label.status == "failed" and "within 1e-06 s" in label.reason


def test_bookkeeping_grows_linearly_with_the_table(tmp_path: Path) -> None:
    """A table of 82 targets with 300 frames is read, merged and written in seconds."""
    rows = [
        {**row, "target": f"t{target:02d}"}
        for target in range(82)
        for row in _rows(np.linspace(-100, 100, 300), math.nan, 1)
    ]
    for i in (1, 2):
        mine = [row for row in rows if int(row["target"][1:]) % 2 == i % 2]
        write_labels(tmp_path / f"l.shard-{i}-of-2.parquet", labels_from_rows(mine, {}))
    start = time.process_time()
    labels = merge_shards(tmp_path / "l.parquet")
    assert len(labels) == 82 * 300
    assert time.process_time() - start < 20


def test_names_that_are_not_ascii_and_have_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "größe eins"
    folder.mkdir()
    path = folder / "пептид_0.pdb"
    shutil.copyfile(DEMO / "grgds" / "grgds.pdb", path)
    labels = label_targets(path, folder / "l.parquet", AS_IS).labels
    assert labels.targets == ["пептид"] and labels.ok.all()
    assert read_labels(folder / "l.parquet").targets == ["пептид"]
