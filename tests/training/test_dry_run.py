import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from warm import finish

from protenix_eba.cli.train import split
from protenix_eba.core.errors import UserError
from protenix_eba.energy.table import labels_from_rows, read_labels, write_labels
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.features import protein_features
from protenix_eba.host.weights import load_checkpoint
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.rehearse.data_check import unlabelled, unreadable, used_replicas
from protenix_eba.training.rehearse.memory_advice import Change, _halves, passes
from protenix_eba.training.rehearse.peak_memory import Memory, MemoryMeter
from protenix_eba.training.rehearse.rehearsal import typical_items
from protenix_eba.training.rehearse.report import DryRun
from protenix_eba.training.rehearse.stand_in import StandIn


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
        r"What to do: set --blocks_per_ckpt 1 --eba.low_memory true and --eba.n_noise 1 "
        r"--eba.n_conformers 2 \(which changes what is learnt from\); the peak is then (\S+) GiB, "
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


def test_a_flag_with_a_value_is_refused_with_what_to_write():
    with pytest.raises(UserError, match="--dry-run=yes: --dry-run takes no value"):
        split(["--lr", "-1", "--dry-run=yes"])


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--dry_run", "--dry-run"),
        ("--dryrun", "--dry-run"),
        ("--device_memory=40", "--device-memory"),
        ("--print_config", "--print-config"),
    ],
)
def test_an_option_in_another_spelling_is_refused_with_the_right_one(word, meant):
    with pytest.raises(UserError, match=f"did you mean {meant}\\?"):
        split(["--lr", "-1", word])


@pytest.mark.slow
def test_a_trainer_of_another_kind_of_data_is_refused_with_what_to_do(train, tmp_path):
    output = " ".join(
        finish(train(tmp_path, "--dry-run", "--trainer", "ebmfold"), status=2).split()
    )
    assert "--dry-run measures the trainers eba and on_policy, found ebmfold" in output
    assert "try a small --max_steps" in output and "Traceback" not in output


def test_unusable_labels_of_other_replicas_are_not_counted(demo_data, tmp_path):
    labels = read_labels(demo_data / "labels.parquet")
    rows = labels.rows()
    for replica, n_bad in ((1, 1), (2, 2), (3, 4)):
        of_it = [row for row in rows if row["target"] == "grgds" and row["replica"] == replica]
        for row in of_it[:n_bad]:
            row["status"] = "failed"
    path = tmp_path / "labels.parquet"
    write_labels(path, labels_from_rows(rows, labels.provenance))
    for replicas, expected in (({1, 2, 3}, 7), ({1, 3}, 5), (set(), 0)):
        found = unlabelled(EBAConfig(labels=str(path)), {"grgds": replicas})
        assert sum(one.n_frames for one in found) == expected


def test_replicas_that_a_run_uses_are_those_it_trains_on_and_holds_out(demo_data):
    values = {"data_dir": str(demo_data), "replicas": (2,), "validation_replicas": (3,)}
    config = EBAConfig(**values, validation_targets=("grgds",))
    found = used_replicas(config, {"grgds", "thymopentin"})
    assert found == {"grgds": {1, 2, 3}, "thymopentin": {2, 3}}


@pytest.mark.slow
def test_a_temperature_that_the_run_has_measured_is_not_measured_again(train, tmp_path):
    words = ("--eba.diffusion_temperature", "auto", "--eba.weight_lddt", "0", "--max_steps", "1")
    words += ("--eba.n_noise", "16", "--iters_to_accumulate", "1", "--eba.n_conformers", "2")
    words += ("--eba.validation_replicas=",)
    row = "T (eba.diffusion_temperature: auto)"
    assert figure(finish(train(tmp_path, "--dry-run", *words)), row).endswith(" s, once")
    finish(train(tmp_path, *words))
    slope = json.loads((tmp_path / "run/temperature.json").read_text())["slope"]
    output = finish(train(tmp_path, "--dry-run", *words))
    assert f"T = {slope:.4g} " in " ".join(output.split()) and row not in output


@pytest.mark.slow
def test_items_in_a_row_that_cannot_be_used_are_told_without_a_folder_that_is_gone(train, tmp_path):
    words = ("--dry-run", "--lr", "1e20", "--iters_to_accumulate", "16")
    output = " ".join(finish(train(tmp_path, *words), status=2).split())
    assert "the run would stop: 20 items in a row had a loss that is not finite" in output
    assert "the last one: the loss is nan" in output
    told = output[output.index("the run would stop") :]
    assert "listed" not in told and "errors" not in told


SAMPLES = ("--trainer", "on_policy", "--eba.dataset", "replay", "--replay.refresh_steps", "2")


@pytest.mark.slow
def test_a_round_on_samples_and_md_is_measured_before_there_are_samples(
    train, tmp_path, demo_data, real
):
    words = ("--replay.md_share", "0.5", "--replay.new_samples", "10", "--replay.max_samples", "10")
    base = tmp_path / "none"
    output = finish(train(base, "--dry-run", *SAMPLES, *words))
    assert not base.exists()
    # Ten samples and ten frames of four targets, three at a time.
    assert figure(output, "items of an epoch") == str(4 * (20 // 3))
    assert figure(output, "largest item") == figure(
        finish(train(real, "--dry-run", *KEPT)), "largest item"
    )
    assert figure(output, "refreshes of the replay buffer").startswith("2, ")


@pytest.mark.slow
def test_a_round_on_samples_of_sequences_alone_is_measured(train, tmp_path, small_run):
    sequences = tmp_path / "sequences.fasta"
    sequences.write_text(">grgds\nGRGDS\n>thymopentin\nRKDVY\n")
    words = ("--eba.data_dir=", "--eba.labels=", "--eba.replicas=", "--eba.validation_replicas=")
    words += (
        "--replay.sequences",
        sequences,
        "--replay.new_samples",
        "6",
        "--replay.md_share",
        "0",
    )
    words += ("--replay.max_samples", "6", "--replay.energy", "initial")
    output = finish(train(tmp_path / "none", "--dry-run", *SAMPLES, *words))
    assert figure(output, "items of an epoch") == "4"
    # RKDVY: 11 + 9 + 8 + 7 + 12 heavy atoms and the terminal oxygen.
    assert figure(output, "largest item") == "thymopentin: 5 residues, 48 atoms"


def test_stand_ins_are_as_dense_as_a_protein_and_the_same_each_time():
    protein = protein_features(Protein("x", ("ACDEFGHIKLMNPQRSTVWY" * 5,)))
    one = StandIn(protein, 3)
    xyz = one.coordinates([2, 0])
    assert torch.equal(xyz[1:], one.coordinates([0]))
    assert not torch.equal(xyz[0], xyz[1])
    volume = float((xyz[0].amax(dim=0) - xyz[0].amin(dim=0)).prod())
    assert xyz.shape[1] / volume == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(
    ("value", "smallest", "halves"), [(9, 8, [8]), (40, 8, [20, 10, 8]), (3, 2, [2]), (2, 2, [])]
)
def test_what_is_halved_ends_at_its_limit(value, smallest, halves):
    assert list(_halves(value, smallest)) == halves


def test_advice_says_which_keys_change_what_is_learnt_from():
    change = Change("--blocks_per_ckpt 1", Memory(2**30), True, "--eba.n_noise 4")
    assert change.sentence == (
        "set --blocks_per_ckpt 1 and --eba.n_noise 4 (which changes what is learnt from); the peak "
        "is then 1.00 GiB"
    )
