"""Labels as people gave them beside the true ones: readers, and what federations make of them."""

import io
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.content import content_hash
from fedlabels.errors import ConfigError, DataError
from fedlabels.federation import Federation, LabelNoise, Layers, Samples, build
from fedlabels.run.data import samples_of
from tests.data.test_reader_cifar import write_cifar10
from tests.federation.cases import partition_of, policy_of

TRUTH = np.arange(12) % 3
GIVEN = np.where(np.arange(12) < 4, (TRUTH + 1) % 3, TRUTH)
KINDS = ("clean_label", "aggre_label", "worse_label", *(f"random_label{i}" for i in (1, 2, 3)))


def save(tmp_path, **changes):
    x = np.random.default_rng(0).normal(size=(12, 5))
    arrays = {"x_train": x, "y_train": GIVEN, "clean_train": TRUTH, "x_test": x, "y_test": TRUTH}
    arrays |= changes
    np.savez(tmp_path / "n.npz", **{k: v for k, v in arrays.items() if v is not None})
    return str(tmp_path / "n.npz")


class TestNpz:
    @pytest.mark.parametrize("reader", ["npz", "timeseries_npz"])
    def test_the_true_labels_are_those_of_the_set(self, tmp_path, reader):
        source = load(reader, root=save(tmp_path))
        assert source.train.y.tolist() == TRUTH.tolist()
        assert source.train.given.tolist() == GIVEN.tolist()
        assert source.test.given is None

    def test_two_files(self, tmp_path):
        x = np.zeros((12, 5))
        np.savez(tmp_path / "train.npz", x=x, y=GIVEN, clean=TRUTH)
        np.savez(tmp_path / "test.npz", x=x, y=GIVEN, clean=TRUTH)
        source = load("npz", root=str(tmp_path))
        assert source.train.given.tolist() == GIVEN.tolist()
        assert source.test.y.tolist() == TRUTH.tolist()

    def test_classes_are_counted_in_both(self, tmp_path):
        source = load("npz", root=save(tmp_path, y_train=np.where(TRUTH == 2, 3, TRUTH)))
        assert source.train.num_classes == 4

    def test_they_are_part_of_the_content(self, tmp_path):
        source = load("npz", root=save(tmp_path))
        without = replace(source, train=replace(source.train, given=None))
        assert content_hash(source) != content_hash(without)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"clean_train": TRUTH[:5]}, "12 labels y_train but 5 labels clean_train"),
            ({"clean_train": np.where(TRUTH == 1, -1, TRUTH)}, "4 samples have a given label but"),
            ({"clean_train": TRUTH / 2}, "clean_train: labels must be integers, got float64"),
            ({"clean_train": None, "clean": TRUTH}, "holds 'clean', which is not read: 'clean_tr"),
            ({"clean_label": TRUTH}, "holds 'clean_label', which is not read: 'clean_train' is"),
        ],
    )
    def test_doubts(self, tmp_path, changes, message):
        with pytest.raises(DataError, match=message):
            load("npz", root=save(tmp_path, **changes))


class TestFederation:
    def deal(self, samples, **layers):
        return build(
            samples,
            clients=2,
            partition=partition_of("iid", {}),
            policy=policy_of("uniform", {"fraction": 0.5}),
            seed=0,
            layers=Layers(**layers),
        )

    def test_clients_see_what_was_given(self, tmp_path):
        federation = self.deal(samples_of(load("npz", root=save(tmp_path)).train))
        assert federation.labels.tolist() == TRUTH.tolist()
        assert federation.client_labels.tolist() == GIVEN[federation.labeled.index].tolist()
        federation.save(tmp_path / "f.npz")
        again = Federation.load(tmp_path / "f.npz")
        assert again.client_labels.tolist() == federation.client_labels.tolist()

    def test_what_nobody_labeled_is_unlabeled_with_a_truth(self):
        given = np.where(TRUTH == 0, -1, TRUTH)
        federation = self.deal(Samples(TRUTH, 3, given=given))
        assert (TRUTH[federation.labeled.index] != 0).all()
        assert (federation.labels >= 0).all()
        assert len(federation.held.index) == 12

    def test_the_same_samples_are_labeled_as_without(self):
        with_both, without = self.deal(Samples(TRUTH, 3, given=GIVEN)), self.deal(Samples(TRUTH, 3))
        assert with_both.labeled.index.tolist() == without.labeled.index.tolist()

    def test_no_noise_on_top(self):
        samples = Samples(TRUTH, 3, given=GIVEN)
        with pytest.raises(
            ConfigError, match=r"label_noise\.rate=0\.5, but .* 4 of them wrong: set"
        ):
            self.deal(samples, noise=LabelNoise(kind="pair", rate=0.5))
        assert self.deal(samples, noise=LabelNoise(kind="pair")).client_labels.max() == 2


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


def human(path, content):
    """Write what ``torch.save`` makes of a dict of arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        raw = io.BytesIO()
        pickle.dump(content, raw, protocol=2)
        archive.writestr("archive/data.pkl", raw.getvalue())
        archive.writestr("archive/version", "3\n")


class TestCifar10N:
    @pytest.fixture
    def root(self, tmp_path):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        truth = load("cifar10", root=str(tmp_path)).train.y
        human(tmp_path / "human.pt", {k: (truth + i) % 10 for i, k in enumerate(KINDS)})
        return tmp_path

    @pytest.mark.parametrize("number", range(1, 6))
    def test_reads_each_of_the_labels(self, root, number):
        source = load("cifar10", root=str(root), labels_file="human.pt", labels=KINDS[number])
        assert source.train.given.tolist() == ((source.train.y + number) % 10).tolist()
        assert source.test.given is None

    def test_the_file_may_lie_beside_the_batches(self, root, monkeypatch):
        (root / "human.pt").rename(root / "cifar-10-batches-py" / "human.pt")
        monkeypatch.setenv("FEDLABELS_DATA", str(root))
        source = load("cifar10", labels_file="human.pt", labels="worse_label")
        assert source.train.given is not None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": "worse_label"}, "belong together; give both or neither"),
            ({"labels_file": "human.pt"}, r"dataset\.options\.labels \(one of worse_label, aggre"),
            ({"labels_file": "human.pt", "labels": "worst"}, "labels must be one of worse_label"),
            (
                {"labels_file": "/etc/human.pt", "labels": "worse_label"},
                "a path below dataset.root",
            ),
            ({"labels_file": "../human.pt", "labels": "worse_label"}, "a path below dataset.root"),
        ],
    )
    def test_wrong_options(self, root, options, message):
        with pytest.raises(ConfigError, match=message):
            load("cifar10", root=str(root), **options)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"clean_label": TRUTH}, "lacks worse_label"),
            ([1, 2], "lacks clean_label"),
            ({"clean_label": TRUTH, "worse_label": TRUTH}, "not the 20 training labels that were"),
            ({"clean_label": "no", "worse_label": TRUTH}, "holds no plain arrays"),
            (Command(), "asks for posix.system, which no data set needs: it was not run"),
        ],
    )
    def test_strange_files(self, root, content, message):
        human(root / "human.pt", content)
        with pytest.raises(DataError, match=message):
            load("cifar10", root=str(root), labels_file="human.pt", labels="worse_label")

    def test_absent_and_damaged(self, root):
        options = {"root": str(root), "labels": "worse_label"}
        with pytest.raises(
            DataError,
            match=r"of dataset\.options\.labels_file=no\.pt was not found\. Tried:\n  .*no\.pt",
        ):
            load("cifar10", labels_file="no.pt", **options)
        (root / "human.pt").write_bytes(b"PK no zip")
        with pytest.raises(DataError, match=r"human\.pt cannot be read \(BadZipFile"):
            load("cifar10", labels_file="human.pt", **options)
