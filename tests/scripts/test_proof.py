"""What docs/proof.md says, on models in closed form and, for a few steps, on the shipped start."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from protenix_eba.protein.rigid_motions import random_rotations
from protenix_eba.sampling.samplers import sample_coordinates
from protenix_eba.sampling.settings import SamplerSettings
from protenix_eba.training.denoising_error import ERROR_WEIGHTS, DenoisingErrors, squared_error
from protenix_eba.training.energy_losses import eba, energy_weights
from protenix_eba.training.noise import NoiseSettings
from protenix_eba.training.replay.trainer import rounds

CLOSED, OPEN = 4.0, 10.0  # angstrom: distances of two atoms
SHARE = 0.4


def pair_denoiser(*, aligned, share=SHARE):
    """The best denoiser of two atoms whose distance is 4 or 10 angstrom, in any orientation.

    The vector r between two noisy atoms has noise s = sqrt(2) sigma on each axis. Averaged over
    orientations, p(r | d) = exp(-(r^2 + d^2) / 2 s^2) sinh(k) / k with k = r d / s^2, and the mean
    vector given r and d is d (coth k - 1 / k) along r. Superposed on r it is d along r.
    """
    lengths = torch.tensor([CLOSED, OPEN], dtype=torch.float64)
    share = torch.as_tensor(share, dtype=torch.float64)
    log_share = torch.stack([share, 1 - share]).log()

    def denoise(x, sigma):
        x = x.double()
        vector, centre = x[:, 1] - x[:, 0], x.mean(dim=1)
        r, variance = vector.norm(dim=-1, keepdim=True), 2 * sigma.double()[:, None] ** 2
        k = r * lengths / variance
        log_p = (
            log_share - (r - lengths) ** 2 / (2 * variance) + (1 - (-2 * k).exp()).log() - k.log()
        )
        length = lengths if aligned else lengths * (1 / torch.tanh(k) - 1 / k)
        mean = (torch.softmax(log_p, dim=-1) * length).sum(-1, keepdim=True) * vector / r
        return torch.stack([centre - mean / 2, centre + mean / 2], dim=1).float()

    return denoise


def closed_share(denoise, n=600, steps=80):
    generators = [torch.Generator().manual_seed(i) for i in range(n)]
    settings = SamplerSettings(n_steps=steps, gamma0=0.0, s_max=10.0)
    x = sample_coordinates(denoise, 2, generators, settings, torch.device("cpu"))
    distance = (x[:, 1] - x[:, 0]).norm(dim=-1).numpy()
    assert (np.abs(distance[:, None] - [CLOSED, OPEN]).min(axis=1) < 0.5).mean() > 0.9
    return (distance < (CLOSED + OPEN) / 2).mean()


def test_the_posterior_mean_samples_the_populations_and_the_superposed_one_too_few_closed_ones():
    error = 3 * np.sqrt(SHARE * (1 - SHARE) / 600)
    assert closed_share(pair_denoiser(aligned=False)) == pytest.approx(SHARE, abs=error + 0.01)
    assert closed_share(pair_denoiser(aligned=True)) < 0.5 * SHARE


# The experiment of the proof: the only parameter is the share of closed pairs.

NOISE = NoiseSettings(mean=math.log(3.0 / 16.0), std=1.0, sigma_data=16.0)
TRUTH = 0.05


def likelihood_errors(logit, distance, draw, n_noise):
    """`[K, S]` errors of the model with this share, weighted so that T is 1."""
    sigma = NOISE.quantiles(n_noise, draw)
    clean = torch.zeros(len(distance), 1, 2, 3)
    clean[:, 0, 1, 0] = distance
    noisy = clean + sigma[:, None, None] * torch.randn(1, n_noise, 2, 3, generator=draw)
    flat = noisy.flatten(0, 1)
    denoised = pair_denoiser(aligned=False, share=torch.sigmoid(logit))(
        flat, sigma.repeat(len(distance))
    )
    predicted, mask = denoised.view(noisy.shape), torch.ones(len(distance), 2)
    mse = squared_error(predicted, clean, mask)
    nothing = torch.zeros_like(mse)
    return DenoisingErrors(mse, *[nothing] * 3, sigma, mask.sum(1)).total(
        ERROR_WEIGHTS["likelihood"], NOISE
    )


def aligned_share(steps=300, n_conformers=8, n_noise=128):
    """Share of closed pairs after EBA with E = -V on conformers with the share under U + V."""
    draw = torch.Generator().manual_seed(0)
    start = torch.tensor(math.log(SHARE / (1 - SHARE)))
    logit = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logit], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # exp(V / kT) of closed pairs over that of open ones leads from SHARE to TRUTH.
    log_ratio = math.log(TRUTH / (1 - TRUTH)) - math.log(SHARE / (1 - SHARE))
    for _ in range(steps):
        closed = torch.rand(n_conformers, generator=draw) < SHARE
        distance = torch.where(closed, CLOSED, OPEN)
        weights = energy_weights(-log_ratio * closed.double())
        seed = int(torch.randint(2**31, (1,), generator=draw))
        errors, reference = (
            likelihood_errors(value, distance, torch.Generator().manual_seed(seed), n_noise)
            for value in (logit, start)
        )
        loss = eba(
            errors, weights, diffusion_temperature=1.0, expectation="official",
            reference_errors=reference,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return float(torch.sigmoid(logit.detach()))


def test_eba_with_minus_the_bias_reaches_the_populations_without_it_at_t_of_1():
    share = aligned_share()
    assert abs(share - TRUTH) < 0.02
    assert divergence_of_truth(share) < 0.02 * divergence_of_truth(SHARE)


def divergence_of_truth(share):
    """Of the truth from a share of closed pairs, nats."""
    return TRUTH * math.log(TRUTH / share) + (1 - TRUTH) * math.log((1 - TRUTH) / (1 - share))


# The same on policy: conformers are what the model samples at the time, and nothing else. At equal
# energies the populations would be as the areas of the spheres, 4^2 : 10^2; the energy of closed
# pairs is lower by just so much that half of them are.

HALF = 0.5
WRONG = 0.1
REDUCED = -2 * math.log(OPEN / CLOSED)  # of closed pairs, in kT


def sampled_closed(logit, n, seed):
    """Of `n` samples of the model, which are closed."""
    denoise = pair_denoiser(aligned=False, share=torch.sigmoid(logit.detach()))
    generators = [torch.Generator().manual_seed(seed * 10_000 + i) for i in range(n)]
    settings = SamplerSettings(n_steps=40, gamma0=0.0, s_max=10.0)
    x = sample_coordinates(denoise, 2, generators, settings, torch.device("cpu"))
    return (x[:, 1] - x[:, 0]).norm(dim=-1) < (CLOSED + OPEN) / 2


def trained_share(buffer, steps=240, refresh_steps=20, n_conformers=8, n_noise=64):
    """Share of closed pairs after EBA without a reference on what `buffer` gives each round."""
    draw = torch.Generator().manual_seed(1)
    logit = torch.tensor(math.log(WRONG / (1 - WRONG)), requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for part in rounds(range(steps), refresh_steps):
        closed = buffer(logit, part.start)
        for _ in part:
            rows = torch.randperm(len(closed), generator=draw)[:n_conformers]
            distance = torch.where(closed[rows], CLOSED, OPEN)
            errors = likelihood_errors(logit, distance, draw, n_noise)
            weights = energy_weights(REDUCED * closed[rows].double())
            loss = eba(errors, weights, diffusion_temperature=1.0, expectation="official")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return float(torch.sigmoid(logit.detach()))


def test_on_policy_reaches_the_boltzmann_ratio_and_a_proposal_without_a_state_cannot():
    on_policy = trained_share(lambda logit, step: sampled_closed(logit, 48, step))
    assert abs(on_policy - HALF) < 0.08
    only_open = trained_share(lambda logit, step: torch.zeros(48, dtype=torch.bool))
    assert abs(only_open - WRONG) < 0.1 < HALF - only_open


def test_the_tables_of_the_proof_follow_from_its_stored_results(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    report = importlib.import_module("proof_report")
    parts, page = report.derived(), report.PAGE.read_text(encoding="utf-8")
    assert report.wrong_tables(parts, page) == []
    changed = page.replace("| EBA |", "| EBA | 0", 1)
    assert report.wrong_tables(parts, changed)  # a number that is changed is noticed


@pytest.fixture
def errors(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    return importlib.import_module("proof_errors")


def two_shapes():
    draw = torch.Generator().manual_seed(0)
    shapes = 4.0 * torch.randn(2, 12, 3, generator=draw)
    return shapes - shapes.mean(dim=1, keepdim=True), random_rotations((), draw), draw


def test_the_posterior_mean_of_a_known_shape_is_that_shape_turned_towards_the_noise(errors):
    shapes, rotation, draw = two_shapes()
    true = shapes[1] @ rotation
    noisy = true + 0.1 * torch.randn(true.shape, generator=draw)
    found = errors.posterior_mean(noisy - noisy.mean(dim=0), shapes, 0.1)
    assert float((found - true).square().mean().sqrt()) < 0.1
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(true, true))


def test_the_posterior_mean_weighs_two_shapes_by_their_likelihoods(errors):
    """Against a sum over 20,000 random rotations of both, where noise hides which one it was."""
    shapes, _, draw = two_shapes()
    shapes = torch.stack([shapes[0], shapes[0] + 0.3 * (shapes[1] - shapes[0])])
    sigma = 2.0
    noisy = shapes[0] + sigma * torch.randn(12, 3, generator=draw)
    noisy = noisy - noisy.mean(dim=0)
    turned = shapes[:, None] @ random_rotations((20_000,), draw)
    log_weight = -(noisy - turned).square().sum((-1, -2)).flatten() / (2 * sigma**2)
    expected = (log_weight.softmax(0)[:, None, None] * turned.flatten(0, 1)).sum(0)
    found = errors.posterior_mean(noisy, shapes, sigma)
    assert float((found - expected).square().mean().sqrt()) < 0.15 * sigma
