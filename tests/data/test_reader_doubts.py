"""What a reader cannot know it asks for: the order of axes, the classes, which set it is."""

import gzip
import struct
import zipfile

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.labels import class_names, one_a_sample
from fedlabels.data.layout import described
from fedlabels.data.published import check_content
from fedlabels.errors import ConfigError, DataError, FedLabelsError

ROWS = 12


def save(tmp_path, shape=(5,), *, dtype=np.float32, name="toy.npz", **changes):
    x = np.random.default_rng(0).integers(0, 256, (ROWS, *shape)).astype(dtype)
    y = np.arange(ROWS) % 3
    arrays = {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6], **changes}
    np.savez(tmp_path / name, **arrays)
    return str(tmp_path / name)


class TestLayout:
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
    @pytest.mark.parametrize("shape", [(8, 8, 3), (8, 6, 4), (8, 8, 2), (9, 8, 1), (16, 16, 13)])
    def test_images_with_channels_last_are_asked_about_and_then_read(self, tmp_path, shape, dtype):
        path = save(tmp_path, shape, dtype=dtype)
        with pytest.raises(DataError, match=r"options\.layout=channels_last \(or =channels_first"):
            load("npz", root=path)
        source = load("npz", root=path, layout="channels_last")
        assert source.train.shape == (shape[2], *shape[:2])
        x = np.load(path)["x_train"].astype(source.train.x.dtype)
        np.testing.assert_array_equal(source.train.x, x.transpose(0, 3, 1, 2))
        assert len(source.train.mean) == shape[2]
        assert load("npz", root=path, layout="channels_first").train.shape == shape

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    @pytest.mark.parametrize(
        "shape", [(3, 8, 8), (1, 5, 4), (4, 8, 8), (3, 5, 9), (1, 1, 1), (2, 9, 7)]
    )
    def test_channels_first_need_no_word(self, tmp_path, shape, dtype):
        assert load("npz", root=save(tmp_path, shape, dtype=dtype)).train.shape == shape

    @pytest.mark.parametrize("shape", [(64, 8, 8), (512, 1, 1), (64, 4, 4), (13,), (2, 30)])
    def test_features_need_no_word(self, tmp_path, shape):
        assert load("npz", root=save(tmp_path, shape)).train.shape == shape

    @pytest.mark.parametrize("shape", [(8, 8), (30, 2)])
    def test_floats_of_two_axes_may_be_grey_images(self, tmp_path, shape):
        path = save(tmp_path, shape)
        with pytest.raises(DataError, match=r"or grey images: set dataset\.options\.layout="):
            load("npz", root=path)
        assert load("npz", root=path, layout="channels_first").train.shape == shape
        assert load("npz", root=path, layout="channels_last").train.shape == shape[::-1]

    def test_grey_images_of_bytes_have_no_channel_axis(self, tmp_path):
        path = save(tmp_path, (8, 6), dtype=np.uint8)
        for layout in (None, "channels_first", "channels_last"):
            assert load("npz", root=path, layout=layout).train.shape == (1, 8, 6)

    def test_series_with_time_first_are_asked_about_and_then_read(self, tmp_path):
        path = save(tmp_path, (128, 9))
        with pytest.raises(DataError, match=r"128 channels of 9 steps.*layout=time_channels \(or"):
            load("timeseries_npz", root=path)
        source = load("timeseries_npz", root=path, layout="time_channels")
        np.testing.assert_array_equal(source.test.x, np.load(path)["x_test"].transpose(0, 2, 1))
        assert load("timeseries_npz", root=path, layout="channels_time").train.shape == (128, 9)

    @pytest.mark.parametrize("shape", [(9, 128), (9, 9), (1, 20)])
    def test_series_in_order_need_no_word(self, tmp_path, shape):
        assert load("timeseries_npz", root=save(tmp_path, shape)).train.shape == shape

    @pytest.mark.parametrize("layout", ["last", 5, ["channels_last"], "channels_time"])
    def test_a_layout_is_one_of_two_words(self, tmp_path, layout):
        with pytest.raises(
            ConfigError, match="layout must be one of channels_first, channels_last"
        ):
            load("npz", root=save(tmp_path, (8, 6), dtype=np.uint8), layout=layout)

    @pytest.mark.parametrize(
        ("shape", "pixels", "said"),
        [
            ((13,), False, "13 features"),
            ((1, 50), False, "1 channel x 50 steps"),
            ((9, 128), False, "9 channels x 128 steps"),
            ((3, 32, 16), True, "image, 3 x 32 x 16"),
            ((2, 4, 5, 6), False, "array, 2 x 4 x 5 x 6"),
        ],
    )
    def test_the_shape_is_said_as_it_is_understood(self, shape, pixels, said):
        assert said in described(shape, pixels=pixels)


class TestLabels:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
    def test_a_column_is_taken(self, tmp_path, dtype):
        y = (np.arange(ROWS) % 3)[:, None].astype(dtype)
        source = load("npz", root=save(tmp_path, y_train=y, y_test=y[:6]))
        assert source.train.y.tolist() == y[:, 0].tolist()
        assert source.train.y.dtype == np.int64

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.int64(3), r"one class a sample, shape \(N,\), got shape \(\)"),
            (np.zeros((ROWS, 2, 2), int), r"got shape \(12, 2, 2\)"),
            (np.random.default_rng(0).integers(0, 2, (ROWS, 14)), r"multi-label.* y\[:, 0\]"),
            (np.ones((ROWS, 3), bool), "multi-label"),
            (np.eye(3, dtype=int)[np.arange(ROWS) % 3], r"one-hot labels: store y\.argmax"),
            (np.eye(3)[np.arange(ROWS) % 3], r"one-hot labels: store y\.argmax"),
            (np.array(["cat", "dog"] * 6), r"np\.unique\(y, return_inverse=True\).*class_names"),
            (np.array([b"cat", b"dog"] * 6), r"class_names"),
            (np.arange(ROWS) % 2 == 0, r"got bool; store y\.astype"),
            (np.arange(ROWS, dtype=float), r"got float64; store y\.astype"),
            (np.where(np.arange(ROWS) % 2, np.nan, 1), "store -1 where the class is not known"),
            (np.full(ROWS, 0.5), "number the classes 0, 1, 2"),
            (np.zeros(ROWS, complex), "got complex128; number the classes"),
            (np.full(ROWS, 2**64 - 1, np.uint64), "18446744073709551615 is beyond int64"),
        ],
    )
    def test_what_is_no_class_says_what_to_store(self, y, message):
        with pytest.raises(DataError, match=message):
            one_a_sample("here", np.asarray(y))

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([1, 2, 3, 4], r"never occur \(0\); store y - 1 .*num_classes=5 if that is right"),
            ([0, 1, 3], r"1 of the classes 0\.\.3 never occur \(2\); number the classes"),
            (
                [0, 1, 2_000_000],
                r"number the classes without gaps; no set has more than 1,000,000 classes$",
            ),
            ([0, 1, 255], "255 is what -1 becomes in uint8"),
            (
                [0, 2_000_000_000],
                r"1,999,999,999 of the .*\(1, 2, 3, .*\.\.\.\); .*more than 1,000",
            ),
            ([-1, -1], "no label is known"),
            ([-1, 0], "only class 0 occurs"),
            ([], "no label is known"),
        ],
    )
    def test_gaps_are_asked_about(self, y, message):
        with pytest.raises(DataError, match=message):
            class_names("npz", None, None, np.array(y, np.int64))

    def test_all_splits_and_unlabeled_samples_count(self):
        train, test = np.array([-1, 0, 3, 1]), np.array([2, -1])
        assert class_names("npz", None, None, train, test) == ("0", "1", "2", "3")

    def test_what_the_options_say_holds(self):
        y = np.array([1, 2, 4])
        assert len(class_names("npz", 7, None, y)) == 7
        assert class_names("npz", None, list("abcde"), y) == tuple("abcde")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_classes": "4"}, "num_classes must be a whole number >= 2, got '4'"),
            ({"num_classes": 4.0}, r"num_classes must be a whole number >= 2, got 4\.0"),
            ({"num_classes": True}, "num_classes must be a whole number"),
            ({"num_classes": 1}, "num_classes must be a whole number >= 2, got 1"),
            ({"num_classes": 2_000_000_000}, "num_classes must be a whole number <= 1000000"),
            ({"class_names": "abc"}, "class_names must be a list of texts"),
            ({"class_names": [1, 2, 3]}, "class_names must be a text, got 1"),
            ({"class_names": ["a", "b", "a"]}, "names a class twice"),
            ({"mean": 0.5, "std": 0.5}, r"mean must be a list of numbers, got 0\.5"),
            ({"mean": [0.0] * 5, "std": ["a"] * 5}, "std must be a list of numbers"),
            ({"mean": [float("nan")] * 5, "std": [1.0] * 5}, "mean must be finite"),
        ],
    )
    @pytest.mark.parametrize("reader", ["npz", "timeseries_npz"])
    def test_options_of_another_type(self, tmp_path, reader, options, message):
        with pytest.raises(ConfigError, match=f"{reader}: .*{message}"):
            load(reader, root=save(tmp_path), **options)


class TestErrors:
    @pytest.mark.parametrize("root", [5, 2.5, ["a"], True])
    def test_a_root_is_a_path(self, root):
        with pytest.raises(ConfigError, match=r"dataset\.root must be a path or null, got"):
            load("npz", root=root)

    def test_bytes_that_are_no_text(self, tmp_path):
        path = save(tmp_path, client_train=np.array([b"\xff\xfe"] * ROWS))
        with pytest.raises(DataError, match="client_train holds bytes that are no UTF-8"):
            load("npz", root=path)

    def test_other_channels_in_the_test_split(self, tmp_path):
        path = save(tmp_path, (3, 20), x_test=np.zeros((6, 2, 20), np.float32))
        with pytest.raises(
            DataError, match=r"training samples have shape \(3, 20\), test .*\(2, 20"
        ):
            load("npz", root=path)

    def test_one_axis_is_no_sample(self, tmp_path):
        path = save(tmp_path, x_train=np.zeros(ROWS, np.float32))
        with pytest.raises(DataError, match=r"must have shape \(N, C, \.\.\.\), got \(12,\)"):
            load("npz", root=path)

    @pytest.mark.parametrize("field", ["method", "password"])
    def test_an_archive_that_asks_for_the_unknown(self, tmp_path, field):
        path = tmp_path / "toy.npz"
        save(tmp_path)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            start = archive.start_dir
        place, value = (10, 0x63) if field == "method" else (8, 1)
        content[start + place] = value  # in the central directory, of the first array
        path.write_bytes(bytes(content))
        with pytest.raises(DataError, match=r"toy\.npz cannot be read as \.npz"):
            load("npz", root=str(path))

    def test_flipped_bytes_are_read_or_refused(self, tmp_path):
        path = tmp_path / "toy.npz"
        save(tmp_path, (2, 3), client_train=np.array([b"a", b"b"] * 6))
        whole, random = path.read_bytes(), np.random.default_rng(0)
        for place in random.integers(0, len(whole), 200):
            content = bytearray(whole)
            content[place] ^= int(random.integers(1, 256))
            path.write_bytes(bytes(content))
            try:
                load("npz", root=str(path))
            except FedLabelsError:
                continue

    def test_what_no_reader_expects_is_one_line(self, tmp_path, monkeypatch):
        def broken(_roots):
            raise MemoryError("too much")

        monkeypatch.setattr("fedlabels.data.registry.reader_of", lambda name: broken)
        with pytest.raises(DataError, match=r"'npz' in /x cannot be read \(MemoryError: too much"):
            load("npz", root="/x")


class TestContent:
    @staticmethod
    def write(folder, value=128, count=20):
        folder.mkdir(parents=True)
        for stem, rows in (("train", count), ("t10k", 4)):
            x, y = np.full((rows, 2, 2), value, np.uint8), np.arange(rows, dtype=np.uint8) % 10
            for kind, array in (("images-idx3", x), ("labels-idx1", y)):
                head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
                file = folder / f"{stem}-{kind}-ubyte.gz"
                file.write_bytes(gzip.compress(head + array.tobytes()))
        return str(folder)

    @pytest.mark.parametrize(
        ("name", "folder", "other"),
        [
            ("mnist", "fashion-mnist", "fashion_mnist"),
            ("mnist", "FashionMNIST/raw", "fashion_mnist"),
            ("fashion_mnist", "MNIST/raw", "mnist"),
            ("fashion_mnist", "mnist", "mnist"),
        ],
    )
    def test_the_folder_of_another_set_is_refused(self, tmp_path, name, folder, other):
        root = self.write(tmp_path / folder)
        with pytest.raises(DataError, match=f"is the folder of {other}.*set dataset={other}"):
            load(name, root=root)
        assert len(load(other, root=root).train) == 20

    def test_other_images_are_refused(self, tmp_path):
        root = self.write(tmp_path / "here", value=round(0.286 * 255), count=1000)
        assert len(load("fashion_mnist", root=root).train) == 1000
        with pytest.raises(
            DataError, match=r"a mean of 0\.286, those of mnist 0\.131: it is another"
        ):
            load("mnist", root=root)

    def test_each_channel_counts(self, tmp_path):
        x = np.zeros((1000, 3, 2, 2), np.uint8)
        check_content("toy", tmp_path, x, (0.0, 0.01, 0.0))
        with pytest.raises(DataError, match="another set"):
            check_content("toy", tmp_path, x, (0.0, 0.1, 0.0))
