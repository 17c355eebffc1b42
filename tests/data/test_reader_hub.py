import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.cifar import CLASSES_10, STD_10
from fedlabels.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")


def pictures(values, *, side=4, mode="RGB"):
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    return [Image.fromarray(np.full(shape, v, dtype=np.uint8)) for v in values]


class Rows:
    """Stands for datasets.Dataset: columns by name; classes with names carry them as a feature."""

    def __init__(self, columns, names=None):
        self._columns = columns
        self.column_names = list(columns)
        self.features = {name: SimpleNamespace() for name in columns}
        for column, found in (names or {}).items():
            self.features[column] = SimpleNamespace(names=list(found))

    def __getitem__(self, column):
        return iter(self._columns[column])  # a lazy column: no length, read once


@pytest.fixture
def hub(monkeypatch):
    """Inject a library ``datasets`` whose hub holds what a test puts into it."""
    sets, calls = {}, []

    def load_dataset(path, config=None, *, cache_dir=None):
        calls.append((path, config, cache_dir))
        if path not in sets:
            raise ConnectionError("no route to the hub")
        return sets[path]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return SimpleNamespace(sets=sets, calls=calls)


def toy(**changes):
    columns = {"image": pictures([10, 20, 30]), "label": [0, 1, 1], **changes}
    return Rows(columns, {"label": ("no", "yes")})


class TestReader:
    def test_reads_images_and_classes(self, hub):
        hub.sets["me/toy"] = {"train": toy(), "test": toy(image=pictures([40, 50, 60]))}
        source = load("huggingface", path="me/toy")
        assert source.train.name == "me/toy"
        assert source.train.x.shape == (3, 3, 4, 4)
        assert source.train.x[:, 0, 0, 0].tolist() == [10, 20, 30]
        assert source.test.x[:, 2, 3, 3].tolist() == [40, 50, 60]
        assert source.train.class_names == ("no", "yes")
        assert source.test.y.tolist() == [0, 1, 1]
        np.testing.assert_allclose(source.test.mean, [20 / 255] * 3)
        assert hub.calls == [("me/toy", None, None)]

    def test_other_names_clients_and_domains(self, hub, tmp_path):
        def rows(values, style, writer):
            columns = {"img": pictures(values), "kind": ["b", "a"], "style": style, "who": writer}
            return Rows(columns)

        hub.sets["me/toy"] = {
            "fit": rows([1, 2], ["ink", "oil"], [7, 3]),
            "check": rows([3, 4], ["oil", "oil"], [9, 9]),
        }
        options = {
            "config": "small", "image_column": "img", "label_column": "kind",
            "client_column": "who", "domain_column": "style",
            "train_split": "fit", "test_split": "check",
        }  # fmt: skip
        source = load("huggingface", root=str(tmp_path), path="me/toy", **options)
        assert source.train.class_names == ("a", "b")
        assert source.train.y.tolist() == [1, 0]
        assert source.train.owner_names == ("3", "7")
        assert source.train.owner.tolist() == [1, 0]
        assert source.train.domain.tolist() == [0, 1]
        assert source.test.domain.tolist() == [1, 1]
        assert source.test.domain_names == ("ink", "oil")
        assert hub.calls == [("me/toy", "small", str(tmp_path))]

    def test_grey_stays_grey_unless_there_is_colour(self, hub):
        grey = toy(image=pictures([1, 2, 3], mode="L"))
        hub.sets["me/toy"] = {"train": grey, "test": grey}
        assert load("huggingface", path="me/toy").train.shape == (1, 4, 4)
        mixed = toy(image=[*pictures([1], mode="L"), *pictures([2, 3])])
        hub.sets["me/toy"] = {"train": mixed, "test": toy()}
        source = load("huggingface", path="me/toy")
        assert source.train.x[0, :, 0, 0].tolist() == [1, 1, 1]

    def test_sizes_that_differ_need_size(self, hub):
        rows = toy(image=[*pictures([1, 2]), *pictures([3], side=6)])
        hub.sets["me/toy"] = {"train": rows, "test": toy()}
        with pytest.raises(DataError, match=r"images have 2 shapes.*dataset\.options\.size"):
            load("huggingface", path="me/toy")
        assert load("huggingface", path="me/toy", size=5).train.shape == (3, 5, 5)

    def test_unlabeled_samples(self, hub):
        hub.sets["me/toy"] = {"train": toy(label=[0, None, -1]), "test": toy()}
        assert load("huggingface", path="me/toy").train.y.tolist() == [0, -1, -1]

    def test_without_test_split_each_fifth_is_held_out(self, hub):
        values = list(range(20))
        rows = Rows(
            {
                "image": pictures(values),
                "label": [v % 2 for v in values],
                "domain": ["a" if v < 10 else "b" for v in values],
                "who": [f"w{v // 5}" for v in values],
            }
        )
        hub.sets["me/toy"] = {"train": rows}
        options = {"domain_column": "domain", "client_column": "who", "test_split": None}
        source = load("huggingface", path="me/toy", **options)
        assert source.test.x[:, 0, 0, 0].tolist() == [8, 9, 18, 19]
        assert source.test.domain.tolist() == [0, 0, 1, 1]
        assert len(source.train) == len(source.train.owner) == 16
        assert source.train.owner_names == ("w0", "w1", "w2", "w3")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"test_split": "dev"}, "no split 'dev', only train, test; choose train_split"),
            ({"image_column": "img"}, "no column 'img'; it has image, label"),
            ({"client_column": "who"}, "no column 'who'"),
            ({"image_column": "label"}, "image 0 of column 'label' is int, no image"),
            ({"label_column": "image"}, "must hold whole numbers or names, got Image"),
        ],
    )
    def test_wrong_names_are_named(self, hub, options, message):
        hub.sets["me/toy"] = {"train": toy(), "test": toy()}
        with pytest.raises(DataError, match=message):
            load("huggingface", path="me/toy", **options)

    def test_label_beyond_the_classes(self, hub):
        hub.sets["me/toy"] = {"train": toy(label=[0, 1, 2]), "test": toy()}
        with pytest.raises(DataError, match=r"labels must be in 0\.\.1"):
            load("huggingface", path="me/toy")

    def test_failure_of_the_hub(self, hub):
        message = r"me/other cannot be fetched from the hub \(ConnectionError: no route"
        with pytest.raises(DataError, match=message):
            load("huggingface", path="me/other")

    def test_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        message = r"'huggingface' needs datasets.*pip install datasets pillow"
        with pytest.raises(DataError, match=message):
            load("huggingface", path="me/toy")

    def test_options_out_of_range(self, hub):
        with pytest.raises(ConfigError, match="size must be a whole number >= 1"):
            load("huggingface", path="me/toy", size=0)


class TestDownload:
    @pytest.mark.parametrize(
        ("name", "path", "config", "image", "label", "classes", "mode"),
        [
            ("mnist", "ylecun/mnist", None, "image", "label", 10, "L"),
            ("fashion_mnist", "zalando-datasets/fashion_mnist", None, "image", "label", 10, "L"),
            ("cifar10", "uoft-cs/cifar10", None, "img", "label", 10, "RGB"),
            ("cifar100", "uoft-cs/cifar100", None, "img", "fine_label", 100, "RGB"),
            ("svhn", "ufldl-stanford/svhn", "cropped_digits", "image", "label", 10, "RGB"),
        ],
    )
    def test_fetches_only_what_is_missing_and_asked_for(
        self, hub, tmp_path, name, path, config, image, label, classes, mode
    ):
        names = [f"class {i}" for i in range(classes)]
        columns = {image: pictures([1, 2], mode=mode), label: [0, classes - 1]}
        rows = Rows(columns, {label: names})
        hub.sets[path] = {"train": rows, "test": rows, "extra": None}
        with pytest.raises(DataError, match="was not found"):
            load(name, root=str(tmp_path))
        assert hub.calls == []
        source = load(name, root=str(tmp_path), download=True)
        assert hub.calls == [(path, config, None)]
        assert source.train.name == name
        assert source.train.y.tolist() == [0, classes - 1]
        assert source.train.num_classes == classes
        assert source.train.shape == (len(source.train.mean), 4, 4)

    def test_constants_and_names_are_those_of_the_files(self, hub):
        rows = Rows({"img": pictures([1]), "label": [3]})
        hub.sets["uoft-cs/cifar10"] = {"train": rows, "test": rows}
        source = load("cifar10", download=True)
        assert source.train.class_names == CLASSES_10
        assert source.test.std == STD_10

    def test_coarse_labels(self, hub):
        rows = Rows(
            {"img": pictures([1]), "coarse_label": [19]}, {"coarse_label": map(str, range(20))}
        )
        hub.sets["uoft-cs/cifar100"] = {"train": rows, "test": rows}
        assert load("cifar100", download=True, labels="coarse").train.num_classes == 20

    @pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "svhn"])
    def test_download_is_true_or_false(self, hub, name):
        with pytest.raises(ConfigError, match="download must be true or false, got 'yes'"):
            load(name, download="yes")

    def test_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"'svhn' needs datasets.*pip install datasets pillow"):
            load("svhn", download=True)
