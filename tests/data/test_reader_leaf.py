import json

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.ground import ground
from fedlabels.errors import ConfigError, DataError

SIDE = 4


def people(names, count=6, *, first=0):
    """Make white pictures with one pixel of ink, at the place of the class."""
    data = {}
    for number, name in enumerate(names):
        y = [(first + number + i) % 3 for i in range(count)]
        x = np.ones((count, SIDE * SIDE))
        x[np.arange(count), np.array(y) + 5] = number / 10
        data[name] = {"x": x.tolist(), "y": y}
    return data


def write(path, data, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "users": list(data),
        "num_samples": [len(d["y"] or ()) for d in data.values()],
        "user_data": data,
    }
    path.write_text(json.dumps({k: v for k, v in {**content, **changes}.items() if v is not None}))


def write_set(folder):
    write(folder / "train" / "all_data_0_niid_0_keep_0_train_9.json", people(["f1_2", "f0_1"]))
    write(folder / "train" / "all_data_1_niid_0_keep_0_train_9.json", people(["f9_0"]))
    write(folder / "test" / "all_data_0_niid_0_keep_0_test_9.json", people(["f9_0", "f0_1"], 3))
    return str(folder)


class TestReads:
    @pytest.mark.parametrize("place", ["", "data", "leaf"])
    def test_users_are_clients_of_both_splits(self, tmp_path, place):
        write_set(tmp_path / place)
        source = load("leaf", root=str(tmp_path), shape=[1, SIDE, SIDE])
        assert source.train.shape == (1, SIDE, SIDE)
        assert source.train.owner_names == ("f0_1", "f1_2", "f9_0")
        assert source.test.owner_names == ("f0_1", "f9_0")
        assert len(source.train) == 18
        assert source.train.y[:4].tolist() == [0, 1, 2, 0]
        assert source.train.owner.tolist() == [1] * 6 + [0] * 6 + [2] * 6
        assert source.train.x[0, 0, 1, 1] == 0
        assert ground(source.train.x) == 1  # views fill with white

    def test_flat_features(self, tmp_path):
        assert load("leaf", root=write_set(tmp_path), num_classes=62).train.shape == (16,)

    @pytest.mark.parametrize("place", ["all_data", ""])
    def test_one_part_gives_every_user_test_samples(self, tmp_path, place):
        write(tmp_path / place / "all_data_0.json", people(["a", "b"], 10))
        with pytest.raises(DataError, match=r"no test/\*\.json: set .*test_every=5"):
            load("leaf", root=str(tmp_path))
        source = load("leaf", root=str(tmp_path), test_every=5)
        assert source.test.owner.tolist() == [0, 0, 1, 1]
        assert len(source.train) == 16


def changed(user="f9_0", **changes):
    data = people([user])
    data[user].update(changes)
    return data


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "changes", "message"),
        [
            (people(["f9_0"]), {"num_samples": None}, "lacks num_samples; a file of LEAF holds"),
            (people(["f9_0"]), {"num_samples": [7]}, "6 samples x, 6 labels y and num_samples 7"),
            (people(["f9_0"]), {"users": ["x"]}, "user 'x' has no entry in user_data"),
            (people(["f9_0"]), {"users": ["x", "y"]}, "must be lists of one length"),
            (changed(y=None), {"num_samples": [6]}, "has no lists x and y in user_data"),
            (changed(y=[0]), {}, "6 samples x, 1 labels y"),
            (changed(x=["a b"] * 6), {"num_samples": [6]}, "are text, as in shakespeare"),
            (changed(x=[[1.0, 2.0]] * 6), {}, "have 2 numbers, those before 16"),
            (changed(x=[[1.0]] * 5 + [[1.0, 2.0]]), {}, "different lengths"),
            (changed(x=[[float("nan")] * 16] * 6), {}, "is nan, infinite"),
            (changed(y=[0.5] * 6), {}, "labels must be integers"),
            (changed(y=["a"] * 6), {}, "labels must be integers"),
            (people(["f0_1"]), {}, "user 'f0_1' is in another file, too"),
        ],
    )
    def test_damage_is_named(self, tmp_path, data, changes, message):
        root = write_set(tmp_path)
        write(tmp_path / "train" / "all_data_1_niid_0_keep_0_train_9.json", data, **changes)
        with pytest.raises(DataError, match=message) as caught:
            load("leaf", root=root)
        assert "all_data_1" in str(caught.value)

    def test_a_file_cut_off(self, tmp_path):
        root = write_set(tmp_path)
        path = tmp_path / "test" / "all_data_0_niid_0_keep_0_test_9.json"
        path.write_text(path.read_text()[:100])
        with pytest.raises(DataError, match=r"test_9\.json cannot be read as json"):
            load("leaf", root=root)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shape": [1, 28, 28]}, r"shape=\[1, 28, 28\] has 784 numbers, .* has 16"),
            ({"shape": "28x28"}, r"options\.shape must be a list of sizes"),
            ({"shape": [0]}, r"dataset\.options\.shape must be a whole number >= 1"),
            ({"test_every": 5}, "has no effect, .* has a test split"),
            ({"test_every": 1}, r"dataset\.options\.test_every must be a whole number >= 2"),
        ],
    )
    def test_options(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            load("leaf", root=write_set(tmp_path), **options)

    def test_nowhere(self, tmp_path):
        with pytest.raises(DataError, match=r"preprocess\.sh"):
            load("leaf", root=str(tmp_path))
