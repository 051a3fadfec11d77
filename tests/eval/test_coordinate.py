import numpy as np
import pytest

from protenix_eba.eval.coordinate import (
    blocks_of,
    closed_share,
    distribution_jsd,
    free_energy_kT,
    interval,
    log_odds,
    w1_angstrom,
)
from protenix_eba.eval.report.plots.coordinate import profile_figure


def test_w1_of_a_shifted_sample_is_the_shift():
    sample = np.random.default_rng(0).normal(8.0, 2.0, 500)
    assert w1_angstrom(sample, sample + 1.5) == pytest.approx(1.5)


def test_the_free_energy_of_a_uniform_distance_is_the_logarithm_of_its_range():
    distance = np.random.default_rng(0).uniform(2.0, 12.0, 200_000)
    np.testing.assert_allclose(
        free_energy_kT(distance, np.arange(2.0, 13.0)), np.log(10), atol=0.03
    )
    assert np.isinf(free_energy_kT(distance, np.array([20.0, 21.0])))[0]


def test_divergence_is_0_of_the_same_and_1_of_disjoint_distances():
    near, far = np.full(50, 4.2), np.full(80, 11.0)
    assert distribution_jsd(near, near) == pytest.approx(0.0, abs=1e-12)
    assert distribution_jsd(near, far) == pytest.approx(1.0)


def test_log_odds_change_sign_with_the_states_and_stay_finite_without_one():
    distance = np.r_[np.full(30, 4.0), np.full(10, 9.0)]
    assert log_odds(distance) == pytest.approx(np.log(30.5 / 10.5))
    assert log_odds(13.0 - distance) == pytest.approx(-log_odds(distance))
    assert np.isfinite(log_odds(np.full(10, 9.0)))


def test_intervals_hold_the_true_value_nineteen_times_of_twenty():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        sample = np.where(draw.random(150) < 0.3, 4.0, 9.0)[:, None]
        found = interval(closed_share, sample, n=200)
        held += found.low <= 0.3 <= found.high
    assert held / 200 == pytest.approx(0.95, abs=0.06)


def test_correlated_frames_widen_the_interval():
    """50 independent values, each 40 times in a row: the error is that of 50, not of 2,000."""
    values = np.where(np.random.default_rng(1).random(50) < 0.5, 4.0, 9.0).repeat(40)
    wide = interval(closed_share, blocks_of([values], size=40))
    narrow = interval(closed_share, values[:, None])
    assert (wide.high - wide.low) > 4 * (narrow.high - narrow.low)
    assert wide.value == narrow.value == closed_share(values)


def test_a_chain_counts_as_closed_within_the_distance_that_is_given():
    distance = np.array([5.0, 6.5, 8.0, 9.0])
    assert closed_share(distance) == 0.25 and closed_share(distance, 7.0) == 0.5


def test_the_figure_is_the_same_each_time_and_names_its_ensembles():
    draw = np.random.default_rng(0)
    ensembles = {
        "MD with the bias": blocks_of([draw.normal(5, 1, 400)]),
        "EBA": draw.normal(9, 1, 200)[:, None],
        "MD without it": blocks_of([draw.normal(9, 1, 400)]),
    }
    first, second = (profile_figure({"gly4": ensembles, "gly5": ensembles}) for _ in range(2))
    assert first.svg == second.svg and first.png[:4] == b"\x89PNG"
