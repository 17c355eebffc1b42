import sys

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.errors import DataError

savemat = pytest.importorskip("scipy.io").savemat
LABELS = {"train": [1, 10, 9, 10, 2], "test": [10, 5, 3]}


def pixels(split):
    shape = (32, 32, 3, len(LABELS[split]))
    return np.random.default_rng(len(split)).integers(0, 256, shape, dtype=np.uint8)


def write(folder, **changes):
    """Write both files as they are published: X (32, 32, 3, N), y (N, 1), compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in LABELS.items():
        content = {"X": pixels(split), "y": np.array(labels, dtype=np.uint8)[:, None]}
        if split == "train":
            content.update(changes)
        savemat(folder / f"{split}_32x32.mat", content, do_compression=True)
    return folder


@pytest.mark.parametrize("place", [".", "svhn", "SVHN"])
def test_reads_the_published_layout(tmp_path, place):
    write(tmp_path / place)
    source = load("svhn", root=str(tmp_path))
    assert source.train.y.tolist() == [1, 0, 9, 0, 2]
    assert source.test.y.tolist() == [0, 5, 3]
    assert source.train.shape == (3, 32, 32)
    x = pixels("train")
    np.testing.assert_array_equal(source.train.x[3, 1, 30], x[30, :, 1, 3])
    assert source.train.x.flags.c_contiguous


def test_missing_file_lists_paths_and_command(tmp_path):
    (write(tmp_path / "svhn") / "test_32x32.mat").unlink()
    with pytest.raises(DataError) as caught:
        load("svhn", root=str(tmp_path))
    for part in (f"{tmp_path}/svhn\n", "curl", "test_32x32.mat", "dataset.options.download=true"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((5, 3, 32, 32), np.uint8)}, r"X must be uint8 of shape \(32, 32, 3, N\)"),
        ({"X": np.zeros((32, 32, 3, 5))}, "got float64"),
        ({"y": np.ones((4, 1))}, "5 images but y is"),
        ({"y": np.full((5, 1), 11)}, r"labels must be in 1\.\.10, got 11\.\.11"),
        ({"y": np.array([["a"]] * 5)}, "5 images but y is"),
    ],
)
def test_wrong_content_is_named(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        load("svhn", root=str(tmp_path))
    assert "train_32x32.mat" in str(caught.value)


def test_absent_variable_is_named(tmp_path):
    write(tmp_path)
    savemat(tmp_path / "test_32x32.mat", {"images": np.zeros(3)})
    with pytest.raises(DataError, match=r"test_32x32\.mat lacks X and y"):
        load("svhn", root=str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no matlab", b"MATLAB 5.0 MAT-file" + b"\0" * 200])
def test_damaged_file_is_named(tmp_path, content):
    (write(tmp_path) / "train_32x32.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"train_32x32\.mat (cannot be read|lacks)"):
        load("svhn", root=str(tmp_path))


def test_cut_file_is_named(tmp_path):
    path = write(tmp_path) / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"train_32x32\.mat"):
        load("svhn", root=str(tmp_path))


def test_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"'svhn' needs scipy.*pip install scipy"):
        load("svhn", root=str(tmp_path))
