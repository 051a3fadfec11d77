"""The label table, and labelling that is stopped, resumed, refused and partly impossible."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from protenix_eba.cli.label import label
from protenix_eba.core.errors import UserError
from protenix_eba.energy.label import Workers, label_targets
from protenix_eba.energy.protocol import PROTOCOLS, EnergyProtocol
from protenix_eba.energy.table import read_labels, write_csv, write_labels
from protenix_eba.structures.frame_choice import FrameChoice

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
AS_IS = replace(PROTOCOLS["default"], minimise=False)


def _copy(name: str, root: Path, frames: int = 25, nan_at: int | None = None) -> Path:
    """The first frames of replica 1 of a shipped target as a folder of targets."""
    folder = root / name
    folder.mkdir(parents=True)
    pdb, xtc = f"{name}.pdb", f"{name}_prod_R1_fit.xtc"
    (folder / pdb).write_bytes((DEMO / name / pdb).read_bytes())
    trajectory = mdtraj.load(str(DEMO / name / xtc), top=str(folder / pdb))[:frames]
    trajectory.save_xtc(str(folder / xtc))
    return root


def test_shipped_labels_come_out_again(tmp_path: Path) -> None:
    shipped = read_labels(DEMO / "labels.parquet")
    protocol = EnergyProtocol.from_dict(shipped.provenance["protocol"])
    labels = label_targets(
        DEMO, tmp_path / "l.parquet", protocol, choice=FrameChoice(per_target=1)
    ).labels
    assert len(labels) == 4 and set(labels.protocol_hash) == set(shipped.protocol_hash)
    for row in labels.rows():
        mine = shipped.for_target(row["target"])
        at = (mine.replica == row["replica"]) & (mine.frame == row["frame"])
        assert mine.frame_hash[at].item() == row["frame_hash"]
        assert mine.initial_energy_kj_mol[at].item() == pytest.approx(
            row["initial_energy_kj_mol"], abs=0.05
        )
        # Another processor may round otherwise, and rounding decides which minimum is found.
        assert mine.energy_kj_mol[at].item() == pytest.approx(row["energy_kj_mol"], abs=15)


def test_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = _copy("grgds", tmp_path / "in"), tmp_path / "l.parquet"
    whole = label_targets(root, tmp_path / "whole.parquet", AS_IS).labels
    import protenix_eba.energy.label as module

    real, calls = module.label_chunk, []

    def stops(chunk: object, job: object) -> tuple[int, int]:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(chunk)
        return real(chunk, job)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "label_chunk", stops)
    with pytest.raises(KeyboardInterrupt):
        label_targets(root, out, AS_IS)
    assert not out.exists()
    monkeypatch.setattr(module, "label_chunk", real)
    resumed = label_targets(root, out, AS_IS)
    assert resumed.computed == 15
    assert str(resumed.labels.rows()) == str(whole.rows())
    assert label_targets(root, out, AS_IS).computed == 0
    assert list(tmp_path.glob("*.parts")) == []


def test_two_processes_give_the_same_rows(tmp_path: Path) -> None:
    root = _copy("grgds", tmp_path / "in")
    tables = [
        label_targets(root, tmp_path / f"{jobs}.parquet", AS_IS, workers=Workers(jobs=jobs))
        for jobs in (1, 2)
    ]
    assert str(tables[0].labels.rows()) == str(tables[1].labels.rows())


def test_one_bad_frame_is_one_failed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import protenix_eba.energy.sources as module

    real = module.read_frames

    def with_nan(*args: object) -> np.ndarray:
        xyz = real(*args)  # type: ignore[arg-type]
        xyz[3, 10] = np.nan
        return xyz

    monkeypatch.setattr(module, "read_frames", with_nan)
    root = _copy("grgds", tmp_path / "in", 6)
    labels = label_targets(root, tmp_path / "l.parquet", AS_IS).labels
    assert labels.status.tolist() == ["ok"] * 3 + ["skipped"] + ["ok"] * 2
    assert "not finite" in labels.reason[3]
    result = CliRunner().invoke(
        label, ["--input", str(root), "--out", str(tmp_path / "c.parquet"), "--no-minimize"]
    )
    assert result.exit_code == 3


def test_other_protocol_is_refused(tmp_path: Path) -> None:
    root, out = _copy("grgds", tmp_path / "in", 2), tmp_path / "l.parquet"
    label_targets(root, out, AS_IS)
    before = out.read_bytes()
    with pytest.raises(UserError, match="another protocol"):
        label_targets(root, out, replace(AS_IS, kappa_per_nm=0.9))
    assert out.read_bytes() == before


def test_other_topology_or_coordinates_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "l.parquet"
    label_targets(_copy("grgds", tmp_path / "in", 2), out, AS_IS)
    labels = read_labels(out)
    write_labels(out, replace(labels, topology_hash=np.array(["other"] * 2)))
    with pytest.raises(UserError, match="another topology"):
        label_targets(tmp_path / "in", out, AS_IS)
    write_labels(out, replace(labels, frame_hash=np.array(["other"] * 2)))
    with pytest.raises(UserError, match="trajectory has changed"):
        label_targets(tmp_path / "in", out, AS_IS)


def test_half_a_trajectory_is_named_and_its_whole_frames_are_labelled(tmp_path: Path) -> None:
    root = _copy("grgds", tmp_path / "in", 5)
    _copy("met_enkephalin", root, 2)
    path = root / "grgds" / "grgds_prod_R1_fit.xtc"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    report = label_targets(root, tmp_path / "l.parquet", AS_IS)
    assert report.labels.targets == ["grgds", "met_enkephalin"]
    assert "grgds_prod_R1_fit.xtc is cut after 3 whole frames" in report.problems[0]


def test_no_frames_and_no_folder(tmp_path: Path) -> None:
    root = _copy("grgds", tmp_path / "in", 2)
    (root / "grgds" / "grgds_prod_R1_fit.xtc").write_bytes(b"")
    with pytest.raises(UserError, match="no frame to label"):
        label_targets(root, tmp_path / "l.parquet", AS_IS)
    with pytest.raises(UserError, match="found nothing"):
        label_targets(tmp_path / "absent", tmp_path / "l.parquet", AS_IS)


def test_table_faults_are_told(tmp_path: Path) -> None:
    out = tmp_path / "l.parquet"
    label_targets(_copy("grgds", tmp_path / "in", 2), out, AS_IS)
    labels, data = read_labels(out), out.read_bytes()
    schema = pq.read_schema(out)
    assert schema.field("energy_kj_mol").metadata[b"unit"].startswith(b"kJ/mol")
    assert labels.provenance["protocol"]["force_field"] == ["charmm36.xml", "implicit/gbn2.xml"]
    out.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cut or not a Parquet file"):
        read_labels(out)
    out.write_bytes(data)
    pq.write_table(pq.read_table(out).drop_columns(["energy_kj_mol"]), out)
    with pytest.raises(UserError, match="lacks energy_kj_mol"):
        read_labels(out)
    write_labels(out, replace(labels, energy_kj_mol=np.array([1.0, np.nan])))
    with pytest.raises(UserError, match="without a finite energy"):
        read_labels(out)
    with pytest.raises(UserError, match="found nothing"):
        read_labels(tmp_path / "absent.parquet")
    write_csv(tmp_path / "l.csv", labels)
    assert (tmp_path / "l.csv").read_text().startswith("target,replica,frame,")


def test_command_compares(tmp_path: Path) -> None:
    root, out = _copy("grgds", tmp_path / "in", 3), tmp_path / "l.parquet"
    common = ["--input", str(root), "--no-minimize"]
    runner = CliRunner()
    assert runner.invoke(label, [*common, "--out", str(out)]).exit_code == 0
    again = [*common, "--out", str(tmp_path / "2.parquet"), "--compare", str(out)]
    result = runner.invoke(label, again)
    assert result.exit_code == 0
    assert "grgds" in result.output and "0.000" in result.output
    assert "Example" in runner.invoke(label, ["--help"]).output


def test_samples_in_any_atom_order_get_energies_of_the_references_system(
    tmp_path: Path, shuffle_atoms: Callable[[mdtraj.Trajectory], mdtraj.Trajectory]
) -> None:
    """A generated ensemble has its own PDB file: its protonation must not decide."""
    md = mdtraj.load(
        str(DEMO / "thymopentin/thymopentin_prod_R1_fit.xtc"),
        top=str(DEMO / "thymopentin/thymopentin.pdb"),
    )[[0, 50]]
    folder = tmp_path / "samples/thymopentin"
    folder.mkdir(parents=True)
    shuffled = shuffle_atoms(md)
    shuffled[0].save_pdb(str(folder / "thymopentin.pdb"))
    shuffled.save_xtc(str(folder / "thymopentin.xtc"))
    ours = label_targets(
        tmp_path / "samples", tmp_path / "s.parquet", AS_IS, reference_dir=DEMO
    ).labels
    shipped = read_labels(DEMO / "labels.parquet").for_target("thymopentin")
    for frame, row in zip((0, 50), ours.rows(), strict=True):
        same = (shipped.replica == 1) & (shipped.frame == frame)
        assert row["topology_hash"] == shipped.topology_hash[same][0]
        expected = shipped.initial_energy_kj_mol[same][0]
        assert row["initial_energy_kj_mol"] == pytest.approx(expected, abs=0.5)


def test_a_sample_without_a_reference_is_a_failed_row(tmp_path: Path) -> None:
    shutil.copytree(DEMO / "grgds", tmp_path / "md/unknown")
    for path in (tmp_path / "md/unknown").glob("grgds*"):
        path.rename(path.with_name(path.name.replace("grgds", "unknown")))
    report = label_targets(
        tmp_path / "md",
        tmp_path / "l.parquet",
        reference_dir=DEMO,
        choice=FrameChoice(per_target=1),
    )
    assert report.labels.status.tolist() == ["skipped"]
    assert "no target of this name" in report.labels.reason[0]
