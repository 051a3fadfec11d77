"""Which frames of a target are taken, and that all commands mean the same by it."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protenix_eba.cli.main import run
from protenix_eba.energy.table import read_labels
from protenix_eba.structures.frame_choice import FrameChoice


@pytest.mark.parametrize(
    ("counts", "stride", "per_replica"),
    [((10_000,) * 3, 100, 100), ((10_001,) * 3, 100, 100), ((98,), 100, 1), ((0, 7), 3, 2)],
)
def test_every_hundredth_frame_of_atlas_makes_300(counts, stride, per_replica):
    wanted = FrameChoice(stride).of("x", dict(enumerate(counts, 1)))
    for frames, n in zip(wanted.values(), counts, strict=True):
        assert len(frames) == (per_replica if n else 0)
        assert all(frames % stride == 0) and all(frames < n)


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    per_target=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_a_stratified_draw_takes_one_frame_of_each_block(counts, per_target, seed):
    replicas = dict(enumerate(counts, 1))
    total = sum(counts)
    wanted = FrameChoice(per_target=per_target, seed=seed).of("x", replicas)
    start = dict(zip(replicas, np.cumsum([0, *counts[:-1]]), strict=True))
    drawn = np.concatenate([start[r] + frames for r, frames in wanted.items()])
    n = min(per_target, total)
    assert len(drawn) == n
    if n:
        edges = np.linspace(0, total, n + 1).round()
        assert ((drawn >= edges[:-1]) & (drawn < edges[1:])).all()
        assert np.ptp(np.diff(edges)) <= 1
    again = FrameChoice(per_target=per_target, seed=seed).of("x", replicas)
    assert all(np.array_equal(wanted[r], again[r]) for r in replicas)


def test_targets_and_seeds_draw_differently():
    draws = [
        FrameChoice(per_target=20, seed=seed).of(name, {1: 1000})[1].tolist()
        for seed, name in ((0, "a"), (1, "a"), (0, "b"))
    ]
    assert draws[0] != draws[1] and draws[0] != draws[2]


@pytest.mark.parametrize("words", [("--stride", "30"), ("--frames-per-target", "7", "--seed", "2")])
def test_import_and_label_take_the_same_frames(demo_data, tmp_path, words):
    shutil.copytree(demo_data / "grgds", tmp_path / "in" / "grgds")
    table, md = tmp_path / "l.parquet", tmp_path / "md"
    assert run(["import", "--input", str(tmp_path / "in"), "--out", str(md), *words]) == 0
    label = ["label", "--input", str(tmp_path / "in"), "--out", str(table), "--no-minimize"]
    assert run([*label, *words]) == 0
    replicas = json.loads((md / "grgds" / "import.json").read_text())["replicas"]
    imported = [(int(r), frame) for r, found in replicas.items() for frame in found["frames"]]
    labels = read_labels(table)
    labelled = sorted(zip(labels.replica.tolist(), labels.frame.tolist(), strict=True))
    assert labelled == imported
    assert len(imported) == (3 * (200 // 30) if words[0] == "--stride" else 7)


def test_a_stride_and_a_number_are_not_both_given(tmp_path, capsys):
    for command in ("import", "label"):
        words = ["--input", str(tmp_path), "--out", str(tmp_path / "o"), "--stride", "2"]
        assert run([command, *words, "--per-target", "3"]) == 2
        assert "not both" in capsys.readouterr().err
