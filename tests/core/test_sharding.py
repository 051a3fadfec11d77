"""Shares of shares, and the exit status of several."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protenix_eba.cli.processes import joint_status
from protenix_eba.core.sharding import Shard


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_shares_of_a_share_are_the_share_each_item_once(index, more, count, items):
    shard = Shard(index, index + more - 1)
    parts = [item for part in shard.split(count) for item in part.of(range(items))]
    assert sorted(parts) == shard.of(range(items))
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([0, 0], 0),
        ([2, 2], 2),
        ([0, 2], 3),
        ([3, 0], 3),
        ([2, 3], 3),
        ([0, 1, 3], 1),
        ([2, 137], 137),
    ],
)
def test_a_crash_wins_and_input_is_unusable_only_if_it_is_so_for_all(statuses, expected):
    assert joint_status(statuses) == expected
