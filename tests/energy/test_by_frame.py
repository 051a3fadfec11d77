"""Energies and biases that users bring for frames: `label import-csv --input`."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.plumed import read_colvar, rows_of_frames
from protenix_eba.energy.table import EnergyLabels, frame_hash, read_labels
from protenix_eba.structures.trajectories import FrameTimes, find_targets, frame_times, read_frames

PEPTIDE = Path(__file__).parents[2] / "protenix_eba" / "demo_data" / "met_enkephalin"
HEADER = "target,replica,frame,bias_kj_mol\n"
N_FRAMES = 5
TIMES = 10.0 * np.arange(1, N_FRAMES + 1)
BIAS = np.array([0.5, 1.0, 2.0, 3.0, 4.0])


def md(folder: Path, *, replicas: int = 1, times: np.ndarray | None = TIMES) -> Path:
    """A data set of one peptide: 5 frames every 10 ps, or without times."""
    target = folder / "md" / "pep"
    target.mkdir(parents=True)
    (target / "pep.pdb").write_bytes((PEPTIDE / "met_enkephalin.pdb").read_bytes())
    for replica in range(1, replicas + 1):
        source = PEPTIDE / f"met_enkephalin_prod_R{replica}_fit.xtc"
        frames = mdtraj.load_xtc(str(source), top=str(PEPTIDE / "met_enkephalin.pdb"))[:N_FRAMES]
        frames.time = np.arange(N_FRAMES) if times is None else times
        frames.save_xtc(str(target / f"pep_R{replica}.xtc"))
    return folder / "md"


def colvar(path: Path, times: np.ndarray, bias: np.ndarray, *, columns: str = "metad.bias") -> Path:
    lines = ["#! FIELDS time d " + columns, "#! SET min_phi -pi"]
    extra = " 7.0" * (len(columns.split()) - 1)
    lines += [f" {t:f} 0.1 {v:f}{extra}" for t, v in zip(times, bias, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def imported(data: Path, *words: str | Path, status: int = 0) -> EnergyLabels:
    out = data.parent / "labels.parquet"
    command = ["label", "import-csv", *map(str, words), "--input", str(data), "--out", str(out)]
    assert run(command) == status
    return read_labels(out)


def refused(capsys: pytest.CaptureFixture[str], data: Path, *words: str | Path) -> str:
    """What the refusal says, in one line."""
    out = data.parent / "labels.parquet"
    command = ["label", "import-csv", *map(str, words), "--input", str(data), "--out", str(out)]
    assert run(command) == 2
    assert not out.exists()
    return " ".join(capsys.readouterr().err.split())


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_of_a_bias_are_minus_it_and_know_their_frames(tmp_path: Path) -> None:
    data = md(tmp_path)
    rows = "".join(f"pep,1,{i},{v}\n" for i, v in enumerate(BIAS))
    path = write_csv(tmp_path / "bias.csv", "\ufeff" + HEADER + rows)  # as Excel writes it
    labels = imported(data, path, "--bias")
    np.testing.assert_allclose(labels.energy_kj_mol, -BIAS)
    assert labels.status.tolist() == ["ok"] * N_FRAMES
    (target,) = find_targets(data)
    assert labels.frame_hash.tolist() == [frame_hash(xyz) for xyz in read_frames(target, 1)]
    assert set(labels.n_residues) == {5} and all(labels.topology_hash)
    assert "minus the bias" in labels.provenance["energy"]


def test_energies_keep_their_sign_and_some_frames_may_lack(tmp_path: Path) -> None:
    text = "target,replica,frame,energy_kj_mol\npep,1,3,-7.5\npep,1,0,2\n"
    labels = imported(md(tmp_path), write_csv(tmp_path / "e.csv", text))
    assert labels.frame.tolist() == [0, 3]
    assert labels.energy_kj_mol.tolist() == [2.0, -7.5]
    assert labels.provenance["energy"] == "as given for each frame"


def test_rows_that_are_no_number_fail_by_name_and_the_rest_goes_on(tmp_path, capsys) -> None:
    path = write_csv(tmp_path / "b.csv", HEADER + "pep,1,0,nan\npep,1,1,-inf\npep,1,2,3\n")
    labels = imported(md(tmp_path), path, "--bias", status=3)
    assert labels.status.tolist() == ["failed", "failed", "ok"]
    assert labels.reason.tolist() == ["the bias is nan", "the bias is -inf", ""]
    assert "pep replica 1 frame 0: the bias is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "pep,1,5,1\n", "first 5; it has 5, 0 to 4"),
        (HEADER + "pep,1,-1,1\n", "first -1"),
        (HEADER + "pep,1,0,1\npep,1,0,1\n", "line 3: target pep replica 1 frame 0 stands twice"),
        (HEADER + "pep,1,0,much\n", "line 2: could not convert"),
        (HEADER + "pep,1,0,\n", "line 2: could not convert"),
        (HEADER + "pep,1,0.5,1\n", "line 2: invalid literal"),
        (HEADER + "pep,1,0\n", "line 2: another number of cells"),
        (HEADER + "pep,1,0,1,2\n", "line 2: another number of cells"),
        (HEADER + "pip,1,0,1\n", "no target 'pip' in the data: there are pep"),
        (HEADER + "pep,2,0,1\n", "target pep has no replica 2: there are 1"),
        (HEADER, "has no row"),
        ("target;replica;frame;bias_kj_mol\n", "lacks target, replica, frame, bias_kj_mol"),
        ("", "it has nothing"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(text, message, tmp_path, capsys) -> None:
    path = write_csv(tmp_path / "b.csv", text)
    assert message in refused(capsys, md(tmp_path), path, "--bias")


def test_a_bias_is_never_taken_for_an_energy(tmp_path, capsys) -> None:
    path = write_csv(tmp_path / "b.csv", HEADER + "pep,1,0,1\n")
    assert "for a bias add --bias" in refused(capsys, md(tmp_path), path)


def test_options_that_do_not_belong_together_are_refused(tmp_path, capsys) -> None:
    data = md(tmp_path)
    path = write_csv(tmp_path / "b.csv", HEADER + "pep,1,0,1\n")
    plumed = colvar(tmp_path / "COLVAR", TIMES, BIAS)
    assert "names its target" in refused(capsys, data, path, "--bias", "--energy-unit", "kT")
    assert "is of the unit kT" in refused(capsys, data, plumed, "--bias", "--temperature-K", "310")
    assert "given together" in refused(capsys, data, path, plumed, "--bias")
    assert "--structures is for" in refused(capsys, data, path, "--bias", "--structures", tmp_path)
    assert "which column" in refused(capsys, data, plumed)
    assert "expected a file at" in refused(capsys, data, tmp_path / "absent", "--bias")
    out = ["--out", str(tmp_path / "l.parquet")]
    assert run(["label", "import-csv", str(path), "--bias", *out]) == 2
    assert "give --input" in capsys.readouterr().err


def test_a_colvar_is_matched_by_time_whatever_its_stride(tmp_path: Path) -> None:
    """Ten rows for each frame, and rows before the first one."""
    data = md(tmp_path)
    times = np.arange(0.0, 61.0)
    path = colvar(tmp_path / "COLVAR", times, 0.1 * times)
    labels = imported(data, path, "--bias")
    np.testing.assert_allclose(labels.energy_kj_mol, -0.1 * TIMES)


@pytest.mark.parametrize(("unit", "factor"), [("kcal/mol", 4.184), ("kT", 2.4943), ("kj/mol", 1)])
def test_units_of_a_colvar_become_kj_mol(unit, factor, tmp_path: Path) -> None:
    path = colvar(tmp_path / "COLVAR", TIMES, BIAS)
    labels = imported(md(tmp_path), path, "--bias", "--energy-unit", unit)
    np.testing.assert_allclose(labels.energy_kj_mol, -factor * BIAS, rtol=1e-4)


def test_each_colvar_goes_to_the_replica_that_is_named(tmp_path: Path) -> None:
    data = md(tmp_path, replicas=2)
    files = [colvar(tmp_path / f"C{i}", TIMES, i * BIAS) for i in (1, 2)]
    words = ["--bias", "--target", "pep", "--replica", "2", "--replica", "1"]
    labels = imported(data, *files, *words)
    np.testing.assert_allclose(labels.energy_kj_mol, [*(-2 * BIAS), *(-BIAS)])


def test_the_replica_of_a_colvar_is_never_guessed(tmp_path, capsys) -> None:
    data = md(tmp_path, replicas=2)
    files = [colvar(tmp_path / f"C{i}", TIMES, BIAS) for i in (1, 2)]
    assert "--replica once for each" in refused(capsys, data, files[0], "--bias")
    assert "--replica once for each" in refused(capsys, data, *files, "--bias", "--replica", "1")
    twice = ["--replica", "1", "--replica", "1"]
    assert "two files are given for" in refused(capsys, data, *files, "--bias", *twice)


def test_without_times_rows_are_matched_by_number_if_there_are_as_many(tmp_path, capsys) -> None:
    data = md(tmp_path, times=None)
    assert not frame_times(find_targets(data)[0], 1).stored
    longer = colvar(tmp_path / "C6", np.arange(6.0), np.arange(6.0))
    assert "has 6 rows, pep_R1.xtc has 5 frames" in refused(capsys, data, longer, "--bias")
    labels = imported(data, colvar(tmp_path / "COLVAR", TIMES, BIAS), "--bias")
    np.testing.assert_allclose(labels.energy_kj_mol, -BIAS)
    labels = imported(data, longer, "--bias", "--match", "time")  # the user knows better
    np.testing.assert_allclose(labels.energy_kj_mol, -np.arange(5.0))


def test_frames_without_a_row_of_their_time_are_refused_with_the_times(tmp_path, capsys) -> None:
    data = md(tmp_path)
    path = colvar(tmp_path / "COLVAR", TIMES / 1000.0, BIAS)  # ns
    said = refused(capsys, data, path, "--bias")
    assert "5 of 5 frames of pep_R1.xtc (times 10 to 50 ps)" in said
    assert "(5 rows, 0.01 to 0.05 ps)" in said
    labels = imported(data, path, "--bias", "--match", "row")
    np.testing.assert_allclose(labels.energy_kj_mol, -BIAS)


def test_a_restart_writes_times_again_and_the_last_rows_count(tmp_path, capsys) -> None:
    data = md(tmp_path)
    path = colvar(tmp_path / "COLVAR", TIMES[:4], np.full(4, 9.0))
    again = colvar(tmp_path / "again", TIMES[1:], BIAS[1:])
    path.write_text(path.read_text() + "# restarted\n\n" + again.read_text())
    labels = imported(data, path, "--bias")
    np.testing.assert_allclose(labels.energy_kj_mol, [-9.0, *(-BIAS[1:])])
    assert "3 rows that a restart wrote again" in " ".join(capsys.readouterr().out.split())


def _twice(text: str) -> str:
    return text + text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_twice, "the times start again at 10 ps, row 6 of 10"),
        (lambda text: text.replace("metad", "metad2") + text, "a restart changed the columns"),
        (lambda text: text[:-12], "line 7: expected 3 cells"),
        (lambda text: text.replace("3.000000", "three"), "line 6: could not convert"),
        (lambda text: text.replace("40.000000", "nan"), "a time is not finite"),
        (lambda text: text.splitlines()[0], "has no row"),
        (lambda text: text.replace("metad.bias", "metad.rbias"), "found none"),
    ],
)
def test_a_wrong_colvar_is_refused_with_the_place(change, message, tmp_path, capsys) -> None:
    path = colvar(tmp_path / "COLVAR", TIMES, BIAS)
    path.write_text(change(path.read_text()))
    assert message in refused(capsys, md(tmp_path), path, "--bias")


def test_the_bias_column_is_chosen_when_there_are_several(tmp_path, capsys) -> None:
    data = md(tmp_path)
    path = colvar(tmp_path / "COLVAR", TIMES, BIAS, columns="metad.bias wall.bias")
    said = refused(capsys, data, path, "--bias")
    assert "found metad.bias, wall.bias" in said and "choose --column of: metad.bias" in said
    labels = imported(data, path, "--bias", "--column", "wall.bias")
    np.testing.assert_allclose(labels.energy_kj_mol, -7.0)


def test_a_nan_in_a_colvar_is_a_failed_row(tmp_path: Path) -> None:
    path = colvar(tmp_path / "COLVAR", TIMES, np.array([1.0, np.nan, 2.0, 3.0, np.inf]))
    labels = imported(md(tmp_path), path, "--bias", status=3)
    assert labels.status.tolist() == ["ok", "failed", "ok", "ok", "failed"]


def test_a_frame_without_coordinates_is_skipped(tmp_path: Path, monkeypatch) -> None:
    from protenix_eba.energy import by_frame

    def broken(*arguments):
        xyz = read_frames(*arguments)
        xyz[1, 0] = np.nan
        return xyz

    monkeypatch.setattr(by_frame, "read_frames", broken)
    labels = imported(md(tmp_path), colvar(tmp_path / "COLVAR", TIMES, BIAS), "--bias", status=3)
    assert labels.status.tolist() == ["ok", "skipped", "ok", "ok", "ok"]


def test_times_of_a_long_run_are_matched_as_exactly_as_xtc_holds_them(tmp_path: Path) -> None:
    """A microsecond at 0.5 ps: float32 rounds the times, by up to 0.03 ps."""
    times = 1e6 + 0.5 * np.arange(1001)
    read = read_colvar(colvar(tmp_path / "COLVAR", times, np.arange(1001.0)))
    rounded = FrameTimes(times[::7].astype(np.float32).astype(float), True)
    rows = rows_of_frames(read, rounded, "x", "auto")
    assert rows.tolist() == list(range(0, 1001, 7))
    with pytest.raises(UserError, match="two frames have one time"):
        rows_of_frames(read, FrameTimes(np.array([1e6, 1e6]), True), "x", "auto")


def test_weights_of_an_estimator_lead_to_the_populations_of_its_state(tmp_path: Path) -> None:
    """Two states, B one fourth of A; a second MD with 6 times the weight of B.

    Without the bias one of five frames is in B, 1 / (1 + 4); with it three of five, 6 / (6 + 4).
    WHAM on these ten frames, iterated here, finds a fifth, where the frames as they are say 0.4.
    """
    in_b = np.array([False] * 4 + [True] + [False] * 2 + [True] * 3)
    factors = np.array([np.ones(10), np.where(in_b, 6.0, 1.0)])  # exp(-V_k / kT)
    partition = np.ones(2)
    for _ in range(500):
        weights = 1 / (5 * factors / partition[:, None]).sum(axis=0)
        partition = (factors * weights).sum(axis=1)
    lines = [
        f"pep,{1 + n // 5},{n % 5},{7.5 * w!r}"
        for n, w in enumerate(weights.astype(float).tolist())
    ]
    path = write_csv(tmp_path / "w.csv", "target,replica,frame,weight\n" + "\n".join(lines) + "\n")
    labels = imported(md(tmp_path, replicas=2), path, "--weights", "--temperature-K", "350")
    boltzmann = np.exp(-labels.energy_kj_mol / thermal_energy_kj_mol(350.0))
    assert in_b.mean() == 0.4
    assert boltzmann[in_b].sum() / boltzmann.sum() == pytest.approx(0.2)
    assert labels.provenance["temperature_K"] == 350.0


def test_labels_of_weights_differ_from_others_and_by_temperature(tmp_path: Path) -> None:
    data = md(tmp_path)
    rows = "pep,1,0,1\npep,1,1,2\n"
    weights = write_csv(tmp_path / "w.csv", "target,replica,frame,weight\n" + rows)
    bias = write_csv(tmp_path / "b.csv", HEADER + rows)
    ways = [
        (weights, "--weights"),
        (weights, "--weights", "--temperature-K", "310"),
        (bias, "--bias"),
    ]
    hashes = [imported(data, *way).protocol_hash[0] for way in ways]
    assert len(set(hashes)) == 3


def test_a_frame_without_weight_has_no_energy_and_says_so(tmp_path: Path) -> None:
    text = "target,replica,frame,weight\npep,1,0,0\npep,1,1,-1\npep,1,2,nan\npep,1,3,0.2\n"
    labels = imported(md(tmp_path), write_csv(tmp_path / "w.csv", text), "--weights", status=3)
    assert labels.status.tolist() == ["failed"] * 3 + ["ok"]
    assert labels.reason.tolist()[:2] == ["the weight is 0.0", "the weight is -1.0"]


def test_weights_are_named_and_of_csv_files_alone(tmp_path: Path, capsys) -> None:
    data = md(tmp_path)
    path = write_csv(tmp_path / "w.csv", "target,replica,frame,weight\npep,1,0,1\n")
    assert "for weights add --weights" in refused(capsys, data, path)
    assert "give one of them" in refused(capsys, data, path, "--bias", "--weights")
    found = colvar(tmp_path / "COLVAR", TIMES, BIAS)
    assert "read from CSV files" in refused(capsys, data, found, "--weights")
