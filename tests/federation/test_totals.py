"""So many labels in all: exactly so many, as evenly as can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import build, suspicions
from fedlabels.federation.totals import deal_total
from fedlabels.preview import preview
from tests.federation.cases import (
    class_table,
    even_labels,
    masks_of,
    partition_of,
    per_client,
    policy_of,
    skewed,
    with_origins,
)

CASES = [
    ("uniform", {}),
    ("uniform", {"zero_label_share": 0.5}),
    ("uniform", {"min_labels": 1}),
    ("stratified", {}),
    ("class_mismatch", {"kept": 0.5}),
    ("dirichlet_labels", {"alpha": 0.1}),
    ("beta", {"concentration": 0.5}),
    ("zero_label_clients", {"share": 0.4}),
]


@settings(max_examples=60, deadline=None)
@given(
    held=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=6),
    share=st.floats(0, 1),
    least=st.integers(0, 3),
    in_proportion=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_table_gives_exactly_the_total(held, share, least, in_proportion, seed):
    held = np.array(held)
    needed = int(np.minimum(held.sum(1), least).sum())
    total = needed + int(share * (held.sum() - needed))
    random = np.random.default_rng(seed)
    counts = deal_total(total, held, held.sum(1), random, least=least, in_proportion=in_proportion)
    assert counts.sum() == total
    assert (counts >= 0).all()
    assert (counts <= held).all()
    assert (counts.sum(1) >= np.minimum(held.sum(1), least)).all()
    if not least and not in_proportion:  # no class could have one more in place of another
        classes, stock = counts.sum(0), held.sum(0)
        assert all(classes[a] <= classes[b] + 1 for b in range(3) for a in range(3)
                   if classes[b] < stock[b])  # fmt: skip


@pytest.mark.parametrize(("name", "fields"), CASES)
@pytest.mark.parametrize("total", [20, 41, 137])
def test_every_policy_deals_exactly_the_total(name, fields, total):
    shards, samples = skewed()
    labels = masks_of(name, {**fields, "total": total}, shards, samples, seed=3)
    assert labels.labeled.sum() == total
    assert (labels.labeled ^ labels.unlabeled).all()
    again = masks_of(name, {**fields, "total": total}, shards, samples, seed=3)
    assert (labels.labeled == again.labeled).all()


def test_clients_have_labels_by_size_and_classes_alike():
    samples = with_origins(even_labels(1000, 10), 10)
    dealt = build(
        samples,
        clients=4,
        partition=partition_of("client_dirichlet", {"alpha": 1e6, "sizes": (100, 200, 300, 400)}),
        policy=policy_of("uniform", {"total": 50}),
        seed=0,
    )
    assert dealt.labeled.sizes.tolist() == [5, 10, 15, 20]
    assert np.bincount(dealt.labels[dealt.labeled.index]).tolist() == [5] * 10


def test_stratified_labels_classes_in_proportion():
    held = np.array([[60, 30, 10], [60, 30, 10]])
    random = np.random.default_rng(0)
    counts = deal_total(20, held, held.sum(1), random, in_proportion=True)
    assert counts.sum(0).tolist() == [12, 6, 2]
    assert counts.sum(1).tolist() == [10, 10]


def test_a_class_that_runs_out_leaves_its_labels_to_others():
    held = np.array([[1, 50, 50], [1, 50, 50]])
    counts = deal_total(22, held, held.sum(1), np.random.default_rng(0))
    assert counts.sum(0).tolist() == [2, 10, 10]
    assert counts.sum(1).tolist() == [11, 11]


def test_clients_without_labels_leave_theirs_to_the_others():
    shards, samples = skewed(low=50)
    labels = masks_of("uniform", {"total": 60, "zero_label_share": 0.5}, shards, samples)
    sizes = per_client(shards, labels.labeled)
    assert (sizes == 0).sum() == 10
    assert sizes.sum() == 60


def test_labels_of_mismatched_classes_are_of_some_of_each_client_only():
    shards, samples = skewed(low=60)
    labels = masks_of("class_mismatch", {"total": 300, "kept": 0.5}, shards, samples)
    held, labeled = class_table(shards, samples), class_table(shards, samples, labels.labeled)
    assert ((labeled > 0).sum(1) <= np.ceil(0.5 * (held > 0).sum(1))).all()


def test_beta_gives_clients_shares_of_their_own():
    shards, samples = skewed(low=60)
    labels = masks_of("beta", {"total": 300, "concentration": 0.2}, shards, samples)
    shares = per_client(shards, labels.labeled) / shards.sizes
    assert shares.max() > 0.8
    assert (shares < 0.05).any()


def test_many_owners_of_a_sample_share_the_total():
    dealt = build(
        with_origins(even_labels(60, 5), 5),
        clients=30,
        partition=partition_of("iid", {}),
        policy=policy_of("uniform", {"total": 33}),
        seed=1,
        reuse=True,
        samples_per_client=10,
    )
    assert dealt.labeled.sizes.sum() == 33


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("uniform", {}, "give exactly one of labels.fraction .* and labels.total"),
        ("uniform", {"total": 4, "fraction": 0.1}, "exactly one of .*; got 0.1 and 4"),
        ("uniform", {"total": -1}, "total must be a whole number >= 0, got -1"),
        ("uniform", {"total": 4.0}, "total must be a whole number"),
        ("fully_labeled_clients", {"total": 4, "share": 0.5}, "does not go with fully labeled"),
        ("uniform", {"total": 4, "fully_labeled_share": 0.5}, "does not go with fully labeled"),
        ("server", {"total": 4, "per_class": 1}, "labels.total=4 counts labels at clients"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        policy_of(name, fields)


def test_numbers_that_cannot_be_met_are_refused():
    shards, samples = skewed()
    every = len(shards.index)
    with pytest.raises(ConfigError, match=f"is more than the {every} samples of known class"):
        masks_of("uniform", {"total": every + 1}, shards, samples)
    with pytest.raises(ConfigError, match=r"less than the 40 labels that labels.min_labels=2"):
        masks_of("uniform", {"total": 39, "min_labels": 2}, shards, samples)
    with pytest.raises(ConfigError, match=r"labels.unlabeled_fraction=0.9 takes .* client 0"):
        masks_of("uniform", {"total": 500, "unlabeled_fraction": 0.9}, shards, samples)
    assert masks_of("uniform", {"total": every}, shards, samples).labeled.all()


def test_a_share_that_is_cut_down_to_nothing_is_said_with_the_number_it_stands_for():
    for clients, said in ((100, True), (10, False)):
        dealt = build(
            with_origins(even_labels(1442, 10), 10),
            clients=clients,
            partition=partition_of("iid", {}),
            policy=policy_of("uniform", {"fraction": 0.02774}),
            seed=0,
        )
        notes = " ".join(suspicions(dealt))
        assert ("it is 0. labels.total=40 is exact" in notes) == said


@pytest.mark.parametrize("clients", [100, 10])
def test_forty_labels_of_digits_are_four_a_class(tmp_path, clients):
    shown = preview(
        ["dataset=digits", "partition=iid", f"clients={clients}", "labels.total=40"],
        tmp_path / "page.html",
    )
    assert "labeled                                 40 (2.8 %)" in shown
    assert "labels per class                        " + " ".join(["4"] * 10) in shown
