"""EMNIST, STL-10, MedMNIST and CIFAR-10.1, in their published layouts."""

import gzip

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.errors import ConfigError, DataError
from tests.data.test_reader_cifar import write_cifar10
from tests.data.test_readers import idx


def rng(seed=0):
    return np.random.default_rng(seed)


class TestEmnist:
    def write(self, folder, split, labels, *, gz=True, shape=(6, 5)):
        folder.mkdir(parents=True, exist_ok=True)
        images = rng().integers(0, 256, (len(labels), *shape))
        for part in ("train", "test"):
            for kind, array in (("images-idx3", images), ("labels-idx1", np.array(labels))):
                path = folder / f"emnist-{split}-{part}-{kind}-ubyte{'.gz' if gz else ''}"
                path.write_bytes(gzip.compress(idx(array)) if gz else idx(array))
        return images

    @pytest.mark.parametrize("gz", [True, False])
    @pytest.mark.parametrize("folder", ["", "gzip", "EMNIST/raw", "emnist"])
    def test_images_stand_upright(self, tmp_path, folder, gz):
        images = self.write(tmp_path / folder, "balanced", [0, 10, 46], gz=gz)
        source = load("emnist", root=str(tmp_path))
        assert source.train.name == "emnist_balanced"
        np.testing.assert_array_equal(source.train.x[:, 0], images.transpose(0, 2, 1))
        assert source.test.y.tolist() == [0, 10, 46]
        assert [source.train.class_names[c] for c in (9, 10, 36, 46)] == ["9", "A", "a", "t"]
        assert source.train.mean == pytest.approx([images.mean() / 255])

    def test_letters_count_from_1(self, tmp_path):
        self.write(tmp_path, "letters", [1, 26])
        source = load("emnist", root=str(tmp_path), split="letters")
        assert source.train.y.tolist() == [0, 25]
        assert source.train.class_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    @pytest.mark.parametrize(
        ("split", "classes"),
        [("balanced", 47), ("bymerge", 47), ("byclass", 62), ("digits", 10), ("mnist", 10)],
    )
    def test_classes_of_every_split(self, tmp_path, split, classes):
        self.write(tmp_path, split, [0, classes - 1])
        source = load("emnist", root=str(tmp_path), split=split)
        assert source.train.num_classes == len(set(source.train.class_names)) == classes

    def test_doubts(self, tmp_path):
        with pytest.raises(ConfigError, match="split must be one of balanced, bymerge"):
            load("emnist", root=str(tmp_path), split="upper")
        with pytest.raises(
            DataError, match=r"emnist-digits-train-images-idx3-ubyte\[\.gz\] and so on"
        ):
            load("emnist", root=str(tmp_path), split="digits")
        self.write(tmp_path, "letters", [0, 26])
        with pytest.raises(DataError, match=r"labels of 'letters' must be in 1\.\.26, got 0\.\.26"):
            load("emnist", root=str(tmp_path), split="letters")
        self.write(tmp_path, "digits", [0, 1], shape=(4,))
        with pytest.raises(DataError, match="do not belong together"):
            load("emnist", root=str(tmp_path), split="digits")


class TestStl10:
    def write(self, folder, counts=(3, 2, 4)):
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for split, count in zip(("train", "test", "unlabeled"), counts, strict=True):
            images = rng(count).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
            # the publisher's order is that of Matlab: columns of an image one after the other
            (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
            if split != "unlabeled":
                labels = (np.arange(count) * 9 % 10 + 1).astype(np.uint8)
                (folder / f"{split}_y.bin").write_bytes(labels.tobytes())
            found[split] = images
        return found

    @pytest.mark.parametrize(("unlabeled", "more"), [(True, 4), (3, 3), (0, 0), (False, 0)])
    def test_reads_the_published_layout(self, tmp_path, unlabeled, more):
        images = self.write(tmp_path / "stl10_binary")
        source = load("stl10", root=str(tmp_path), unlabeled=unlabeled)
        expected = np.concatenate([images["train"], images["unlabeled"][:more]])
        np.testing.assert_array_equal(source.train.x, expected)
        np.testing.assert_array_equal(source.test.x, images["test"])
        assert source.train.y.tolist() == [0, 9, 8] + [-1] * more
        assert source.test.y.tolist() == [0, 9]
        assert source.train.class_names[9] == "truck"
        labeled = images["train"].mean(axis=(0, 2, 3)) / 255
        assert source.train.mean == pytest.approx(labeled.tolist())

    def test_doubts(self, tmp_path):
        root = str(tmp_path)
        with pytest.raises(DataError, match=r"To get it: curl -L .*stl10_binary\.tar\.gz"):
            load("stl10", root=root)
        with pytest.raises(ConfigError, match="unlabeled must be a whole number >= 0, got 'all'"):
            load("stl10", root=root, unlabeled="all")
        self.write(tmp_path)
        with pytest.raises(
            DataError, match=r"has 4 images, dataset\.options\.unlabeled=5 asks for"
        ):
            load("stl10", root=root, unlabeled=5)
        (tmp_path / "unlabeled_X.bin").unlink()
        with pytest.raises(DataError, match=r"or set dataset\.options\.unlabeled=false"):
            load("stl10", root=root)
        (tmp_path / "test_y.bin").write_bytes(b"\x00\x01")
        with pytest.raises(DataError, match=r"labels must be in 1\.\.10, got 0\.\.1"):
            load("stl10", root=root, unlabeled=False)
        (tmp_path / "train_y.bin").write_bytes(b"\x01")
        with pytest.raises(DataError, match="has 1 labels for 3 images"):
            load("stl10", root=root, unlabeled=False)
        (tmp_path / "train_X.bin").write_bytes(b"\x01" * 100)
        with pytest.raises(DataError, match="has 100 bytes, no multiple of the 27648 of an image"):
            load("stl10", root=root, unlabeled=False)


class TestMedMnist:
    def write(self, tmp_path, name="bloodmnist", shape=(8, 8, 3), **changes):
        arrays = {}
        for split, count in (("train", 6), ("val", 2), ("test", 3)):
            x = rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)
            y = (np.arange(count) % 2).astype(np.uint8)[:, None]
            arrays |= {f"{split}_images": x, f"{split}_labels": y}
        np.savez(tmp_path / f"{name}.npz", **{**arrays, **changes})
        return arrays

    @pytest.mark.parametrize("folder", ["", "medmnist"])
    def test_colour(self, tmp_path, folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        arrays = self.write(tmp_path / folder)
        source = load("medmnist", root=str(tmp_path), file="bloodmnist")
        assert source.train.num_classes == 8
        assert source.train.class_names[7] == "platelet"
        assert source.test.y.tolist() == [0, 1, 0]
        expected = arrays["train_images"].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(source.train.x, expected)

    @pytest.mark.parametrize("name", ["octmnist", "octmnist_64"])
    def test_grey_and_other_sizes(self, tmp_path, name):
        self.write(tmp_path, name, (8, 8))
        assert load("medmnist", root=str(tmp_path), file=name).train.shape == (1, 8, 8)

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("chestmnist", "has 14 findings an image .multi-label., and a sample has one class"),
            ("organmnist3d", r"holds volumes .28 x 28 x 28., and images are read; choose one of"),
            ("bloodmnist_32", "file=bloodmnist_32 is no set of it; choose one of bloodmnist, br"),
            (3, "file must be a text, got 3"),
        ],
    )
    def test_sets_that_are_not_read(self, tmp_path, file, message):
        with pytest.raises(ConfigError, match=message):
            load("medmnist", root=str(tmp_path), file=file)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train_labels": np.zeros((6, 14), int)}, r"multi-label\) are not supported"),
            ({"train_labels": np.full((6, 1), 8)}, r"or a label is not in 0\.\.7"),
            ({"train_labels": np.zeros((5, 1), int)}, "6 images and 5 labels of train do not"),
            ({"train_images": np.zeros((6, 8, 8, 8), np.uint8)}, "volumes are not read"),
        ],
    )
    def test_strange_files(self, tmp_path, changes, message):
        self.write(tmp_path, **changes)
        with pytest.raises(DataError, match=message):
            load("medmnist", root=str(tmp_path), file="bloodmnist")

    def test_absent_damaged_or_read_as_npz(self, tmp_path):
        with pytest.raises(DataError, match=r"put pathmnist\.npz of https"):
            load("medmnist", root=str(tmp_path), file="pathmnist")
        np.savez(tmp_path / "pathmnist.npz", x=np.zeros(2))
        with pytest.raises(
            DataError, match=r"lacks train_images, train_labels, .*; it holds x; get"
        ):
            load("medmnist", root=str(tmp_path), file="pathmnist")
        (tmp_path / "pathmnist.npz").write_bytes(b"PK no zip")
        with pytest.raises(DataError, match=r"pathmnist\.npz cannot be read"):
            load("medmnist", root=str(tmp_path), file="pathmnist")
        self.write(tmp_path)
        with pytest.raises(DataError, match=r"lacks x_train.*; dataset=medmnist reads it"):
            load("npz", root=str(tmp_path / "bloodmnist.npz"))


class TestCifar101:
    def write(self, folder, version="v6", **changes):
        x = rng().integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        arrays = {"data": x, "labels": np.array([3, 1, 0, 9], dtype=np.int32), **changes}
        for kind, array in arrays.items():
            np.save(folder / f"cifar10.1_{version}_{kind}.npy", array)
        return x

    @pytest.mark.parametrize("version", ["v4", "v6"])
    @pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
    def test_is_the_test_set(self, tmp_path, version, folder):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        x = self.write(tmp_path / folder, version)
        source = load("cifar10", root=str(tmp_path), test=f"cifar10.1-{version}")
        np.testing.assert_array_equal(source.test.x, x.transpose(0, 3, 1, 2))
        assert source.test.y.tolist() == [3, 1, 0, 9]
        assert len(source.train) == 20

    def test_doubts(self, tmp_path):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        options = {"root": str(tmp_path), "test": "cifar10.1-v6"}
        with pytest.raises(ConfigError, match=r"test must be one of cifar10\.1-v4, cifar10"):
            load("cifar10", root=str(tmp_path), test="v6")
        with pytest.raises(
            DataError, match=r"v6_data\.npy of dataset\.options\.test=cifar10\.1-v6 was"
        ):
            load("cifar10", **options)
        self.write(tmp_path, labels=np.zeros(3, np.int32))
        with pytest.raises(DataError, match=r"must hold bytes of shape .* N numbers, got \(3,\)"):
            load("cifar10", **options)
        (tmp_path / "cifar10.1_v6_data.npy").write_bytes(b"no array")
        with pytest.raises(DataError, match=r"cifar10\.1_v6 cannot be read"):
            load("cifar10", **options)
