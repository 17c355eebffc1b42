"""What a device reads of its own disk, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedlabels.deploy.device_data import read
from fedlabels.deploy.spec import DeviceSpec
from fedlabels.errors import ConfigError, DataError


def spec_of(**changes):
    values = {
        "run": "r",
        "seed": 0,
        "client": {"name": "fedavg"},
        "model": {"name": "mlp"},
        "shape": (1, 4, 4),
        "class_names": ("cat", "dog", "eel"),
        "mean": (0.5,),
        "std": (0.25,),
        "pixels": True,
    }
    return DeviceSpec(**{**values, **changes})


def arrays(count=6, shape=(1, 4, 4), dtype=np.uint8):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (count, *shape)).astype(dtype)
    return x, np.array([0, 2, -1, 1, -1, -1][:count])


def node(folder, **more):
    return {"client-id": 4, "data-dir": str(folder), "state-dir": str(folder), **more}


def test_npz_with_unlabeled_samples(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "train.npz", x=x, y=y)
    data = read(node(tmp_path), spec_of())
    assert data.client_id == 4
    assert data.labeled.tolist() == [0, 1, 3]
    assert data.labels.tolist() == [0, 2, 1]
    assert data.unlabeled.tolist() == [2, 4, 5]
    assert data.counts() == {"labeled": 3, "unlabeled": 3, "test": 0}
    assert (data.train.x == x).all()
    assert data.train.mean == (0.5,)  # of the federation, not of this device


def test_a_device_trains_on_the_labels_that_were_given(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "train.npz", x=x, y=y, clean=np.array([1, 2, 0, 1, -1, 0]))
    data = read(node(tmp_path), spec_of())
    assert data.labeled.tolist() == [0, 1, 3]
    assert data.labels.tolist() == [0, 2, 1]


def test_samples_without_a_label_are_not_tested_on(tmp_path):
    x, y = arrays()
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=x, y=y)
    data = read(node(tmp_path), spec_of())
    assert data.tests.tolist() == [0, 1, 3]
    assert data.counts()["test"] == 3


def test_time_series(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 20))
    np.savez(tmp_path / "train.npz", x=x, y=np.array([0, 1, 1, -1, -1]))
    np.savez(tmp_path / "test.npz", x=x[:2], y=np.array([0, 1]))
    spec = spec_of(shape=(1, 20), pixels=False)
    data = read(node(tmp_path, **{"data-kind": "timeseries_npz"}), spec)
    assert data.train.x.shape == (5, 1, 20)
    assert data.counts() == {"labeled": 3, "unlabeled": 2, "test": 2}


def test_images(tmp_path):
    for name, value in (("dog", 10), ("eel", 20), ("unlabeled", 30)):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (value, value, value)).save(tmp_path / "train" / name / "a.png")
    Image.new("RGB", (4, 4), (40, 40, 40)).save(tmp_path / "train" / "loose.png")
    data = read(node(tmp_path), spec_of())
    assert data.train.x.shape == (4, 1, 4, 4)
    by_value = {int(x.max()): int(y) for x, y in zip(data.train.x, data.train.y, strict=True)}
    assert by_value == {10: 1, 20: 2, 30: -1, 40: -1}  # numbered as the federation's classes
    (tmp_path / "train" / "emu").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "emu" / "a.png")
    with pytest.raises(DataError, match="'emu' is not known"):
        read(node(tmp_path), spec_of())


def test_a_partition_of_a_known_data_set(tmp_path):
    from fedlabels.deploy.server import _DEALT
    from fedlabels.run.data import build_data
    from tests.end_to_end.harness import TINY, config_of

    config = config_of(*TINY)
    source, federation = build_data(config)
    dealt = {key: config[key] for key in _DEALT}
    spec = spec_of(shape=source.train.shape, class_names=source.train.class_names, federation=dealt)
    for partition in (0, 9):
        data = read({"partition-id": partition, "data-root": "packaged"}, spec)
        assert (data.labeled == federation.labeled[partition]).all()
        assert (data.labels == federation.labels_of(partition)).all()
        assert (data.train.y[data.unlabeled] == -1).all()
        assert (data.train.y[data.labeled] == source.train.y[data.labeled]).all()
    same = replace(spec, federation_hash=federation.hash)
    first = {"partition-id": 0, "data-root": "packaged"}
    assert read(first, same).counts() == read(first, spec).counts()
    with pytest.raises(DataError, match=f"{federation.hash[:12]}, the server one with 0000"):
        read(first, replace(spec, federation_hash="0" * 64))
    with pytest.raises(ConfigError, match="10 clients"):
        read({"partition-id": 10, "data-root": "packaged"}, spec)
    with pytest.raises(ConfigError, match=r"deploy\.partitions"):
        read({"partition-id": 0}, spec_of())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "client-id"),
        ({"client-id": 1, "partition-id": 1}, "either client-id"),
        ({"client-id": -1}, ">= 0"),
        ({"client-id": "one"}, "whole number"),
        ({"client-id": 1}, "needs data-dir"),
        ({"client-id": 1, "data_dir": "x"}, "unknown key 'data_dir'"),
        ({"client-id": 1, "data-dir": "x", "data-kind": "csv"}, "data-kind|no folder"),
    ],
)
def test_a_wrong_node_configuration(given, said):
    with pytest.raises((ConfigError, DataError), match=said):
        read(given, spec_of())


def test_data_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        read(node(tmp_path / "none"), spec_of())
    with pytest.raises(DataError, match="no training data"):
        read(node(tmp_path), spec_of())
    x, y = arrays(shape=(1, 5, 5))
    np.savez(tmp_path / "train.npz", x=x, y=y)
    with pytest.raises(DataError, match=r"shape \(1, 4, 4\)"):
        read(node(tmp_path), spec_of())
    x, y = arrays()
    np.savez(tmp_path / "train.npz", x=x, y=y + 3)
    with pytest.raises(DataError, match="labels must be in"):
        read(node(tmp_path), spec_of())
    np.savez(tmp_path / "train.npz", x=x.astype(np.float32), y=y)
    with pytest.raises(DataError, match="uint8"):
        read(node(tmp_path), spec_of())
    (tmp_path / "train.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        read(node(tmp_path), spec_of())


def dealt(name, root=None, **options):
    return {"dataset": {"name": name, "root": root, "options": options}}


@pytest.mark.parametrize(
    ("federation", "more", "said"),
    [
        (dealt("image_folder", "/home"), {}, "needs data-root"),
        (dealt("digits"), {}, "needs data-root"),
        (dealt("huggingface", path="x"), {"data-root": "/"}, "comes over the network"),
        (dealt("cifar10", download=True), {"data-root": "/"}, "comes over the network"),
        (dealt("npz"), {"data-root": "/does not exist"}, "does not exist"),
        (dealt("npz"), {"data-root": "packaged"}, "does not exist"),
    ],
)
def test_the_server_does_not_choose_what_is_read(federation, more, said):
    with pytest.raises(ConfigError, match=said):
        read({"partition-id": 0, **more}, spec_of(federation=federation))


def test_the_server_deals_nothing_that_comes_over_the_network():
    from fedlabels.deploy.server import settings, undealt
    from fedlabels.run.setup import build_world

    config = settings({"overrides": "method=fedavg deploy.partitions=true dataset=cifar10"})
    config["dataset"]["options"] = {"download": True}
    with pytest.raises(ConfigError, match=r"cifar10 with download=true, which comes over"):
        build_world(config, undealt)


def test_a_partition_of_another_number_of_clients(tmp_path):
    from fedlabels.deploy.server import _DEALT
    from tests.end_to_end.harness import TINY, config_of

    config = config_of(*TINY)
    spec = spec_of(shape=(1, 8, 8), federation={key: config[key] for key in _DEALT})
    own = {"partition-id": 0, "data-root": "packaged", "num-partitions": 20}
    with pytest.raises(ConfigError, match=r"num-partitions is 20, but .* 10 clients"):
        read(own, spec)


def test_images_for_a_federation_of_features(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(DataError, match=r"features of shape \(7,\)"):
        read(node(tmp_path), spec_of(shape=(7,), mean=(0.0,) * 7, std=(1.0,) * 7, pixels=False))


def test_val_is_what_a_device_tests_on_where_it_has_no_test(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / split / "cat" / "a.png")
    assert read(node(tmp_path), spec_of()).counts() == {"labeled": 1, "unlabeled": 0, "test": 1}


def test_a_client_id_has_a_bound():
    with pytest.raises(ConfigError, match="<= 2147483647"):
        read({"client-id": 2**31}, spec_of())
