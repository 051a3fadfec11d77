import json
import math
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml
from warm import finish, kill_at, wait_for

from protenix_eba.cli.train import run
from protenix_eba.core.errors import UserError
from protenix_eba.energy.table import read_labels
from protenix_eba.host.weights import load_checkpoint

pytestmark = pytest.mark.slow


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
    words = ("--max_steps", "6")
    kill_at(train(tmp_path, *words), tmp_path / "run/checkpoints/step_0000002/complete.json")
    output = " ".join(finish(train(tmp_path, *words)).split())
    assert f"resumed {tmp_path / 'run'} at step" in output
    for name in ("log.csv", "validation.csv"):
        assert read_log(tmp_path / "run" / name) == read_log(uninterrupted[0] / name)
    for name in ("model.pt", "model_ema.pt", "best.pt"):
        ours, theirs = (
            load_checkpoint(folder / name) for folder in (tmp_path / "run", uninterrupted[0])
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_the_best_model_is_that_of_the_lowest_held_out_loss(uninterrupted, read_log):
    rows = read_log(uninterrupted[0] / "validation.csv")
    best = min(rows, key=lambda row: row["loss"])
    found = json.loads((uninterrupted[0] / "best.json").read_text())
    assert found == {"step": best["step"], "loss": pytest.approx(best["loss"], rel=1e-6)}
    assert load_checkpoint(uninterrupted[0] / "best.pt")


def test_validation_measures_noise_levels_and_each_target(uninterrupted, read_log):
    rows = read_log(uninterrupted[0] / "validation.csv")
    assert len([name for name in rows[0] if name.startswith("mse_at_")]) == 2
    by_target = (uninterrupted[0] / "validation_targets.csv").read_text().splitlines()
    assert by_target[0].startswith("step,target,loss") and len(by_target) > len(rows)


def test_a_held_out_target_is_sampled_and_its_energies_compared(
    train, tmp_path, read_log, demo_data
):
    words = ("--eba.validation_targets", "penta_alanine", "--eba.validation_replicas=")
    words = (*words, "--eba.replicas=", "--eba.validation_samples", "2")
    finish(train(tmp_path, "--max_steps", "1", "--eval_interval", "0", *words))
    (row,) = read_log(tmp_path / "run/validation.csv")
    assert -1 <= row["sample_rmsf_r"] <= 1 and row["sample_rmsf"] > 0 < row["md_rmsf"]
    # What a random start makes of a peptide can end anywhere, or not be minimised at all.
    samples = read_labels(tmp_path / "run/validation/rank_0/labels.parquet")
    md = read_labels(demo_data / "labels.parquet").for_target("penta_alanine")
    minimised = np.isfinite(samples.energy_kj_mol)
    assert row["sample_failed"] == np.mean(~minimised)
    above = np.median(samples.energy_kj_mol[minimised])
    above -= np.sort(md.energy_kj_mol[md.ok])[(md.ok.sum() - 1) // 2]
    assert row["sample_energy_above_md_kj_mol"] == pytest.approx(above, rel=1e-6, nan_ok=True)
    assert (tmp_path / "run/validation/rank_0/penta_alanine/penta_alanine.xtc").is_file()
    measured = (tmp_path / "run/validation_targets.csv").read_text().splitlines()[1:]
    assert {line.split(",")[1] for line in measured} == {"penta_alanine"}


def test_the_average_of_the_weights_is_between_the_start_and_the_end(uninterrupted, small_run):
    block = "diffusion_module.diffusion_transformer.blocks.0"
    key = f"{block}.attention_pair_bias.attention.linear_q.weight"
    start, end, average = (
        load_checkpoint(path)[key]
        for path in (
            small_run / "start.pt", uninterrupted[0] / "model.pt", uninterrupted[0] / "model_ema.pt"
        )
    )  # fmt: skip
    assert 0 < (average - start).norm() < (end - start).norm()


def test_ctrl_c_saves_and_a_cut_checkpoint_falls_back_to_an_older_one(
    train, tmp_path, uninterrupted
):
    process = train(tmp_path, "--max_steps", "500")
    wait_for(process, lambda: list(tmp_path.glob("run/checkpoints/*/complete.json")))
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


def test_a_run_whose_checkpoints_are_all_cut_does_not_start_again(uninterrupted, train, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[0], folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(uninterrupted[0].parent), str(tmp_path)))
    for path in folder.glob("checkpoints/*/*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    before = (folder / "log.csv").read_text()
    output = " ".join(finish(train(tmp_path, "--max_steps", "8"), status=2).split())
    assert "none of the checkpoints" in output and "Traceback" not in output
    assert (folder / "log.csv").read_text() == before


def test_a_second_start_of_a_finished_run_does_nothing(uninterrupted, train):
    folder = uninterrupted[0]
    before = (folder / "model.pt").stat().st_mtime_ns
    measured = (folder / "validation.csv").read_text()
    assert "is finished (6 steps)" in " ".join(
        finish(train(folder.parent, "--max_steps", "6")).split()
    )
    assert (folder / "model.pt").stat().st_mtime_ns == before
    assert (folder / "validation.csv").read_text() == measured


def test_another_configuration_does_not_continue_a_run(uninterrupted, train):
    process = train(uninterrupted[0].parent, "--max_steps", "6", "--lr", "0.5")
    output = " ".join(finish(process, status=2).split())
    assert "a run with another configuration" in output and "lr" in output


# Any free port: another test run may go on beside this one.
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


# The first process leaves while gloo still holds many of its tensors; taking the
# interpreter down at that moment aborts (exit status -6 in most runs).
LEAVING = """
    import atexit, time
    import deepspeed, torch, torch.distributed as dist
    from protenix_eba.cli.train import leave

    dist.init_process_group("gloo")
    atexit.register(print, "exit handlers were run")
    tensors = [torch.ones(3) for _ in range(3000)]
    dist.barrier()
    for tensor in tensors:
        if dist.get_rank() == 1:
            time.sleep(0.001)
        dist.all_reduce(tensor, async_op=dist.get_rank() == 0)
    leave(0)
"""


def test_a_process_leaves_with_its_status_while_gloo_still_works(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(LEAVING), encoding="utf-8")
    ended = subprocess.run([*TORCHRUN, str(program)], capture_output=True, text=True, timeout=120)
    assert "terminate called" not in ended.stderr
    assert "exit handlers were run" in ended.stdout


STAGE = "--deepspeed.zero_optimization.stage"


@pytest.fixture(scope="module")
def four_steps(train, tmp_path_factory):
    """One process with two items in each step."""
    base = tmp_path_factory.mktemp("four")
    finish(train(base, "--max_steps", "4", "--iters_to_accumulate", "2"))
    return base / "run"


def close(ours, theirs, read_log):
    for first, second in zip(read_log(ours / "log.csv"), read_log(theirs / "log.csv"), strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    for name in ("model.pt", "model_ema.pt"):
        one, two = load_checkpoint(ours / name), load_checkpoint(theirs / name)
        for key in one:
            # Adam's first steps have the size of lr, 1e-3, whatever the gradient's size.
            torch.testing.assert_close(one[key], two[key], rtol=0, atol=4e-4)


@pytest.mark.parametrize("stage", ["0", "3"])
def test_two_processes_equal_one_at_the_same_global_batch(
    train, tmp_path, read_log, four_steps, stage
):
    """Two processes with one item each make the mean gradient of one process with two items."""
    words = ("--max_steps", "4", STAGE, stage, "--iters_to_accumulate", "1")
    # So that small weights are split too, and one process has a conformer less to validate on.
    words += ("--deepspeed.zero_optimization.stage3_param_persistence_threshold", "0")
    finish(train(tmp_path, *words, processes=2))
    close(tmp_path / "run", four_steps, read_log)


def test_a_run_goes_on_with_another_number_of_processes(train, tmp_path, read_log, four_steps):
    """ZeRO 2 writes a file for each process: the checkpoint is rewritten for the new number."""
    words = (STAGE, "2", "--max_steps")
    finish(train(tmp_path, *words, "2", "--iters_to_accumulate", "1", processes=2))
    output = finish(train(tmp_path, *words, "4", "--iters_to_accumulate", "2"))
    assert "at step 2" in " ".join(output.split())
    close(tmp_path / "run", four_steps, read_log)
    output = finish(train(tmp_path, *words, "6", "--iters_to_accumulate", "1"), status=2)
    assert "another global batch: expected 2, found 1" in " ".join(output.split())


def test_t_of_auto_is_settled_once_for_all_processes_and_starts(
    train, tmp_path, small_run, read_log
):
    """Two processes begin, one goes on."""
    words = ("--eba.diffusion_temperature", "auto", "--eba.weight_lddt", "0", "--max_steps")
    finish(train(tmp_path, *words, "2", "--iters_to_accumulate", "1", processes=2))
    path = tmp_path / "run/temperature.json"
    known = path.read_text()
    slope = json.loads(known)["slope"]
    output = " ".join(finish(train(tmp_path, *words, "4", "--iters_to_accumulate", "2")).split())
    assert f"T = {slope:.4g} (eba.diffusion_temperature: auto)" in output
    assert path.read_text() == known and len(read_log(tmp_path / "run/log.csv")) == 4


def test_low_memory_gives_the_same_run(train, tmp_path, read_log, four_steps):
    words = ("--max_steps", "4", "--iters_to_accumulate", "2", "--eba.low_memory", "true")
    finish(train(tmp_path, *words))
    close(tmp_path / "run", four_steps, read_log)


def test_adapters_change_the_named_matrices_only_and_the_start_is_their_reference(
    train, tmp_path, read_log, small_run
):
    pattern = "diffusion_module.diffusion_transformer.*"
    words = ("--eba.lora_rank", "2", "--eba.trainable", pattern, "--eba.eba_with_ref", "true")
    finish(train(tmp_path, "--max_steps", "2", *words))
    # Equal to its reference the model prefers no conformer.
    assert read_log(tmp_path / "run/log.csv")[0]["loss"] == pytest.approx(math.log(3), abs=1e-4)
    start, result = (
        load_checkpoint(path) for path in (small_run / "start.pt", tmp_path / "run/model.pt")
    )
    assert start.keys() == result.keys()
    changed = {key for key in start if not torch.equal(start[key], result[key])}
    assert changed and all(key.startswith(pattern[:-1]) for key in changed)
    assert all(start[key].dim() == 2 for key in changed)


def test_the_input_embedder_can_be_trained_too(train, tmp_path, small_run):
    patterns = "diffusion_module.diffusion_transformer.*,input_embedder.*"
    finish(train(tmp_path, "--max_steps", "2", "--eba.trainable", patterns))
    start, result = (
        load_checkpoint(path) for path in (small_run / "start.pt", tmp_path / "run/model.pt")
    )
    changed = {key for key in start if not torch.equal(start[key], result[key])}
    allowed = ("diffusion_module.diffusion_transformer.", "input_embedder.")
    for prefix in allowed:
        assert any(key.startswith(prefix) for key in changed)
    assert all(key.startswith(allowed) for key in changed)


def test_weights_that_explode_stop_the_run_and_the_items_are_listed(train, tmp_path):
    words = ("--max_steps", "40", "--lr", "1e20", "--checkpoint_interval", "0")
    output = " ".join(finish(train(tmp_path, *words), 2).split())
    assert "items in a row had a loss that is not finite" in output
    listed = [json.loads(path.read_text()) for path in (tmp_path / "run/errors").glob("*.json")]
    assert len(listed) >= 20 and all(len(item["frames"]) == 3 for item in listed)


def test_items_that_cannot_be_read_are_skipped_and_listed(train, tmp_path, read_log, demo_data):
    """By both processes, of which only one has such an item; none of those held out can be read."""
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    for path in [*data.glob("grgds/*_R[12]*.xtc"), *data.glob("*/*_R3*.xtc")]:
        path.write_bytes(path.read_bytes()[:100])
    words = ("--max_steps", "5", "--iters_to_accumulate", "1", "--eba.data_dir", data)
    output = finish(train(tmp_path, *words, processes=2))
    listed = [json.loads(path.read_text()) for path in (tmp_path / "run/errors").glob("*.json")]
    assert {item["target"] for item in listed} == {"grgds"}
    assert all("frame" in item["reason"] and "replica" in item["reason"] for item in listed)
    skipped = [row["skipped"] for row in read_log(tmp_path / "run/log.csv")]
    assert sum(skipped) == len(listed) > 0 and 0 in skipped
    output = " ".join(output.split())
    assert "skipped an item: replica" in output
    assert "held-out" in output and "the held-out loss at step 0 is not finite" in output


def test_another_start_does_not_continue_a_run(uninterrupted, train, small_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[0], folder)
    (folder / "start.json").write_text('{"trunk": "x", "diffusion module": "y", "global batch": 2}')
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(uninterrupted[0].parent), str(tmp_path)))
    output = " ".join(finish(train(tmp_path, "--max_steps", "8"), status=2).split())
    assert "was started with another trunk" in output


def test_dpo_trains_against_its_frozen_start(train, tmp_path, read_log):
    finish(
        train(tmp_path, "--max_steps", "2", "--eba.objective", "eba_dpo", "--eba.n_conformers", "2")
    )
    rows = read_log(tmp_path / "run/log.csv")
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert rows[1]["loss"] != rows[0]["loss"]
    assert rows[0]["drift"] == pytest.approx(0, abs=1e-5) != rows[1]["drift"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--load_checkpoint_path", "absent.pt"], "expected a file at absent.pt"),
        (["--load_checkpoint_path", ""], "load_checkpoint_path is not set"),
        (["--eba.labels", "absent.parquet"], "absent.parquet"),
        (["--eba.objective", "ebb"], "no loss called 'ebb'"),
        (["--eba.sampler", "divers"], "no batch sampler called 'divers'"),
        (["--eba.dataset", "mdcath"], "no dataset called 'mdcath'; registered are: atlas"),
        (["--eba.n_conformers", "100000"], "fewer than eba.n_conformers"),
        (["--eba.trainable", "pairformer_stack.*"], "matches no weight of the diffusion module"),
        (["--c_s", "64"], "does not fit the configured diffusion module"),
        (["--model.N_cycle", "3"], "another n_cycles: expected 3, found 1"),
        (["--eba.validation_replicas", "1"], "replicas that are not trained on"),
        (["--deepspeed.gradient_clipping", "1"], "set by Protenix's own keys"),
        (["--deepspeed.zero_optimizatoin.stage", "1"], "did you mean zero_optimization"),
        (["--deepspeed.zero_optimization", "2"], "is a section, found 2"),
        (["--eba.validation_targets", "absent"], "absent"),
        (["--lr", "nan"], "lr: expected a number above 0"),
        (["--lr_scheduler", "cosin"], "lr_scheduler: expected one of af3"),
        (["--iters_to_accumulate", "0"], "at least 1"),
        (["--eba.validation_items", "0"], "at least 1"),
        (["--eba.lora_rank", "500"], "rank"),
    ],
)
def test_unusable_input_is_named(small_run, tmp_path, words, message):
    common = ["--plugin", "protenix_eba", "--config", str(small_run / "small.yaml")]
    with pytest.raises(UserError) as error:
        run([*common, "--base_dir", str(tmp_path), *words])
    assert message in " ".join(str(error.value).split())


def test_a_user_sees_an_error_and_no_traceback(train, tmp_path):
    output = finish(train(tmp_path, "--eba.objective", "ebb"), status=2)
    assert "error: there is no loss called 'ebb'" in " ".join(output.split())
    assert "Traceback" not in output


def test_the_run_keeps_its_configuration(uninterrupted):
    values = yaml.safe_load((uninterrupted[0] / "config.yaml").read_text())
    assert values["eba"]["objective"] == "eba" and values["max_steps"] == 6
