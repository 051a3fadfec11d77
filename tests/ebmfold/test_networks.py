import math

import numpy as np
import pytest
import torch

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold import equivariant_network
from protenix_eba.ebmfold.checkpoint import build_network, load_network, save_network
from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.network import Condition, ScoreNetwork, expected_distances
from protenix_eba.ebmfold.predictions import Predictions
from protenix_eba.ebmfold.sampling import geometric_levels
from protenix_eba.ebmfold.score_matching import (
    CropSettings,
    crop_residues,
    denoising_loss,
    draw_batch,
    draw_levels,
)
from protenix_eba.ebmfold.target import Target, pair_features
from protenix_eba.protein.rigid_motions import random_rotations

SMALL = {
    "paper": ("distance", {"n_blocks": 2, "channels": 8}),
    "corrected": ("distance", {"n_blocks": 2, "channels": 8, "corrected": True}),
    "equivariant": ("equivariant", {"n_layers": 2, "channels": 8}),
    "achiral": ("equivariant", {"n_layers": 2, "channels": 8, "chiral": False}),
}


@pytest.fixture(scope="module")
def domain():
    generator = torch.Generator().manual_seed(5)
    steps = torch.randn(50, 3, generator=generator)
    ca = (3.8 * steps / steps.norm(dim=-1, keepdim=True)).cumsum(0)
    offsets = torch.tensor([[-1.2, 0.7, 0.3], [0, 0, 0], [1.2, 0.8, 0.2], [0.1, -0.9, 1.2]])
    return Domain("made-up", "train", "0.0.0", "ACDEFGHIKL" * 5, ca[:, None] + offsets)


@pytest.fixture(params=SMALL)
def network(request):
    """A small network whose weights are not those of its start, which may be zero."""
    torch.manual_seed(0)
    made = build_network(*SMALL[request.param])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return made.eval()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def batch(domain, generator):
    settings = CropSettings(sizes=(24,), orientation_dropout=0.0, sequence_dropout=0.0)
    return draw_batch([domain, domain], settings, generator)


@pytest.fixture
def condition(network, batch):
    with torch.no_grad():
        return network.condition_of(batch.features, batch.mask, batch.bonded)


SIGMA = torch.tensor([3.0, 0.5])


@torch.no_grad()
def score(network, x, condition):
    return (network(x, SIGMA, condition) - x) / SIGMA[:, None, None] ** 2


def test_what_is_denoised_turns_and_shifts_with_the_trace(network, batch, condition, generator):
    rotation = random_rotations((), generator)
    still = score(network, batch.native, condition)
    moved = score(network, batch.native @ rotation + 20, condition)
    assert still.abs().max() > 1e-3
    torch.testing.assert_close(moved, still @ rotation, rtol=1e-2, atol=2e-3 * still.abs().max())


def test_a_score_from_distances_mirrors_and_a_chiral_one_does_not(network, batch, condition):
    still = score(network, batch.native, condition)
    mirrored = -score(network, -batch.native, condition)
    scale = float(still.abs().max())
    same = torch.allclose(mirrored, still, rtol=1e-2, atol=1e-3 * scale)
    assert same != getattr(network.config, "chiral", False)


def test_the_score_of_distances_has_no_net_force_and_no_torque(batch, generator):
    torch.manual_seed(0)
    for name in ("paper", "corrected"):
        network = build_network(*SMALL[name]).eval().double()
        condition = network.condition_of(batch.features.double(), batch.mask, batch.bonded)
        x = batch.native.double() + 3 * torch.randn(2, 24, 3, generator=generator)
        force = score(network, x, condition)
        scale = force.abs().sum()
        assert force.sum(1).norm() < 1e-9 * scale
        assert torch.linalg.cross(x, force).sum(1).norm() < 1e-9 * scale * x.abs().max()


def test_padding_changes_nothing(network, batch, condition):
    """A trace beside a longer one in a batch is denoised as it is alone."""
    pad = torch.nn.functional.pad
    padded = network.condition_of(
        pad(batch.features, (0, 0, 0, 6, 0, 6)), pad(batch.mask, (0, 6)), pad(batch.bonded, (0, 6))
    )
    with torch.no_grad():
        alone = network(batch.native, SIGMA, condition)
        beside = network(pad(batch.native, (0, 0, 0, 6), value=50.0), SIGMA, padded)
    torch.testing.assert_close(beside[:, :24], alone, rtol=1e-4, atol=1e-3)


def test_the_condition_in_parts_equals_that_of_all_features(network, domain):
    predictions = Predictions(np.full((50, 50, 37), 1 / 37, dtype=np.float32))
    target = Target("a", predictions.subset(np.arange(50)), domain.sequence)
    prepared = network.prepare(target)
    whole = network.condition_of(pair_features(target), prepared.mask, prepared.bonded)
    torch.testing.assert_close(prepared.pair, whole.pair)
    torch.testing.assert_close(prepared.expected, whole.expected)


def test_rows_at_a_time_give_what_all_rows_give(batch, monkeypatch):
    """Without gradients the pair state is updated in blocks of rows, here one at a time."""
    torch.manual_seed(0)
    network = build_network(*SMALL["equivariant"]).eval()
    condition = network.condition_of(batch.features, batch.mask, batch.bonded)
    whole = network(batch.native, SIGMA, condition)
    monkeypatch.setattr(equivariant_network, "_PAIRS_AT_A_TIME", 1)
    with torch.no_grad():
        in_rows = network(batch.native, SIGMA, condition)
    torch.testing.assert_close(in_rows, whole.detach())


def test_the_corrected_output_does_not_grow_with_the_length_and_the_papers_does():
    """On a trace that is repeated: twice as many partners at the same distances."""
    torch.manual_seed(0)
    growth = {}
    for name in ("paper", "corrected"):
        network = build_network(*SMALL[name]).eval()
        one = 5 * torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
        size = []
        for copies in (1, 4):
            n = 20 * copies
            features = torch.full((1, n, n, 189), 0.1)
            flags = torch.ones(1, n), torch.ones(1, n - 1, dtype=torch.bool)
            condition = network.condition_of(features, *flags)
            x = one.repeat(1, copies, 1)
            with torch.no_grad():
                moved = network(x, torch.tensor([1.0]), condition) - x
            size.append(float(moved.square().mean().sqrt()))
        growth[name] = size[1] / size[0]
    assert growth["corrected"] < 1.6 < 2.5 < growth["paper"]


def test_the_paper_has_32_blocks_of_64_channels_and_a_table_of_32_levels():
    network = build_network("distance", {})
    assert len(network.blocks) == 32 and network.last.in_channels == 64
    dilations = [block.convolution.dilation[0] for block in network.blocks[:5]]
    assert dilations == [1, 3, 5, 9, 1]
    assert network.norm.scale.num_embeddings == 32


@pytest.mark.parametrize(("sigma", "level"), [(10.0, 0), (0.01, 31), (50.0, 0), (8.2, 1)])
def test_a_noise_level_finds_its_row_in_the_papers_table(sigma, level):
    network = build_network("distance", {"n_blocks": 1, "channels": 4})
    assert int(network._level(torch.tensor([sigma]))) == level


def test_expected_distances_are_those_of_the_bins():
    features = torch.zeros(2, 189)
    features[0, 88 + 1 + 10] = 1.0  # from 7.0 to 7.5 angstrom
    features[1, 88 + 1] = features[1, 88 + 36] = 0.5
    mean, deviation = expected_distances(features).unbind(-1)
    torch.testing.assert_close(mean, torch.tensor([7.25, 11.0]))
    torch.testing.assert_close(deviation, torch.tensor([0.0, 8.75]))


class Shrinking(ScoreNetwork):
    """The exact denoiser of independent normal coordinates with standard deviation `std`."""

    def __init__(self, std):
        super().__init__()
        self.std = std

    def embed(self, features):
        return features

    def forward(self, x, sigma, condition):
        return x * (self.std**2 / (self.std**2 + sigma**2))[:, None, None]


def plain(n, length):
    mask, bonded = torch.ones(n, length), torch.ones(n, length - 1, dtype=torch.bool)
    return Condition(
        torch.zeros(n, length, length, 1), torch.zeros(n, length, length, 2), mask, bonded
    )


@pytest.mark.parametrize("sigma", [0.5, 5.0])
def test_the_loss_of_the_exact_score_is_what_bayes_theorem_leaves(sigma, generator):
    """Without alignment: posterior variance over sigma^2 = s^2 / (s^2 + sigma^2), for s = 5."""
    native = 5 * torch.randn(64, 100, 3, generator=generator)
    level = torch.full((64,), sigma)
    loss = denoising_loss(Shrinking(5.0), native, plain(64, 100), level, generator, align=False)
    assert float(loss.mean()) == pytest.approx(25 / (25 + sigma**2), rel=0.02)


def test_a_score_of_zero_costs_1_and_alignment_takes_off_2_over_the_length(generator):
    native = 10 * torch.randn(400, 20, 3, generator=generator)
    sigma = torch.full((400,), 0.1)
    zero = Shrinking(1e6)
    free = denoising_loss(zero, native, plain(400, 20), sigma, generator, align=False).mean()
    aligned = denoising_loss(zero, native, plain(400, 20), sigma, generator).mean()
    assert float(free) == pytest.approx(1.0, abs=0.02)
    # Six of 3 L degrees of freedom.
    assert float(aligned) == pytest.approx(1.0 - 6 / (3 * 20), abs=0.02)


def test_the_loss_ignores_padding(generator):
    condition = plain(1, 30)
    condition.mask[:, 20:] = 0
    native = torch.randn(1, 30, 3, generator=generator)
    first, second = (
        denoising_loss(
            Shrinking(1e6), x, condition, torch.ones(1), torch.Generator().manual_seed(0)
        )
        for x in (native, torch.cat([native[:, :20], 99 * native[:, 20:]], 1))
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("two", [False, True])
def test_crops_are_one_or_two_stretches_and_reach_every_residue(two, generator):
    seen, breaks = torch.zeros(30), set()
    for _ in range(300):
        residues = crop_residues(30, 10, two, generator)
        assert len(residues) == 10 and residues.diff().min() >= 1
        jumps = (residues.diff() > 1).nonzero()[:, 0].tolist()
        breaks.update(jumps)
        seen[residues] += 1
    assert seen.min() > 0
    assert breaks == ({4} if two else set())


def test_a_chain_shorter_than_the_crop_is_taken_whole(generator):
    assert crop_residues(7, 10, True, generator).tolist() == list(range(7))


def test_a_batch_is_made_of_the_same_draws_again(domain):
    first, second = (
        draw_batch([domain], CropSettings(), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    torch.testing.assert_close(first.features, second.features)
    torch.testing.assert_close(first.native, second.native)


def test_noise_levels_are_uniform_in_their_logarithm(generator):
    levels = draw_levels(4000, 10.0, 0.1, generator)
    assert levels.min() > 0.1 and levels.max() < 10
    assert float((levels < 1.0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(levels.log().mean()) == pytest.approx(math.log(1.0), abs=0.06)


def test_the_papers_levels_are_the_32_of_its_schedule(generator):
    levels = draw_levels(2000, 10.0, 0.01, generator, n_levels=32).unique()
    assert levels.flip(0).tolist() == pytest.approx(geometric_levels(10.0, 0.01, 32))


@pytest.mark.parametrize("name", ["corrected", "equivariant"])
def test_a_network_learns_one_structure_in_a_few_steps(name, domain, generator):
    torch.manual_seed(0)
    network = build_network(*SMALL[name])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    settings = CropSettings(sizes=(16,), noise_max=0.25, orientation_dropout=0.0)
    losses = []
    for _ in range(40):
        batch = draw_batch([domain] * 4, settings, generator)
        condition = network.condition_of(batch.features, batch.mask, batch.bonded)
        sigma = draw_levels(4, 10.0, 1.0, generator)
        loss = denoising_loss(network, batch.native, condition, sigma, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_a_saved_network_gives_the_same_numbers(network, batch, condition, tmp_path):
    save_network(tmp_path / "a.safetensors", network)
    loaded = load_network(tmp_path / "a.safetensors")
    assert loaded.config == network.config
    again = loaded.condition_of(batch.features, batch.mask, batch.bonded)
    torch.testing.assert_close(
        score(loaded, batch.native, again), score(network, batch.native, condition)
    )


def test_files_and_names_that_are_no_network_are_refused(tmp_path):
    whole = tmp_path / "a.safetensors"
    save_network(whole, build_network(*SMALL["equivariant"]))
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "text").write_text("hello")
    for name in ("cut", "text", "absent"):
        with pytest.raises(UserError, match="weights"):
            load_network(tmp_path / name)
    with pytest.raises(UserError, match="channel"):
        build_network("equivariant", {"chanels": 8})
    with pytest.raises(UserError, match="equivariant"):
        build_network("transformer", {})
