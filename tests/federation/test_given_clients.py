"""Given classes to given clients, and labels to given, large or many-sided clients."""

import numpy as np
import pytest

from fedlabels.errors import ConfigError
from fedlabels.federation import Samples
from tests.federation.cases import (
    class_table,
    even_labels,
    masks_of,
    partition_of,
    per_client,
    policy_of,
    skewed,
)

LABELS = even_labels(1000, 10)


def dealt(number, *, clients=None, labels=LABELS, name="classes_per_client", **fields):
    partition = partition_of(name, {"number": number, **fields})
    samples = Samples(labels, 10)
    return partition.deal(samples, clients=clients or len(number), seed=0)


def classes_of(shards, labels=LABELS):
    return [np.unique(labels[part]).tolist() for part in shards]


def test_given_classes_are_split_evenly_over_their_holders():
    shards = dealt([[0, 1, 2, 3, 4], [2, 7, 8]])
    assert classes_of(shards) == [[0, 1, 2, 3, 4], [2, 7, 8]]
    assert shards.sizes.tolist() == [450, 250]  # nobody holds 5, 6 and 9
    assert (np.bincount(LABELS[shards[0]], minlength=10)[:5] == [100, 100, 50, 100, 100]).all()


def test_given_classes_may_be_cut_by_dirichlet_shares():
    shards = dealt([[0, 1], [1, 0]], name="extended_dirichlet", alpha=0.5)
    assert shards.sizes.sum() == 200
    assert classes_of(shards) == [[0, 1], [0, 1]]


def test_samples_of_unknown_class_are_dealt_to_all():
    labels = np.where(np.arange(1000) < 100, -1, LABELS)
    shards = dealt([[0], [1]], labels=labels)
    assert [int((labels[part] < 0).sum()) for part in shards] == [50, 50]


@pytest.mark.parametrize(
    ("number", "fields", "message"),
    [
        ([[0], [1]], {"clients": 3}, r"lists the classes of 2 clients, but clients=3; .*clients=2"),
        ([[0], [10]], {}, "gives client 1 class 10, which has no samples; there are classes 0, 1"),
        ([[0], []], {}, r"number must be .* got \[\] for a client"),
        ([[0], 1], {}, "number must be .* got 1 for a client"),
        ([[0], [1, 1]], {}, r"a class twice: \[1, 1\]"),
        ([[0], [-1]], {}, "number of a class in partition.number must be a whole number >= 0"),
        ("01", {"clients": 2}, "number must be a whole number >= 1"),
        ([[0], [1]], {"min_size": 101}, r"client 0 with the classes \[0\] gets 100 samples"),
    ],
)
def test_classes_that_cannot_be_given_are_refused(number, fields, message):
    with pytest.raises(ConfigError, match=message):
        dealt(number, **fields)


# ---- which clients are labeled


def labeled(name, fields, seed=0):
    shards, samples = skewed(low=60)
    masks = masks_of(name, fields, shards, samples, seed)
    return shards, samples, per_client(shards, masks.labeled)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("uniform", {"fraction": 0.3}),
        ("stratified", {"total": 50}),
        ("zero_label_clients", {"fraction": 0.3}),
        ("per_class_count", {"count": 2}),
    ],
)
def test_given_clients_alone_have_labels(name, fields):
    _, _, counts = labeled(name, {**fields, "clients": [0, 3]})
    assert np.flatnonzero(counts).tolist() == [0, 3]
    if "total" in fields:
        assert counts.sum() == 50


def test_given_clients_are_fully_labeled():
    shards, _, counts = labeled("fully_labeled_clients", {"clients": [0, 3], "choose": "given"})
    assert np.flatnonzero(counts).tolist() == [0, 3]
    assert (counts == shards.sizes)[[0, 3]].all()


def test_the_largest_or_those_of_most_classes_keep_their_labels():
    shards, samples, counts = labeled(
        "zero_label_clients", {"share": 0.5, "fraction": 0.5, "choose": "largest"}
    )
    assert shards.sizes[counts > 0].min() >= shards.sizes[counts == 0].max()
    held = (class_table(shards, samples) > 0).sum(1)
    for seed in (0, 1):
        fields = {"share": 0.5, "choose": "all_classes"}
        _, _, counts = labeled("fully_labeled_clients", fields, seed)
        assert (counts > 0).sum() == 10
        assert held[counts > 0].min() >= held[counts == 0].max()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("uniform", {"choose": "given"}, "choose=given needs labels.clients"),
        ("uniform", {"clients": []}, "clients must name one client at least"),
        ("uniform", {"clients": [1, 1]}, "each once"),
        ("uniform", {"clients": 3}, "clients must be a list of client numbers, got 3"),
        ("uniform", {"clients": [-1]}, "each of labels.clients must be a whole number >= 0"),
        ("uniform", {"clients": [0], "zero_label_share": 0.5}, "says which clients have labels"),
        ("uniform", {"clients": [0], "choose": "largest"}, "says which clients have labels"),
        ("zero_label_clients", {}, "give exactly one of labels.share .* and labels.clients"),
        ("zero_label_clients", {"share": 0.5, "clients": [0]}, "give exactly one of labels.share"),
        ("fully_labeled_clients", {"clients": [0], "total": 5}, "does not go with fully labeled"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(name, fields, message):
    amount = {} if name == "fully_labeled_clients" else {"fraction": 0.1}
    with pytest.raises(ConfigError, match=message):
        policy_of(name, {**amount, **fields})


def test_clients_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"names client 20, but there are 20, 0 to 19"):
        labeled("uniform", {"fraction": 0.1, "clients": [20]})
