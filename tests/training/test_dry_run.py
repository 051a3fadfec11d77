import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from warm import finish

from protenix_eba.cli.train import split
from protenix_eba.core.errors import UserError
from protenix_eba.energy.table import read_labels
from protenix_eba.host.weights import load_checkpoint
from protenix_eba.training.rehearse.data_check import unreadable
from protenix_eba.training.rehearse.dry_run import DryRun
from protenix_eba.training.rehearse.memory_advice import passes
from protenix_eba.training.rehearse.peak_memory import MemoryMeter
from protenix_eba.training.rehearse.rehearsal import typical_items


def figure(output: str, row: str) -> str:
    """What stands beside the name of a row."""
    (found,) = re.findall(rf"^  {re.escape(row)} {{2,}}(.*)$", output, flags=re.MULTILINE)
    return found


def contents(folder):
    """Every file and folder below, with its time and its bytes."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def in_bytes(words: str) -> float:
    number, unit = words.split()[:2]
    return float(number) * {"MiB": 2**20, "GiB": 2**30}[unit.rstrip(",")]


def test_the_peak_of_a_phase_holds_what_was_let_go_in_it():
    meter = MemoryMeter(torch.device("cpu"))
    before = meter.now().host
    meter.restart()
    for _ in range(2):
        torch.ones(50_000_000)  # 200 MB of float32
    after = meter.now().host
    assert meter.peak().host - before == pytest.approx(2e8, rel=0.05)
    assert after - before < 2e7


@pytest.mark.parametrize("bad", [(), (0,), (3, 4, 99), range(100)])
def test_bad_frames_are_found_one_by_one(bad):
    def read(rows):
        if wrong := sorted(set(rows) & set(bad)):
            raise UserError(f"frame {wrong[0]} is cut")
        return torch.zeros(len(rows), 7, 3)

    source = SimpleNamespace(coordinates=read, mask=torch.ones(7))
    found = unreadable(source, range(100))
    assert found == [(row, f"frame {row} is cut") for row in bad]


@pytest.mark.parametrize("n_per_step", [1, 3, 40])
def test_typical_items_have_the_mean_of_an_epoch(n_per_step):
    lengths = np.sort(np.random.default_rng(0).lognormal(5.0, 0.6, 5000))
    chosen = typical_items(range(5000), n_per_step)[n_per_step:]  # the first step warms up
    assert len(chosen) % n_per_step == 0 and len(chosen) >= 16
    assert np.mean(lengths[chosen] ** 2) == pytest.approx(np.mean(lengths**2), rel=0.15)


KEPT = ("--eba.checkpoint_keep", "9")


@pytest.fixture(scope="module")
def real(train, tmp_path_factory):
    """A run of four steps that keeps its checkpoints."""
    base = tmp_path_factory.mktemp("real")
    finish(train(base, *KEPT))
    return base


@pytest.fixture(scope="module")
def damaged(demo_data, tmp_path_factory):
    """The shipped peptides, one of whose trajectories ends early."""
    folder = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(demo_data, folder)
    path = next(iter(sorted((folder / "grgds").glob("*R1*.xtc"))))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return folder


@pytest.fixture(scope="module")
def report(train, damaged, tmp_path_factory):
    """The report on a run in a folder that does not exist."""
    base = tmp_path_factory.mktemp("none") / "not" / "there"
    words = ("--eba.data_dir", damaged, "--eba.outlier_z", "3.5", *KEPT)
    output = finish(train(base, "--dry-run", *words))
    assert not base.parent.exists()
    return output


@pytest.mark.slow
def test_a_dry_run_counts_what_a_run_does(report, real, small_run, demo_data):
    state = load_checkpoint(small_run / "start.pt")
    # The Fourier embedding of the noise level is fixed in Protenix.
    trained = sum(v.numel() for k, v in state.items() if k.startswith("diffusion_module."))
    trained -= 2 * 256
    frozen = sum(v.numel() for v in state.values()) - trained
    assert figure(report, "parameters") == f"{trained:,} trained, {frozen:,} frozen"
    labels = read_labels(demo_data / "labels.parquet")
    used = labels.select(labels.ok & np.isin(labels.replica, [1, 2]))
    _, n_frames = np.unique(used.target, return_counts=True)
    n_items = int((n_frames // 3).sum())
    assert figure(report, "items of an epoch") == f"{n_items:,}"
    assert figure(report, "steps of an epoch") == f"{n_items / 2:,.1f} of 2 items"
    n_validations = len((real / "run/validation.csv").read_text().splitlines()) - 1
    n_checkpoints = len(list((real / "run/checkpoints").glob("step_*")))
    assert figure(report, "a validation").endswith(f", {n_validations} times")
    assert figure(report, "a checkpoint").endswith(f", {n_checkpoints} times")


@pytest.mark.slow
def test_weights_and_their_adam_moments_take_four_bytes_each(report, small_run):
    state = load_checkpoint(small_run / "start.pt")
    trained = sum(v.numel() for k, v in state.items() if k.startswith("diffusion_module."))
    trained -= 2 * 256
    assert in_bytes(figure(report, "gradients")) == pytest.approx(4 * trained, rel=0.02)
    assert in_bytes(figure(report, "moving average")) == pytest.approx(4 * trained, rel=0.02)
    assert in_bytes(figure(report, "optimizer state")) == pytest.approx(8 * trained, rel=0.02)


@pytest.mark.slow
def test_the_disk_is_that_of_the_run(report, real):
    files = [path for path in (real / "run").rglob("*") if path.is_file()]
    assert in_bytes(figure(report, "at most")) == pytest.approx(
        sum(path.stat().st_size for path in files), rel=0.02
    )


@pytest.mark.parametrize(
    ("there", "new", "keep", "most"),
    [(0, 1, 2, 1), (0, 9, 2, 3), (2, 0, 2, 2), (2, 1, 2, 3), (1, 1, 5, 2), (5, 3, 2, 6)],
)
def test_checkpoints_that_are_there_take_disk_too(there, new, keep, most):
    run = SimpleNamespace(
        n_checkpoints_there=there,
        n_checkpoints=new,
        checkpoint_keep=keep,
        costs=SimpleNamespace(checkpoint_bytes=10, model_bytes=3),
    )
    assert DryRun.disk_bytes.fget(run) == 10 * most + 3


@pytest.mark.slow
def test_frames_that_cannot_be_read_are_left_out_and_named(report, demo_data):
    labels = read_labels(demo_data / "labels.parquet").for_target("grgds")
    n_labelled = int((labels.ok & (labels.replica == 1)).sum())
    found = re.search(r"grgds +(\d+) frames: cannot be read; the first: replica 1", report)
    assert found and int(found[1]) == pytest.approx(n_labelled / 2, rel=0.1)


@pytest.mark.slow
def test_a_run_that_is_there_is_left_as_it_is(real, train):
    before = contents(real)
    output = finish(train(real, "--dry-run", "--max_steps", "6", *KEPT))
    assert "goes on at step 4 of 6" in output
    output = finish(train(real, "--dry-run", "--lr", "0.5", *KEPT), status=2)
    assert "a run with another configuration" in output
    assert contents(real) == before


@pytest.mark.slow
def test_two_processes_that_split_everything_give_one_report(train, tmp_path):
    words = ("--deepspeed.zero_optimization.stage", "3", "--iters_to_accumulate", "1")
    output = finish(train(tmp_path / "base", "--dry-run", *words, processes=2))
    assert figure(output, "processes") == "2"
    assert figure(output, "steps of an epoch").endswith("of 2 items")
    assert not (tmp_path / "base").exists()


def test_memory_that_ends_is_told_from_other_errors():
    assert passes(lambda: torch.ones(3))
    assert not passes(lambda: torch.empty(2**50))
    with pytest.raises(RuntimeError, match="shape"):
        passes(lambda: torch.ones(2, 3) @ torch.ones(2, 3))


@pytest.mark.slow
def test_too_little_memory_ends_with_keys_to_change_and_the_peak_after_them(train, tmp_path):
    words = ("--dry-run", "--device-memory", "0.1", "--iters_to_accumulate", "1")
    output = " ".join(finish(train(tmp_path / "base", *words), status=2).split())
    assert "the run does not fit in 0.1 GiB" in output
    found = re.search(
        r"What to do: set --blocks_per_ckpt 1 --eba.low_memory true; the peak is then (\S+) GiB, "
        "still too much",
        output,
    )
    # Python with torch, DeepSpeed and Protenix takes more than that before any step.
    assert found and 0.3 < float(found[1]) < 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device-memory", "40"), "--device-memory stands without --dry-run"),
        (("--dry-run", "--device-memory", "-1"), "expected GiB, a number above 0, found '-1'"),
        (("--dry-run", "--device-memory", "much"), "a number above 0, found 'much'"),
        (("--dry-run", "--device-memory", "inf"), "a number above 0, found 'inf'"),
        (("--dry-run", "--device-memory", "nan"), "a number above 0, found 'nan'"),
    ],
)
def test_a_memory_that_is_none_is_refused(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        split(words)


def test_the_flag_is_no_key_of_the_configuration():
    arguments, dry = split(["--lr", "-1", "--dry-run", "--device-memory", "40"])
    assert arguments.overrides == {"lr": "-1"} and dry == (40.0,)
    assert split(["--lr", "-1"])[1] is None


@pytest.mark.slow
def test_a_trainer_that_makes_its_own_items_is_refused(train, tmp_path):
    output = finish(train(tmp_path, "--dry-run", "--trainer", "ebmfold"), status=2)
    assert "--dry-run: expected the trainer eba" in output and "Traceback" not in output
