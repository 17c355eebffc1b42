"""What every label policy keeps to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import POLICIES, LabelNoise, Samples, build, make
from tests.federation.cases import (
    CLASSES,
    POLICY_CASES,
    case_id,
    even_labels,
    masks_of,
    partition_of,
    per_client,
    policy_of,
    skewed,
    with_origins,
)

every_policy = pytest.mark.parametrize(("name", "fields"), POLICY_CASES, ids=case_id)
# Those that choose no clients and no server of their own.
plain = pytest.mark.parametrize(
    ("name", "fields"),
    [
        c
        for c in POLICY_CASES
        if c[0] not in ("zero_label_clients", "fully_labeled_clients", "server")
    ],
    ids=case_id,
)


# ---- what all of them share


@every_policy
def test_every_known_sample_is_labeled_or_unlabeled_or_at_the_server(name, fields):
    shards, samples = skewed()
    found = masks_of(name, fields, shards, samples)
    assert (np.sum([found.labeled, found.unlabeled, found.server], axis=0) == 1).all()
    assert found.labeled.any()
    assert found.server.any() == (name == "server")


@every_policy
def test_same_seed_same_masks_and_another_seed_others(name, fields):
    shards, samples = skewed()
    first, again, other = (masks_of(name, fields, shards, samples, s).labeled for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@every_policy
def test_the_unlabeled_pool_includes_the_labeled_only_if_asked_to(name, fields):
    shards, samples = skewed()
    without = masks_of(name, fields, shards, samples)
    found = masks_of(name, {**fields, "unlabeled_includes_labeled": True}, shards, samples)
    assert not (without.labeled & without.unlabeled).any()
    assert (found.labeled == without.labeled).all()
    assert (found.unlabeled == (without.unlabeled | without.labeled)).all()


@plain
@pytest.mark.parametrize("share", [0.0, 0.37, 0.65])
def test_the_unlabeled_pool_has_its_share(name, fields, share):
    shards, samples = skewed()
    found = masks_of(name, {**fields, "unlabeled_fraction": share}, shards, samples)
    labeled, unlabeled = per_client(shards, found.labeled), per_client(shards, found.unlabeled)
    wanted = np.floor(share * shards.sizes)
    assert unlabeled.tolist() == np.minimum(wanted, shards.sizes - labeled).tolist()
    assert not (found.labeled & found.unlabeled).any()


@plain
@pytest.mark.parametrize("choose", ["random", "smallest"])
def test_a_share_of_clients_loses_its_labels(name, fields, choose):
    shards, samples = skewed()
    before = masks_of(name, fields, shards, samples)
    chosen = {"zero_label_share": 0.38, "choose": choose}
    found = masks_of(name, {**fields, **chosen}, shards, samples)
    had, has = (per_client(shards, m.labeled) > 0 for m in (before, found))
    lost = (had & ~has).sum()  # 0.38 of 20, halves up; a drawn share can be none at all before
    assert lost == 8 or (name == "beta" and lost < 8 <= lost + (~had).sum())
    kept = np.repeat(has, shards.sizes)
    assert (found.labeled == (before.labeled & kept)).all()
    assert (found.unlabeled == ~found.labeled).all()
    if choose == "smallest":
        assert not has[np.argsort(shards.sizes, kind="stable")[:8]].any()


@plain
def test_what_silent_clients_would_have_labeled_joins_their_pool(name, fields):
    shards, samples = skewed()
    fields = {**fields, "unlabeled_fraction": 0.2}
    before = masks_of(name, fields, shards, samples)
    found = masks_of(name, {**fields, "zero_label_share": 1.0}, shards, samples)
    assert not found.labeled.any()
    assert (found.unlabeled == (before.unlabeled | before.labeled)).all()


@plain
@pytest.mark.parametrize("choose", ["random", "smallest"])
def test_a_share_of_clients_is_fully_labeled(name, fields, choose):
    shards, samples = skewed()
    before = masks_of(name, fields, shards, samples)
    chosen = {"fully_labeled_share": 0.25, "choose": choose}
    found = masks_of(name, {**fields, **chosen}, shards, samples)
    full = per_client(shards, found.labeled) == shards.sizes
    assert full.sum() == 5
    others = ~np.repeat(full, shards.sizes)
    assert (found.labeled[others] == before.labeled[others]).all()
    assert not found.unlabeled[~others].any()
    if choose == "smallest":
        assert full[np.argsort(shards.sizes, kind="stable")[-5:]].all()


@plain
@given(zero=st.floats(0, 1), seed=st.integers(0, 20))
@settings(max_examples=10, deadline=None)
def test_both_shares_of_clients_are_of_different_clients(name, fields, zero, seed):
    shards, samples = skewed()
    fields = {**fields, "zero_label_share": zero, "fully_labeled_share": 1 - zero}
    found = masks_of(name, fields, shards, samples, seed)
    labeled = per_client(shards, found.labeled)
    silent = int(zero * 20 + 0.5)
    assert (labeled == 0).sum() == silent
    assert (labeled == shards.sizes).sum() == 20 - silent


@every_policy
def test_shares_of_clients_cannot_exceed_all(name, fields):
    with pytest.raises(ConfigError, match=r"at most 1|leave (zero|fully)"):
        policy_of(name, {**fields, "zero_label_share": 0.6, "fully_labeled_share": 0.7})


@every_policy
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"unlabeled_fraction": 1.5}, r"unlabeled_fraction must be in \[0, 1\], got 1.5"),
        ({"zero_label_share": -0.1}, r"zero_label_share must be in \[0, 1\], got -0.1"),
        ({"fully_labeled_share": 2}, r"fully_labeled_share must be in \[0, 1\], got 2"),
        ({"choose": "first"}, "choose must be one of random, largest, .*, got 'first'"),
    ],
)
def test_wrong_shared_settings(name, fields, setting, message):
    with pytest.raises(ConfigError, match=message):
        policy_of(name, {**fields, **setting})


# ---- hidden labels


@pytest.mark.parametrize("name", ["uniform", "beta", "zero_label_clients", "fully_labeled_clients"])
def test_policies_that_look_at_no_class_do_not(name):
    shards, samples = skewed()
    fields = dict(POLICY_CASES)[name]
    other = Samples(np.random.default_rng(9).permutation(samples.labels), CLASSES)
    for a, b in zip(
        masks_of(name, fields, shards, samples), masks_of(name, fields, shards, other), strict=True
    ):
        assert (a == b).all()


@every_policy
def test_the_truth_of_unlabeled_samples_stays_hidden(name, fields):
    """Clients see labels of labeled samples only: permuting the others changes nothing of them."""
    labels = even_labels(400, CLASSES)
    federation = build(
        Samples(labels, CLASSES),
        clients=10,
        partition=partition_of("dirichlet", {"alpha": 0.5}),
        policy=policy_of(name, fields),
        seed=0,
    )
    scrambled, random = labels.copy(), np.random.default_rng(1)
    for shard in federation.unlabeled:
        scrambled[shard] = random.permutation(scrambled[shard])
    assert (scrambled != labels).any()
    for noise in (LabelNoise(), LabelNoise(kind="symmetric", rate=0.4)):
        given_labels = [
            noise.apply(federation.labeled, Samples(y, CLASSES), np.random.default_rng(0))
            for y in (labels, scrambled)
        ]
        assert (given_labels[0] == given_labels[1]).all()


@every_policy
def test_samples_of_unknown_class_are_unlabeled_and_change_no_count(name, fields):
    labels = even_labels(600, CLASSES)
    labels[::4] = -1
    federation = build(
        with_origins(labels, CLASSES),
        clients=10,
        partition=partition_of("iid", {}),
        policy=policy_of(name, {**fields, "unlabeled_fraction": 0.2}),
        seed=0,
    )
    unknown = set(np.flatnonzero(labels < 0).tolist())
    assert unknown <= set(federation.unlabeled.index.tolist())
    assert not unknown & set(federation.labeled.index.tolist())
    assert not unknown & set(federation.server.tolist())


def test_every_policy_is_tested():
    assert {name for name, _ in POLICY_CASES} == set(POLICIES) - {"from_file"}
    assert all(make(POLICIES, name, fields) for name, fields in POLICY_CASES)
