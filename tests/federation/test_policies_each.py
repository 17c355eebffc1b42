"""What each label policy promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import Ragged, Samples, build
from tests.federation.cases import (
    CLASSES,
    class_table,
    even_labels,
    masks_of,
    partition_of,
    per_client,
    policy_of,
    skewed,
)


def budget_of(fraction, shards):
    return np.floor(fraction * shards.sizes).astype(np.int64)


class TestStratified:
    @settings(max_examples=40, deadline=None)
    @given(fraction=st.floats(0, 1), seed=st.integers(0, 50))
    def test_meets_the_budget_and_covers_classes_as_far_as_it_goes(self, fraction, seed):
        shards, samples = skewed(seed, low=0, high=40)
        found = masks_of("stratified", {"fraction": fraction}, shards, samples)
        held, got = class_table(shards, samples), class_table(shards, samples, found.labeled)
        budget = budget_of(fraction, shards)
        assert got.sum(1).tolist() == budget.tolist()
        present = (held > 0).sum(1)
        assert ((got > 0).sum(1) >= np.minimum(budget, present)).all()

    def test_classes_have_labels_in_proportion(self):
        shards, samples = skewed(low=200, high=400)
        found = masks_of("stratified", {"fraction": 0.5}, shards, samples)
        held, got = class_table(shards, samples), class_table(shards, samples, found.labeled)
        target = held * (got.sum(1) / shards.sizes)[:, None]
        large = target >= 1
        assert abs(got - target)[large].max() <= 1.5
        assert (got[~large & (held > 0)] == 1).all()

    def test_largest_classes_come_first_where_labels_are_few(self):
        shards = Ragged(np.arange(10), np.array([0, 10]))
        samples = Samples(np.array([0, 1, 1, 1, 1, 2, 2, 2, 3, 3]), CLASSES)
        for fraction, classes in ((0.1, {1}), (0.2, {1, 2}), (0.3, {1, 2, 3})):
            found = masks_of("stratified", {"fraction": fraction}, shards, samples)
            assert set(samples.labels[found.labeled].tolist()) == classes

    def test_which_samples_of_a_class_is_random(self):
        shards = Ragged(np.arange(40), np.array([0, 40]))
        samples = Samples(np.arange(40) % 2, CLASSES)
        marks = [
            masks_of("stratified", {"fraction": 0.5}, shards, samples, s).labeled
            for s in range(400)
        ]
        np.testing.assert_allclose(np.mean(marks, axis=0), 0.5, atol=0.12)


class TestClassMismatch:
    @settings(max_examples=40, deadline=None)
    @given(kept=st.floats(0, 1), fraction=st.floats(0, 1), seed=st.integers(0, 50))
    def test_labels_are_of_some_classes_only(self, kept, fraction, seed):
        shards, samples = skewed(seed, low=0, high=40)
        fields = {"fraction": fraction, "kept": kept}
        found = masks_of("class_mismatch", fields, shards, samples)
        held, got = class_table(shards, samples), class_table(shards, samples, found.labeled)
        present = (held > 0).sum(1)
        allowed = np.ceil(kept * present - 1e-9)
        assert ((got > 0).sum(1) <= allowed).all()
        budget = budget_of(fraction, shards)
        short = got.sum(1) < budget  # then all samples of all chosen classes are labeled
        assert (got.sum(1) <= budget).all()
        assert ((got == held) | (got == 0))[short].all()
        assert ((got > 0).sum(1) == allowed)[short].all()

    def test_classes_are_chosen_at_random_for_each_client(self):
        labels = np.tile(np.arange(CLASSES), 4000)
        offsets = np.arange(0, len(labels) + 1, 20)
        shards, samples = Ragged(np.arange(len(labels)), offsets), Samples(labels, CLASSES)
        found = masks_of("class_mismatch", {"fraction": 1.0, "kept": 0.4}, shards, samples)
        chosen = class_table(shards, samples, found.labeled) > 0
        assert (chosen.sum(1) == 2).all()
        np.testing.assert_allclose(chosen.mean(0), 0.4, atol=0.06)

    def test_all_classes_is_uniform_in_number(self):
        shards, samples = skewed()
        found = masks_of("class_mismatch", {"fraction": 0.3, "kept": 1.0}, shards, samples)
        assert per_client(shards, found.labeled).tolist() == budget_of(0.3, shards).tolist()

    def test_wrong_share(self):
        with pytest.raises(ConfigError, match=r"kept must be in \[0, 1\], got 1.5"):
            policy_of("class_mismatch", {"fraction": 0.3, "kept": 1.5})


class TestDirichletLabels:
    @settings(max_examples=40, deadline=None)
    @given(
        alpha=st.sampled_from([1e-3, 0.1, 10.0]), fraction=st.floats(0, 1), seed=st.integers(0, 30)
    )
    def test_budget_is_filled_as_far_as_classes_go(self, alpha, fraction, seed):
        shards, samples = skewed(seed, low=0, high=40)
        fields = {"fraction": fraction, "alpha": alpha}
        found = masks_of("dirichlet_labels", fields, shards, samples)
        got = class_table(shards, samples, found.labeled)
        assert got.sum(1).tolist() == budget_of(fraction, shards).tolist()
        assert (got <= class_table(shards, samples)).all()

    def test_small_alpha_labels_few_classes(self):
        labels = np.tile(np.arange(CLASSES), 2000)
        shards = Ragged(np.arange(10_000), np.arange(0, 10_001, 100))
        samples = Samples(labels, CLASSES)
        largest = []
        for alpha in (0.05, 100.0):
            fields = {"fraction": 0.2, "alpha": alpha}
            found = masks_of("dirichlet_labels", fields, shards, samples)
            got = class_table(shards, samples, found.labeled)
            largest.append((got.max(1) / got.sum(1)).mean())
        assert largest[0] > 0.85
        assert largest[1] < 0.32

    def test_wrong_alpha(self):
        with pytest.raises(ConfigError, match="alpha must be > 0, got 0"):
            policy_of("dirichlet_labels", {"fraction": 0.3, "alpha": 0})


class TestPerClassCount:
    @settings(max_examples=30, deadline=None)
    @given(count=st.integers(0, 12), seed=st.integers(0, 50))
    def test_as_many_of_each_class_as_asked_for_or_all(self, count, seed):
        shards, samples = skewed(seed, low=0, high=60)
        found = masks_of("per_class_count", {"count": count}, shards, samples)
        held, got = class_table(shards, samples), class_table(shards, samples, found.labeled)
        assert (got == np.minimum(held, count)).all()

    @pytest.mark.parametrize("count", [-1, 2.0])
    def test_wrong_count(self, count):
        with pytest.raises(ConfigError, match=f"count must be a whole number >= 0, got {count}"):
            policy_of("per_class_count", {"count": count})


class TestBeta:
    def shares(self, fraction, concentration):
        shards = Ragged(np.arange(200_000), np.arange(0, 200_001, 100))
        samples = Samples(np.zeros(200_000, dtype=np.int64), 2)
        fields = {"fraction": fraction, "concentration": concentration}
        found = masks_of("beta", fields, shards, samples)
        return per_client(shards, found.labeled) / 100

    @pytest.mark.parametrize("fraction", [0.1, 0.5])
    @pytest.mark.parametrize("concentration", [0.5, 2.0, 50.0])
    def test_shares_have_the_moments_of_a_beta_distribution(self, fraction, concentration):
        shares = self.shares(fraction, concentration)
        variance = fraction * (1 - fraction) / (concentration + 1)
        assert shares.mean() == pytest.approx(fraction, abs=4 * (variance / 2000) ** 0.5 + 1e-3)
        assert shares.var() == pytest.approx(variance, rel=0.15)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"fraction": 0.0}, r"fraction must be in \(0, 1\), got 0.0"),
            ({"fraction": 1}, r"fraction must be in \(0, 1\), got 1"),
            ({"fraction": 0.5, "concentration": 0}, "concentration must be > 0, got 0"),
        ],
    )
    def test_wrong_settings(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            policy_of("beta", fields)


class TestFullyLabeledClients:
    def test_others_have_no_labels_by_default(self):
        shards, samples = skewed()
        found = masks_of("fully_labeled_clients", {"share": 0.2}, shards, samples)
        labeled = per_client(shards, found.labeled)
        assert sorted(labeled / shards.sizes) == [0.0] * 16 + [1.0] * 4

    def test_others_may_have_some(self):
        shards, samples = skewed()
        fields = {"share": 0.2, "fraction": 0.1}
        labeled = per_client(shards, masks_of("fully_labeled_clients", fields, shards, samples)[0])
        some = labeled < shards.sizes
        assert some.sum() == 16
        assert labeled[some].tolist() == budget_of(0.1, shards)[some].tolist()

    @pytest.mark.parametrize(
        ("name", "double"),
        [
            ("fully_labeled_clients", "fully_labeled_share"),
            ("zero_label_clients", "zero_label_share"),
        ],
    )
    def test_the_share_is_said_once(self, name, double):
        with pytest.raises(ConfigError, match=f"with {name} set share, and leave {double}"):
            policy_of(name, {"share": 0.2, "fraction": 0.1, double: 0.1})


class TestServer:
    def federation(self, labels, **changes):
        arguments = {
            "clients": 10,
            "partition": partition_of("dirichlet", {"alpha": 0.5}),
            "policy": policy_of("server", {"per_class": 7}),
            "seed": 0,
        }
        return build(Samples(labels, CLASSES), **{**arguments, **changes})

    @pytest.mark.parametrize("reuse", [{}, {"reuse": True, "samples_per_client": 80}])
    def test_has_as_many_of_each_class_and_nobody_else_has_them(self, reuse):
        labels = even_labels(100, CLASSES)
        for seed in range(10):
            federation = self.federation(labels, seed=seed, **reuse)
            assert np.bincount(labels[federation.server]).tolist() == [7] * CLASSES
            held = [federation.labeled.index, federation.unlabeled.index]
            assert not np.isin(np.concatenate(held), federation.server).any()
            if not reuse:
                assert len(np.concatenate(held)) + len(federation.server) == 100

    def test_takes_all_of_a_class_where_there_are_fewer(self):
        labels = np.array([0] * 3 + [1] * 30 + [-1] * 10)
        federation = self.federation(labels, partition=partition_of("iid", {}))
        assert np.bincount(labels[federation.server]).tolist() == [3, 7]

    def test_clients_may_have_labels_too(self):
        labels = even_labels(500, CLASSES)
        policy = policy_of("server", {"per_class": 2, "fraction": 0.4})
        federation = self.federation(labels, policy=policy)
        assert 150 < len(federation.labeled.index) <= 200
        assert len(federation.server) == 10

    def test_is_drawn_over_all_clients(self):
        labels = even_labels(1000, CLASSES)
        policy = policy_of("server", {"per_class": 40})
        federation = self.federation(labels, policy=policy, partition=partition_of("iid", {}))
        left = federation.unlabeled.sizes
        assert left.sum() == 800
        assert left.min() > 65
        assert left.max() < 95

    def test_wrong_number(self):
        with pytest.raises(ConfigError, match="per_class must be a whole number >= 1, got 0"):
            policy_of("server", {"per_class": 0})


@pytest.mark.parametrize("twice", [False, True])
def test_shares_of_uniform_that_exceed_the_shard_say_what_helps(twice):
    fields = {"fraction": 0.5, "unlabeled_fraction": 0.8, "unlabeled_includes_labeled": twice}
    with pytest.raises(
        ConfigError, match=r"lower one of them, or set labels\.unlabeled_fraction=nul"
    ):
        policy_of("uniform", fields)
    policy = policy_of("uniform", {**fields, "unlabeled_fraction": None})
    assert policy.unlabeled_includes_labeled is twice
