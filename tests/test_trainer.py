import shutil
import signal
import sys
import time

import pytest
import torch
import yaml

from protenix_eba.weights import load_checkpoint

pytestmark = pytest.mark.slow


def finish(process, status=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory):
    base = tmp_path_factory.mktemp("whole")
    output = finish(train(base, "--max_steps", "6"))
    return base / "run", output


def test_the_log_says_how_much_is_trained_and_held_out_conformers_are_measured(
    uninterrupted, read_log, small_run
):
    folder, output = uninterrupted
    state = load_checkpoint(small_run / "start.pt")
    diffusion = [v for k, v in state.items() if k.startswith("diffusion_module.")]
    # The Fourier embedding of the noise level is fixed in Protenix.
    trained = sum(v.numel() for v in diffusion) - 2 * 256
    total = sum(v.numel() for v in state.values())
    assert f"training {trained:,} of {total:,} parameters" in " ".join(output.split())
    assert [row["step"] for row in read_log(folder / "log.csv")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in read_log(folder / "validation.csv")] == [0, 2, 4, 6]


def test_the_result_differs_from_the_start_in_the_diffusion_module_only(uninterrupted, small_run):
    start = load_checkpoint(small_run / "start.pt")
    result = load_checkpoint(uninterrupted[0] / "model.pt")
    assert start.keys() == result.keys()
    changed = {key for key in start if not torch.equal(start[key], result[key])}
    assert changed and all(key.startswith("diffusion_module.") for key in changed)
    assert not any("fourier" in key for key in changed)


def test_a_killed_run_that_is_resumed_equals_the_uninterrupted_one(
    uninterrupted, train, tmp_path, read_log
):
    process = train(tmp_path, "--max_steps", "6")
    marker = tmp_path / "run/checkpoints/step_0000002/complete.json"
    deadline = time.monotonic() + 200
    while not marker.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert marker.is_file()
    output = " ".join(finish(train(tmp_path, "--max_steps", "6")).split())
    assert f"resumed {tmp_path / 'run'} at step" in output
    assert read_log(tmp_path / "run/log.csv") == read_log(uninterrupted[0] / "log.csv")
    ours, theirs = (
        load_checkpoint(folder / "model.pt") for folder in (tmp_path / "run", uninterrupted[0])
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_ctrl_c_saves_and_a_cut_checkpoint_falls_back_to_an_older_one(
    train, tmp_path, uninterrupted
):
    process = train(tmp_path, "--max_steps", "500")
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("run/checkpoints/*/complete.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = finish(process, status=130)
    assert "the same command goes on from here" in " ".join(output.split())
    newest = max(tmp_path.glob("run/checkpoints/step_*"))
    step = int(newest.name.removeprefix("step_"))
    older = newest.with_name(f"step_{step + 1:07d}")
    shutil.copytree(newest, older)
    for path in older.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    output = " ".join(finish(train(tmp_path, "--max_steps", str(step + 2))).split())
    assert f"checkpoint of step {step + 1} cannot be read, trying an older" in output
    assert f"at step {step}" in output


def test_a_second_start_of_a_finished_run_does_nothing(uninterrupted, train):
    folder = uninterrupted[0]
    before = (folder / "model.pt").stat().st_mtime_ns
    assert "is finished (6 steps)" in " ".join(
        finish(train(folder.parent, "--max_steps", "6")).split()
    )
    assert (folder / "model.pt").stat().st_mtime_ns == before


def test_another_configuration_does_not_continue_a_run(uninterrupted, train):
    process = train(uninterrupted[0].parent, "--max_steps", "6", "--lr", "0.5")
    output = " ".join(finish(process, status=2).split())
    assert "a run with another configuration" in output and "lr" in output


@pytest.mark.parametrize("stage", ["0", "2"])
def test_two_processes_equal_one_at_the_same_global_batch(train, tmp_path, read_log, stage):
    """Two processes with one item each make the mean gradient of one process with two items."""
    torchrun = (
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--master_port", str(29600 + int(stage)),
    )  # fmt: skip
    words = ("--max_steps", "2", "--eba.deepspeed_stage", stage, "--iters_to_accumulate")
    finish(train(tmp_path / "one", *words, "2"))
    finish(train(tmp_path / "two", *words, "1", launcher=torchrun))
    one, two = (read_log(tmp_path / name / "run/log.csv") for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-6)
    states = [load_checkpoint(tmp_path / name / "run/model.pt") for name in ("one", "two")]
    for key in states[0]:
        # Adam's first steps have the size of lr, 1e-3, whatever the gradient's size.
        torch.testing.assert_close(states[0][key], states[1][key], rtol=0, atol=2e-4)


def test_dpo_trains_against_its_frozen_start(train, tmp_path, read_log):
    finish(
        train(tmp_path, "--max_steps", "2", "--eba.objective", "eba_dpo", "--eba.n_conformers", "2")
    )
    rows = read_log(tmp_path / "run/log.csv")
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert rows[1]["loss"] != rows[0]["loss"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--load_checkpoint_path", "absent.pt"], "expected a file at absent.pt"),
        (["--load_checkpoint_path", ""], "load_checkpoint_path is not set"),
        (["--eba.labels", "absent.parquet"], "absent.parquet"),
        (["--eba.objective", "ebb"], "no loss called 'ebb'"),
        (["--eba.n_conformers", "100000"], "fewer than eba.n_conformers"),
        (["--eba.trainable", "pairformer_stack.*"], "matches no weight of the diffusion module"),
        (["--c_s", "64"], "does not fit the configured diffusion module"),
        (["--model.N_cycle", "3"], "another n_cycles: expected 3, found 1"),
        (["--eba.validation_replicas", "1"], "replicas that are not trained on"),
    ],
)
def test_unusable_input_is_named(train, tmp_path, words, message):
    output = finish(train(tmp_path, *words), status=2)
    assert message in " ".join(output.split())
    assert "Traceback" not in output


def test_the_run_keeps_its_configuration(uninterrupted):
    values = yaml.safe_load((uninterrupted[0] / "config.yaml").read_text())
    assert values["eba"]["objective"] == "eba" and values["max_steps"] == 6
