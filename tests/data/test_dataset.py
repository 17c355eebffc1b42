import numpy as np
import pytest

from fedlabels.data import ArrayDataset, DataSource
from fedlabels.data.dataset import pair
from fedlabels.errors import DataError

NAMES = ("a", "b", "c")


def images(count=6, channels=1, side=4):
    return np.arange(count * channels * side * side, dtype=np.uint8).reshape(
        count, channels, side, side
    )


def dataset(**changes):
    fields = {
        "name": "toy",
        "x": images(),
        "y": np.array([0, 1, 2, -1, 0, 1]),
        "num_classes": 3,
        "class_names": NAMES,
        "mean": (0.5,),
        "std": (0.25,),
    }
    return ArrayDataset(**{**fields, **changes})


def test_knows_its_length_and_sample_shape():
    data = dataset()
    assert len(data) == 6
    assert data.shape == (1, 4, 4)


def test_accepts_float_features_of_any_rank():
    assert dataset(x=np.zeros((6, 1, 9), dtype=np.float32)).shape == (1, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": images()[:, 0]}, r"must have shape \(N, C, H, W\), got \(6, 4, 4\)"),
        ({"x": images().astype(np.int32)}, "must be uint8 .pixels. or float32, got int32"),
        ({"x": np.zeros(6, dtype=np.float32)}, r"must have shape \(N, C, \.\.\.\)"),
        ({"x": np.full((6, 1), np.nan, dtype=np.float32)}, "nan or inf"),
        ({"x": np.zeros((6, 1, 0, 4), dtype=np.uint8)}, "must not be empty"),
        ({"y": np.zeros(5, dtype=np.int64)}, r"int64 of shape \(6,\), got int64 \(5,\)"),
        ({"y": np.zeros(6, dtype=np.int32)}, "got int32"),
        ({"y": np.array([0, 1, 2, 3, 0, 1])}, r"labels must be in 0\.\.2, or -1.*got 0\.\.3"),
        ({"y": np.array([0, 1, 2, -2, 0, 1])}, r"got -2\.\.2"),
        ({"num_classes": 1, "class_names": ("a",)}, "num_classes must be >= 2, got 1"),
        ({"class_names": ("a",)}, "3 classes but 1 class names"),
        ({"mean": (0.1, 0.2)}, r"one number a channel \(1\), got 2 and 1"),
        ({"std": (0.0,)}, "std > 0"),
    ],
)
def test_rejects_what_does_not_fit(changes, message):
    with pytest.raises(DataError, match=message):
        dataset(**changes)


def test_splits_must_belong_together():
    with pytest.raises(DataError, match="mean of train and test differ"):
        DataSource(dataset(), dataset(mean=(0.1,)))
    with pytest.raises(DataError, match="shape of train and test differ"):
        DataSource(dataset(), dataset(x=images(side=5)))
    with pytest.raises(DataError, match="train is uint8, test is float32"):
        DataSource(dataset(), dataset(x=images().astype(np.float32)))
    with pytest.raises(DataError, match="both splits need samples, got 6 and 0"):
        DataSource(dataset(), dataset(x=images(0), y=np.zeros(0, dtype=np.int64)))


def test_pair_counts_classes_by_their_names():
    y = np.zeros(6, dtype=np.int64)
    source = pair("toy", (images(), y), (images(), y), class_names=NAMES, mean=(0.0,), std=(1.0,))
    assert source.train.num_classes == 3
    assert source.test.name == "toy"
