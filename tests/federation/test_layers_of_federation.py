"""Long tail, thinning out, label noise, test shards and model groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError
from fedlabels.federation import (
    Federation,
    LabelNoise,
    Layers,
    LongTail,
    ModelGroups,
    Ragged,
    Samples,
    TestShards,
    build,
    floored_counts,
    long_tail_counts,
    mirrored_counts,
)
from fedlabels.federation.layers import thin_out
from fedlabels.federation.summary import class_counts
from tests.federation.cases import even_labels, partition_of, policy_of

CLASSES = 5


def rng(seed=0):
    return np.random.default_rng(seed)


def toy(labels=None, *, layers=None, **changes):
    arguments = {
        "clients": 10,
        "partition": partition_of("dirichlet", {"alpha": 0.5}),
        "policy": policy_of("uniform", {"fraction": 0.3}),
        "seed": 0,
    }
    labels = even_labels(1000, CLASSES) if labels is None else labels
    return build(Samples(labels, CLASSES), layers=layers, **{**arguments, **changes})


class TestLongTail:
    def test_counts_fall_geometrically(self):
        assert long_tail_counts(5000, 10, 0.02).tolist() == [
            5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100,
        ]  # fmt: skip
        assert long_tail_counts(70, 4, 1.0).tolist() == [70] * 4

    @pytest.mark.parametrize("factor", [0.02, 0.1, 0.5])
    def test_natural_order_makes_the_first_class_the_largest(self, factor):
        labels = even_labels(1000, CLASSES)
        kept = LongTail(factor=factor).keep(Samples(labels, CLASSES), rng())
        assert np.bincount(labels[kept]).tolist() == long_tail_counts(200, CLASSES, factor).tolist()
        assert (np.diff(kept) > 0).all()

    def test_permuted_order_is_drawn_by_the_seed(self):
        labels = even_labels(1000, CLASSES)
        tail = LongTail(factor=0.1, order="permuted")
        largest = set()
        for seed in range(30):
            counts = np.bincount(labels[tail.keep(Samples(labels, CLASSES), rng(seed))])
            assert sorted(counts, reverse=True) == long_tail_counts(200, CLASSES, 0.1).tolist()
            largest.add(int(counts.argmax()))
        assert largest == set(range(CLASSES))

    def test_classes_that_are_small_already_stay_whole(self):
        labels = np.repeat([0, 1, 2], [100, 5, 50])
        kept = LongTail(factor=0.25).keep(Samples(labels, 3), rng())
        assert np.bincount(labels[kept]).tolist() == [100, 5, 25]

    def test_samples_of_unknown_class_stay(self):
        labels = even_labels(1000, CLASSES)
        labels[::2] = -1
        kept = LongTail(factor=0.01).keep(Samples(labels, CLASSES), rng())
        assert (labels[kept] < 0).sum() == 500

    def test_one_keeps_everything(self):
        assert LongTail().keep(Samples(even_labels(50), 10), rng()).tolist() == list(range(50))

    def test_thins_out_the_training_set_before_it_is_dealt(self):
        labels = even_labels(1000, CLASSES)
        federation = toy(labels, layers=Layers(long_tail=LongTail(factor=0.1)))
        held = np.concatenate([federation.labeled.index, federation.unlabeled.index])
        expected = long_tail_counts(200, CLASSES, 0.1)
        assert np.bincount(labels[held]).tolist() == expected.tolist()
        assert len(set(held.tolist())) == len(held)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"factor": 0.0}, "must be above 0: smallest over largest"),
            ({"factor": 100.0}, r"long_tail.factor must be in \[0, 1\], got 100.0"),
            ({"order": "random"}, "long_tail.order must be one of natural, permuted"),
        ],
    )
    def test_wrong_settings(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            LongTail(**fields)


class TestThinOut:
    def shards(self, seed=0):
        labels = rng(seed).integers(-1, CLASSES, 300)
        owners = rng(seed + 1).integers(0, 6, 300)
        return Ragged.from_owners(owners, 6), Samples(labels, CLASSES)

    @settings(max_examples=40, deadline=None)
    @given(small=st.floats(0.01, 1), large=st.floats(0.01, 1), seed=st.integers(0, 30))
    def test_a_smaller_share_is_a_part_of_a_larger_one(self, small, large, seed):
        small, large = sorted((small, large))
        shards, samples = self.shards(seed)
        few, many = (thin_out(shards, samples, keep, rng(seed)) for keep in (small, large))
        for a, b in zip(few, many, strict=True):
            assert set(a.tolist()) <= set(b.tolist())

    @pytest.mark.parametrize("keep", [0.1, 0.2, 0.5, 0.99])
    def test_every_class_of_every_client_keeps_its_share(self, keep):
        shards, samples = self.shards()
        kept = thin_out(shards, samples, keep, rng())
        for before, after in zip(shards, kept, strict=True):
            for c in range(-1, CLASSES):
                n = (samples.labels[before] == c).sum()
                assert (samples.labels[after] == c).sum() == np.ceil(round(keep * n, 9))
            assert set(after.tolist()) <= set(before.tolist())

    def test_of_a_federation(self):
        few, many = (toy(layers=Layers(keep=keep)) for keep in (0.2, 0.5))
        for k in range(10):
            small, large = (
                set(f.labeled[k].tolist()) | set(f.unlabeled[k].tolist()) for f in (few, many)
            )
            assert small < large

    @pytest.mark.parametrize(
        ("keep", "message"),
        [(0.0, "partition.keep must be above 0"), (1.2, r"in \[0, 1\], got 1.2")],
    )
    def test_wrong_share(self, keep, message):
        with pytest.raises(ConfigError, match=message):
            Layers(keep=keep)


class TestLabelNoise:
    def labeled(self, per_client=500, clients=40):
        labels = even_labels(per_client * clients, CLASSES)
        offsets = np.arange(0, len(labels) + 1, per_client)
        return Ragged(np.arange(len(labels)), offsets), Samples(labels, CLASSES)

    @pytest.mark.parametrize("kind", ["symmetric", "pair"])
    @pytest.mark.parametrize("rate", [0.0, 0.2, 0.7, 1.0])
    def test_rate_is_that_of_wrong_labels(self, kind, rate):
        shards, samples = self.labeled()
        noisy = LabelNoise(kind=kind, rate=rate).apply(shards, samples, rng())
        wrong = noisy != samples.labels
        assert abs(wrong.mean() - rate) <= 3 * (rate * (1 - rate) / len(noisy)) ** 0.5
        assert noisy.min() >= 0
        assert noisy.max() < CLASSES

    def test_a_wrong_label_of_a_pair_is_the_next_class(self):
        shards, samples = self.labeled()
        noisy = LabelNoise(kind="pair", rate=0.3).apply(shards, samples, rng())
        wrong = noisy != samples.labels
        assert (noisy[wrong] == (samples.labels[wrong] + 1) % CLASSES).all()

    def test_a_symmetric_wrong_label_is_any_other_class_alike(self):
        shards, samples = self.labeled()
        noisy = LabelNoise(kind="symmetric", rate=1.0).apply(shards, samples, rng())
        table = class_counts(samples.labels, noisy, CLASSES, CLASSES) / 4000
        expected = (1 - np.eye(CLASSES)) / (CLASSES - 1)
        np.testing.assert_allclose(table, expected, atol=4 * (0.25 * 0.75 / 4000) ** 0.5)

    def test_every_client_has_the_same_rate_by_default(self):
        shards, samples = self.labeled()
        noisy = LabelNoise(kind="symmetric", rate=0.3).apply(shards, samples, rng())
        rates = (noisy != samples.labels).reshape(40, 500).mean(1)
        assert rates.std() == pytest.approx((0.3 * 0.7 / 500) ** 0.5, rel=0.5)

    @pytest.mark.parametrize("concentration", [0.5, 4.0])
    def test_rates_may_differ_between_clients(self, concentration):
        shards, samples = self.labeled(clients=400)
        noise = LabelNoise(kind="pair", rate=0.3, concentration=concentration)
        rates = (noise.apply(shards, samples, rng()) != samples.labels).reshape(400, 500).mean(1)
        spread = (0.3 * 0.7 / (concentration + 1)) ** 0.5
        assert rates.mean() == pytest.approx(0.3, abs=4 * spread / 20)
        assert rates.std() == pytest.approx(spread, rel=0.15)

    def test_the_truth_stays(self):
        labels = even_labels(1000, CLASSES)
        clean = toy(labels)
        noisy = toy(labels, layers=Layers(noise=LabelNoise(kind="pair", rate=0.5)))
        assert (noisy.labels == labels).all()
        assert (noisy.labeled.index == clean.labeled.index).all()
        assert (clean.client_labels == labels[clean.labeled.index]).all()
        assert 0.3 < (noisy.client_labels != clean.client_labels).mean() < 0.7
        assert noisy.hash != clean.hash
        assert (
            noisy.labels_of(3).tolist()
            == noisy.client_labels[noisy.labeled.offsets[3] : noisy.labeled.offsets[4]].tolist()
        )

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"kind": "random"}, "label_noise.kind must be one of none, symmetric, pair"),
            ({"kind": "pair", "rate": 1.1}, r"label_noise.rate must be in \[0, 1\], got 1.1"),
            ({"rate": 0.2}, "label_noise.rate=0.2 without a kind; set label_noise.kind"),
            ({"kind": "pair", "rate": 0.2, "concentration": 0}, "concentration must be > 0, got 0"),
        ],
    )
    def test_wrong_settings(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            LabelNoise(**fields)


class TestTestShards:
    def draw(self, share=1.0, test_size=2000, seed=0):
        labels, test = even_labels(1000, CLASSES), even_labels(test_size, CLASSES)
        federation = toy(
            labels,
            layers=Layers(test_shards=TestShards(share=share)),
            test=Samples(test, CLASSES),
            seed=seed,
        )
        train = np.zeros((10, CLASSES), dtype=np.int64)
        for part in (federation.labeled, federation.unlabeled):
            train += class_counts(part.owners, labels[part.index], 10, CLASSES)
        shards = federation.test
        return train, class_counts(shards.owners, test[shards.index], 10, CLASSES), federation

    @pytest.mark.parametrize("share", [0.1, 1.0, 40.0])
    def test_counts_mirror_the_training_samples(self, share):
        train, test, _ = self.draw(share)
        expected = mirrored_counts(train, int(share * 2000), np.full(CLASSES, 400))
        assert (test == expected).all()

    def test_the_mix_is_that_of_the_training_samples(self):
        train, test, _ = self.draw()
        large = test.sum(1) > 100
        assert large.any()
        mixes = [(t / t.sum(1, keepdims=True))[large] for t in (train, test)]
        np.testing.assert_allclose(*mixes, atol=0.05)

    def test_no_client_has_a_sample_twice_and_all_are_in_order(self):
        for share in (1.0, 40.0):
            _, _, federation = self.draw(share)
            assert all((np.diff(shard) > 0).all() for shard in federation.test)

    def test_clients_do_not_all_have_the_same_samples(self):
        _, _, federation = self.draw()
        used = np.bincount(federation.test.index, minlength=2000)
        assert (used > 0).sum() > 1000
        others = self.draw(seed=1)[2].test
        assert others.index.tolist() != federation.test.index.tolist()

    def test_what_is_left_goes_to_the_largest_remainders_and_stops_at_what_there_is(self):
        train = np.array([[5, 0], [1, 4]])
        assert floored_counts(train, 7, np.array([3, 100])).tolist() == [[3, 0], [0, 2]]
        assert mirrored_counts(train, 7, np.array([3, 100])).tolist() == [[3, 0], [1, 3]]
        assert mirrored_counts(train, 7, np.array([100, 100])).tolist() == [[4, 0], [0, 3]]
        assert mirrored_counts(0 * train, 7, np.array([3, 100])).tolist() == [[0, 0], [0, 0]]

    @pytest.mark.parametrize(("clients", "total"), [(7, 355), (100, 355), (200, 90), (500, 60)])
    def test_as_many_are_dealt_as_are_asked_for(self, clients, total):
        random = np.random.default_rng(clients)
        train = random.multinomial(1500, random.dirichlet(np.ones(10 * clients)))
        train = train.reshape(clients, 10)
        counts = mirrored_counts(train, total, np.full(10, total))
        exact = train * total / train.sum()
        assert counts.sum() == total
        assert (counts >= np.floor(exact)).all()
        assert (counts <= np.ceil(exact)).all()
        by_client = exact.sum(1)
        assert (np.abs(counts.sum(1) - by_client) < 1).all()

    def test_equal_clients_get_equally_many_and_all_classes_alike(self):
        counts = mirrored_counts(np.full((100, 10), 2), 350, np.full(10, 35))
        assert sorted(set(counts.sum(1).tolist())) == [3, 4]
        assert counts.sum(0).tolist() == [35] * 10

    def test_more_clients_than_test_samples(self):
        found = toy(
            layers=Layers(test_shards=TestShards(share=1.0)),
            test=Samples(even_labels(6, CLASSES), CLASSES),
        ).test
        assert found.sizes.sum() == 6
        assert 0 < (found.sizes == 0).sum() < 10

    @pytest.mark.parametrize("by", ["classes", "all", "domain", "owner"])
    def test_samples_of_unknown_class_are_nobodys(self, by):
        labels, origin = even_labels(400, CLASSES), np.arange(400) % 4
        samples = Samples(labels, CLASSES, origin, tuple("abcd"), origin, tuple("abcd"))
        hidden = np.where(np.arange(400) % 3 == 0, -1, labels)
        test = Samples(hidden, CLASSES, origin, tuple("abcd"), origin, tuple("abcd"))
        shards = Ragged.from_lists([np.flatnonzero(origin == d) for d in range(4)])
        layer = TestShards(share=1.0, by=by)
        drawn = layer.draw(shards, samples, test, np.random.default_rng(0))
        assert (hidden[drawn.index] >= 0).all()
        assert drawn.sizes.min() > 0
        if by in ("classes", "all"):
            assert drawn.sizes.sum() == (hidden >= 0).sum()

    def test_by_owner_gives_a_person_its_own_test_samples(self):
        train = Samples(np.zeros(6, np.int64), 2, owner=np.array([2, 2, 0, 0, 1, 1]),
                        owner_names=("a", "b", "c"))  # fmt: skip
        test = Samples(np.array([0, 1, 0, 1, -1]), 2, owner=np.array([0, 2, 2, 1, 2]),
                       owner_names=("a", "b", "c"))  # fmt: skip
        shards = Ragged.from_lists([[2, 3], [4, 5], [0, 1], []])
        layer = TestShards(share=1.0, by="owner")
        drawn = layer.draw(shards, train, test, np.random.default_rng(0))
        assert [part.tolist() for part in drawn] == [[0], [3], [1, 2], []]
        with pytest.raises(ConfigError, match="whose the training and the test samples are"):
            layer.draw(shards, train, Samples(test.labels, 2), np.random.default_rng(0))

    def test_none_by_default(self):
        assert toy().test.sizes.tolist() == [0] * 10

    def test_a_test_set_without_classes_gives_none(self):
        unknown = Samples(np.full(50, -1), CLASSES)
        found = toy(layers=Layers(test_shards=TestShards(share=1.0)), test=unknown)
        assert found.test.sizes.tolist() == [0] * 10

    def test_needs_a_test_set(self):
        with pytest.raises(ConfigError, match=r"test_shards.share needs a test set; set it to 0"):
            toy(layers=Layers(test_shards=TestShards(share=1.0)))

    @pytest.mark.parametrize("share", [-0.1, float("nan"), True, "1"])
    def test_wrong_share(self, share):
        with pytest.raises(ConfigError, match=r"test_shards\.share must be in"):
            TestShards(share=share)

    def test_a_rest_of_all_is_dealt_too(self):
        found = toy(
            layers=Layers(test_shards=TestShards(share=1.0, by="all")),
            test=Samples(even_labels(304, CLASSES), CLASSES),
        ).test
        assert found.sizes.sum() == 304

    def test_of_all_classes_whatever_the_client_holds(self):
        test = Samples(even_labels(300, CLASSES), CLASSES)
        found = toy(layers=Layers(test_shards=TestShards(share=2.0, by="all")), test=test).test
        clients = len(found)
        for k in range(clients):
            assert len(set(found[k].tolist())) == int(2 * 300 / clients)
            assert len(set(test.labels[found[k]].tolist())) == CLASSES
        assert (found[0] != found[1]).any()
        whole = toy(layers=Layers(test_shards=TestShards(share=1e3, by="all")), test=test).test
        assert whole[0].tolist() == list(range(300))


class TestModelGroups:
    def test_cyclic_groups_follow_the_number(self):
        assert ModelGroups(count=3).assign_groups(7, rng()).tolist() == [0, 1, 2, 0, 1, 2, 0]

    def test_random_groups_have_the_same_sizes(self):
        groups = ModelGroups(count=3, assign="random")
        first, again, other = (groups.assign_groups(31, rng(s)) for s in (0, 0, 1))
        assert sorted(np.bincount(first).tolist()) == [10, 10, 11]
        assert first.tolist() == again.tolist() != other.tolist()

    def test_one_group_by_default(self):
        assert toy().groups.tolist() == [0] * 10

    def test_are_part_of_the_federation_and_its_hash(self, tmp_path):
        federation = toy(layers=Layers(groups=ModelGroups(count=2)))
        assert federation.groups.tolist() == [0, 1] * 5
        assert federation.hash != toy().hash
        federation.save(tmp_path / "f.npz")
        assert Federation.load(tmp_path / "f.npz").groups.tolist() == [0, 1] * 5

    @pytest.mark.parametrize("count", [0, -1, 1.5, True])
    def test_wrong_number(self, count):
        with pytest.raises(ConfigError, match="model groups must be a whole number >= 1"):
            ModelGroups(count=count)

    def test_wrong_assignment(self):
        with pytest.raises(
            ConfigError, match=r"architectures.assign must be one of cyclic, random"
        ):
            ModelGroups(count=2, assign="by_size")


ALL = Layers(
    long_tail=LongTail(factor=0.3),
    keep=0.6,
    noise=LabelNoise(kind="symmetric", rate=0.2),
    test_shards=TestShards(share=0.5),
    groups=ModelGroups(count=2, assign="random"),
)


@pytest.mark.parametrize("reuse", [{}, {"reuse": True, "samples_per_client": 30}])
def test_all_layers_at_once(reuse, tmp_path):
    test = Samples(even_labels(300, CLASSES), CLASSES)
    first, again, other = (toy(layers=ALL, test=test, seed=s, **reuse) for s in (0, 0, 1))
    assert first.hash == again.hash != other.hash
    first.save(tmp_path / "f.npz")
    loaded = Federation.load(tmp_path / "f.npz")
    assert loaded.hash == first.hash
    assert loaded.settings == first.settings


def test_layers_that_are_off_draw_nothing():
    """Each layer has a stream of its own: switching one on moves no draw of the others."""
    plain = toy()
    for layers in (
        Layers(groups=ModelGroups(count=2)),
        Layers(noise=LabelNoise(kind="pair", rate=0.3)),
    ):
        found = toy(layers=layers)
        assert (found.labeled.index == plain.labeled.index).all()
        assert (found.unlabeled.index == plain.unlabeled.index).all()
