from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import SAMPLERS, HookError
from protenix_eba.training.data.epochs import Epoch, Pool, diverse


def pool(size, k=2, seed=0):
    """Random energies, and clusters of unequal sizes."""
    rng = np.random.default_rng([seed, size])
    cuts = 1 + rng.permutation(size - 1)[: k - 1]
    clusters = np.split(rng.permutation(size), np.sort(cuts))
    return Pool(rng.normal(size=size), lambda: clusters)


def epoch_of(sizes, k, seed=0, epoch=0, batch_items=1, sampler="structures"):
    pools = [pool(size, k) for size in sizes]
    return Epoch(pools, SAMPLERS.get(sampler)(EBAConfig()), k, seed, epoch, batch_items)


def drawn(blocks, which):
    return Counter(row for target, rows in blocks if target == which for row in rows)


any_sizes = st.lists(st.integers(5, 40), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    sampler=st.sampled_from(["structures", "energy"]),
    sizes=any_sizes,
    k=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_an_epoch_draws_every_structure_once_in_blocks_of_one_target(sampler, sizes, k, seed):
    blocks = list(epoch_of(sizes, k, seed, sampler=sampler))
    for which, size in enumerate(sizes):
        count = drawn(blocks, which)
        assert set(count.values()) == {1} and count.total() == size // k * k
        assert count.keys() <= set(range(size))
    assert all(len(rows) == k for _, rows in blocks)


@settings(deadline=None, max_examples=60)
@given(sizes=any_sizes, k=st.integers(1, 5), seed=st.integers(0, 1000))
def test_the_targets_sampler_sees_all_targets_equally_often(sizes, k, seed):
    blocks = list(epoch_of(sizes, k, seed, sampler="targets"))
    n = sum(size // k for size in sizes) // len(sizes)
    assert Counter(which for which, _ in blocks) == dict.fromkeys(range(len(sizes)), n)
    for which, size in enumerate(sizes):
        count = drawn(blocks, which)
        rounds = -(-n // (size // k))  # of a target with fewer blocks than asked for
        assert max(count.values()) <= rounds
        if n >= size // k and size % k == 0:
            assert len(count) == size
    assert all(len(set(rows)) == k for _, rows in blocks)


@settings(deadline=None, max_examples=60)
@given(sizes=any_sizes, k=st.integers(1, 5), seed=st.integers(0, 1000))
def test_the_energy_sampler_takes_one_conformer_of_each_part_of_the_order(sizes, k, seed):
    for which, rows in epoch_of(sizes, k, seed, sampler="energy"):
        energy = pool(sizes[which], k).energy_kj_mol
        rank = np.argsort(np.argsort(energy))[list(rows)]
        bounds = np.cumsum([0] + [len(part) for part in np.array_split(energy, k)])
        assert (bounds[:-1] <= rank).all() and (rank < bounds[1:]).all()


@settings(deadline=None, max_examples=60)
@given(sizes=any_sizes, k=st.integers(1, 5), seed=st.integers(0, 1000))
def test_the_diverse_sampler_takes_one_conformer_of_each_cluster_all_equally_often(sizes, k, seed):
    blocks = list(epoch_of(sizes, k, seed, sampler="diverse"))
    for which, size in enumerate(sizes):
        count, n = drawn(blocks, which), size // k
        for place, members in enumerate(pool(size, k).clusters()):
            assert {rows[place] for target, rows in blocks if target == which} <= set(members)
            seen = [count[member] for member in members]
            assert sum(seen) == n and max(seen) - min(seen) <= 1


def test_clusters_are_asked_for_when_a_block_of_their_target_is():
    asked = []
    pools = [
        Pool(np.zeros(4), lambda i=i: asked.append(i) or np.split(np.arange(4), 2))
        for i in range(3)
    ]
    epoch = Epoch(pools, diverse, 2, 0, 0)
    assert len(epoch) == 6 and not asked
    second = next(p for p in range(6) if epoch.target(p) == 1)
    assert epoch[second][0] == 1 and asked == [1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_epoch_is_determined_by_its_seed_and_number(sampler):
    first = list(epoch_of([9, 30, 12], 3, 0, 0, sampler=sampler))
    # blocks can be asked for in any order: each rank asks for its own
    again = epoch_of([9, 30, 12], 3, 0, 0, sampler=sampler)
    assert [again[p] for p in reversed(range(len(again)))] == first[::-1]
    others = [epoch_of([9, 30, 12], 3, *number, sampler=sampler) for number in ((0, 1), (1, 0))]
    assert all(list(other) != first and len(other) == len(first) for other in others)


@settings(deadline=None, max_examples=60)
@given(
    sampler=st.sampled_from(list(SAMPLERS)),
    sizes=st.lists(st.integers(2, 25), min_size=1, max_size=9),
    ranks=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 100),
)
def test_an_optimizer_step_is_of_different_targets_while_there_are_enough(
    sampler, sizes, ranks, accumulate, epoch, seed
):
    n_items = ranks * accumulate
    order = [which for which, _ in epoch_of(sizes, 2, seed, epoch, n_items, sampler)]
    turn = [order[:i].count(which) for i, which in enumerate(order)]
    start = -epoch * len(order) % n_items  # a step may reach from one epoch into the next
    for first in range(start, len(order) - n_items + 1, n_items):
        step = slice(first, first + n_items)
        if sum(order.count(which) > max(turn[step]) for which in range(len(sizes))) >= n_items:
            assert len(set(order[step])) == n_items


def test_neighbouring_items_are_of_different_targets_in_an_order_that_varies():
    blocks = list(epoch_of([30, 30, 30], 3))
    for start in range(0, len(blocks), 3):
        assert len({which for which, _ in blocks[start : start + 3]}) == 3
    assert len({tuple(which for which, _ in blocks[start : start + 3]) for start in (0, 3, 6)}) > 1


@pytest.mark.parametrize("batch_items", [1, 8])
def test_blocks_of_the_default_sampler_do_not_depend_on_the_batch(batch_items):
    """A change of the global batch changes the order between targets only."""
    by_target = [
        [rows for which, rows in epoch_of([20, 33], 3, 5, 2, n) if which == 0]
        for n in (2, batch_items)
    ]
    assert by_target[0] == by_target[1]


def test_an_unknown_sampler_is_an_error_that_lists_the_known_ones():
    with pytest.raises(HookError, match="are: diverse, energy, structures, targets") as error:
        SAMPLERS.get("uniform")
    assert "no batch sampler called 'uniform'" in str(error.value)
