"""Training of the C-alpha score network through `protenix-train`, in processes of its own."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from warm import finish, kill_at

from protenix_eba.cli.train import run
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.checkpoint import load_network
from protenix_eba.ebmfold.domain_loader import DomainLoader
from protenix_eba.ebmfold.domains import Domain, write_domains
from protenix_eba.ebmfold.score_matching import CropSettings

CONFIG = """
trainer: ebmfold
project: test
run_name: run
max_steps: 6
lr: 0.002
lr_scheduler: constant
warmup_steps: 1
iters_to_accumulate: 2
log_interval: 1
checkpoint_interval: 2
eval_interval: 3
ema_decay: 0.9
use_wandb: false
ebmfold:
  n_layers: 1
  channels: 8
  batch_size: 2
  crop_sizes: [12, 16]
  validation_domains: 2
  validation_decoys: 1
"""
FILES = ("model", "model_ema", "best")


def made_up(name, split, seed):
    """A chain of 24 residues with steps of 3.8 angstrom in random directions."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(24, 3, generator=generator)
    ca = (3.8 * steps / steps.norm(dim=-1, keepdim=True)).cumsum(0)
    offsets = torch.tensor([[-1.2, 0.7, 0.3], [0, 0, 0], [1.2, 0.8, 0.2], [0.1, -0.9, 1.2]])
    return Domain(name, split, f"1.10.{seed}", "ACDEFGHIKLMN" * 2, ca[:, None] + offsets)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    splits = ["train"] * 5 + ["valid"] * 2
    write_domains(
        folder / "set.npz", [made_up(f"d{n}", split, n) for n, split in enumerate(splits)]
    )
    path = folder / "fold.yaml"
    path.write_text(f"{CONFIG}  domains: {folder / 'set.npz'}\n", encoding="utf-8")
    return path


def words_of(config, base, *words):
    return ["--plugin", "protenix_eba", "--config", str(config), "--base_dir", str(base), *words]


@pytest.fixture(scope="module")
def train(protenix_train):
    def start(config, base, *words, launcher=()):
        return protenix_train(*words_of(config, base, *words), launcher=launcher)

    return start


@pytest.fixture(scope="module")
def uninterrupted(train, config, tmp_path_factory):
    base = tmp_path_factory.mktemp("whole")
    finish(train(config, base))
    return base / "run"


def assert_same_weights(folder, other, **tolerance):
    for name in FILES:
        ours, theirs = (load_file(f / f"{name}.safetensors") for f in (folder, other))
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], **tolerance, msg=f"{name} {key}")


@pytest.mark.slow
def test_training_leaves_networks_that_load_and_a_log_with_held_out_lddt(uninterrupted, read_log):
    start, end = (load_network(uninterrupted / f"{name}.safetensors") for name in ("best", "model"))
    assert type(start) is type(end)
    assert [row["step"] for row in read_log(uninterrupted / "log.csv")] == [1, 2, 3, 4, 5, 6]
    rows = read_log(uninterrupted / "validation.csv")
    assert [row["step"] for row in rows] == [0, 3, 6]
    assert all(0 < row["lddt_ca"] < 1 and row["loss"] > 0 for row in rows)
    at = [name for name in rows[0] if name.startswith("loss_at_")]
    assert rows[0]["loss"] == pytest.approx(np.mean([rows[0][name] for name in at]), rel=1e-6)


@pytest.mark.slow
def test_a_killed_training_that_is_resumed_equals_the_uninterrupted_one(
    train, config, uninterrupted, tmp_path, read_log
):
    kill_at(train(config, tmp_path), tmp_path / "run/checkpoints/step_0000002/complete.json")
    output = finish(train(config, tmp_path))
    assert f"resumed {tmp_path / 'run'} at step" in " ".join(output.split())
    assert_same_weights(tmp_path / "run", uninterrupted, rtol=0, atol=0)
    for name in ("log.csv", "validation.csv"):
        assert read_log(tmp_path / "run" / name) == read_log(uninterrupted / name)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(train, config, uninterrupted, tmp_path):
    launcher = (Path(sys.executable).parent / "torchrun", "--standalone", "--nproc_per_node", "2")
    split = ("--iters_to_accumulate", "1", "--deepspeed.zero_optimization.stage", "1")
    finish(train(config, tmp_path, *split, launcher=launcher))
    assert_same_weights(tmp_path / "run", uninterrupted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ebmfold.domains=",), "domains is not set"),
        (("--ebmfold.domains", "absent.npz"), "absent.npz"),
        (("--ebmfold.network", "transformer"), "one of equivariant, distance, paper"),
        (("--ebmfold.network", "paper"), "ebmfold.n_levels"),
        (("--ebmfold.level_last", "20"), "above ebmfold.level_last"),
        (("--ebmfold.crop_sizes", "2,3"), "ebmfold.crop_sizes"),
        (("--deepspeed.zero_optimization.stage", "3"), "expected 0, 1 or 2"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_by_name(config, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        run(words_of(config, tmp_path, *words))


@pytest.fixture
def loader():
    def make(batch_items=3, n_domains=7):
        domains = [made_up(f"d{n}", "train", n) for n in range(n_domains)]
        crops = CropSettings(sizes=(8,))
        return DomainLoader(domains, crops, batch_size=2, batch_items=batch_items, seed=4)

    return make


def test_each_domain_is_seen_once_in_an_epoch_and_epochs_differ(loader):
    names = [domain.name for item in range(14) for domain in loader().domains(item)]
    epochs = [names[first : first + 7] for first in range(0, 28, 7)]
    assert all(len(set(epoch)) == 7 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_item_is_the_same_whenever_it_is_asked_for(loader):
    one, other = loader()[5], loader()[5]
    torch.testing.assert_close(one.features, other.features, rtol=0, atol=0)
    assert not torch.equal(loader()[4].native, one.native)
    noise = [torch.randn(3, generator=loader().noise(5)) for _ in range(2)]
    assert torch.equal(*noise)


def test_the_items_of_a_step_are_shared_out_to_all_ranks(loader):
    shares = [list(loader().share(range(2, 4), rank, 3)) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(6, 12))
    assert all(len(share) == 2 for share in shares)
