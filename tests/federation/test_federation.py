import contextlib
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlabels.errors import ConfigError, DataError
from fedlabels.federation import (
    PARTITIONS,
    POLICIES,
    Federation,
    LabelPolicy,
    Partition,
    Ragged,
    Samples,
    build,
    make,
)
from fedlabels.federation.registry import register
from fedlabels.federation.summary import mean_total_variation
from tests.federation.cases import (
    PARTITION_CASES,
    POLICY_CASES,
    partition_of,
    policy_of,
    with_origins,
)

# A change of this value is a change of every published federation: never by accident.
PINNED = "9c7b147875455dd8"


def labels_of(samples=200, classes=4):
    return np.random.default_rng(1).permutation(np.arange(samples) % classes)


def toy(labels=None, *, partition=None, policy=None, **changes):
    arguments = {
        "clients": 10,
        "partition": partition or make(PARTITIONS, "dirichlet", {"alpha": 0.5}),
        "policy": policy or make(POLICIES, "uniform", {"fraction": 0.3}),
        "seed": 0,
    }
    labels = labels_of() if labels is None else labels
    return build(Samples(labels, 4), **{**arguments, **changes})


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(PARTITION_CASES),
    policy=st.sampled_from(POLICY_CASES),
    clients=st.integers(3, 10),
    samples=st.integers(40, 80),
    seed=st.integers(0, 99),
    reuse=st.booleans(),
)
def test_every_federation_is_sound(rule, policy, clients, samples, seed, reuse):
    labels = np.random.default_rng(seed).integers(-1, 3, samples)
    pool = with_origins(labels, 3, owners=10)
    arguments = {
        "clients": clients,
        "partition": partition_of(*rule),
        "policy": policy_of(*policy),
        "seed": seed,
        "reuse": reuse,
    }
    federation = build(pool, **arguments)
    assert federation.hash == build(pool, **arguments).hash
    assert (labels[federation.labeled.index] >= 0).all()
    assert (federation.client_labels == labels[federation.labeled.index]).all()
    assert not set(federation.server.tolist()) & set(federation.labeled.index.tolist())
    assert not set(federation.server.tolist()) & set(federation.unlabeled.index.tolist())
    for labeled, unlabeled in zip(federation.labeled, federation.unlabeled, strict=True):
        assert not set(labeled.tolist()) & set(unlabeled.tolist())
        assert (np.diff(labeled) >= 0).all()
        assert (np.diff(unlabeled) >= 0).all()
    if not reuse:
        dealt = np.concatenate(
            [federation.labeled.index, federation.unlabeled.index, federation.server]
        )
        assert len(set(dealt.tolist())) == len(dealt)
        if rule[0] not in ("natural", "domain"):
            assert sorted(dealt.tolist()) == list(range(samples))


class TestHash:
    def test_depends_on_the_seed_and_the_settings(self):
        hashes = {
            toy().hash,
            toy(seed=1).hash,
            toy(clients=11).hash,
            toy(policy=make(POLICIES, "uniform", {"fraction": 0.4})).hash,
            toy(partition=make(PARTITIONS, "iid", {})).hash,
        }
        assert len(hashes) == 5

    def test_is_of_the_content_not_of_how_it_is_spelt(self):
        none = make(POLICIES, "zero_label_clients", {"fraction": 0.3, "share": 0.0})
        assert toy(policy=none).hash == toy().hash

    def test_does_not_change_between_processes(self):
        code = (
            "import numpy as np\n"
            "from fedlabels.federation import *\n"
            "y = np.random.default_rng(1).permutation(np.arange(200) % 4)\n"
            "p = make(PARTITIONS, 'dirichlet', {'alpha': 0.5})\n"
            "q = make(POLICIES, 'uniform', {'fraction': 0.3})\n"
            "import sys; sys.stdout.write(build(Samples(y, 4), clients=10, partition=p, policy=q,"
            " seed=0).hash)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert shown.stdout == toy().hash

    def test_is_pinned(self):
        assert toy(partition=make(PARTITIONS, "iid", {})).hash.startswith(PINNED)


class TestUnknownLabels:
    def test_samples_without_label_are_always_unlabeled(self):
        labels = labels_of()
        labels[::3] = -1
        everything = make(POLICIES, "uniform", {"fraction": 1.0})
        federation = toy(labels, policy=everything)
        assert sorted(federation.unlabeled.index.tolist()) == list(range(0, 200, 3))
        assert len(federation.labeled.index) == (labels >= 0).sum()

    def test_a_set_without_any_label_is_dealt(self):
        summary = toy(np.full(50, -1)).summary()
        assert (summary["labeled"], summary["unlabeled"]) == (0, 50)
        assert summary["clients_without_labels"] == 10
        assert summary["effective_classes"] == 0.0


class TestReuse:
    def test_more_clients_than_samples_need_it(self):
        with pytest.raises(ConfigError, match=r"300 clients but only 200 samples.*reuse=true"):
            toy(clients=300)
        assert len(toy(clients=300, reuse=True)) == 300

    def test_sizes_are_the_larger_of_minimum_and_equal_part(self):
        iid = make(PARTITIONS, "iid", {"min_size": 5})
        every = make(POLICIES, "uniform", {"fraction": 1.0})
        for clients, size in ((300, 5), (10, 20), (11, 18)):
            federation = toy(clients=clients, partition=iid, policy=every, reuse=True)
            assert federation.labeled.sizes.tolist() == [size] * clients

    def test_samples_are_used_evenly(self):
        every = make(POLICIES, "uniform", {"fraction": 0.0})
        federation = toy(
            clients=50,
            reuse=True,
            samples_per_client=10,
            policy=every,
            partition=make(PARTITIONS, "iid", {}),
        )
        used = np.bincount(federation.unlabeled.index, minlength=200)
        assert used.sum() == 500
        assert set(used.tolist()) == {2, 3}

    def test_copies_of_a_labeled_sample_leave_the_unlabeled_pool(self):
        half = make(POLICIES, "uniform", {"fraction": 0.5})
        federation = toy(labels_of(20), clients=5, reuse=True, samples_per_client=40, policy=half)
        for labeled, unlabeled in zip(federation.labeled, federation.unlabeled, strict=True):
            assert not set(labeled.tolist()) & set(unlabeled.tolist())

    def test_size_without_reuse_is_a_mistake(self):
        with pytest.raises(ConfigError, match=r"partition\.reuse=true"):
            toy(samples_per_client=5)


class TestFile:
    def test_comes_back_as_it_was(self, tmp_path):
        federation = toy()
        federation.save(tmp_path / "new" / "federation.npz")
        again = Federation.load(tmp_path / "new" / "federation.npz")
        assert again.hash == federation.hash
        assert again.settings == federation.settings
        assert again.summary() == federation.summary()
        np.testing.assert_array_equal(again.labels, federation.labels)
        np.testing.assert_array_equal(again.labeled.index, federation.labeled.index)
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["federation.npz"]

    def test_bytes_are_the_same_for_the_same_federation(self, tmp_path):
        toy().save(tmp_path / "a.npz")
        toy().save(tmp_path / "b.npz")
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "federation.npz"
        toy().save(path)
        before = path.read_bytes()

        def full_disk(*_args, **_kwargs):
            raise OSError("no space left")

        monkeypatch.setattr(np, "savez_compressed", full_disk)
        with pytest.raises(OSError, match="no space"):
            toy(seed=1).save(path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match=r"nothing\.npz does not exist"):
            Federation.load(tmp_path / "nothing.npz")

    def test_every_cut_is_noticed(self, tmp_path):
        path = tmp_path / "federation.npz"
        toy().save(path)
        whole = path.read_bytes()
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"federation\.npz"):
                Federation.load(path)

    def test_flipped_bytes_are_noticed(self, tmp_path):
        path = tmp_path / "federation.npz"
        toy().save(path)
        whole = path.read_bytes()
        wanted = toy().hash
        for place in range(0, len(whole), 61):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            with contextlib.suppress(DataError):
                assert Federation.load(path).hash == wanted  # a byte without meaning, as a date

    def test_foreign_or_changed_content_is_refused(self, tmp_path):
        path = tmp_path / "federation.npz"
        np.savez(path, x=np.arange(3))
        with pytest.raises(DataError, match="no federation: it lacks"):
            Federation.load(path)
        toy().save(path)
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["labels"] = arrays["labels"][::-1].copy()
        np.savez(path, **arrays)
        with pytest.raises(DataError, match="its content has the hash"):
            Federation.load(path)


class TestSummary:
    def test_of_a_known_federation(self):
        federation = Federation.plain(
            labeled=Ragged.from_lists([[0], [], [2, 3], []]),
            unlabeled=Ragged.from_lists([[0, 1], [4], [5], []]),
            labels=np.array([0, 1, 0, 0, 1, -1]),
            num_classes=2,
            settings={},
        )
        summary = federation.summary()
        assert summary["clients"] == 4
        assert (summary["size_min"], summary["size_median"], summary["size_max"]) == (0, 1.5, 3)
        assert summary["size_cv"] == pytest.approx(np.std([2, 1, 3, 0]) / 1.5)
        assert summary["effective_classes"] == pytest.approx((2 + 1 + 1) / 3)
        assert summary["total_variation"] == pytest.approx((0.5 + 0.5 + 1) / 3)
        assert (summary["labeled"], summary["unlabeled"]) == (3, 4)
        assert (summary["labeled_min"], summary["labeled_max"]) == (0, 2)
        assert summary["labeled_per_class"] == [3, 0]
        assert summary["clients_without_labels"] == 2
        assert summary["clients_without_unlabeled"] == 1
        assert summary["clients_without_samples"] == 1

    def test_total_variation_is_that_of_all_pairs(self):
        mixes = np.random.default_rng(0).dirichlet(np.ones(5), size=30)
        pairs = [np.abs(mixes[i] - mixes[j]).sum() / 2 for i in range(30) for j in range(i + 1, 30)]
        assert mean_total_variation(mixes) == pytest.approx(np.mean(pairs))
        assert mean_total_variation(mixes[:1]) == 0.0

    def test_more_skew_shows(self):
        skewed, mild = (
            toy(partition=make(PARTITIONS, "dirichlet", {"alpha": a})).summary() for a in (0.1, 10)
        )
        assert skewed["effective_classes"] < mild["effective_classes"]
        assert skewed["total_variation"] > mild["total_variation"]


def ragged(*lists):
    return Ragged.from_lists(lists)


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "labels", "message"),
    [
        (ragged([0]), ragged([1], []), [0, 1], "1 labeled and 2 unlabeled shards"),
        (ragged([0]), ragged([2]), [0, 1], "sample 2 of 2 samples"),
        (ragged([0]), ragged([1]), [0, 2], r"labels must be in -1\.\.1"),
        (ragged([0]), ragged([1]), [-1, 1], "a labeled sample has no label"),
    ],
)
def test_parts_that_do_not_fit(labeled, unlabeled, labels, message):
    with pytest.raises(DataError, match=message):
        Federation.plain(labeled, unlabeled, np.array(labels), 2, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": 0}, "clients must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"samples_per_client": 0, "reuse": True}, "samples_per_client must be a whole number"),
    ],
)
def test_wrong_requests_say_what_is_allowed(changes, message):
    with pytest.raises(ConfigError, match=message):
        toy(**changes)


def test_an_empty_training_set_is_an_error():
    with pytest.raises(ConfigError, match="training set is empty"):
        toy(np.zeros(0, dtype=np.int64))


def test_a_new_partitioner_and_a_new_policy_are_one_class_each(monkeypatch):
    partitions, policies = dict(PARTITIONS), dict(POLICIES)

    @register(partitions, "first_half")
    @dataclass(frozen=True, kw_only=True)
    class FirstHalf(Partition):
        def owners(self, samples, *, clients, random):
            return np.where(np.arange(len(samples)) < len(samples) // 2, 0, -1)

    @register(policies, "nobody")
    @dataclass(frozen=True, kw_only=True)
    class Nobody(LabelPolicy):
        def labeled(self, shuffled, random):
            return np.zeros(len(shuffled.rank), dtype=bool)

    federation = toy(
        partition=make(partitions, "first_half", {"min_size": 3}),
        policy=make(policies, "nobody", {}),
    )
    assert federation.summary()["samples"] == 100
    assert federation.summary()["size_min"] == 3
    with pytest.raises(ValueError, match="'nobody' is registered already, by Nobody"):
        register(policies, "nobody")(Nobody)


def test_needs_neither_torch_nor_flower():
    code = (
        "import sys\n"
        "for name in ('torch', 'flwr', 'ray', 'hydra'): sys.modules[name] = None\n"
        "import fedlabels.federation"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
