import math

import numpy as np
import pytest
import torch

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.fold import decoy_generators
from protenix_eba.ebmfold.metrics import ca_rmsd
from protenix_eba.ebmfold.sampling import (
    SAMPLERS,
    ChurnedEuler,
    Heun,
    Langevin,
    Replacement,
    Sampler,
    anneal,
    geometric_levels,
    karras_levels,
    noised,
    refiner,
)

# What the samplers have to reach: independent normal coordinates with these standard deviations.
STD = torch.tensor([0.5, 2.0, 6.0])
SHAPE = (60, 3)


def gaussian(x, sigma):
    """The exact denoiser of N(0, diag(STD^2))."""
    return x * STD**2 / (STD**2 + sigma**2)


def sample(sampler, n=60, denoise=gaussian, shape=SHAPE, **options):
    return anneal(denoise, shape, decoy_generators(0, range(n)), sampler, **options)


def test_algorithm_1_has_the_papers_schedule_and_evaluations():
    levels = geometric_levels(10.0, 0.01, 32)
    assert levels[0] == 10.0 and levels[-1] == pytest.approx(0.01)
    np.testing.assert_allclose(np.diff(np.log(levels)), math.log(0.001) / 31)
    calls = []

    def counted(x, sigma):
        calls.append(sigma)
        return gaussian(x, sigma)

    sample(SAMPLERS["algorithm1"], n=1, denoise=counted, shape=(5, 3))
    assert len(calls) == 2048
    assert calls[::64] == pytest.approx(levels)


def test_algorithm_1_is_equation_10_step_by_step():
    """Two levels and two steps, written out with the same random numbers."""
    sampler = Sampler((4.0, 2.0), corrector=Langevin(2, 0.1), initial_std=1.0)
    (found,) = sample(sampler, n=1, shape=(4, 3))
    generator = decoy_generators(0, range(1))[0]
    x = torch.randn(4, 3, generator=generator)
    for sigma in (4.0, 2.0):
        alpha = 0.1 * sigma**2
        for _ in range(2):
            g = -x / (STD**2 + sigma**2)
            z = torch.randn(4, 3, generator=generator)
            x = x + 0.5 * alpha * g + math.sqrt(alpha) * z
    torch.testing.assert_close(found, x)


@pytest.mark.parametrize("name", ["langevin", "algorithm1"])
def test_annealed_langevin_dynamics_reach_a_gaussian(name):
    sampler = SAMPLERS[name]
    if name == "algorithm1":  # the same with fewer coordinates: 2,048 evaluations
        sampler = Sampler(
            tuple(geometric_levels(10.0, 0.05, 32)), corrector=Langevin(64, 0.1), initial_std=1.0
        )
    found = sample(sampler).std((0, 1))
    smallest = sampler.levels[-1]
    if not sampler.denoise_last:
        expected = (STD**2 + smallest**2).sqrt()
        # Wide directions have forgotten the level at which they last were in equilibrium.
        assert float(found[0]) == pytest.approx(float(expected[0]), rel=0.1)
        assert float(found[2]) > 3
    else:
        assert float(found[0]) == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("step_size", [0.1, 1.0])
def test_langevin_steps_at_one_level_have_the_variance_that_can_be_written_down(step_size):
    """sigma^2 / (1 - step_size / 4) where the data are a point."""
    sampler = Sampler((2.0,), corrector=Langevin(80, step_size), initial_std=2.0)
    x = sample(sampler, n=100, denoise=lambda x, sigma: torch.zeros_like(x))
    assert float(x.var()) == pytest.approx(4.0 / (1 - step_size / 4), rel=0.03)


@pytest.mark.parametrize(
    "predictor",
    [Heun(), ChurnedEuler(gamma=0.0, step_scale=1.0), ChurnedEuler(gamma=0.1, step_scale=1.0)],
    ids=["heun", "euler", "churned"],
)
def test_predictors_reach_a_gaussian_when_the_steps_are_small(predictor):
    sampler = Sampler(tuple(karras_levels(40.0, 0.01, 150)), predictor=predictor, initial_std=40.0)
    found = sample(sampler).std((0, 1))
    torch.testing.assert_close(found, STD, rtol=0.06, atol=0)


def test_longer_steps_make_the_distribution_narrower():
    levels = tuple(karras_levels(40.0, 0.01, 100))
    wide, narrow = (
        sample(Sampler(levels, predictor=ChurnedEuler(step_scale=scale))).std((0, 1))
        for scale in (1.0, 1.5)
    )
    assert (narrow < 0.85 * wide).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_finds_a_structure_that_the_denoiser_knows(name):
    native = 8 * torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    found = sample(SAMPLERS[name], n=2, denoise=lambda x, s: native.expand_as(x), shape=(30, 3))
    assert ca_rmsd(found, native).max() < 0.2


def test_one_langevin_step_of_size_1_a_level_is_enough_with_the_exact_score():
    native = 8 * torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    levels = tuple(geometric_levels(10.0, 0.01, 32))
    sampler = Sampler(levels, corrector=Langevin(1, 1.0), denoise_last=False)
    found = sample(sampler, n=2, denoise=lambda x, s: native.expand_as(x), shape=(30, 3))
    assert ca_rmsd(found, native).max() < 0.1


@pytest.mark.parametrize("name", ["churned", "langevin"])
def test_a_decoy_does_not_depend_on_its_batch(name):
    together = sample(SAMPLERS[name], n=3)
    alone = anneal(gaussian, SHAPE, decoy_generators(0, range(2, 3)), SAMPLERS[name])
    torch.testing.assert_close(together[2], alone[0])
    assert not torch.allclose(together[0], together[1])


def test_levels_are_told_in_their_order():
    seen = []
    result = sample(SAMPLERS["churned"], n=2, on_level=lambda s, x: seen.append((s, x)))
    assert [level for level, _ in seen] == list(SAMPLERS["churned"].levels)
    torch.testing.assert_close(seen[-1][1], result)


def test_samples_are_moved_before_a_level_that_rises_and_there_alone():
    sampler = Sampler((2.0, 1.0, 1.5, 0.5), predictor=Replacement())
    told = []
    sample(
        sampler,
        n=1,
        denoise=lambda x, sigma: torch.full_like(x, sigma),
        before_rise=lambda x: told.append(float(x.mean())) or x,
    )
    assert told == [1.0]


def test_karras_levels_end_at_zero_and_their_roots_are_equally_spaced():
    levels = karras_levels(10.0, 0.1, 20)
    assert len(levels) == 21 and levels[-1] == 0
    roots = np.array(levels[:-1]) ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0])


def test_refinement_starts_from_the_trace_at_the_small_level():
    trace = torch.arange(90.0).reshape(30, 3)
    sampler = refiner(SAMPLERS["churned"], 0.5)
    assert sampler.levels[0] == 0.5 and sampler.levels[1] < 0.5 and sampler.levels[-1] == 0
    seen = []

    def stay(x, sigma):
        seen.append(float((x - trace).std()))
        return trace.expand_as(x)

    generators = decoy_generators(0, range(1))
    start = noised(trace[None], sampler, generators)
    found = anneal(stay, (30, 3), generators, sampler, start=start)
    assert seen[0] == pytest.approx(0.5 * 1.8, rel=0.25)
    torch.testing.assert_close(found[0], trace, atol=0.2, rtol=0)


def test_refinement_below_the_smallest_level_is_refused():
    with pytest.raises(UserError, match="start above"):
        refiner(SAMPLERS["langevin"], 0.01)
