"""Likelihood weights and the T of `auto`, on denoisers whose density can be written down."""

import json
import math
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.training.denoising_error import (
    ERROR_WEIGHTS,
    LIKELIHOOD_RANGE,
    DenoisingErrors,
    ErrorWeights,
    aligned_mse,
    by_edm,
    edm_weight,
)
from protenix_eba.training.energy_losses import eba, log_model_weights
from protenix_eba.training.noise import NoiseSettings
from protenix_eba.training.temperature import Calibration, calibrate, moments, read_or_measure

N_ATOMS = 2
D = 3 * N_ATOMS
K = 6
NOISE = NoiseSettings(-1.2, 1.5, 2.0)
LIKELIHOOD = ERROR_WEIGHTS["likelihood"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass
class Mixture:
    """A mixture of Gaussians in 3 N dimensions: `[C, D]` means, `[C]` widths and shares."""

    means: Tensor
    widths: Tensor
    shares: Tensor

    def _log_parts(self, x, variance):
        squared = ((x[..., None, :] - self.means) ** 2).sum(-1)
        return self.shares.log() - 0.5 * (
            squared / variance + D * torch.log(2 * math.pi * variance)
        )

    def log_density(self, x):
        return torch.logsumexp(self._log_parts(x, self.widths**2), -1)

    def denoise(self, x, sigma):
        """The posterior mean of what `x`, with noise of `sigma`, was."""
        variance = self.widths**2 + sigma[..., None] ** 2
        share = torch.softmax(self._log_parts(x, variance), -1)
        kept = (self.widths**2 / variance)[..., None]
        return (share[..., None] * (self.means + kept * (x[..., None, :] - self.means))).sum(-2)

    def sample(self, n, draw):
        part = torch.multinomial(self.shares, n, replacement=True, generator=draw)
        noise = torch.randn(n, D, generator=draw, dtype=torch.float64)
        return self.means[part] + self.widths[part][:, None] * noise

    def errors(self, x, sigma, draw):
        """As `denoising_errors`, without the motion: these atoms know where they are."""
        noisy = x[:, None] + sigma[:, None] * torch.randn(
            len(sigma), D, generator=draw, dtype=torch.float64
        )
        squared = ((x[:, None] - self.denoise(noisy, sigma.expand(len(x), -1))) ** 2).sum(-1)
        n_atoms = torch.full((len(x),), N_ATOMS)
        nothing = torch.zeros_like(squared)
        return DenoisingErrors(squared / D, 1.0 + nothing, nothing, nothing, sigma, n_atoms)


GAUSSIAN = Mixture(*(torch.tensor(v, dtype=torch.float64) for v in ([[0.0] * D], [0.7], [1.0])))
MIXTURE = Mixture(
    2 * torch.randn(4, D, generator=generator(3), dtype=torch.float64),
    torch.tensor([0.5, 0.8, 0.6, 1.0], dtype=torch.float64),
    torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
)


def drawn(n, draw, noise=NOISE, strata=False):
    """`[n]` levels of the training's distribution, each for itself or one in each n-th of it."""
    if strata:
        share = (torch.arange(n) + torch.rand(n, generator=draw, dtype=torch.float64)) / n
        normal = torch.special.ndtri(share[torch.randperm(n, generator=draw)])
    else:
        normal = torch.randn(n, generator=draw, dtype=torch.float64)
    return noise.sigma_data * torch.exp(noise.mean + noise.std * normal)


# Weights of the likelihood.


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("model", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_the_mean_error_with_likelihood_weights_is_minus_log_p_up_to_a_constant(model, strata):
    draw = generator()
    x = model.sample(K, draw)
    sigma = drawn(40_000, draw, strata=strata)
    difference = model.errors(x, sigma, draw).total(LIKELIHOOD, NOISE).diff(dim=0)
    standard_error = difference.std(dim=1) / math.sqrt(len(sigma))
    expected = -model.log_density(x).diff()
    # What lies beyond the range of levels adds less than 0.01.
    assert ((difference.mean(dim=1) - expected).abs() < 3.5 * standard_error + 0.01).all()
    assert (standard_error < 0.1).all() and (expected.abs() > 1).any()


def test_at_t_1_the_models_weights_are_the_ratios_of_its_density_if_errors_are_averaged_first():
    """A model that is right has nothing to learn under `official`; under `bound` it has."""
    draw = generator(5)
    x = MIXTURE.sample(K, draw)
    errors = MIXTURE.errors(x, drawn(20_000, draw, strata=True), draw).total(LIKELIHOOD, NOISE)
    right = torch.softmax(MIXTURE.log_density(x), dim=0)
    options = {"diffusion_temperature": 1.0, "expectation": "official"}
    found = log_model_weights(errors, **options).exp()[:, 0]
    torch.testing.assert_close(found, right, rtol=0.2, atol=0.005)
    entropy = torch.special.entr(right).sum()
    averaged = eba(errors, right, **options) - entropy
    single = eba(errors, right, diffusion_temperature=1.0) - entropy
    assert averaged < 0.01 and single > 0.5


@pytest.mark.parametrize(("std", "figure"), [(0.75, 11.2), (1.5, 9.4), (2.5, 11.3)])
def test_the_noise_of_the_estimate_is_what_the_theory_page_says(std, figure):
    """Standard deviation of a difference in -log p from one noise sample, over pairs."""
    noise, draw = NoiseSettings(-1.2, std, 2.0), generator(1)
    x = MIXTURE.sample(16, draw)
    errors = MIXTURE.errors(x, drawn(20_000, draw, noise), draw).total(LIKELIHOOD, noise)
    found = errors.diff(dim=0).var(dim=1).mean().sqrt().item()
    assert found == pytest.approx(figure, rel=0.05)
    # The noise is shared: most of it cancels in a difference.
    assert errors.std(dim=1).mean() > 2 * found


def test_levels_in_strata_hardly_help_a_difference_whose_noise_is_that_of_the_structures():
    """Standard deviation of the mean over 8 noise samples."""
    draw = generator(1)
    x = MIXTURE.sample(16, draw)
    found = []
    for strata in (False, True):
        sigma = torch.cat([drawn(8, draw, strata=strata) for _ in range(1000)])
        errors = MIXTURE.errors(x, sigma, draw).total(LIKELIHOOD, NOISE).diff(dim=0)
        found.append(errors.unflatten(1, (1000, 8)).mean(2).var(dim=1).mean().sqrt().item())
    assert found == pytest.approx([3.3, 3.2], rel=0.05)


def test_levels_beyond_the_range_and_absent_atoms_do_not_count():
    sigma = NOISE.sigma_data * torch.exp(torch.tensor([-1.2 - 4.51, -1.2, -1.2 + 4.49]))
    mse = torch.ones(2, 3)
    nothing = torch.zeros(2, 3)
    errors = DenoisingErrors(mse, *[nothing] * 3, sigma, torch.tensor([4, 8]))
    total = errors.total(LIKELIHOOD, NOISE)
    expected = 12 * 1.5 * math.sqrt(2 * math.pi) / sigma[1] ** 2
    assert (total[:, 0] == 0).all() and (total[:, 2] > 0).all()
    torch.testing.assert_close(total[0, 1], expected)
    torch.testing.assert_close(total[1], 2 * total[0])


# The T of `auto`.


def calibrated(model, kind, n_items=64, seed=0):
    draw, sigma = generator(seed), NOISE.grid(32, LIKELIHOOD_RANGE)
    keep = torch.ones(K, dtype=torch.bool)
    rows = []
    for _ in range(n_items):
        x = model.sample(K, draw)
        halves = [model.errors(x, sigma, draw) for _ in range(2)]
        rows.append(moments(halves, ERROR_WEIGHTS[kind], NOISE, keep))
    return calibrate(rows)


@pytest.mark.parametrize("kind", ["paper", "upstream"])
def test_t_of_a_gaussian_is_the_one_that_can_be_written_down(kind):
    """D = s^2 x / (s^2 + sigma^2), -log p = |x|^2 / (2 s^2), E l = A |x|^2, both up to constants.

    The error is exactly linear in -log p, so that T = 1 / (2 s^2 A) is right for all conformers.
    """
    s2, sigma = 0.7**2, NOISE.grid(2000, 6.0).double()
    weight = 1.0 if kind == "paper" else 4 * edm_weight(sigma, NOISE.sigma_data)
    density = NOISE.density(sigma)
    slope = (density * weight * sigma**4 / (s2 + sigma**2) ** 2).sum() / density.sum() / D
    found = calibrated(GAUSSIAN, kind, n_items=256)
    assert abs(found.slope - 1 / (2 * s2 * slope.item())) < 3 * found.standard_error
    assert found.standard_error < 0.02 * found.slope
    assert found.correlation == pytest.approx(1, abs=0.02)


def test_t_of_a_mixture_is_the_regression_of_its_log_density_on_the_error():
    found = calibrated(MIXTURE, "upstream", n_items=256)
    draw, sigma = generator(7), NOISE.grid(256, LIKELIHOOD_RANGE)
    x = MIXTURE.sample(600, draw).view(-1, K, D)
    density = NOISE.density(sigma)
    density = density / density.sum()
    pairs = []
    for group in x:
        errors = MIXTURE.errors(group, sigma.repeat(8), draw).total(
            ERROR_WEIGHTS["upstream"], NOISE
        )
        mean = (errors * density.repeat(8)).sum(1) / 8
        pairs.append(
            (mean - mean.mean(), MIXTURE.log_density(group).mean() - MIXTURE.log_density(group))
        )
    error, surprise = (torch.cat(part) for part in zip(*pairs, strict=True))
    expected = (error * surprise).sum() / (error**2).sum()
    assert found.slope == pytest.approx(expected.item(), rel=0.05)
    assert 0.9 < found.correlation < 1.02


def test_the_rigid_motion_does_not_matter_where_the_model_knows_the_fold():
    """A Gaussian of 1 angstrom about 33 atoms; T as for one Gaussian above."""
    noise, weights, n = NoiseSettings(-1.2, 1.5, 16.0), ErrorWeights(1.0, 0.0, by_edm), 33
    draw, sigma = generator(0), noise.grid(32, LIKELIHOOD_RANGE)
    fold = torch.cumsum(torch.randn(n, 3, generator=draw), 0)
    rows = []
    for _ in range(64):
        x = fold + torch.randn(3, n, 3, generator=draw)
        halves = []
        for _ in range(2):
            noisy = x[:, None] + sigma[:, None, None] * torch.randn(32, n, 3, generator=draw)
            denoised = fold + (noisy - fold) / (1 + sigma**2)[:, None, None]
            mse = aligned_mse(denoised, x, torch.ones(3, n))
            halves.append(DenoisingErrors(mse, mse, mse, mse, sigma, torch.full((3,), n)))
        rows.append(moments(halves, weights, noise, torch.ones(3, dtype=torch.bool)))
    found, density = calibrate(rows), noise.density(sigma)
    slope = density * edm_weight(sigma, 16.0) * sigma**4 / (1 + sigma**2) ** 2
    expected = 3 * n / (2 * slope.sum() / density.sum()).item()
    assert abs(found.slope - expected) < 3 * found.standard_error < 0.12 * expected


def test_t_of_the_likelihoods_own_weights_is_1():
    found = calibrated(MIXTURE, "likelihood", n_items=4)
    assert found.slope == 1 and found.standard_error == pytest.approx(0, abs=1e-12)


def test_noise_in_the_errors_does_not_make_t_smaller():
    """The slope from one half alone is biased towards 0; that of two is not."""
    draw = np.random.default_rng(0)
    truth = draw.normal(size=(3000, K))
    b1, b2, e1, e2 = (
        scale * truth + noise * draw.normal(size=truth.shape)
        for scale, noise in ((5.0, 5.0), (5.0, 5.0), (1.0, 1.0), (1.0, 1.0))
    )

    def product(first, second):
        mine, theirs = (v - v.mean(axis=1, keepdims=True) for v in (first, second))
        return (mine * theirs).sum(axis=1)

    names = ("bound_error", "error_error", "bound_bound")
    columns = (product(b1, e2), product(e1, e2), product(b1, b2))
    found = calibrate(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    assert abs(found.slope - 5) < 3 * found.standard_error < 0.6
    assert found.correlation == pytest.approx(1, abs=0.05)
    assert product(b1, e1).sum() / product(e1, e1).sum() < 3


@pytest.mark.parametrize("rows", [0, 64])
def test_errors_without_a_signal_are_refused(rows):
    draw = np.random.default_rng(1)
    names = ("bound_error", "error_error", "bound_bound")
    table = [dict(zip(names, draw.normal(size=3), strict=True)) for _ in range(rows)]
    with pytest.raises(UserError, match=f"auto finds no T.*{rows} groups"):
        calibrate(table)


@pytest.fixture
def one_process(tmp_path):
    if dist.is_initialized():  # Left by a test that trained in this very process.
        assert dist.get_world_size() == 1
        yield
        return
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_resumed_run_takes_the_number_that_it_began_with(tmp_path, one_process):
    path, first = tmp_path / "temperature.json", Calibration(1 / 3, 0.01, 0.9, 64)
    assert read_or_measure(path, lambda: first) == first
    assert read_or_measure(path, lambda: pytest.fail("measured again")) == first
    path.write_text("{")
    with pytest.raises(UserError, match=r"temperature.json is damaged"):
        read_or_measure(path, lambda: first)


RANKS = """
    import sys
    from pathlib import Path
    import torch.distributed as dist
    from protenix_eba.cli.train import leave
    from protenix_eba.training.temperature import Calibration, read_or_measure

    dist.init_process_group("gloo")
    # Processors that round otherwise: each process finds another number.
    other = Calibration(1 / (3 + dist.get_rank()), 0.1, 0.9, 64)
    found = read_or_measure(Path(sys.argv[1]), lambda: other)
    print(f"{found.slope!r};", flush=True)
    dist.barrier()
    leave(0)
"""


@pytest.mark.slow
def test_all_processes_take_the_number_of_the_first(tmp_path):
    program, path = tmp_path / "program.py", tmp_path / "temperature.json"
    program.write_text(textwrap.dedent(RANKS), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*launcher, "--nproc_per_node", "2", str(program), str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(f"{1 / 3!r};") == 2
    assert json.loads(path.read_text())["slope"] == 1 / 3
