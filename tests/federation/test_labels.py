import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import POLICIES, Ragged, Samples, label_split, make
from fedlabels.federation.labels import shuffled_rank

GOLDEN = Path(__file__).parents[1] / "golden" / "fedlabel.json"


def shards_of(sizes):
    return Ragged(np.arange(sum(sizes)), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def masks(name, fields, sizes, seed=0):
    policy = make(POLICIES, name, fields)
    shards = shards_of(sizes)
    labels = np.zeros(len(shards.index), dtype=np.int64)
    found = policy.masks(shards, Samples(labels, 2), random=np.random.default_rng(seed))
    return shards, found


def sizes_of(name, fields, sizes, seed=0):
    shards, found = masks(name, fields, sizes, seed)
    return shards.keep(found.labeled).sizes.tolist(), shards.keep(found.unlabeled).sizes.tolist()


@pytest.mark.parametrize(
    "entry",
    [e for e in json.loads(GOLDEN.read_text())["entries"] if e["kind"] == "fedlabel.label_split"],
    ids=lambda entry: entry["name"],
)
def test_golden_label_split(entry):
    """int(u n) unlabeled, then int(l n) labeled positions; the rest is unused."""
    split = label_split(**entry["inputs"])
    found = {
        "n_unlabeled": int(split.num_unlabeled),
        "n_labeled": int(split.num_labeled),
        "labeled_positions": [int(p) for p in split.labeled_positions],
        "unused": int(split.unused),
    }
    assert found == entry["outputs"]


def test_label_split_takes_many_sizes():
    split = label_split(np.array([0, 4, 7, 503]), 0.2, 0.8)
    assert split.num_unlabeled.tolist() == [0, 3, 5, 402]
    assert split.num_labeled.tolist() == [0, 0, 1, 100]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(0, 99))
def test_rank_is_a_shuffle_within_every_shard(sizes, seed):
    shards = shards_of(sizes)
    rank = shuffled_rank(shards, np.random.default_rng(seed))
    for client, size in enumerate(sizes):
        own = rank[shards.offsets[client] : shards.offsets[client + 1]]
        assert sorted(own.tolist()) == list(range(size))


class TestUniform:
    @given(
        fraction=st.floats(0, 1),
        share=st.one_of(st.none(), st.floats(0, 1)),
        sizes=st.lists(st.integers(0, 30), min_size=1, max_size=10),
        min_labels=st.integers(0, 5),
    )
    def test_parts_are_disjoint_and_sized_as_stated(self, fraction, share, sizes, min_labels):
        if share is not None:
            share *= 1 - fraction
        fields = {"fraction": fraction, "unlabeled_fraction": share, "min_labels": min_labels}
        shards, found = masks("uniform", fields, sizes)
        assert not (found.labeled & found.unlabeled).any()
        labeled, unlabeled = (shards.keep(m).sizes for m in found[:2])
        for n, a, b in zip(sizes, labeled, unlabeled, strict=True):
            assert a == max(int(fraction * n), min(min_labels, n))
            assert b == (n - a if share is None else min(int(share * n), n - a))

    def test_default_uses_every_sample(self):
        assert sizes_of("uniform", {"fraction": 0.2}, [7, 4, 1]) == ([1, 0, 0], [6, 4, 1])

    def test_published_rule_can_lose_a_sample(self):
        fields = {"fraction": 0.2, "unlabeled_fraction": 0.8}
        assert sizes_of("uniform", fields, [7, 4]) == ([1, 0], [5, 3])

    @pytest.mark.parametrize(("fraction", "labeled"), [(0, 0), (1, 9)])
    def test_ends_of_the_range(self, fraction, labeled):
        assert sizes_of("uniform", {"fraction": fraction}, [9]) == ([labeled], [9 - labeled])

    def test_min_labels_goes_as_far_as_the_shard(self):
        fields = {"fraction": 0.1, "min_labels": 2}
        assert sizes_of("uniform", fields, [30, 5, 1, 0]) == ([3, 2, 1, 0], [27, 3, 0, 0])

    def test_unlabeled_pool_may_include_the_labeled(self):
        fields = {"fraction": 0.5, "unlabeled_includes_labeled": True}
        assert sizes_of("uniform", fields, [8]) == ([4], [8])

    def test_positions_are_drawn_uniformly(self):
        _, found = masks("uniform", {"fraction": 0.25}, [8] * 4000)
        share = found.labeled.reshape(4000, 8).mean(0)
        np.testing.assert_allclose(share, 0.25, atol=0.03)


class TestZeroLabelClients:
    def test_random_share_of_the_clients_is_emptied(self):
        fields = {"fraction": 0.5, "share": 0.4}
        labeled, unlabeled = sizes_of("zero_label_clients", fields, [10] * 10)
        assert sorted(labeled) == [0] * 4 + [5] * 6
        assert sorted(unlabeled) == [5] * 6 + [10] * 4

    def test_smallest_are_chosen_in_order(self):
        fields = {"fraction": 0.5, "share": 0.5, "choose": "smallest", "min_labels": 3}
        labeled, _ = sizes_of("zero_label_clients", fields, [8, 2, 6, 2])
        assert labeled == [4, 0, 3, 0]

    def test_others_keep_the_labels_that_uniform_gives_them(self):
        shards, plain = masks("uniform", {"fraction": 0.3}, [20] * 6)
        _, found = masks("zero_label_clients", {"fraction": 0.3, "share": 0.5}, [20] * 6)
        kept = shards.keep(found.labeled).sizes[shards.owners] > 0
        assert (found.labeled == (plain.labeled & kept)).all()

    @pytest.mark.parametrize(("share", "without"), [(0, 0), (0.5, 3), (1, 5)])
    def test_share_is_rounded_halves_up(self, share, without):
        labeled, _ = sizes_of("zero_label_clients", {"fraction": 1, "share": share}, [4] * 5)
        assert labeled.count(0) == without

    def test_unused_samples_stay_unused(self):
        fields = {"fraction": 0.2, "unlabeled_fraction": 0.5, "share": 1}
        assert sizes_of("zero_label_clients", fields, [10]) == ([0], [7])


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("some", {}, "'some' is not known; allowed: beta, .*uniform, zero_label_clients"),
        ("uniform", {}, "fraction"),
        ("uniform", {"fraction": 1.2}, r"fraction must be in \[0, 1\], got 1.2"),
        ("uniform", {"fraction": True}, r"got True"),
        ("uniform", {"fraction": 0.5, "unlabeled_fraction": -0.1}, "unlabeled_fraction must be in"),
        (
            "uniform",
            {"fraction": 0.5, "unlabeled_fraction": 0.6},
            r"<= 1, got 0.5 \+ 0.6: .*; lower",
        ),
        ("uniform", {"fraction": 0.5, "min_labels": -1}, "min_labels must be a whole number >= 0"),
        ("zero_label_clients", {"fraction": 0.5, "share": 2}, r"share must be in \[0, 1\], got 2"),
        (
            "zero_label_clients",
            {"fraction": 0.5, "share": 0, "choose": "x"},
            "random, largest, smallest",
        ),
        ("zero_label_clients", {"fraction": 7, "share": 0}, "fraction must be in"),
    ],
)
def test_wrong_settings_say_what_is_allowed(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(POLICIES, name, fields)
