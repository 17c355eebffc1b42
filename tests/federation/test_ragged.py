import numpy as np
import pytest

from fedlabels.errors import DataError
from fedlabels.federation import Ragged
from fedlabels.federation.ragged import stable_order, union


def ints(*values):
    return np.array(values, dtype=np.int64)


def test_lists_come_back():
    shards = Ragged.from_lists([[5, 2], [], [7]])
    assert [s.tolist() for s in shards] == [[5, 2], [], [7]]
    assert shards.sizes.tolist() == [2, 0, 1]
    assert shards.owners.tolist() == [0, 0, 2]
    assert len(shards) == 3


def test_no_list_at_all():
    assert len(Ragged.from_lists([])) == 0


def test_items_are_views():
    shards = Ragged.from_lists([[5, 2], [7]])
    assert np.shares_memory(shards[1], shards.index)


@pytest.mark.parametrize("client_id", [-1, 3])
def test_unknown_client_is_an_error(client_id):
    with pytest.raises(IndexError, match=r"in 0\.\.2"):
        Ragged.from_lists([[1], [2], [3]])[client_id]


def test_groups_by_owner_and_leaves_out_nobodys():
    shards = Ragged.from_owners(ints(2, 0, -1, 2, 0), 4)
    assert [s.tolist() for s in shards] == [[1, 4], [], [0, 3], []]


def test_keep_drops_entries_within_their_lists():
    shards = Ragged.from_lists([[], [4], [5, 2], [], [7, 8, 9]])
    kept = shards.keep(np.array([True, False, True, True, False, True]))
    assert [s.tolist() for s in kept] == [[], [4], [2], [], [7, 9]]


@pytest.mark.parametrize("bound", [10, 1 << 16, (1 << 16) + 1, 1 << 54, 1 << 62])
def test_order_is_stable_for_small_and_large_keys(bound):
    keys = np.random.default_rng(0).integers(0, bound, 500) // 3 * 3
    np.testing.assert_array_equal(stable_order(keys, bound), np.argsort(keys, kind="stable"))


@pytest.mark.parametrize(
    ("index", "offsets", "message"),
    [
        (ints(1, 2).astype(np.int32), ints(0, 2), "got int32 and int64"),
        (ints(1, 2)[None], ints(0, 2), "are flat"),
        (ints(1, 2), ints(), "are flat"),
        (ints(1, 2), ints(0, 1), "from 0 to 2"),
        (ints(1, 2), ints(1, 2), "from 0 to 2"),
        (ints(1, 2), ints(0, 2, 1, 2), "from 0 to 2"),
        (ints(1, -2), ints(0, 2), ">= 0, got -2"),
    ],
)
def test_arrays_that_are_no_lists(index, offsets, message):
    with pytest.raises(DataError, match=message):
        Ragged(index, offsets)


def test_a_union_keeps_repetitions_and_doubles_nothing():
    joined = union(np.array([3, 1, 1]), np.array([1, 2, 2, 3]))
    assert joined.tolist() == [1, 1, 2, 2, 3]
    assert union(np.zeros(0, np.int64), np.array([4, 4])).tolist() == [4, 4]
    assert union(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
