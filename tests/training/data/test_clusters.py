import itertools
from functools import partial

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from protenix_eba.energy.table import read_labels
from protenix_eba.eval.protocol.alignment import superpose
from protenix_eba.host.features import compact, protein_features
from protenix_eba.structures.sequences import protein_of_target
from protenix_eba.structures.trajectories import find_targets
from protenix_eba.training.data import clusters
from protenix_eba.training.data.clusters import conformer_clusters, k_medoids, rmsd_matrix
from protenix_eba.training.data.conformers import load_conformers
from protenix_eba.training.data.epochs import Epoch, Pool, diverse, structures


def planted(sizes, seed=0, n_atoms=12):
    """Structures near as many centres, each turned and moved at random, and their centres."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = 4 * rng.normal(size=(len(sizes), n_atoms, 3))
    xyz = centres[label] + 0.1 * rng.normal(size=(len(label), n_atoms, 3))
    turns = Rotation.random(len(label), random_state=seed).as_matrix()
    return (xyz @ turns + 9 * rng.normal(size=(len(label), 1, 3))).astype(np.float32), label


def sets(groups):
    return {frozenset(map(int, group)) for group in groups}


def planted_sets(label):
    return sets(np.flatnonzero(label == number) for number in np.unique(label))


def test_rmsd_is_that_after_superposition_and_leaves_its_input():
    xyz, _ = planted((4, 3))
    before = xyz.copy()
    found = rmsd_matrix(xyz)
    for i, j in itertools.product(range(7), range(7)):
        moved = superpose(xyz[i : i + 1].astype(float), xyz[j])[0]
        centred = xyz[j].astype(float) - xyz[j].mean(axis=0, dtype=float)
        expected = np.sqrt(((moved - centred) ** 2).sum(axis=-1).mean())
        assert found[i, j] == pytest.approx(expected, abs=2e-3)
    np.testing.assert_allclose(rmsd_matrix(xyz, xyz[[5, 2]]), found[:, [5, 2]], atol=1e-3)
    np.testing.assert_array_equal(xyz, before)


@pytest.mark.parametrize("sizes", [(40, 40, 40), (100, 10, 3, 1), (5,), (1, 1, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_clusters_are_found_with_one_medoid_in_each(sizes, seed):
    xyz, label = planted(sizes, seed)
    medoids = k_medoids(rmsd_matrix(xyz), len(sizes))
    assert sorted(label[medoids]) == list(range(len(sizes)))


def test_medoids_of_few_points_have_the_least_sum_of_distances():
    """Against all choices; alternating may end beside the best, by a few percent here."""
    for seed in range(20):
        points = np.random.default_rng(seed).random((12, 2))
        distance = np.linalg.norm(points[:, None] - points, axis=-1)

        def cost(chosen, distance=distance):
            return distance[:, list(chosen)].min(axis=1).sum()

        best = min(map(cost, itertools.combinations(range(12), 3)))
        assert best <= cost(k_medoids(distance, 3)) < 1.15 * best


def test_equal_structures_still_give_as_many_clusters_as_asked_for():
    medoids = k_medoids(np.zeros((6, 6)), 4)
    assert len(set(medoids.tolist())) == 4


@pytest.fixture(scope="module")
def source(demo_data):
    target = find_targets(demo_data)[0]
    protein = compact(protein_features(protein_of_target(target)))
    return load_conformers(target, protein, read_labels(demo_data / "labels.parquet"), [1])


class Planted:
    """Conformers with C-alpha atoms only, in planted clusters."""

    def __init__(self, source, sizes):
        import torch

        n = len(source.protein.alpha_carbons)
        xyz, self.label = planted(sizes, n_atoms=n)
        self.protein, self.mask = source.protein, source.mask
        self._xyz = torch.zeros(len(xyz), len(source.mask), 3)
        self._xyz[:, source.protein.alpha_carbons] = torch.from_numpy(xyz)

    def __len__(self):
        return len(self._xyz)

    def coordinates(self, rows):
        return self._xyz[list(rows)]


def test_more_conformers_than_fit_the_matrix_join_the_nearest_medoid(source, monkeypatch):
    conformers = Planted(source, (50, 40, 30))
    whole = sets(conformer_clusters(conformers, 3))
    monkeypatch.setattr(clusters, "_MOST_IN_MATRIX", 20)
    monkeypatch.setattr(clusters, "_READ_AT_ONCE", 7)
    assert sets(conformer_clusters(conformers, 3)) == whole == planted_sets(conformers.label)


def test_conformers_of_a_trajectory_are_in_one_cluster_each_and_blocks_are_diverse(source):
    groups = conformer_clusters(source, 4)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(source)))
    assert sets(groups) == sets(conformer_clusters(source, 4)) and min(map(len, groups)) > 0
    pools = [Pool(source.energy_kj_mol.numpy(), partial(conformer_clusters, source, 4))]
    alpha = source.coordinates()[:, source.protein.alpha_carbons].numpy()
    distance = rmsd_matrix(alpha)
    mean = {
        sampler: np.mean(
            [
                distance[np.ix_(rows, rows)].sum() / 12
                for _, rows in itertools.islice(Epoch(pools, sampler, 4, 0, 0), 30)
            ]
        )
        for sampler in (structures, diverse)
    }
    assert mean[diverse] > 1.05 * mean[structures]
