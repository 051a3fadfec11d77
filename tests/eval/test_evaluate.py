"""Ensembles on disk, end to end: files, failures, resumption, energies and the commands."""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.core.progress import answers
from protenix_eba.eval import evaluate as runner
from protenix_eba.eval.definitions import METRICS
from protenix_eba.eval.evaluate import evaluate
from protenix_eba.eval.metrics.additions import ModelEnergies
from protenix_eba.eval.metrics.energies import TargetEnergies
from protenix_eba.eval.store import target_path

RESIDUES = ("ALA", "SER", "LEU", "ALA", "SER", "ALA")
OTHERS = ("VAL", "VAL", "ALA", "VAL", "VAL", "VAL")
# MD files come in the force field's order with hydrogens, samples in the CCD's without.
MD_ATOMS = ("N", "H", "CA", "HA", "CB", "C", "O")
SAMPLE_ATOMS = ("N", "CA", "C", "O", "CB")


MEAN_Z = """
from protenix_eba.eval.definitions import METRICS, Metric

def mean_z(drawn):
    return float(drawn.sample_xyz[..., 2].mean() - drawn.md_xyz[..., 2].mean())

METRICS.register("mean_z")(
    Metric("mean_z", "Mean z", "", "neither", "As a plugin's.", compute=mean_z)
)
"""


def structure_nm(atoms: tuple[str, ...]) -> np.ndarray:
    """A helix-like chain: position by residue and atom name, so that orders can be compared."""
    rows = []
    for i in range(len(RESIDUES)):
        base = np.array([0.23 * np.cos(1.7 * i), 0.23 * np.sin(1.7 * i), 0.15 * i])
        for name in atoms:
            offset = np.random.default_rng(MD_ATOMS.index(name)).normal(0.0, 0.08, 3)
            rows.append(base + offset)
    return np.array(rows)


def topology(atoms: tuple[str, ...], residues: tuple[str, ...] = RESIDUES) -> mdtraj.Topology:
    result = mdtraj.Topology()
    chain = result.add_chain("A")
    for i, name in enumerate(residues, start=1):
        residue = result.add_residue(name, chain, resSeq=i)
        for atom in atoms:
            result.add_atom(atom, mdtraj.element.get_by_symbol(atom[0]), residue)
    return result


def frames_nm(atoms: tuple[str, ...], n_frames: int, seed: int, spread: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    xyz = structure_nm(atoms)
    bend = np.stack([xyz[:, 2] ** 2, -0.5 * xyz[:, 2] ** 2, 0.0 * xyz[:, 2]], axis=1)
    amplitude = random.normal(0.0, spread, (n_frames, 1, 1))
    return xyz + amplitude * bend + random.normal(0.0, 0.02, (n_frames, *xyz.shape))


def write_target(
    folder: Path,
    atoms: tuple[str, ...],
    trajectories: dict[str, np.ndarray],
    residues: tuple[str, ...] = RESIDUES,
) -> None:
    folder.mkdir(parents=True)
    top = topology(atoms, residues)
    mdtraj.Trajectory(structure_nm(atoms), top).save_pdb(str(folder / f"{folder.name}.pdb"))
    for name, xyz in trajectories.items():
        mdtraj.Trajectory(xyz, top).save_xtc(str(folder / f"{name}.xtc"))


def write_md(root: Path, name: str, seed: int) -> None:
    trajectories = {
        f"{name}_prod_R{r}_fit": frames_nm(MD_ATOMS, 80, seed + r, 0.6) for r in (1, 2, 3)
    }
    write_target(root / name, MD_ATOMS, trajectories)


def write_samples(
    root: Path, name: str, seed: int, spread: float, residues: tuple[str, ...] = RESIDUES
) -> None:
    xyz = frames_nm(SAMPLE_ATOMS, 30, seed, spread)
    write_target(root / name, SAMPLE_ATOMS, {name: xyz}, residues)


NAMES = ("pep_one", "pep_three", "pep_two")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eval")
    for seed, name in enumerate(NAMES):
        write_md(root / "md", name, 10 * seed)
        write_samples(root / "base", name, seed, 2.0)
        write_samples(root / "aligned", name, seed + 50, 0.6)
    return root


def energies_of(samples_mean: float) -> ModelEnergies:
    random = np.random.default_rng(0)

    def of(mean: float, n_replicas: int, n: int) -> TargetEnergies:
        replicas = {r + 1: random.normal(mean, 12.0, n) for r in range(n_replicas)}
        return TargetEnergies(len(RESIDUES), replicas)

    md = {name: of(-900.0, 3, 80) for name in NAMES}
    return ModelEnergies(md, {name: of(samples_mean, 1, 30) for name in NAMES})


@pytest.fixture(scope="module")
def found(data: Path) -> Any:
    energies = energies_of(-895.0)
    return evaluate(
        data / "md", [data / "aligned"], data / "out", label="aligned", energies=energies
    )


def written(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def test_metrics_are_written_with_floor_and_intervals(found: Any, data: Path) -> None:
    metrics = written(data / "out")
    assert sorted(metrics["targets"]) == list(NAMES)
    assert metrics["counts"]["pep_one"]["n_atoms"] == len(RESIDUES) * len(SAMPLE_ATOMS)
    assert metrics["counts"]["pep_one"]["coverage"] == 1.0
    assert metrics["aggregate"]["energy_w1_kj_mol"] < 20.0
    assert metrics["floor"]["aggregate"]["rmwd"] > 0.0
    assert metrics["floor"]["targets"]["pep_one"]["energy_w1_kj_mol"] < 10.0
    low, high = metrics["intervals"]["rmwd"]
    assert low <= metrics["aggregate"]["rmwd"] <= high
    assert metrics["failed"] == {} and metrics["versions"]["mdtraj"]
    assert any("30 conformations" in note for note in metrics["notes"])


def test_finished_targets_are_not_computed_again_and_changed_ones_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, out = tmp_path / "samples", tmp_path / "out"
    for name in NAMES:
        write_samples(samples, name, 1, 0.6)
    first = evaluate(data / "md", [samples], out, label="m").to_json()
    computed: list[str] = []
    original = runner.evaluate_target

    def counted(reference: Any, *rest: Any) -> Any:
        computed.append(reference.name)
        return original(reference, *rest)

    monkeypatch.setattr(runner, "evaluate_target", counted)
    assert evaluate(data / "md", [samples], out, label="m").to_json() == first
    assert computed == []
    xyz = frames_nm(SAMPLE_ATOMS, 30, 9, 3.0)
    mdtraj.Trajectory(xyz, topology(SAMPLE_ATOMS)).save_xtc(str(samples / "pep_two/pep_two.xtc"))
    target_path(out, "pep_one").write_bytes(b"cut")
    second = evaluate(data / "md", [samples], out, label="m").to_json()
    assert sorted(computed) == ["pep_one", "pep_two"]
    assert second["targets"]["pep_one"] == first["targets"]["pep_one"]
    assert second["targets"]["pep_two"] != first["targets"]["pep_two"]
    evaluate(data / "md", [samples], out, label="m", energies=energies_of(-895.0))
    assert len(computed) == 5  # energies belong to the inputs


def test_processes_change_no_number(found: Any, data: Path, tmp_path: Path) -> None:
    one = evaluate(data / "md", [data / "base"], tmp_path / "one", label="m").to_json()
    two = evaluate(data / "md", [data / "base"], tmp_path / "two", label="m", jobs=2).to_json()
    assert one == two


def test_shards_together_are_the_whole(
    found: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that puts them together computes nothing; of five shards of three two are empty."""
    words = ["evaluate", "--reference", str(data / "md"), "--samples", str(data / "base")]
    words += ["--label", "m", "--out"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run([*words, str(whole)]) == 0
    for number in (2, 5, 1, 3, 4):
        assert run([*words, str(parts), "--shard", f"{number}/5"]) == 0
        assert [path.name for path in parts.iterdir()] == ["targets"]
    monkeypatch.setattr(runner, "evaluate_target", None)
    assert run([*words, str(parts)]) == 0
    assert written(parts) == written(whole)


def test_a_share_without_any_result_has_the_exit_status_of_unusable_input(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("nobody\npep_one\n")
    words = ["evaluate", "--reference", str(data / "md"), "--samples", str(data / "base")]
    words += ["--targets", str(tmp_path / "names.txt"), "--out", str(tmp_path / "out"), "--shard"]
    assert run([*words, "1/2"]) == 2
    assert "failed: nobody: no samples of this target" in capsys.readouterr().err
    assert run([*words, "2/2"]) == 0
    assert run([*words, "1/1"]) == 3


def test_a_plugins_metric_reaches_all_processes_and_is_an_input_of_the_results(
    found: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS, "_components", dict(METRICS._components))
    (tmp_path / "module_with_mean_z.py").write_text(MEAN_Z, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    get_reusable_executor().shutdown()  # processes that have another path
    folders = (data / "md", [data / "base"], tmp_path / "out")
    without = evaluate(*folders, label="m").to_json()["targets"]
    prepare = partial(importlib.import_module, "module_with_mean_z")
    prepare()
    made = evaluate(*folders, label="m", jobs=2, prepare=prepare)
    for name, values in made.to_json()["targets"].items():
        floor = {row["mean_z"] for row in made.targets[name].floor}
        assert values.pop("mean_z") and len(floor) == 3
        assert values == without[name]


def test_failures_are_recorded_with_name_and_reason(data: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    write_samples(samples, "pep_one", 1, 0.6)
    write_samples(samples, "pep_two", 1, 0.6, OTHERS)
    write_samples(samples, "unknown", 1, 0.6)
    result = evaluate(data / "md", [samples], tmp_path / "out", label="m")
    assert list(result.targets) == ["pep_one"]
    assert list(result.failed) == ["pep_three", "pep_two", "unknown"]
    assert result.failed["pep_three"] == "no samples of this target"
    assert "VAL" in result.failed["pep_two"], result.failed["pep_two"]
    assert "no such target" in result.failed["unknown"]
    assert written(tmp_path / "out")["failed"] == result.failed
    assert any("3 of 4 targets failed" in note for note in result.notes)


def test_a_library_of_references_is_no_failure_unless_its_targets_are_wanted(
    data: Path, tmp_path: Path
) -> None:
    samples = tmp_path / "samples"
    write_samples(samples, "pep_one", 1, 0.6)
    result = evaluate(data / "md", [samples], tmp_path / "out", label="m")
    assert result.failed == {} and result.not_evaluated == ["pep_three", "pep_two"]
    wanted = ["pep_one", "pep_two", "elsewhere"]
    result = evaluate(data / "md", [samples], tmp_path / "out", label="m", targets=wanted)
    assert list(result.failed) == ["elsewhere", "pep_two"]


def test_nothing_to_evaluate_is_an_error(data: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "samples", "unknown", 1, 0.6)
    with pytest.raises(UserError, match="no target could be evaluated"):
        evaluate(data / "md", [tmp_path / "samples"], tmp_path / "out", label="m")
    with pytest.raises(UserError, match="nowhere"):
        evaluate(tmp_path / "nowhere", [data / "base"], tmp_path / "out", label="m")


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_is_finished_and_goes_on_to_the_same_result(
    found: Any, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "protenix_eba.cli.main", "evaluate", "--reference",
               str(data / "md"), "--samples", str(data / "base"), "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while not list(out.glob("targets/[!.]*.npz")) and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
    assert list(out.glob("targets/[!.]*.npz"))
    assert not list(out.glob("targets/.*"))
    resumed, whole = (
        evaluate(data / "md", [data / "base"], folder, label="m").to_json()
        for folder in (out, tmp_path / "whole")
    )
    assert resumed == whole


def test_commands_end_to_end(
    found: Any,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "width", 200)
    outs = [tmp_path / "base", data / "out"]
    words = ["evaluate", "--reference", str(data / "md"), "--out", str(outs[0])]
    assert run([*words, "--samples", str(data / "base")]) == 0
    assert "RMWD" in capsys.readouterr().out
    names = {"metrics.json", "metrics.csv", "metrics.tex", "report.html", "figures", "targets"}
    assert {path.name for path in outs[0].iterdir()} == names
    words = ["compare", *map(str, outs), "--published", "--out", str(tmp_path / "both")]
    assert run(words) == 0
    assert "aligned less base" in " ".join(capsys.readouterr().out.split())
    both = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert both["models"] == ["base", "aligned"]
    assert both["groups"][0]["differences"]["aligned"]["rmwd"][0] < 0.0
    assert "AlphaFlow-MD" in (tmp_path / "both" / "report.html").read_text()
    assert run(["compare", str(outs[0]), str(tmp_path), "--out", str(tmp_path / "x")]) == 2


def test_files_named_one_by_one_are_samples(data: Path, tmp_path: Path) -> None:
    top = topology(SAMPLE_ATOMS)
    for seed, name in enumerate(NAMES[:2]):
        xyz = frames_nm(SAMPLE_ATOMS, 12, seed, 0.6)
        mdtraj.Trajectory(xyz, top).save_pdb(str(tmp_path / f"{name}.pdb"))
    files = [str(tmp_path / f"{name}.pdb") for name in NAMES[:2]]
    (tmp_path / "split.csv").write_text("name,seqres\npep_one,ASLASA\npep_three,ASLASA\n")
    words = ["evaluate", "--reference", str(data / "md"), "--out", str(tmp_path / "out")]
    words += ["--targets", str(tmp_path / "split.csv"), "--label", "files"]
    assert run([*words, "--samples", *files]) == 0
    metrics = written(tmp_path / "out")
    assert sorted(metrics["targets"]) == list(NAMES[:2]) and metrics["label"] == "files"
    with open(tmp_path / "out" / "metrics.csv", newline="") as handle:
        rows = {(row["kind"], row["target"]): row for row in csv.DictReader(handle)}
    value = metrics["targets"]["pep_one"]["rmwd"]
    assert float(rows["samples", "pep_one"]["rmwd"]) == pytest.approx(value)


def test_command_exit_statuses(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples"
    write_samples(samples, "pep_one", 1, 0.6)
    write_samples(samples, "pep_two", 1, 0.6, OTHERS)
    words = ["evaluate", "--reference", str(data / "md"), "--out", str(tmp_path / "out")]
    assert run([*words, "--samples", str(samples)]) == 3
    assert "failed: out, pep_two" in capsys.readouterr().out.replace("\n", " ")
    assert run([*words, "--samples", str(tmp_path / "nowhere")]) == 2


def write_energies(path: Path, names: list[str], mean: float, replicas: int, protocol: str) -> None:
    table = pytest.importorskip("protenix_eba.energy.table")
    random = np.random.default_rng(0)
    rows = [
        {
            "target": name,
            "replica": replica,
            "frame": frame,
            "initial_energy_kj_mol": 0.0,
            "energy_kj_mol": mean + random.normal(0.0, 10.0),
            "rmsd_angstrom": 0.1,
            "n_residues": len(RESIDUES),
            "status": "ok",
            "reason": "",
            "topology_hash": "t",
            "protocol_hash": protocol,
            "frame_hash": "f",
        }
        for name in names
        for replica in range(1, replicas + 1)
        for frame in range(20)
    ]
    table.write_labels(path, table.labels_from_rows(rows, {}))


def test_command_reads_energies_of_md_and_samples(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, labels = tmp_path / "samples", tmp_path / "labels.parquet"
    write_samples(samples, "pep_one", 1, 0.6)
    write_energies(labels, ["pep_one", "pep_two"], -900.0, 3, "p")
    write_energies(samples / "energies.parquet", ["pep_one"], -850.0, 1, "p")
    out = tmp_path / "out"
    words = ["evaluate", "--reference", str(data / "md"), "--out", str(out)]
    words += ["--samples", str(samples), "--labels", str(labels)]
    assert run(words) == 0
    metrics = written(out)
    assert metrics["targets"]["pep_one"]["energy_above_md_kj_mol"] == pytest.approx(50.0, abs=8.0)
    assert metrics["counts"]["pep_one"]["n_energies"] == 20
    write_energies(samples / "energies.parquet", ["pep_one"], -850.0, 1, "another")
    assert run(words) == 2
    assert "another protocol" in capsys.readouterr().err
