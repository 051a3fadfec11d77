"""Ensembles on disk, end to end: files, failures, figures, report and command."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from protenix_eba.cli.main import run
from protenix_eba.errors import UserError
from protenix_eba.eval.energies import TargetEnergies
from protenix_eba.eval.evaluate import evaluate
from protenix_eba.eval.plots import energy_figure, loss_figure, pca_figure, rmsf_figure
from protenix_eba.eval.report import headline_table, render_report

RESIDUES = ("ALA", "SER", "LEU", "ALA", "SER", "ALA")
# MD files come in the force field's order with hydrogens, samples in the CCD's without.
MD_ATOMS = ("N", "H", "CA", "HA", "CB", "C", "O")
SAMPLE_ATOMS = ("N", "CA", "C", "O", "CB")


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread() -> Iterator[None]:
    # On a busy machine OpenBLAS's threads wait for each other: a hundred times slower.
    with threadpool_limits(1):
        yield


def structure_nm(atoms: tuple[str, ...]) -> np.ndarray:
    """A helix-like chain: position by residue and atom name, so that orders can be compared."""
    rows = []
    for i in range(len(RESIDUES)):
        base = np.array([0.23 * np.cos(1.7 * i), 0.23 * np.sin(1.7 * i), 0.15 * i])
        for name in atoms:
            offset = np.random.default_rng(MD_ATOMS.index(name)).normal(0.0, 0.08, 3)
            rows.append(base + offset)
    return np.array(rows)


def topology(atoms: tuple[str, ...], first: int = 1) -> mdtraj.Topology:
    result = mdtraj.Topology()
    chain = result.add_chain("A")
    for i, name in enumerate(RESIDUES):
        residue = result.add_residue(name, chain, resSeq=i + first)
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
    folder: Path, atoms: tuple[str, ...], trajectories: dict[str, np.ndarray], first: int = 1
) -> None:
    folder.mkdir(parents=True)
    top = topology(atoms, first)
    mdtraj.Trajectory(structure_nm(atoms), top).save_pdb(str(folder / f"{folder.name}.pdb"))
    for name, xyz in trajectories.items():
        mdtraj.Trajectory(xyz, top).save_xtc(str(folder / f"{name}.xtc"))


def write_md(root: Path, name: str, seed: int) -> None:
    trajectories = {
        f"{name}_prod_R{r}_fit": frames_nm(MD_ATOMS, 80, seed + r, 0.6) for r in (1, 2, 3)
    }
    write_target(root / name, MD_ATOMS, trajectories)


def write_samples(root: Path, name: str, seed: int, spread: float, first: int = 1) -> None:
    xyz = frames_nm(SAMPLE_ATOMS, 30, seed, spread)
    write_target(root / name, SAMPLE_ATOMS, {name: xyz}, first)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eval")
    for seed, name in enumerate(("pep_one", "pep_two", "pep_three")):
        write_md(root / "md", name, 10 * seed)
        write_samples(root / "base", name, seed, 2.0)
        write_samples(root / "aligned", name, seed + 50, 0.6)
    return root


@pytest.fixture(scope="module")
def energies() -> dict[str, Any]:
    random = np.random.default_rng(0)

    def of(mean: float, n_replicas: int, n: int) -> TargetEnergies:
        replicas = {r + 1: random.normal(mean, 12.0, n) for r in range(n_replicas)}
        return TargetEnergies(len(RESIDUES), replicas)

    names = ("pep_one", "pep_two", "pep_three")
    return {
        "md_energies": {name: of(-900.0, 3, 80) for name in names},
        "sample_energies": {
            "base": {name: of(-860.0, 1, 30) for name in names},
            "aligned": {name: of(-895.0, 1, 30) for name in names},
        },
    }


@pytest.fixture(scope="module")
def result(data: Path, energies: dict[str, Any]) -> Any:
    ensembles = {"base": data / "base", "aligned": data / "aligned"}
    return evaluate(data / "md", ensembles, data / "out", **energies)


def test_metrics_are_written_with_their_floor(result: Any, data: Path) -> None:
    written = json.loads((data / "out" / "metrics.json").read_text())
    aligned = written["ensembles"]["aligned"]
    assert sorted(aligned["targets"]) == ["pep_one", "pep_three", "pep_two"]
    assert aligned["targets"]["pep_one"]["n_atoms"] == len(RESIDUES) * len(SAMPLE_ATOMS)
    assert aligned["targets"]["pep_one"]["coverage"] == 1.0
    assert (
        aligned["aggregate"]["md_pca_w2"] < written["ensembles"]["base"]["aggregate"]["md_pca_w2"]
    )
    assert aligned["aggregate"]["energy_w1_kj_mol"] < 20.0
    assert written["floor"]["aligned"]["aggregate"]["rmwd"] > 0.0
    assert written["floor"]["aligned"]["targets"]["pep_one"]["energy_w1_kj_mol"] < 10.0
    assert written["failed"] == {}
    assert written["versions"]["mdtraj"]
    assert any("30 conformations" in note for note in written["notes"])


def test_table_has_a_row_for_each_ensemble_and_target(result: Any, data: Path) -> None:
    with open(data / "out" / "metrics.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2 * (3 + 1) * 2
    values = result.ensembles["base"].targets["pep_two"].values
    found = next(
        row for row in rows if (row["kind"], row["ensemble"], row["target"]) ==
        ("samples", "base", "pep_two")
    )  # fmt: skip
    assert float(found["rmwd"]) == pytest.approx(values["rmwd"])


def test_the_same_input_gives_the_same_files(result: Any, data: Path, tmp_path: Path) -> None:
    ensembles = {"base": data / "base"}
    for name in ("first", "second"):
        evaluate(data / "md", ensembles, tmp_path / name)
    first, second = ((tmp_path / n / "metrics.json").read_bytes() for n in ("first", "second"))
    assert first == second


def test_failures_are_recorded_with_name_and_reason(data: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    write_samples(samples, "pep_one", 1, 0.6)
    write_samples(samples, "pep_two", 1, 0.6, first=11)
    write_samples(samples, "unknown", 1, 0.6)
    (samples / "pep_three").mkdir()
    (samples / "pep_three" / "pep_three.xtc").write_bytes(b"cut")
    found = evaluate(data / "md", {"m": samples}, tmp_path / "out")
    assert sorted(found.failed["m"]) == ["pep_three", "pep_two", "unknown"]
    assert "samples 11 to 16" in found.failed["m"]["pep_two"]
    assert "no topology" in found.failed["m"]["pep_three"]
    assert "no such target" in found.failed["m"]["unknown"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["failed"] == found.failed
    assert any("3 of 4 targets failed" in note for note in found.notes)
    render_report(found, tmp_path / "report.html")
    assert "samples 11 to 16" in (tmp_path / "report.html").read_text()


def test_nothing_to_evaluate_is_an_error(data: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "samples", "unknown", 1, 0.6)
    with pytest.raises(UserError, match="no target could be evaluated"):
        evaluate(data / "md", {"m": tmp_path / "samples"}, tmp_path / "out")
    with pytest.raises(UserError, match="expected a folder"):
        evaluate(tmp_path / "nowhere", {"m": data / "base"}, tmp_path / "out")


def test_figures_are_drawn_and_repeat(result: Any) -> None:
    labels = list(result.ensembles)
    for draw in (rmsf_figure, energy_figure, pca_figure):
        assert draw(result.profiles, labels, "png").startswith(b"\x89PNG")
    assert rmsf_figure(result.profiles, labels) == rmsf_figure(result.profiles, labels)
    loss = [1.0, float("nan"), *np.linspace(1.0, 0.1, 100)]
    assert b"<svg" in loss_figure([{"name": "SFT", "step": range(102), "loss": loss}])


def test_report_stands_alone(result: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    losses = [{"name": "SFT", "step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}]
    render_report(
        result,
        path,
        findings=["Alignment lowers energies <by half>."],
        losses=losses,
        settings={"alignment": {"n_conformers": 3}, "seeds": [1, 2]},
    )
    page = path.read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(|src=\"(?!data:)", page)
    assert "Alignment lowers energies &lt;by half&gt;." in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "n_conformers" in page and "1, 2" in page
    assert not re.search(r"\bnan\b|\binf\b|Undefined", page)


def test_headline_marks_the_best_ensemble_and_shares_the_floor(result: Any) -> None:
    columns, rows = headline_table(result)
    assert columns == ["base", "aligned", "MD vs MD"]
    by_key = {row.metric.key: row.cells for row in rows}
    assert [cell.best for cell in by_key["md_pca_w2"]] == [False, True, False]
    assert not any(cell.best for cell in by_key["md_pairwise_rmsd"])


def test_command_end_to_end(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "--reference", str(data / "md"), "--out", str(out)]
    assert run([*arguments, "--samples", f"base={data / 'base'}"]) == 0
    assert "RMWD" in capsys.readouterr().out
    names = {"metrics.json", "metrics.csv", "report.html"}
    assert {path.name for path in out.iterdir()} == names


def test_command_exit_statuses(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples"
    write_samples(samples, "pep_one", 1, 0.6)
    write_samples(samples, "pep_two", 1, 0.6, first=11)
    arguments = ["evaluate", "--reference", str(data / "md"), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--samples", str(samples)]) == 3
    assert "failed: samples, pep_two" in capsys.readouterr().out.replace("\n", " ")
    assert run([*arguments, "--samples", str(tmp_path / "nowhere")]) == 2
    assert run([*arguments, "--samples", str(samples), "--samples", f"{samples}"]) == 2
    assert "two are called" in capsys.readouterr().err


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
    arguments = ["evaluate", "--reference", str(data / "md"), "--out", str(out)]
    arguments += ["--samples", f"m={samples}", "--labels", str(labels)]
    assert run(arguments) == 0
    values = json.loads((out / "metrics.json").read_text())["ensembles"]["m"]["targets"]["pep_one"]
    assert values["energy_above_md_kj_mol"] == pytest.approx(50.0, abs=8.0)
    assert values["n_energies"] == 20
    write_energies(samples / "energies.parquet", ["pep_one"], -850.0, 1, "another")
    assert run(arguments) == 2
    assert "another protocol" in capsys.readouterr().err
