"""Statistics of predictors' errors, on errors that are known."""

import numpy as np
import pytest
import torch

from compare_standin import distance_errors, likeness, orientation_weight, standin_cases
from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.predictions import DISTANCE_CENTRES, Predictions
from protenix_eba.ebmfold.trace import PSEUDO_CB, PSEUDO_N, pseudo_atoms


def test_errors_of_neighbouring_pairs_are_alike_as_far_as_they_share_a_part():
    draw = np.random.default_rng(0)
    shared, own = draw.standard_normal((300, 1)), draw.standard_normal((300, 300))
    counts = np.ones((300, 300), dtype=bool)
    # Pairs of one residue share a part of variance 1 beside one of their own of variance 1.
    z = shared + own
    error = 3 / np.sqrt(300)
    assert likeness(z, counts, (0, 1)) == pytest.approx(0.5, abs=error)
    assert likeness(own, counts, (0, 1)) == pytest.approx(0.0, abs=error)
    assert likeness(z, counts, (1, 0)) == pytest.approx(0.0, abs=error)


def test_widths_and_errors_of_a_normal_predictor_are_its_own(domain):
    width, draw = 1.0, np.random.default_rng(0)
    cb = domain.backbone[:, 3].numpy()
    true = np.linalg.norm(cb[:, None] - cb, axis=-1)
    noise = np.triu(draw.standard_normal(true.shape), 1)
    expected = true + width * (noise + noise.T)
    share = np.exp(-0.5 * ((DISTANCE_CENTRES - expected[..., None]) / width) ** 2)
    share *= (expected < 16)[..., None] / np.maximum(share.sum(-1, keepdims=True), 1e-9)
    far = np.maximum(1 - share.sum(-1, keepdims=True), 0)
    distance = np.concatenate([far, share], -1).astype(np.float32)
    error, stated, counts, _ = distance_errors(Predictions(distance), domain.backbone)
    # Chosen by the true distance: those of an expected one may come from farther away more often.
    chosen = np.triu(counts & (true > 6) & (true < 12), 6)
    n = chosen.sum()
    assert n > 50
    assert stated[chosen] == pytest.approx(width, abs=0.05)
    assert error[chosen].std() == pytest.approx(width, abs=3 / np.sqrt(2 * n) + 0.03)
    assert error[chosen].mean() == pytest.approx(0, abs=3 / np.sqrt(n))


def test_orientations_weigh_less_than_distances_and_nothing_where_there_are_none(domain):
    cases = list(standin_cases([domain] * 2, 0.5, 0.0))
    assert 0 < orientation_weight(cases) < 0.5
    without = [(given.without_orientations(), of) for given, of in cases]
    assert np.isnan(orientation_weight(without))


@pytest.fixture(scope="module")
def domain():
    """A helix of 60 residues that bends, its atoms where pseudo atoms are."""
    n = torch.arange(62)
    turn = torch.deg2rad(n * 100.0)
    bend = 12 * torch.stack([torch.sin(n / 15), torch.cos(n / 15), 0 * n], -1)
    ca = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), 1.5 * n], -1) + bend
    others = [pseudo_atoms(ca, offset) for offset in (PSEUDO_N, PSEUDO_CB)]
    backbone = torch.stack([others[0], ca[1:-1], ca[1:-1], others[1]], 1)
    return Domain("helix", "valid", "1.10.10", "A" * 60, backbone)
