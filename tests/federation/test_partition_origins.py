import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, Samples, build, make
from fedlabels.federation.partitions.domain import lds_counts
from fedlabels.federation.summary import class_counts
from tests.federation.cases import even_labels, policy_of, with_origins


def deal(name, fields, samples, *, clients, seed=0):
    return make(PARTITIONS, name, fields).deal(samples, clients=clients, seed=seed)


def owned(sizes):
    owner = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    names = tuple(f"person {k}" for k in range(len(sizes)))
    return Samples(np.zeros(len(owner), dtype=np.int64), 2, owner=owner, owner_names=names)


class TestNatural:
    def test_every_person_is_a_client(self):
        samples = owned([5, 1, 9, 3])
        shards = deal("natural", {}, samples, clients=4)
        assert [set(samples.owner[s].tolist()) for s in shards] == [{0}, {1}, {2}, {3}]
        assert shards.sizes.tolist() == [5, 1, 9, 3]

    def test_fewer_clients_are_people_drawn_by_the_seed(self):
        samples = owned([4] * 30)
        found = set()
        for seed in range(8):
            shards = deal("natural", {}, samples, clients=10, seed=seed)
            people = [set(samples.owner[s].tolist()) for s in shards]
            assert all(len(p) == 1 for p in people)
            assert shards.sizes.tolist() == [4] * 10
            drawn = tuple(min(p) for p in people)
            assert len(set(drawn)) == 10
            found.add(drawn)
        assert len(found) == 8

    def test_small_people_take_no_part(self):
        samples = owned([5, 1, 9, 3])
        for seed in range(5):
            shards = deal("natural", {"min_size": 4}, samples, clients=2, seed=seed)
            assert shards.sizes.tolist() == [5, 9]

    def test_too_many_clients(self):
        message = "7 clients, but the data set has 4 natural clients; lower clients to 4 or less"
        with pytest.raises(ConfigError, match=message) as caught:
            deal("natural", {}, owned([5, 1, 9, 3]), clients=7)
        assert "partition.reuse does not help" in str(caught.value)

    def test_nobody_gets_samples_of_others_to_be_large_enough(self):
        message = r"4 natural clients, 2 of them with fewer than min_size=4 samples; .*clients to 2"
        with pytest.raises(ConfigError, match=message):
            deal("natural", {"min_size": 4}, owned([5, 1, 9, 3]), clients=4)

    def test_reuse_makes_no_new_people(self):
        with pytest.raises(ConfigError, match="4 natural clients"):
            build(
                owned([5, 1, 9, 3]),
                clients=5,
                partition=make(PARTITIONS, "natural", {}),
                policy=policy_of("uniform", {"fraction": 0.5}),
                seed=0,
                reuse=True,
                samples_per_client=50,
            )

    def test_a_data_set_without_people(self):
        with pytest.raises(ConfigError, match="does not say whose its samples are"):
            deal("natural", {}, Samples(even_labels(20), 10), clients=2)


def domains_of(shards, samples):
    return [set(samples.domain[s].tolist()) for s in shards]


class TestDomain:
    @settings(max_examples=30, deadline=None)
    @given(
        within=st.sampled_from(["iid", "dirichlet", "lds"]),
        clients=st.integers(3, 10),
        seed=st.integers(0, 50),
        holdout=st.sampled_from([[], ["art"], ["art", "sketch"]]),
    )
    def test_clients_are_spread_over_the_domains_in_order(self, within, clients, seed, holdout):
        samples = with_origins(even_labels(600, 4), 4)
        alpha = None if within == "iid" else 0.5
        fields = {"within": within, "alpha": alpha, "holdout": holdout, "min_size": 0}
        shards = deal("domain", fields, samples, clients=clients, seed=seed)
        part = [d for d, name in enumerate(samples.domain_names) if name not in holdout]
        for k, found in enumerate(domains_of(shards, samples)):
            assert found <= {part[k * len(part) // clients]}
        dealt = sorted(shards.index.tolist())
        if within != "lds":
            assert dealt == np.flatnonzero(np.isin(samples.domain, part)).tolist()

    def test_alike_within_a_domain(self):
        samples = with_origins(even_labels(600, 4), 4)
        shards = deal("domain", {}, samples, clients=7)
        assert sorted(shards.sizes.tolist()) == [66, 67, 67, 100, 100, 100, 100]

    def test_label_skew_within_a_domain(self):
        samples = with_origins(even_labels(30_000), 10)
        classes = []
        for alpha in (0.05, 100.0):
            fields = {"within": "dirichlet", "alpha": alpha}
            shards = deal("domain", fields, samples, clients=12)
            counts = class_counts(shards.owners, samples.labels[shards.index], 12, 10)
            classes.append((counts > 20).sum(1).mean())
        assert classes[0] < 5
        assert classes[1] > 9.5

    def test_a_domain_cuts_every_client_down_to_the_smallest(self):
        labels = even_labels(1000)
        domain = np.repeat([0, 1], [900, 100])
        samples = Samples(labels, 10, domain, ("big", "small"))
        plain = deal("domain", {}, samples, clients=4)
        shards = deal("domain", {"equal_sizes": True}, samples, clients=4)
        assert plain.sizes.tolist() == [450, 450, 50, 50]
        assert shards.sizes.tolist() == [50] * 4
        for kept, all_of_it in zip(shards, plain, strict=True):
            assert set(kept.tolist()) <= set(all_of_it.tolist())
        assert shards[0].max() > 800  # drawn at random, not the first ones

    def test_minimum_is_met_within_the_domain(self):
        samples = with_origins(even_labels(300), 10)
        fields = {"within": "dirichlet", "alpha": 0.01}
        assert deal("domain", {**fields, "min_size": 0}, samples, clients=30).sizes.min() < 5
        shards = deal("domain", {**fields, "min_size": 5}, samples, clients=30)
        assert shards.sizes.min() >= 5
        assert domains_of(shards, samples) == [{k // 10} for k in range(30)]

    def test_a_domain_too_small_for_its_clients(self):
        samples = Samples(even_labels(100), 10, np.repeat([0, 1], [95, 5]), ("big", "small"))
        with pytest.raises(ConfigError, match="domain 'small': min_size=3 for 2 clients takes 6"):
            deal("domain", {"min_size": 3}, samples, clients=4)

    @pytest.mark.parametrize(
        ("fields", "clients", "message"),
        [
            ({}, 2, "2 clients for 3 domains; have at least one client a domain"),
            (
                {"holdout": ["photos"]},
                5,
                "holdout names 'photos'; the domains are art, photo, sket",
            ),
            ({"holdout": ["art", "photo", "sketch"]}, 5, "holdout names all 3 domains"),
        ],
    )
    def test_requests_that_do_not_fit(self, fields, clients, message):
        with pytest.raises(ConfigError, match=message):
            deal("domain", fields, with_origins(even_labels(60), 10), clients=clients)

    def test_a_data_set_without_domains(self):
        with pytest.raises(ConfigError, match="this data set has no domains"):
            deal("domain", {}, Samples(even_labels(20), 10), clients=2)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"within": "x"}, "within must be one of iid, dirichlet, lds, got 'x'"),
            ({"within": "lds"}, "within=lds needs alpha, a number > 0"),
            ({"within": "dirichlet", "alpha": 0}, "alpha must be > 0, got 0"),
            ({"holdout": "art"}, "holdout must be a list of names, got 'art'"),
        ],
    )
    def test_wrong_settings(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            make(PARTITIONS, "domain", fields)

    def test_a_list_is_as_good_as_a_tuple(self):
        as_list, as_tuple = (
            make(PARTITIONS, "domain", {"holdout": kind(["art"])}) for kind in (list, tuple)
        )
        assert as_list == as_tuple


class TestLabelSkewOverDomains:
    def test_counts_round_down(self):
        shares = np.array([[0.25, 0.5, 0.0], [0.75, 0.5, 1.0]])
        found = lds_counts(shares, np.array([[10, 7, 3], [10, 8, 3]]))
        assert found.tolist() == [[2, 3, 0], [7, 4, 3]]

    def test_every_class_is_shared_out_over_the_domains(self):
        """Domain d deals floor(p_d n_d) of a class with shares p that sum to 1."""
        samples = with_origins(even_labels(6000), 10)
        for seed in range(5):
            fields = {"within": "lds", "alpha": 0.3, "min_size": 0}
            shards = deal("domain", fields, samples, clients=3, seed=seed)
            held = class_counts(samples.domain, samples.labels, 3, 10)
            kept = class_counts(shards.owners, samples.labels[shards.index], 3, 10)
            shares = kept / held
            assert (shares.sum(0) <= 1).all()
            assert (shares.sum(0) > 1 - 3 / held.min()).all()
            assert shares.std() > 0.2

    def test_domains_held_out_get_no_share(self):
        samples = with_origins(even_labels(6000), 10)
        fields = {"within": "lds", "alpha": 0.3, "min_size": 0, "holdout": ["photo"]}
        shards = deal("domain", fields, samples, clients=2)
        held = class_counts(samples.domain, samples.labels, 3, 10)[[0, 2]]
        kept = class_counts(shards.owners, samples.labels[shards.index], 2, 10)
        assert ((kept / held).sum(0) > 1 - 2 / held.min()).all()
        assert domains_of(shards, samples) == [{0}, {2}]

    def test_kept_samples_are_drawn_at_random_and_dealt_alike(self):
        labels = np.sort(even_labels(6000))
        samples = with_origins(labels, 10)
        shards = deal("domain", {"within": "lds", "alpha": 50.0}, samples, clients=6)
        assert abs(shards.sizes[::2] - shards.sizes[1::2]).max() <= 1
        place = shards.index % 600  # place within the class
        assert abs(place.mean() - 300) < 25

    def test_samples_of_unknown_class_are_all_dealt(self):
        labels = even_labels(3000)
        labels[::3] = -1
        samples = with_origins(labels, 10)
        shards = deal("domain", {"within": "lds", "alpha": 0.1}, samples, clients=3)
        assert (labels[shards.index] < 0).sum() == 1000
