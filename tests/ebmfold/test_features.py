import numpy as np
import pytest
import torch
from scipy.stats import norm

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.predictions import (
    DISTANCE_EDGES,
    HOST_EDGES,
    Predictions,
    rebin_distogram,
)
from protenix_eba.ebmfold.standin import background, orientations, standin_predictions
from protenix_eba.ebmfold.target import Target, pair_features, positional_encoding


def uniform(n, bins):
    return np.full((n, n, bins), 1 / bins, dtype=np.float32)


def binned(edges, mean, width, open_first):
    below = norm.cdf(edges, mean[:, None], width)
    inner = np.diff(below, axis=-1)
    if open_first:  # the host's bins: all below the first edge, ..., all above the last
        return np.concatenate([below[:, :1], inner, 1 - below[:, -1:]], -1)
    return np.concatenate([1 - below[:, -1:], below[:, 1:2], inner[:, 1:]], -1)


def test_rebinning_conserves_mass():
    share = np.random.default_rng(0).dirichlet(np.ones(64), size=50).astype(np.float32)
    np.testing.assert_allclose(rebin_distogram(share).sum(-1), 1.0, atol=1e-5)


def test_what_is_nearer_than_2_angstrom_is_never_further_than_20():
    """Of bins of 1 angstrom from 0: all below 2 is in the first of trRosetta's, none far."""
    edges = np.arange(25.0)
    rebinned = rebin_distogram(np.eye(26)[:3], edges)  # below 0, 0 to 1, 1 to 2
    np.testing.assert_array_equal(rebinned, np.eye(37)[[1, 1, 1]])


def test_rebinning_comes_near_to_binning_directly():
    mean = np.random.default_rng(0).uniform(3, 19, size=200)
    host = binned(HOST_EDGES, mean, 1.0, True).astype(np.float32)
    direct = binned(DISTANCE_EDGES, mean, 1.0, False)
    assert np.abs(rebin_distogram(host) - direct).sum(-1).max() / 2 < 0.02


def test_distances_beyond_both_ends_go_to_the_first_bin_and_to_channel_0():
    ends = np.zeros((2, 64), dtype=np.float32)
    ends[0, 0] = ends[1, 63] = 1
    rebinned = rebin_distogram(ends)
    assert rebinned[0, 1] == 1 and rebinned[1, 0] == 1


def test_a_bin_across_20_angstrom_is_divided_there():
    share = np.eye(64, dtype=np.float32)
    across = int(np.searchsorted(HOST_EDGES, 20.0))
    beyond = (HOST_EDGES[across] - 20.0) / (HOST_EDGES[1] - HOST_EDGES[0])
    assert 0 < beyond < 1
    assert rebin_distogram(share)[across, 0] == pytest.approx(beyond)


def test_the_positional_encoding_has_24_channels_and_tells_residues_apart():
    encoded = positional_encoding(torch.arange(300))
    assert encoded.shape == (300, 24)
    assert torch.cdist(encoded, encoded).fill_diagonal_(1).min() > 0.05


def test_features_have_189_channels_and_rows_can_be_made_alone():
    target = Target("a", Predictions(uniform(6, 37)), "ACDXWY")
    features = pair_features(target)
    assert features.shape == (6, 6, 189)
    torch.testing.assert_close(pair_features(target, slice(2, 4)), features[2:4])


def test_the_flag_says_whether_there_are_orientations_and_unknown_residues_have_no_letter():
    whole = Predictions(uniform(3, 37), uniform(3, 25), uniform(3, 25), uniform(3, 13))
    with_angles = pair_features(Target("a", whole, "AXC"))
    without = pair_features(Target("a", whole.without_orientations(), "AXC"))
    assert with_angles[..., -1].eq(1).all() and without[..., -1].eq(0).all()
    assert without[..., 125:-1].eq(0).all()
    assert with_angles[:, 0, :20].sum(-1).tolist() == [1, 0, 1]
    assert with_angles[0, :, 20:40].sum(-1).tolist() == [1, 0, 1]


def test_a_target_refuses_another_length_and_numbers_that_fall():
    with pytest.raises(UserError, match="4 residues"):
        Target("a", Predictions(uniform(3, 37)), "ACDE")
    with pytest.raises(UserError, match="rising"):
        Target("a", Predictions(uniform(3, 37)), None, np.array([1, 3, 3]))


def test_a_subset_keeps_the_numbers_and_so_the_chain_breaks():
    part = Target("a", Predictions(uniform(6, 37)), "ACDEFG").subset(np.array([0, 1, 4, 5]))
    assert part.sequence == "ACFG"
    assert part.bonded.tolist() == [True, False, True]


@pytest.fixture
def backbone():
    """A helix with made-up N, C and CB."""
    t = torch.arange(40) * 1.745
    ca = torch.stack([2.3 * t.cos(), 2.3 * t.sin(), 1.5 * torch.arange(40)], -1)
    offsets = torch.tensor([[-1.2, 0.7, 0.3], [0, 0, 0], [1.2, 0.8, 0.2], [0.1, -0.9, 1.2]])
    return ca[:, None] + offsets


def test_predictions_without_noise_are_sharp_and_where_the_structure_is(backbone):
    made = standin_predictions(backbone, 0.0, torch.Generator().manual_seed(0))
    distance = torch.cdist(backbone[:, 3], backbone[:, 3]).numpy()
    number = np.digitize(distance, DISTANCE_EDGES)
    middle = (distance > 2) & (distance < 20) & (abs((distance - 2) % 0.5 - 0.25) < 0.15)
    assert (made.distance.argmax(-1)[middle] == number[middle]).all()
    assert (made.distance.argmax(-1)[distance > 21] == 0).all()
    omega = orientations(backbone)["omega"].numpy()
    near = (distance > 2) & (distance < 18)
    bins = 1 + ((omega + np.pi) // (np.pi / 12)).astype(int)
    # The error of the angles is a sixth of a bin even then.
    assert (np.abs(made.omega.argmax(-1)[near] - bins[near]) <= 1).mean() > 0.98


@pytest.mark.parametrize("noise", [0.25, 1.5])
def test_the_predictor_is_never_surer_than_it_is_right(backbone, noise):
    """The truth costs at most the nats that the predictor itself expects to lose."""
    distance = torch.cdist(backbone[:, 3], backbone[:, 3]).numpy()
    number = np.digitize(distance, DISTANCE_EDGES)
    number[distance > 20] = 0
    i, j = np.triu_indices(40, 1)
    surprise, entropy = [], []
    for seed in range(20):
        made = standin_predictions(backbone, noise, torch.Generator().manual_seed(seed))
        share = made.distance[i, j]
        surprise.append(-np.log(share[np.arange(len(i)), number[i, j]] + 1e-9).mean())
        entropy.append(-(share * np.log(share + 1e-9)).sum(-1).mean())
    assert np.mean(entropy) - 0.7 < np.mean(surprise) < np.mean(entropy)


def test_the_same_seed_gives_the_same_predictions(backbone):
    one, same, other = (
        standin_predictions(backbone, 0.5, torch.Generator().manual_seed(seed)).distance
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_the_background_sums_to_1_and_moves_out_with_the_separation():
    share = background(torch.arange(30)).numpy()
    np.testing.assert_allclose(share.sum(-1), 1, atol=1e-5)
    assert share[0, 1, 0] < 0.01 < share[0, 29, 0]


def test_negative_noise_and_missing_atoms_are_refused(backbone):
    with pytest.raises(UserError, match="noise"):
        standin_predictions(backbone, -1.0, torch.Generator())
    with pytest.raises(UserError, match="finite"):
        standin_predictions(backbone * torch.nan, 1.0, torch.Generator())
