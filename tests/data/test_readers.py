import gzip
import struct
import sys

import numpy as np
import pytest

from fedlabels.data import load, names
from fedlabels.data.digits import MEAN, STD
from fedlabels.errors import ConfigError, DataError

TRAIN, TEST = 20, 8


def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx_set(folder, *, gz=True, seed=0):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for stem, count in (("train", TRAIN), ("t10k", TEST)):
        parts = {
            "images-idx3-ubyte": random.integers(0, 256, (count, 5, 4)),
            "labels-idx1-ubyte": np.arange(count) % 10,
        }
        for kind, array in parts.items():
            content = idx(array)
            path = folder / f"{stem}-{kind}{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(content) if gz else content)
    return folder


class TestRegistry:
    def test_unknown_name_lists_the_names(self):
        with pytest.raises(
            ConfigError,
            match=r"dataset=cifar is not known .*cifar10\?\); allowed: cifar10, cifar100, digits",
        ):
            load("cifar")

    def test_unknown_option_lists_the_options(self):
        with pytest.raises(ConfigError, match="no option colour; allowed besides root: none"):
            load("digits", colour=True)
        with pytest.raises(ConfigError, match="allowed besides root: num_classes, class_names"):
            load("npz", colour=True)

    def test_lacking_option_is_named(self):
        with pytest.raises(
            ConfigError, match=r"needs option path; give it as dataset\.options\.path"
        ):
            load("huggingface")

    def test_names_are_sorted(self):
        assert names() == tuple(sorted(names()))
        assert {"digits", "fashion_mnist", "mnist", "npz"} < set(names())


class TestDigits:
    def test_is_complete_and_stratified(self):
        source = load("digits")
        assert source.train.shape == (1, 8, 8)
        assert len(source.train) + len(source.test) == 1797
        share = np.bincount(source.test.y) / np.bincount(
            np.concatenate([source.train.y, source.test.y])
        )
        assert share.min() > 0.19
        assert share.max() <= 0.2

    def test_uses_the_whole_range_of_a_byte(self):
        x = load("digits").train.x
        assert x.dtype == np.uint8
        assert (x.min(), x.max()) == (0, 255)

    def test_split_is_fixed(self):
        first, again = load("digits"), load("digits")
        np.testing.assert_array_equal(first.train.x, again.train.x)
        assert first.test.y[:10].tolist() == again.test.y[:10].tolist()

    def test_constants_are_those_of_the_training_split(self):
        pixels = load("digits").train.x / 255
        np.testing.assert_allclose([pixels.mean(), pixels.std()], [*MEAN, *STD], rtol=0, atol=5e-4)

    def test_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(DataError, match="pip install scikit-learn"):
            load("digits")


class TestIdx:
    @pytest.mark.parametrize("gz", [True, False])
    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("fashion_mnist", "FashionMNIST/raw"),
            ("fashion_mnist", "fashion-mnist"),
            ("mnist", "MNIST/raw"),
        ],
    )
    def test_reads_the_published_layouts(self, tmp_path, name, folder, gz):
        write_idx_set(tmp_path / folder, gz=gz)
        source = load(name, root=str(tmp_path))
        assert source.train.x.shape == (TRAIN, 1, 5, 4)
        assert source.test.y.tolist() == [c % 10 for c in range(TEST)]
        expected = np.random.default_rng(0).integers(0, 256, (TRAIN, 5, 4))
        np.testing.assert_array_equal(source.train.x[:, 0], expected)

    def test_given_root_may_be_the_folder_itself(self, tmp_path):
        write_idx_set(tmp_path / "here")
        assert len(load("mnist", root=str(tmp_path / "here")).train) == TRAIN

    def test_searches_option_then_variable_then_system(self, tmp_path, monkeypatch):
        def first_pixel(root=None):
            return int(load("fashion_mnist", root=root).train.x[0, 0, 0, 0])

        def pixel_of(seed):
            return int(np.random.default_rng(seed).integers(0, 256, (TRAIN, 5, 4))[0, 0, 0])

        write_idx_set(tmp_path / "system" / "fashion-mnist", seed=1)
        assert first_pixel() == pixel_of(1)
        write_idx_set(tmp_path / "shared" / "FashionMNIST" / "raw", seed=2)
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        assert first_pixel() == pixel_of(2)
        write_idx_set(tmp_path / "own", seed=3)
        assert first_pixel(str(tmp_path / "own")) == pixel_of(3)

    def test_shared_root_is_not_searched_flat(self, tmp_path, monkeypatch):
        # Both sets name their files alike: a flat hit could be the other one.
        folder = write_idx_set(tmp_path / "fashion-mnist")
        monkeypatch.setenv("FEDLABELS_DATA", str(folder))
        with pytest.raises(DataError, match="not found"):
            load("mnist")

    def test_missing_data_lists_every_path_and_the_command(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        own = ("own\n", "own/FashionMNIST/raw")
        shared = ("shared/fashion-mnist", "system/fashion-mnist")
        for root, tried, not_tried in ((tmp_path / "own", own, shared), (None, shared, own)):
            with pytest.raises(DataError) as caught:
                load("fashion_mnist", root=root and str(root))
            text = str(caught.value)
            assert all(f"{tmp_path}/{path}" in text for path in tried)
            assert not any(f"{tmp_path}/{path}" in text for path in not_tried)
            assert "apt-get install dataset-fashion-mnist" in text

    def test_a_mistyped_root_reads_no_other_data(self, tmp_path, monkeypatch):
        write_idx_set(tmp_path / "shared" / "MNIST" / "raw")
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        assert len(load("mnist").train) > 0
        with pytest.raises(DataError, match="typo"):
            load("mnist", root=str(tmp_path / "typo"))

    def test_incomplete_folder_counts_as_missing(self, tmp_path):
        folder = write_idx_set(tmp_path / "MNIST" / "raw")
        (folder / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(DataError, match="MNIST/raw"):
            load("mnist", root=str(tmp_path))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\x1f\x8b\x00 no gzip", "cannot be read"),
            (gzip.compress(b"\x00" * 100, mtime=0)[:-9], "cannot be read"),
            (gzip.compress(b"", mtime=0), "no idx file of bytes: it starts with nothing"),
            (gzip.compress(b"\x00\x00\x0d\x03" + b"\0" * 12, mtime=0), "expected 000008"),
            (gzip.compress(b"\x00\x00\x08\x03\x00\x00", mtime=0), "ends within its header"),
            (gzip.compress(idx(np.zeros((TRAIN, 5, 4)))[:-1], mtime=0), "holds 399 values"),
            (gzip.compress(idx(np.zeros((TRAIN, 5, 4))) + b"\0", mtime=0), "holds 401 values"),
            (gzip.compress(idx(np.zeros((TRAIN - 1, 5, 4))), mtime=0), "do not belong together"),
            (gzip.compress(idx(np.zeros((TRAIN, 5))), mtime=0), "do not belong together"),
        ],
    )
    def test_damaged_file_is_named(self, tmp_path, content, message):
        folder = write_idx_set(tmp_path / "MNIST" / "raw")
        (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            load("mnist", root=str(tmp_path))
        assert str(folder) in str(caught.value)


def arrays(dtype=np.uint8, shape=(3, 4, 4)):
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (10, *shape)).astype(dtype)
    return {"x_train": x, "y_train": np.arange(10) % 4 - 1, "x_test": x[:3], "y_test": np.arange(3)}


class TestNpz:
    def test_reads_one_file(self, tmp_path):
        np.savez(tmp_path / "toy.npz", **arrays())
        source = load("npz", root=str(tmp_path / "toy.npz"))
        assert source.train.name == "toy"
        assert source.train.num_classes == 3
        assert source.train.y.min() == -1
        pixels = arrays()["x_train"] / 255
        np.testing.assert_allclose(source.train.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(source.test.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)

    def test_reads_a_folder(self, tmp_path):
        parts = arrays(np.float64, (2, 30))
        np.savez(tmp_path / "train.npz", x=parts["x_train"], y=parts["y_train"].astype(np.int8))
        np.savez(tmp_path / "test.npz", x=parts["x_test"], y=parts["y_test"])
        options = {"num_classes": 5, "mean": [0.0, 0.0], "std": [1, 1]}
        source = load("npz", root=str(tmp_path), **options)
        assert source.train.x.dtype == np.float32
        assert source.train.class_names == ("0", "1", "2", "3", "4")
        assert source.test.shape == (2, 30)
        assert source.train.std == (1.0, 1.0)

    def test_grey_images_get_a_channel_axis(self, tmp_path):
        np.savez(tmp_path / "grey.npz", **arrays(shape=(4, 4)))
        assert load("npz", root=str(tmp_path / "grey.npz")).train.shape == (1, 4, 4)

    def test_a_constant_channel_keeps_its_scale(self, tmp_path):
        parts = arrays()
        parts["x_train"][:, 1] = 7
        np.savez(tmp_path / "toy.npz", **parts)
        assert load("npz", root=str(tmp_path / "toy.npz")).train.std[1] == 1.0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x_train": arrays(shape=(8, 8, 3))["x_train"]}, r"looks like \(N, H, W, C\)"),
            (
                {"x_train": arrays(np.int16)["x_train"]},
                r"or floating, got int16; store x.astype\('float32'\)",
            ),
            ({"y_train": np.zeros(10)}, "labels must be integers, got float64"),
            ({"y_train": np.full(10, -2)}, "-1 for unlabeled"),
            ({"x_test": np.array([{}, {}, {}])}, "without pickle"),
            (
                {"y_train": np.array(["cat", "dog"] * 5, dtype=object)},
                "y_train holds Python objects, which nothing reads without pickle: store numbers",
            ),
        ],
    )
    def test_rejects_what_does_not_fit(self, tmp_path, changes, message):
        np.savez(tmp_path / "toy.npz", **{**arrays(), **changes})
        with pytest.raises(DataError, match=message):
            load("npz", root=str(tmp_path / "toy.npz"))

    def test_lacking_array_is_named(self, tmp_path):
        parts = arrays()
        del parts["y_test"]
        np.savez(tmp_path / "toy.npz", **parts)
        with pytest.raises(DataError, match="lacks y_test; it must hold x_train, y_train"):
            load("npz", root=str(tmp_path / "toy.npz"))

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
    def test_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / "toy.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"toy\.npz cannot be read"):
            load("npz", root=str(tmp_path / "toy.npz"))

    def test_missing_file_says_which_setting_to_give(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere(.|\n)*set dataset\.root"):
            load("npz", root=str(tmp_path / "nowhere"))

    def test_options_that_contradict(self, tmp_path):
        np.savez(tmp_path / "toy.npz", **arrays())
        path = str(tmp_path / "toy.npz")
        with pytest.raises(ConfigError, match="both mean and std"):
            load("npz", root=path, mean=[0.1, 0.1, 0.1])
        with pytest.raises(ConfigError, match="4 classes but 3 class names"):
            load("npz", root=path, num_classes=4, class_names=["a", "b", "c"])


def test_fashion_mnist_of_the_system_if_installed(monkeypatch):
    monkeypatch.undo()
    try:
        source = load("fashion_mnist")
    except DataError:
        pytest.skip("dataset-fashion-mnist is not installed")
    assert (len(source.train), len(source.test)) == (60_000, 10_000)
    assert np.bincount(source.train.y).tolist() == [6000] * 10
    pixels = source.train.x / np.float32(255)
    np.testing.assert_allclose(
        [pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)],
        [*source.train.mean, *source.train.std],
        atol=1e-4,
    )
