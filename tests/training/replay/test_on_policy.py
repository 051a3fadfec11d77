"""On-policy alignment: the buffer, what is drawn of it, its guards, and runs that are killed."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from warm import finish, kill_at, wait_for

from protenix_eba.core.errors import UserError
from protenix_eba.core.run_folder import RunFolder
from protenix_eba.energy.table import read_labels
from protenix_eba.eval.report.plots.training import REPLAY_COLUMNS
from protenix_eba.eval.report.training import training_figures
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.features import protein_features
from protenix_eba.host.weights import load_checkpoint
from protenix_eba.structures.sequences import protein_of_target
from protenix_eba.structures.trajectories import find_targets
from protenix_eba.training.data.conformers import load_conformers
from protenix_eba.training.data.replay import Pooled, md_rows, ranked
from protenix_eba.training.data.replay_config import ReplayConfig, replay_config
from protenix_eba.training.replay.record import refuse_ruin
from protenix_eba.training.replay.trainer import rounds

# Settings.


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"refresh_steps": 0}, "refresh_steps"),
        ({"md_share": 1.0}, "md_share"),
        ({"energy": "lowest"}, "energy"),
        ({"energy": "short"}, "md_share 0"),
        ({"invalid": "first"}, "invalid"),
        ({"energy_function": "saxs", "jobs": 2}, "jobs"),
        ({"energy_function": "saxs", "asynchronous": True}, "asynchronous"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(values, named):
    with pytest.raises(UserError, match=named):
        ReplayConfig(**values)


@pytest.mark.parametrize(
    ("data_dir", "section", "said"),
    [
        ("", {"md_share": 0.0}, "neither"),
        ("md", {"sequences": "a.fasta"}, "both"),
        ("", {"sequences": "a.fasta"}, "0 without MD"),
    ],
)
def test_targets_come_of_md_or_of_sequences(data_dir, section, said):
    with pytest.raises(UserError, match=said):
        replay_config(EBAConfig(data_dir=data_dir, configs={"replay": section}))


def test_a_run_from_before_the_section_goes_on(tmp_path):
    RunFolder(tmp_path / "run").claim({"a": {"b": 1}})
    run = RunFolder(tmp_path / "run")
    run.append_row(run.log, {"step": 1})
    run.claim({"a": {"b": 1}})
    with pytest.raises(UserError, match="another process"):
        RunFolder(tmp_path / "run").claim({"a": {"b": 1}, "replay": {"md_share": 0.5}})


# What is drawn.


def test_rounds_end_at_multiples_also_after_a_resume():
    assert list(rounds(range(0, 7), 3)) == [range(0, 3), range(3, 6), range(6, 7)]
    assert list(rounds(range(4, 7), 3)) == [range(4, 6), range(6, 7)]


@pytest.mark.parametrize(("n_md", "share"), [(100, 0.5), (100, 0.25), (100, 0.9), (5, 0.5)])
def test_the_share_of_md_never_falls_below_what_was_set(n_md, share):
    rows, n_samples = md_rows(n_md, 10, share, [0])
    assert len(set(rows.tolist())) == len(rows) <= n_md and n_samples <= 10
    assert len(rows) / (len(rows) + n_samples) >= share or n_samples == 1
    assert md_rows(n_md, 10, share, [0])[0].tolist() == rows.tolist()


def test_broken_samples_rank_last_or_are_left_out():
    energy, invalid = np.array([-9.0, 1.0, np.nan, -50.0]), np.array([False, False, False, True])
    last = ranked(energy, invalid, "last", np.array([3.0]), 10.0)
    np.testing.assert_array_equal(last, [-9.0, 1.0, 13.0, 13.0])
    out = ranked(energy, invalid, "out", np.empty(0), 10.0)
    np.testing.assert_array_equal(out, [-9.0, 1.0, np.nan, np.nan])
    np.testing.assert_array_equal(ranked(energy, invalid, "kept", np.empty(0), 1.0), energy)


def test_broken_samples_of_a_target_with_nothing_else_are_equals():
    nothing = ranked(np.array([np.nan, np.nan]), np.zeros(2, bool), "last", np.empty(0), 10.0)
    np.testing.assert_array_equal(nothing, [0.0, 0.0])


def test_pooled_conformers_are_those_of_their_parts(demo_data):
    target = find_targets(demo_data)[0]
    protein = protein_features(protein_of_target(target))
    labels = read_labels(demo_data / "labels.parquet")
    one, two = (load_conformers(target, protein, labels, [n]) for n in (1, 2))
    rows = (np.array([4, 2]), np.array([0, 7, 3]))
    energy = torch.cat([one.energy_kj_mol[rows[0]], two.energy_kj_mol[rows[1]]])
    pooled = Pooled((one, two), rows, energy)
    assert len(pooled) == 5 and pooled.replica.tolist() == [1, 1, 2, 2, 2]
    assert torch.equal(pooled.coordinates([3, 0])[0], two.coordinates([7])[0])
    assert torch.equal(pooled.coordinates([3, 0])[1], one.coordinates([4])[0])
    assert torch.equal(pooled.coordinates()[2:], two.coordinates([0, 7, 3]))


# Guards.

ROW = {
    "valid": 0.9, "labelled": 1.0, "above_first_kj_mol": None, "moved_angstrom": 1.0,
    "rmsf_angstrom": 1.0, "rmsf_ratio": 0.9, "clusters": 5.0, "clusters_ratio": 0.8,
    "coverage": 0.9,
}  # fmt: skip


FLOORS = {"valid_floor": 0.1, "rmsf_floor": 0.2, "clusters_floor": 0.2, "coverage_floor": 0.5}


@pytest.mark.parametrize(
    ("change", "floor"),
    [
        ({"valid": 0.05}, "valid_floor"),
        ({"rmsf_ratio": 0.1}, "rmsf_floor"),
        ({"clusters_ratio": 0.1}, "clusters_floor"),
        ({"coverage": 0.4}, "coverage_floor"),
    ],
)
def test_a_run_stops_before_the_ensemble_is_ruined(change, floor, tmp_path):
    record = {"step": 4, "targets": {"a": ROW}, "seconds": {}}
    refuse_ruin(record, ReplayConfig(**FLOORS), tmp_path)
    with pytest.raises(UserError, match=floor):
        refuse_ruin(record | {"targets": {"a": ROW | change}}, ReplayConfig(**FLOORS), tmp_path)
    off = dict.fromkeys(FLOORS, 0.0)
    refuse_ruin(record | {"targets": {"a": ROW | change}}, ReplayConfig(**off), tmp_path)


# Runs.


@pytest.fixture(scope="module")
def glycine(tmp_path_factory):
    """A folder with the shipped start, two sequences and their embeddings."""
    import importlib.resources

    from protenix_eba.cli.main import run

    folder = tmp_path_factory.mktemp("glycine")
    recipe = importlib.resources.files("protenix_eba") / "recipes" / "demo_on_policy.yaml"
    (folder / "sequences.fasta").write_text(">gly3\nGGG\n>gly4\nGGGG\n")
    common = ["--config", str(recipe)]
    assert run(["init", *common, "--start", "glycine", "--out", str(folder / "start.pt")]) == 0
    words = ["--checkpoint", str(folder / "start.pt"), "--input", str(folder / "sequences.fasta")]
    assert run(["embed", *common, *words, "--out", str(folder / "embeddings")]) == 0
    return folder


@pytest.fixture(scope="module")
def on_policy(train, glycine):
    """Start a short on-policy run."""
    import importlib.resources

    recipe = importlib.resources.files("protenix_eba") / "recipes" / "demo_on_policy.yaml"

    def start(base, *words, processes=1, max_steps=8, energy="initial"):
        short = {
            "config": recipe, "load_checkpoint_path": glycine / "start.pt", "run_name": "run",
            "eba.embeddings": glycine / "embeddings", "max_steps": max_steps,
            "checkpoint_interval": 3,
            "eba.checkpoint_keep": 5,
            "replay.sequences": glycine / "sequences.fasta", "replay.refresh_steps": 4,
            "replay.new_samples": 4, "replay.max_samples": 6, "replay.sampler_steps": 8,
            "eba.n_conformers": 3, "eba.n_noise": 2, "replay.valid_floor": 0.0,
            "replay.energy": energy,
        }  # fmt: skip
        given = [word for key, value in short.items() for word in (f"--{key}", str(value))]
        return train(base, *given, *words, processes=processes)

    return start


@pytest.fixture(scope="module")
def whole(on_policy, tmp_path_factory):
    base = tmp_path_factory.mktemp("whole")
    finish(on_policy(base))
    return base / "run"


@pytest.mark.slow
def test_sequences_alone_are_aligned_and_the_buffer_is_ensembles_and_labels(whole):
    for step in (0, 4):
        folder = whole / f"replay/step_000000{step}"
        assert [t.name for t in find_targets(folder)] == ["gly3", "gly4"]
        labels = read_labels(folder / "labels.parquet")
        assert len(labels) == 8 and labels.finished.all()
        record = json.loads((folder / "gly3/gly3.json").read_text())
        assert record["step"] == step and record["weights"] and record["seed"]
    rows = (whole / "replay.csv").read_text().splitlines()
    assert rows[0].startswith("step,targets,valid") and len(rows) == 3
    assert {"Training", "Own samples"} == {drawn.title for drawn in training_figures({"x": whole})}
    assert set(REPLAY_COLUMNS) <= set(rows[0].split(","))


def earlier(whole, base):
    """A copy of a run as it was at its checkpoint of step 3, with samples of a lost future."""
    run = base / "run"
    shutil.copytree(whole, run)
    (run / "finished.json").unlink()
    for step in (6, 8):
        shutil.rmtree(run / f"checkpoints/step_{step:07d}")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(whole.parent), str(base)))
    return run


def labels_of(run, step):
    return (run / f"replay/step_{step:07d}/labels.parquet").read_bytes()


@pytest.mark.slow
def test_a_run_that_lost_its_last_checkpoints_uses_its_samples_again_to_the_last_bit(
    on_policy, whole, tmp_path, read_log
):
    run = earlier(whole, tmp_path)
    finish(on_policy(tmp_path))
    assert labels_of(run, 4) == labels_of(whole, 4)  # the same weights: none is made twice
    assert read_log(run / "log.csv") == read_log(whole / "log.csv")
    for name in ("model.pt", "model_ema.pt"):
        ours, theirs = (load_checkpoint(folder / name) for folder in (run, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["step_0000000/refresh.json", "step_0000004/sampled.json"])
def test_a_run_whose_samples_are_lost_does_not_go_on_without_them(lost, on_policy, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "finished.json").unlink()
    shutil.rmtree(run / "checkpoints/step_0000008")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(whole.parent), str(tmp_path)))
    (run / "replay" / lost).unlink()
    assert "what this run has written" in finish(on_policy(tmp_path), 2)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["begun.json", "gly3/gly3.json"])
def test_a_run_that_is_killed_in_a_refresh_goes_on_with_it(
    moment, on_policy, whole, tmp_path, read_log
):
    run = earlier(whole, tmp_path)
    shutil.rmtree(run / "replay/step_0000004")
    kill_at(on_policy(tmp_path), run / "replay/step_0000004" / moment)
    finish(on_policy(tmp_path))
    assert labels_of(run, 0) == labels_of(whole, 0)
    for path in sorted(whole.glob("replay/step_0000004/*/*.xtc")):
        assert (run / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert labels_of(run, 4) == labels_of(whole, 4)
    assert read_log(run / "log.csv") == read_log(whole / "log.csv")


ASYNCHRONOUS = ("--replay.asynchronous", "true")


@pytest.fixture(scope="module")
def whole_asynchronous(on_policy, tmp_path_factory):
    base = tmp_path_factory.mktemp("whole_asynchronous")
    finish(on_policy(base, *ASYNCHRONOUS, max_steps=11))
    return base / "run"


@pytest.mark.slow
def test_asynchronous_samples_are_trained_on_one_refresh_later(whole, whole_asynchronous, read_log):
    """The first round is that of the synchronous run, and so are what it samples and its labels."""
    ours, theirs = (read_log(run / "log.csv") for run in (whole_asynchronous, whole))
    assert ours[:4] == theirs[:4] and ours[4] != theirs[4]
    for step in (0, 4):
        assert labels_of(whole_asynchronous, step) == labels_of(whole, step)
    rows = (whole_asynchronous / "replay.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "0", "4"]  # none needs those of step 8


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["sampled.json", "label.log"])
def test_an_asynchronous_run_that_is_killed_goes_on_to_the_same_result(
    moment, on_policy, whole_asynchronous, tmp_path, read_log
):
    run = tmp_path / "run"
    kill_at(on_policy(tmp_path, *ASYNCHRONOUS, max_steps=11), run / "replay/step_0000004" / moment)
    finish(on_policy(tmp_path, *ASYNCHRONOUS, max_steps=11))
    for step in (0, 4):
        assert labels_of(run, step) == labels_of(whole_asynchronous, step)
    assert read_log(run / "log.csv") == read_log(whole_asynchronous / "log.csv")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["0", "3"])
def test_two_processes_make_the_samples_of_one(stage, on_policy, whole, tmp_path):
    """Also where each has a part of the weights, small ones too."""
    words = ("--deepspeed.zero_optimization.stage", stage)
    words += ("--deepspeed.zero_optimization.stage3_param_persistence_threshold", "0")
    finish(on_policy(tmp_path, *words, processes=2, max_steps=6))
    assert (tmp_path / "run/replay/step_0000004/refresh.json").is_file()
    for path in sorted(whole.glob("replay/step_0000000/*/*.xtc")):
        assert (tmp_path / "run" / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_two_processes_wait_for_labels_in_the_background(on_policy, tmp_path):
    finish(on_policy(tmp_path, *ASYNCHRONOUS, processes=2, max_steps=9))
    rows = (tmp_path / "run/replay.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "0", "4"]
    assert len(read_labels(tmp_path / "run/replay/step_0000004/labels.parquet")) == 8


@pytest.mark.slow
def test_any_objective_trains_on_samples_beside_md(train, small_run, tmp_path):
    words = (
        "--trainer", "on_policy", "--eba.dataset", "replay", "--eba.objective", "denoising",
        "--replay.md_share", "0.5", "--replay.new_samples", "2", "--replay.sampler_steps", "4",
        "--replay.refresh_steps", "2", "--replay.targets_per_refresh", "1", "--max_steps", "3",
        "--replay.valid_floor", "0", "--replay.rmsf_floor", "0", "--replay.energy", "strained",
    )  # fmt: skip
    finish(train(tmp_path, *words))
    first = find_targets(tmp_path / "run/replay/step_0000000")
    assert len(first) == 4  # all of them before the first step, then one at a time
    assert len(find_targets(tmp_path / "run/replay/step_0000002")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_samples_are_made_or_labelled_saves_and_stops_at_once(
    number, on_policy, whole, tmp_path, read_log
):
    """The refresh that it came in is not waited for; the run goes on to the same result."""
    run = earlier(whole, tmp_path)
    shutil.rmtree(run / "replay/step_0000004")
    process = on_policy(tmp_path)
    wait_for(process, (run / "replay/step_0000004/begun.json").is_file)
    process.send_signal(number)
    output = " ".join(finish(process, status=130 if number == signal.SIGINT else 143).split())
    assert "stopped at step 4: the same command goes on from here" in output
    assert not (run / "replay/step_0000004/refresh.json").exists()
    finish(on_policy(tmp_path))
    assert labels_of(run, 4) == labels_of(whole, 4)
    assert read_log(run / "log.csv") == read_log(whole / "log.csv")
