"""Clusters of a reference and who visits them, where both can be counted."""

import numpy as np
import pytest

from protenix_eba.training.replay.collapse import Clusters


def states(counts, rng):
    """Three atoms on a line, in states whose ends are 1, 2, 3 ... angstrom apart, turned around."""
    frames = []
    for state, count in enumerate(counts):
        line = np.array([[0, 0, 0], [1, 0, 0], [1 + 2.0 * state, 0, 0]])
        for _ in range(count):
            turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            frames.append(line @ turn + rng.normal(size=3))
    return np.array(frames, dtype=np.float32).round(4)


@pytest.mark.parametrize(
    ("counts", "effective", "covered"),
    [
        ([4] * 8, 8.0, 1.0),
        ([6, 0, 0, 0, 0, 0, 0, 0], 1.0, 1 / 8),
        ([3, 3, 0, 0, 0, 0, 0, 0], 2.0, 2 / 8),
        ([3, 0, 0, 1, 0, 0, 0, 0], np.exp(np.log(4) - 0.75 * np.log(3)), 2 / 8),
    ],
)
def test_the_clusters_of_eight_equal_states_are_the_states(counts, effective, covered):
    rng = np.random.default_rng(0)
    found = Clusters.of(states([16] * 8, rng)).visited(states(counts, rng))
    assert found == pytest.approx((effective, covered), abs=1e-9)


def test_a_reference_of_one_conformation_is_one_cluster():
    rng = np.random.default_rng(0)
    assert Clusters.of(states([1], rng)).visited(states([1, 2], rng)) == (1.0, 1.0)
