import os
import pickle
import struct

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.cifar import CLASSES_10, MEAN_10, STD_100
from fedlabels.errors import ConfigError, DataError

ROWS = 4
FINE, COARSE = 100, 20


def python2(value):
    """Write a value as the pickle of Python 2 (protocol 2) in which CIFAR is published."""
    if isinstance(value, dict):
        items = b"".join(python2(k) + python2(v) for k, v in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert value.dtype == np.uint8
    shape = b"".join(python2(size) for size in value.shape)
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + shape + b"t" + dtype + b"\x89" + python2(value.tobytes()) + b"tb"
    )


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x02" + python2(value) + b".")


def images(seed):
    return np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), dtype=np.uint8)


def write_cifar10(folder):
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = [(seed + i) % 10 for i in range(ROWS)]
        content = {b"batch_label": b"batch", b"labels": labels, b"data": images(seed)}
        dump(folder / name, {**content, b"filenames": [b"a.png"] * ROWS})
    return folder


def write_cifar100(folder):
    for seed, name in enumerate(("train", "test")):
        fine, coarse = [99, 0, 5, 7], [19, 0, 1, 2]
        labels = {b"fine_labels": fine, b"coarse_labels": coarse}
        dump(folder / name, {b"filenames": [b"a"] * ROWS, **labels, b"data": images(seed)})
    names = {
        b"fine_label_names": [b"fine %d" % i for i in range(FINE)],
        b"coarse_label_names": [b"coarse %d" % i for i in range(COARSE)],
    }
    dump(folder / "meta", names)
    return folder


class TestCifar10:
    def test_reads_the_published_layout(self, tmp_path):
        write_cifar10(tmp_path / "cifar-10-batches-py")
        source = load("cifar10", root=str(tmp_path))
        assert source.train.x.shape == (5 * ROWS, 3, 32, 32)
        assert source.train.y.tolist() == [(s + i) % 10 for s in range(5) for i in range(ROWS)]
        assert source.test.y.tolist() == [5, 6, 7, 8]
        assert source.train.class_names == CLASSES_10
        assert source.train.mean == MEAN_10
        # The first 1024 bytes of a row are the red channel, line by line.
        row = images(1)[2]
        np.testing.assert_array_equal(source.train.x[ROWS + 2, 0, 0], row[:32])
        np.testing.assert_array_equal(source.train.x[ROWS + 2, 1, 31], row[2 * 1024 - 32 : 2048])

    def test_given_root_may_be_the_folder_itself(self, tmp_path):
        folder = write_cifar10(tmp_path / "here")
        assert len(load("cifar10", root=str(folder)).test) == ROWS

    @pytest.mark.parametrize("place", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
    def test_is_found_in_the_shared_folder(self, tmp_path, monkeypatch, place):
        write_cifar10(tmp_path / "shared" / place)
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        assert len(load("cifar10").train) == 5 * ROWS

    def test_missing_batch_lists_paths_and_command(self, tmp_path):
        (write_cifar10(tmp_path / "cifar-10-batches-py") / "data_batch_4").unlink()
        with pytest.raises(DataError) as caught:
            load("cifar10", root=str(tmp_path))
        text = str(caught.value)
        assert f"{tmp_path}\n" in text
        assert f"{tmp_path}/cifar-10-batches-py\n" in text
        assert "cifar-10-python.tar.gz | tar xz" in text
        assert "dataset.options.download=true" in text

    def test_a_hostile_batch_runs_nothing(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'mark'}",)

        folder = write_cifar10(tmp_path / "cifar-10-batches-py")
        raw = pickle.dumps({b"data": Hostile(), b"labels": []}, protocol=2)
        (folder / "data_batch_2").write_bytes(raw)
        with pytest.raises(DataError, match=r"data_batch_2 asks for \w+\.system"):
            load("cifar10", root=str(tmp_path))
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({b"labels": [0] * ROWS}, "lacks data or labels"),
            ([1, 2], "lacks data or labels"),
            ({b"data": images(0)[:, :-1].copy(), b"labels": [0] * ROWS}, r"got \(4, 3071\)"),
            ({b"data": images(0), b"labels": [0] * (ROWS - 1)}, r"N labels, got .* and \(3,\)"),
            ({b"data": images(0), b"labels": [10] * ROWS}, r"labels must be in 0\.\.9, got 10"),
            ({b"data": images(0), b"labels": [b"cat"] * ROWS}, "no plain arrays"),
        ],
    )
    def test_damage_is_named(self, tmp_path, content, message):
        folder = write_cifar10(tmp_path / "cifar-10-batches-py")
        dump(folder / "test_batch", content)
        with pytest.raises(DataError, match=message) as caught:
            load("cifar10", root=str(tmp_path))
        assert str(folder / "test_batch") in str(caught.value)

    def test_files_written_by_python_3_are_read(self, tmp_path):
        folder = write_cifar10(tmp_path / "cifar-10-batches-py")
        content = {b"data": images(9), b"labels": [1, 2, 3, 4]}
        (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
        source = load("cifar10", root=str(tmp_path))
        np.testing.assert_array_equal(source.test.x.reshape(ROWS, -1), images(9))


class TestCifar100:
    @pytest.mark.parametrize(
        ("options", "labels", "classes"),
        [({}, [99, 0, 5, 7], FINE), ({"labels": "coarse"}, [19, 0, 1, 2], COARSE)],
    )
    def test_reads_both_kinds_of_label(self, tmp_path, options, labels, classes):
        write_cifar100(tmp_path / "cifar-100-python")
        source = load("cifar100", root=str(tmp_path), **options)
        assert source.train.y.tolist() == labels
        assert source.train.num_classes == classes
        assert source.test.class_names[-1] == f"{options.get('labels', 'fine')} {classes - 1}"
        assert source.test.std == STD_100
        np.testing.assert_array_equal(source.test.x.reshape(ROWS, -1), images(1))

    def test_other_labels_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="labels must be one of fine, coarse; got 'both'"):
            load("cifar100", root=str(tmp_path), labels="both")

    def test_meta_without_names(self, tmp_path):
        folder = write_cifar100(tmp_path / "cifar-100-python")
        dump(folder / "meta", {b"fine_label_names": b"apple"})
        with pytest.raises(DataError, match="meta lacks fine_label_names"):
            load("cifar100", root=str(tmp_path))
