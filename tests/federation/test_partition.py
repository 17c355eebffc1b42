import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, cut_by_proportions, draw_class_order, make
from fedlabels.federation.cutting import piece_sizes
from fedlabels.federation.evening import even_out
from fedlabels.federation.partitions.client_dirichlet import fill_counts
from fedlabels.federation.summary import class_counts, effective_classes
from tests.federation.cases import PARTITION_CASES, case_id, even_labels, with_origins

GOLDEN = Path(__file__).parents[1] / "golden" / "fedlabel.json"
every_case = pytest.mark.parametrize(("name", "fields"), PARTITION_CASES, ids=case_id)
# Rules that give every sample to somebody and ask for nothing but labels.
COMPLETE = [case for case in PARTITION_CASES if case[0] not in ("natural", "domain")]
complete = pytest.mark.parametrize(("name", "fields"), COMPLETE, ids=case_id)
PINNED = {
    ("iid", ()): "835c86f0a14d",
    ("dirichlet", (("alpha", 0.5),)): "bdd03e703358",
    ("dirichlet", (("alpha", 0.5), ("balance", True))): "dc60ee99c392",
    ("client_dirichlet", (("alpha", 0.5),)): "ca3e1080cae1",
    ("client_dirichlet", (("alpha", 0.1), ("min_size", 3))): "d4b6afc248eb",
    ("shards", ()): "b99f2a6b17fb",
    ("classes_per_client", (("number", 3),)): "fcaaf73b9612",
    ("extended_dirichlet", (("number", 2), ("alpha", 0.5))): "590261ebf6de",
    ("log_normal", (("sigma", 1.0),)): "03a32dd603a7",
    ("quantity_dirichlet", (("alpha", 1.0),)): "c0bccc8d46d3",
}


def deal(name, fields, labels, *, clients=20, classes=10, seed=0):
    partition = make(PARTITIONS, name, fields)
    samples = with_origins(labels, classes, owners=max(clients, 1))
    return partition.deal(samples, clients=clients, seed=seed)


def counts_of(shards, labels, classes=10):
    return class_counts(shards.owners, labels[shards.index], len(shards), classes)


def mixes_of(shards, labels):
    counts = counts_of(shards, labels)
    counts = counts[counts.sum(1) > 0]
    return counts / counts.sum(1, keepdims=True)


def test_every_partitioner_is_tested():
    assert {name for name, _ in PARTITION_CASES} == set(PARTITIONS) - {"flower", "from_file"}


@complete
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_deals_every_sample_once_and_meets_the_minimum(name, fields, data):
    # A few rules need room for 2 classes, or 2 shards, per client; three clients hold five classes.
    narrow = name in ("shards", "classes_per_client", "extended_dirichlet")
    clients = data.draw(st.integers(3 if narrow else 1, 12))
    min_size = data.draw(st.integers(0, 4))
    head = np.arange(2 * clients) % 5 if narrow else np.zeros(0, dtype=np.int64)
    low = max(clients * min_size, 1)
    rest = data.draw(st.lists(st.integers(-1, 4), min_size=low, max_size=low + 60))
    labels = np.concatenate([head, np.array(rest)])
    seed = data.draw(st.integers(0, 99))
    settings_ = {**fields, "min_size": min_size}
    shards = deal(name, settings_, labels, clients=clients, classes=5, seed=seed)
    assert len(shards) == clients
    assert np.sort(shards.index).tolist() == list(range(len(labels)))
    assert shards.sizes.min() >= min_size


@every_case
@settings(max_examples=10, deadline=None)
@given(clients=st.integers(3, 9), extra=st.integers(0, 40), seed=st.integers(0, 99))
def test_deals_no_sample_twice(name, fields, clients, extra, seed):
    labels = np.random.default_rng(seed).integers(-1, 5, 60 + extra)
    shards = deal(name, fields, labels, clients=clients, classes=5, seed=seed)
    assert len(shards) == clients
    assert len(set(shards.index.tolist())) == len(shards.index)
    assert all((np.diff(shard) > 0).all() for shard in shards)
    if fields.get("min_size") != 0:
        assert shards.sizes.min() >= 1


@pytest.mark.parametrize(("case", "digest"), PINNED.items(), ids=lambda v: str(v))
def test_draws_are_pinned(case, digest):
    """A change here is a change of every federation that was ever made with the rule."""
    labels = np.random.default_rng(1).permutation(np.arange(200) % 4)
    shards = deal(case[0], dict(case[1]), labels, clients=10, classes=4)
    content = np.concatenate([shards.offsets, shards.index]).astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest().startswith(digest)


# With as many clients as people there is nothing to draw.
@pytest.mark.parametrize(
    ("name", "fields"), [case for case in PARTITION_CASES if case[0] != "natural"], ids=case_id
)
def test_same_seed_same_shards_and_another_seed_others(name, fields):
    labels = even_labels(2000)
    first, again, other = (deal(name, fields, labels, seed=s).index for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


@complete
def test_one_client_gets_all(name, fields):
    if "number" in fields:
        fields = {**fields, "number": 10}
    assert deal(name, fields, even_labels(50), clients=1)[0].tolist() == list(range(50))


@complete
def test_survives_extreme_concentrations(name, fields):
    for alpha in (1e-3, 1e4):
        if "alpha" in fields:
            shards = deal(name, {**fields, "alpha": alpha}, even_labels(3000), clients=300)
            assert shards.sizes.sum() == 3000


@every_case
def test_sixty_thousand_samples_to_a_thousand_clients_are_quick(name, fields):
    samples = with_origins(even_labels(), 10, owners=1000)
    partition = make(PARTITIONS, name, {"min_size": 10, **fields})
    times = [1.0]
    while min(times) >= 0.05 and len(times) < 20:  # of this thread: others may have the cores
        start = time.thread_time()
        partition.deal(samples, clients=1000, seed=0)
        times.append(time.thread_time() - start)
    assert min(times) < 0.05


def test_iid_sizes_differ_by_one_at_most():
    sizes = deal("iid", {}, even_labels(1003), clients=10).sizes
    assert sorted(set(sizes.tolist())) == [100, 101]


def test_client_dirichlet_sizes_differ_by_one_at_most():
    sizes = deal("client_dirichlet", {"alpha": 0.1}, even_labels(1003), clients=10).sizes
    assert sorted(set(sizes.tolist())) == [100, 101]


# Mean effective classes, 60,000 samples, 10 classes, 100 clients, as measured for the three rules
# of the literature: (alpha 0.1, 0.5, 1).
@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("dirichlet", {}, (2.49, 5.35, 7.07)),
        ("dirichlet", {"balance": True}, (2.17, 4.71, 6.38)),
        ("client_dirichlet", {}, (2.37, 5.13, 6.67)),
    ],
)
def test_skew_is_that_of_the_literature(name, fields, expected):
    labels = even_labels()
    for alpha, value in zip((0.1, 0.5, 1.0), expected, strict=True):
        shards = [
            deal(name, {**fields, "alpha": alpha}, labels, clients=100, seed=s) for s in range(5)
        ]
        found = np.mean([effective_classes(mixes_of(s, labels)) for s in shards])
        assert found == pytest.approx(value, rel=0.08)


def test_large_alpha_is_nearly_iid():
    labels = even_labels()
    for name in ("dirichlet", "client_dirichlet"):
        shards = deal(name, {"alpha": 1e4}, labels, clients=20)
        assert effective_classes(mixes_of(shards, labels)) > 9.9


def owners_per_class(class_order):
    labels = even_labels()
    fields = {"alpha": 0.5, "balance": True, "class_order": class_order}
    held = [
        (counts_of(deal("dirichlet", fields, labels, clients=100, seed=s), labels) > 0).sum(0)
        for s in range(8)
    ]
    return np.mean(held, axis=0)


def test_balance_squeezes_late_classes_and_the_permuted_order_spreads_that():
    natural, permuted = owners_per_class("natural"), owners_per_class("permuted")
    assert natural[0] - natural[-1] > 25
    assert abs(permuted[:5].mean() - permuted[5:].mean()) < 12


def test_place_in_line_does_not_follow_the_client_number():
    labels = even_labels()
    halves = np.zeros(2)
    for seed in range(8):
        mixes = mixes_of(
            deal("client_dirichlet", {"alpha": 0.5}, labels, clients=100, seed=seed), labels
        )
        halves += [effective_classes(mixes[:50]), effective_classes(mixes[50:])]
    assert abs(halves[0] - halves[1]) / 8 < 0.3


@pytest.mark.parametrize("name", ["dirichlet", "client_dirichlet"])
def test_samples_of_unknown_class_are_spread_evenly(name):
    labels = even_labels(20_000)
    labels[:10_000] = -1
    shards = deal(name, {"alpha": 0.1}, labels, clients=20)
    unknown = np.array([(labels[s] < 0).sum() for s in shards])
    assert unknown.min() > 300
    assert unknown.max() < 700


class TestCut:
    @pytest.mark.parametrize(
        "entry",
        [
            entry
            for entry in json.loads(GOLDEN.read_text())["entries"]
            if entry["kind"] == "fedlabel.partition"
        ],
        ids=lambda entry: entry["name"],
    )
    def test_golden(self, entry):
        """Of class c shard k gets positions floor(F_{k-1} n_c) to floor(F_k n_c), F = cumsum(p)."""
        inputs = entry["inputs"]
        order = [np.array(part, dtype=np.int64) for part in inputs["class_order"]]
        shards = cut_by_proportions(np.array(inputs["labels"]), np.array(inputs["p"]), order)
        assert [s.tolist() for s in shards] == entry["outputs"]["shards"]

    def test_a_class_that_nobody_wants_is_dealt_evenly(self):
        labels = np.zeros(6, dtype=np.int64)
        shards = cut_by_proportions(labels, np.zeros((3, 1)), [np.arange(6)])
        assert shards.sizes.tolist() == [2, 2, 2]

    def test_class_order_partitions_the_samples(self):
        labels = np.array([1, -1, 0, 1, 0, -1, 1])
        order = draw_class_order(labels, 3, np.random.default_rng(0))
        assert [sorted(part.tolist()) for part in order] == [[2, 4], [0, 3, 6], [], [1, 5]]

    @pytest.mark.parametrize(
        ("proportions", "order", "message"),
        [
            (np.ones((2, 2)), [np.array([0])], r"shape \(clients, 1\), got \(2, 2\)"),
            (np.ones((0, 1)), [np.array([0])], r"got \(0, 1\)"),
            (np.array([[np.nan]]), [np.array([0])], "finite and >= 0"),
            (np.array([[-1.0]]), [np.array([0])], "finite and >= 0"),
            (np.ones((2, 1)), [np.array([1])], r"class_order\[0\] holds samples of another"),
        ],
    )
    def test_wrong_input(self, proportions, order, message):
        with pytest.raises(ConfigError, match=message):
            cut_by_proportions(np.array([0, 1]), proportions, order)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 500))
    def test_pieces_sum_to_the_whole(self, shares, total):
        sizes = piece_sizes(np.array(shares), total)
        assert sizes.min() >= 0
        assert sizes.sum() == total


class TestEvenOut:
    @given(
        st.lists(st.integers(0, 40), min_size=1, max_size=15), st.integers(0, 8), st.integers(0, 9)
    )
    def test_moves_only_what_is_needed_and_from_the_largest(self, sizes, min_size, seed):
        clients = len(sizes)
        owners = np.random.default_rng(seed).permutation(np.repeat(np.arange(clients), sizes))
        random = np.random.default_rng(seed)
        if sum(sizes) < clients * min_size:
            with pytest.raises(ConfigError, match=r"reuse=true"):
                even_out(owners, clients=clients, min_size=min_size, random=random)
            return
        moved = even_out(owners, clients=clients, min_size=min_size, random=random)
        after = np.bincount(moved, minlength=clients)
        need = sum(max(min_size - size, 0) for size in sizes)
        assert (moved != owners).sum() == need
        assert after.min() >= min_size
        donors = after < np.array(sizes)
        if donors.any():
            assert after[donors].max() - after[donors].min() <= 1
            assert after.max() <= after[donors].max() + 1

    def test_samples_of_nobody_stay_nobodys(self):
        owners = np.array([0, 0, 0, -1, 0])
        random = np.random.default_rng(0)
        moved = even_out(owners, clients=2, min_size=2, random=random)
        assert moved[3] == -1
        assert np.bincount(moved[moved >= 0]).tolist() == [2, 2]

    def test_error_says_what_to_do(self):
        with pytest.raises(ConfigError, match="min_size=5 for 3 clients takes 15 samples, got 9"):
            deal("iid", {"min_size": 5}, even_labels(9), clients=3)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 200), st.integers(0, 99))
def test_filled_counts_meet_both_margins(clients, classes, samples, seed):
    random = np.random.default_rng(seed)
    stock = np.bincount(random.integers(0, classes, samples), minlength=classes)
    sizes = np.bincount(random.integers(0, clients, samples), minlength=clients)
    mixes = random.dirichlet(np.full(classes, 0.05), size=clients)
    counts = fill_counts(mixes, sizes, stock, random)
    assert counts.min() >= 0
    assert counts.sum(0).tolist() == stock.tolist()
    assert counts.sum(1).tolist() == sizes.tolist()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "shard",
            {},
            "'shard' is not known .did you mean shards.*; allowed: classes_per_client, ",
        ),
        ("iid", {"alpha": 1}, "'iid' has no setting alpha; allowed: min_size"),
        ("dirichlet", {}, "alpha"),
        ("dirichlet", {"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ("dirichlet", {"alpha": float("nan")}, "alpha must be > 0, got nan"),
        ("dirichlet", {"alpha": "0.1"}, "alpha must be > 0, got '0.1'"),
        ("dirichlet", {"alpha": 1, "draw": "row"}, "draw must be one of class, client, got 'row'"),
        ("dirichlet", {"alpha": 1, "class_order": "x"}, "one of permuted, natural, got 'x'"),
        ("client_dirichlet", {"alpha": -1}, "alpha must be > 0, got -1"),
        ("iid", {"min_size": -1}, "min_size must be a whole number >= 0, got -1"),
        ("iid", {"min_size": 1.5}, "got 1.5"),
    ],
)
def test_wrong_settings_say_what_is_allowed(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(PARTITIONS, name, fields)
