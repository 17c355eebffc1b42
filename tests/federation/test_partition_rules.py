from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, Samples, make
from fedlabels.federation.partitions.classes_per_client import draw_classes, group_by_class
from fedlabels.federation.partitions.extended_dirichlet import dirichlet_groups
from fedlabels.federation.ragged import Ragged
from fedlabels.federation.summary import class_counts
from tests.federation.cases import even_labels


def deal(name, fields, labels, *, clients=20, classes=10, seed=0):
    partition = make(PARTITIONS, name, fields)
    return partition.deal(Samples(labels, classes), clients=clients, seed=seed)


def counts_of(shards, labels, classes=10):
    return class_counts(shards.owners, labels[shards.index], len(shards), classes)


class TestShards:
    def test_the_published_setting(self):
        """200 shards of 300 for 100 clients: two classes each, or one."""
        labels = even_labels()
        shards = deal("shards", {}, labels, clients=100)
        counts = counts_of(shards, labels)
        assert set(counts.ravel().tolist()) <= {0, 300, 600}
        assert shards.sizes.tolist() == [600] * 100

    def test_pieces_are_dealt_at_random(self):
        """Both shards of a client are of one class with probability 19/199."""
        labels = even_labels()
        alone = [
            (counts_of(deal("shards", {}, labels, clients=100, seed=s), labels) == 600).sum()
            for s in range(40)
        ]
        deviation = (100 * 19 / 199 / 40) ** 0.5
        assert np.mean(alone) == pytest.approx(100 * 19 / 199, abs=4 * deviation)

    def test_the_order_of_the_file_plays_no_part(self):
        labels = np.sort(even_labels(1000))
        for shard in deal("shards", {}, labels, clients=20):
            assert (np.diff(shard) > 1).sum() > 20

    def test_sizes_of_odd_pieces_differ_little(self):
        sizes = deal("shards", {"shards_per_client": 3}, even_labels(1003), clients=10).sizes
        assert sizes.max() - sizes.min() <= 3

    def test_samples_of_unknown_class_are_spread_evenly(self):
        labels = even_labels(4000)
        labels[:1000] = -1
        shards = deal("shards", {}, labels, clients=20)
        assert [(labels[s] < 0).sum() for s in shards] == [50] * 20

    def test_more_shards_than_samples(self):
        message = "20 clients with shards_per_client=6 take 120 shards, got 100 samples of known"
        with pytest.raises(ConfigError, match=message):
            deal("shards", {"shards_per_client": 6}, even_labels(100))


class TestClassesPerClient:
    @given(
        clients=st.integers(1, 50),
        classes=st.integers(1, 12),
        number=st.integers(1, 12),
        seed=st.integers(0, 99),
    )
    def test_hands_are_of_different_classes_and_balanced(self, clients, classes, number, seed):
        number = min(number, classes)
        hands = draw_classes(clients, number, classes, np.random.default_rng(seed))
        assert hands.shape == (clients, number)
        assert all(len(set(hand)) == number for hand in hands.tolist())
        held = np.bincount(hands.ravel(), minlength=classes)
        assert len(held) == classes
        assert held.max() - held.min() <= 1

    @pytest.mark.parametrize(("classes", "number"), [(5, 2), (4, 2), (5, 3)])
    def test_every_set_of_classes_is_as_likely(self, classes, number):
        """Also those of hands that run over the end of a deck."""
        random = np.random.default_rng(0)
        drawn = np.stack([draw_classes(7, number, classes, random) for _ in range(3000)])
        sets = list(combinations(range(classes), number))
        codes = (1 << drawn).sum(-1).ravel()
        found = [np.mean(codes == sum(1 << c for c in chosen)) for chosen in sets]
        assert sum(found) == pytest.approx(1.0)
        np.testing.assert_allclose(found, 1 / len(sets), atol=0.012)

    def test_neighbors_do_not_complement_each_other(self):
        """Of 7 others, 2 of 4 classes each, one shares a deck; of the rest 1 in 6 is disjoint."""
        random = np.random.default_rng(0)
        drawn = np.stack([draw_classes(8, 2, 4, random)[:2] for _ in range(3000)])
        disjoint = [not set(first) & set(second) for first, second in drawn.tolist()]
        assert np.mean(disjoint) == pytest.approx(1 / 7 + 6 / 7 / 6, abs=0.035)

    def test_holders_come_in_random_order(self):
        hands = Ragged.from_lists([[0]] * 500)
        first, other = (group_by_class(hands, np.random.default_rng(s)).index for s in (0, 1))
        assert sorted(first.tolist()) == list(range(500))
        assert abs(np.corrcoef(first, np.arange(500))[0, 1]) < 0.2
        assert (first != other).any()

    def test_every_client_has_its_classes_and_every_class_is_cut_evenly(self):
        labels = even_labels()
        counts = counts_of(deal("classes_per_client", {"number": 3}, labels, clients=101), labels)
        assert ((counts > 0).sum(1) == 3).all()
        holders = (counts > 0).sum(0)
        assert set(holders.tolist()) <= {30, 31}
        for column in counts.T:
            parts = column[column > 0]
            assert parts.max() - parts.min() <= 1
        assert counts.sum() == 60_000

    def test_all_classes_is_nearly_iid(self):
        labels = even_labels()
        counts = counts_of(deal("classes_per_client", {"number": 10}, labels, clients=60), labels)
        assert (counts == 100).all()

    def test_classes_without_samples_are_not_counted(self):
        labels = np.array([0, 2, 4] * 20)
        shards = deal("classes_per_client", {"number": 2}, labels, clients=6, classes=5)
        assert ((counts_of(shards, labels, 5) > 0).sum(1) == 2).all()

    @pytest.mark.parametrize(
        ("number", "clients", "message"),
        [
            (11, 20, "number=11 classes per client, but 10 classes have samples; lower number"),
            (2, 4, r"4 clients with number=2 .* room for 8 of 10 classes; raise number to at lea"),
        ],
    )
    def test_no_room(self, number, clients, message):
        for name, rest in (("classes_per_client", {}), ("extended_dirichlet", {"alpha": 1.0})):
            with pytest.raises(ConfigError, match=message):
                deal(name, {"number": number, **rest}, even_labels(200), clients=clients)


class TestExtendedDirichlet:
    def test_clients_hold_their_classes_at_most(self):
        labels = even_labels()
        fields = {"number": 3, "alpha": 0.5, "min_size": 0}
        counts = counts_of(deal("extended_dirichlet", fields, labels, clients=100), labels)
        assert (counts > 0).sum(1).max() == 3
        assert counts.sum(0).tolist() == [6000] * 10

    def test_large_alpha_cuts_evenly(self):
        labels = even_labels()
        fields = {"number": 2, "alpha": 1e9}
        counts = counts_of(deal("extended_dirichlet", fields, labels, clients=100), labels)
        assert abs(counts[counts > 0] - 300).max() <= 1

    def test_tiny_alpha_gives_a_class_to_one_holder(self):
        labels = even_labels()
        fields = {"number": 2, "alpha": 1e-6, "min_size": 0}
        counts = counts_of(deal("extended_dirichlet", fields, labels, clients=100), labels)
        assert counts.max(0).tolist() == [6000] * 10

    @pytest.mark.parametrize("alpha", [0.1, 1.0, 20.0])
    def test_shares_have_the_moments_of_a_dirichlet_distribution(self, alpha):
        for n in (2, 5):
            sizes = np.full(20_000, n)
            shares = dirichlet_groups(alpha, sizes, np.random.default_rng(n)).reshape(-1, n)
            np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-12)
            variance = (1 / n) * (1 - 1 / n) / (n * alpha + 1)
            np.testing.assert_allclose(shares.mean(0), 1 / n, atol=5 * (variance / 20_000) ** 0.5)
            np.testing.assert_allclose(shares.var(0), variance, rtol=0.06)

    @pytest.mark.parametrize("alpha", [1e-5, 1e-310])
    def test_groups_do_not_mix_however_small_alpha_is(self, alpha):
        sizes = np.array([1, 4, 2])
        shares = dirichlet_groups(alpha, sizes, np.random.default_rng(0))
        assert shares[0] == 1.0
        assert shares[1:5].sum() == pytest.approx(1.0)
        assert shares[5:].sum() == pytest.approx(1.0)


class TestSizes:
    def test_log_normal_sizes_have_that_spread(self):
        labels = even_labels()
        logs = np.concatenate(
            [
                np.log(deal("log_normal", {"sigma": 0.5}, labels, clients=100, seed=s).sizes)
                for s in range(10)
            ]
        )
        assert logs.std() == pytest.approx(0.5, rel=0.1)

    def test_sigma_of_zero_is_equal_sizes(self):
        sizes = deal("log_normal", {"sigma": 0.0}, even_labels(1003), clients=10).sizes
        assert sizes.max() - sizes.min() <= 1

    @pytest.mark.parametrize("alpha", [0.5, 5.0])
    def test_quantity_dirichlet_has_its_variation(self, alpha):
        labels, n = even_labels(), 50
        spread = [
            deal("quantity_dirichlet", {"alpha": alpha}, labels, clients=n, seed=s).sizes
            for s in range(20)
        ]
        expected = ((n - 1) / (n * alpha + 1)) ** 0.5  # of a Dirichlet share over its mean
        assert np.mean([s.std() / s.mean() for s in spread]) == pytest.approx(expected, rel=0.12)

    @pytest.mark.parametrize(
        ("name", "fields"), [("log_normal", {"sigma": 0.6}), ("quantity_dirichlet", {"alpha": 9.0})]
    )
    def test_class_mixes_are_alike(self, name, fields):
        labels = np.sort(even_labels())
        shards = deal(name, fields, labels, clients=20)
        mixes = counts_of(shards, labels) / shards.sizes[:, None]
        assert abs(mixes - 0.1).max() < 0.05


class TestClientDirichlet:
    def test_given_sizes_are_met_and_the_rest_stays_unused(self):
        sizes = [500, 3, 40, 7, 120]
        shards = deal(
            "client_dirichlet", {"alpha": 0.2, "sizes": sizes}, even_labels(1000), clients=5
        )
        assert shards.sizes.tolist() == sizes
        assert len(set(shards.index.tolist())) == 670

    def test_all_samples_may_be_given(self):
        sizes = [900, 60, 40]
        shards = deal(
            "client_dirichlet", {"alpha": 0.2, "sizes": sizes}, even_labels(1000), clients=3
        )
        assert shards.sizes.tolist() == sizes
        assert sorted(shards.index.tolist()) == list(range(1000))

    def test_a_list_is_as_good_as_a_tuple(self):
        as_list, as_tuple = (
            make(PARTITIONS, "client_dirichlet", {"alpha": 1.0, "sizes": kind([4, 2])})
            for kind in (list, tuple)
        )
        assert as_list == as_tuple

    def test_mixes_are_skewed_whatever_the_sizes(self):
        labels = even_labels()
        sizes = [100, 1000] * 20
        fields = {"alpha": 0.1, "sizes": sizes}
        counts = counts_of(deal("client_dirichlet", fields, labels, clients=40), labels)
        largest = counts.max(1) / counts.sum(1)
        assert abs(largest[::2].mean() - largest[1::2].mean()) < 0.15
        assert largest.mean() > 0.6

    def test_drawn_sizes_use_all_samples(self):
        labels = even_labels()
        shards = deal("client_dirichlet", {"alpha": 1.0, "sigma": 0.5}, labels, clients=200)
        assert shards.sizes.sum() == 60_000
        assert np.log(shards.sizes).std() == pytest.approx(0.5, rel=0.15)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"sizes": [5, 5], "sigma": 1.0}, "sizes and sigma both say"),
            ({"sizes": [5, 0]}, "each of sizes must be a whole number >= 1, got 0"),
            ({"sizes": [5, 1.5]}, "each of sizes must be a whole number >= 1, got 1.5"),
            ({"sizes": 7}, "sizes must be a list of whole numbers, got 7"),
            ({"sizes": "12"}, "sizes must be a list of whole numbers, got '12'"),
            ({"sigma": -1.0}, r"sigma must be in \[0, 10\], got -1"),
        ],
    )
    def test_wrong_settings(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            make(PARTITIONS, "client_dirichlet", {"alpha": 1.0, **fields})

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ([5, 5, 5], "sizes has 3 entries for 2 clients; give one a client"),
            ([60, 60], r"sizes sum to 120, but there are 100 samples; .*samples_per_client"),
        ],
    )
    def test_sizes_that_do_not_fit(self, sizes, message):
        with pytest.raises(ConfigError, match=message):
            deal("client_dirichlet", {"alpha": 1.0, "sizes": sizes}, even_labels(100), clients=2)


class TestFedLoge:
    def test_its_own_seed_makes_it_independent_of_the_runs(self):
        labels = even_labels(1000)
        own = [deal("fedloge", {"alpha": 0.5, "seed": 3407}, labels, seed=s).index for s in (0, 1)]
        np.testing.assert_array_equal(*own)
        follows = [deal("fedloge", {"alpha": 0.5}, labels, seed=s).index for s in (0, 1)]
        assert (follows[0] != follows[1]).any()

    def test_samples_of_unknown_class_change_nothing_for_the_others(self):
        labels = even_labels(1000)
        rule = make(PARTITIONS, "fedloge", {"alpha": 0.5, "seed": 1})
        random = np.random.default_rng(0)
        plain = rule.owners(Samples(labels, 10), clients=9, random=random)
        more = Samples(np.concatenate([labels, np.full(50, -1)]), 10)
        np.testing.assert_array_equal(rule.owners(more, clients=9, random=random)[:1000], plain)

    def test_leaves_the_global_generator_alone(self):
        before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the state that must not change
        deal("fedloge", {"alpha": 0.5, "seed": 3407}, even_labels(100))
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002

    def test_alpha_too_small_for_the_legacy_generator(self):
        with pytest.raises(ConfigError, match="alpha=1e-20 is too small for this rule"):
            deal("fedloge", {"alpha": 1e-20}, even_labels(100))

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
    def test_seeds_of_the_legacy_generator(self, seed):
        with pytest.raises(ConfigError, match="seed must be"):
            make(PARTITIONS, "fedloge", {"alpha": 0.5, "seed": seed})


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "shards",
            {"shards_per_client": 0},
            "shards_per_client must be a whole number >= 1, got 0",
        ),
        ("classes_per_client", {}, "number"),
        ("classes_per_client", {"number": 0}, "number must be a whole number >= 1, got 0"),
        ("extended_dirichlet", {"number": 2, "alpha": 0}, "alpha must be > 0, got 0"),
        ("log_normal", {"sigma": 11.0}, r"sigma must be in \[0, 10\], got 11.0"),
        ("quantity_dirichlet", {"alpha": -1}, "alpha must be > 0, got -1"),
        ("fedloge", {"alpha": 0.0}, "alpha must be > 0, got 0.0"),
    ],
)
def test_wrong_settings_say_what_is_allowed(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        make(PARTITIONS, name, fields)
