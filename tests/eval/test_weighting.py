"""Weights: their file, and what they do to the metrics of `evaluate`."""

import mdtraj
import numpy as np
import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.eval.evaluate import evaluate
from protenix_eba.eval.one_target import TargetSettings
from protenix_eba.eval.weighting import read_weights, systematic_draw, write_weights

NAME = "penta_alanine"


def test_weights_come_back_normalised(tmp_path):
    path = tmp_path / "w.csv"
    write_weights(path, {"a": np.array([1.0, 3.0]), "b": np.array([0.25])})
    found = read_weights(path)
    np.testing.assert_allclose(found["a"], [0.25, 0.75])
    np.testing.assert_allclose(found["b"], [1.0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("target,sample\na,0", "expected columns target, sample, weight"),
        ("target,sample,weight\na,0,x", "line 2: could not convert"),
        ("target,sample,weight\na,0,1\na,0,1", "line 3: sample 0 of a is there twice"),
        ("target,sample,weight\na,1,1", "do not count from 0 to 0"),
        ("target,sample,weight\na,0,-1\na,1,2", "the weights of a are from -1"),
        ("target,sample,weight\na,0,0", "their sum is 0"),
    ],
)
def test_a_broken_file_of_weights_is_refused(rows, message, tmp_path):
    (tmp_path / "w.csv").write_text(rows)
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "w.csv")


def test_each_conformation_is_drawn_as_often_as_its_weight_says():
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.full(40, 0.3))
    counts = np.bincount(systematic_draw(weights, 100), minlength=40)
    assert counts.sum() == 100 and (np.abs(counts - 100 * weights) < 1.0).all()
    np.testing.assert_array_equal(systematic_draw(np.full(9, 1 / 9), 9), np.arange(9))


def test_weighted_metrics_are_those_of_repeated_conformations(demo_data, tmp_path):
    """Twice the weight is the same conformation twice, in every metric."""
    md = mdtraj.load(
        demo_data / NAME / f"{NAME}_prod_R1_fit.xtc", top=demo_data / NAME / f"{NAME}.pdb"
    )[::10]
    repeats = np.array([2, 0, 1, 1] * 5)
    for folder, frames in (("plain", md), ("repeated", md[np.repeat(np.arange(20), repeats)])):
        (tmp_path / folder).mkdir()
        frames.save_pdb(tmp_path / folder / f"{NAME}.pdb")
    write_weights(tmp_path / "w.csv", {NAME: repeats / 20.0})
    settings = TargetSettings()
    found = {
        folder: evaluate(
            demo_data / NAME, [tmp_path / folder], tmp_path / f"out_{folder}", label="x",
            settings=settings, weights=weights,
        ).targets[NAME]
        for folder, weights in (("plain", tmp_path / "w.csv"), ("repeated", None))
    }  # fmt: skip
    assert len(found["plain"].values) > 20
    for key, value in found["repeated"].values.items():
        assert found["plain"].values[key] == pytest.approx(value, rel=1e-6, nan_ok=True), key
    assert any("15 of 20 conformations" in note for note in found["plain"].notes)


def test_targets_without_weights_among_others_with_them_are_named(demo_data, tmp_path):
    names = [
        NAME,
        next(p.name for p in sorted(demo_data.iterdir()) if p.is_dir() and p.name != NAME),
    ]
    write_weights(tmp_path / "w.csv", {NAME: np.full(600, 1.0 / 600)})
    found = evaluate(
        demo_data, [demo_data / name for name in names], tmp_path / "out", label="x",
        settings=TargetSettings(beyond=False), weights=tmp_path / "w.csv",
    )  # fmt: skip
    assert f"No weights, so equal ones: {names[1]}." in found.notes


def test_weights_of_other_files_are_refused(demo_data, tmp_path):
    write_weights(tmp_path / "w.csv", {NAME: np.array([0.5, 0.5])})
    with pytest.raises(UserError, match="2 weights for 600 conformations"):
        evaluate(
            demo_data / NAME, [demo_data / NAME], tmp_path, label="x", weights=tmp_path / "w.csv"
        )


def test_weights_of_other_targets_are_refused(demo_data, tmp_path):
    write_weights(tmp_path / "w.csv", {"other": np.array([0.5, 0.5])})
    with pytest.raises(UserError, match=f"expected weights of {NAME}, found those of other"):
        evaluate(
            demo_data / NAME, [demo_data / NAME], tmp_path, label="x", weights=tmp_path / "w.csv"
        )


def test_energies_are_not_weighted_so_both_are_refused(demo_data, tmp_path, capsys):
    from protenix_eba.cli.main import run

    write_weights(tmp_path / "w.csv", {NAME: np.full(600, 1.0 / 600)})
    words = ["--reference", str(demo_data), "--samples", str(demo_data / NAME), "--out",
             str(tmp_path / "o"), "--weights", str(tmp_path / "w.csv"), "--labels",
             str(demo_data / "labels.parquet")]  # fmt: skip
    assert run(["evaluate", *words]) == 2
    assert "the energies of samples are not weighted" in capsys.readouterr().err
