import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.arrays import statistics
from fedlabels.errors import ConfigError, DataError

ROWS = 6


def parts(**changes):
    x = np.random.default_rng(0).normal(size=(ROWS, 3, 20))
    base = {"x_train": x, "y_train": np.arange(ROWS) % 3, "x_test": x[:2], "y_test": np.arange(2)}
    return {k: v for k, v in {**base, **changes}.items() if v is not None}


def save(tmp_path, name="toy.npz", **changes):
    np.savez(tmp_path / name, **parts(**changes))
    return str(tmp_path / name)


class TestOrigins:
    def test_clients_and_domains_of_one_file(self, tmp_path):
        path = save(
            tmp_path,
            client_train=np.array(["bo", "al", "bo", "cy", "al", "bo"]),
            domain_train=np.array([7, 7, 3, 3, 7, 3]),
            domain_test=np.array([5, 3]),
        )
        source = load("npz", root=path)
        assert source.train.owner_names == ("al", "bo", "cy")
        assert source.train.owner.tolist() == [1, 0, 1, 2, 0, 1]
        assert source.train.domain_names == source.test.domain_names == ("3", "5", "7")
        assert source.train.domain.tolist() == [2, 2, 0, 0, 2, 0]
        assert source.test.domain.tolist() == [1, 0]
        assert source.test.owner is None

    def test_clients_and_domains_of_a_folder(self, tmp_path):
        p = parts()
        np.savez(
            tmp_path / "train.npz",
            x=p["x_train"],
            y=p["y_train"],
            client=np.array([10, 9, 10, 2, 2, 9]),
            domain=np.array([b"a", b"b"] * 3),
        )
        np.savez(tmp_path / "test.npz", x=p["x_test"], y=p["y_test"], domain=np.array(["b", "b"]))
        source = load("npz", root=str(tmp_path))
        assert source.train.owner_names == ("2", "9", "10")  # as numbers, not as text
        assert source.train.owner.tolist() == [2, 1, 2, 0, 0, 1]
        assert source.train.domain.tolist() == [0, 1] * 3
        assert source.test.domain.tolist() == [1, 1]

    def test_clients_of_the_test_samples(self, tmp_path):
        who = {"client_train": np.array(["bo", "al"] * 3), "client_test": np.array(["cy", "al"])}
        source = load("npz", root=save(tmp_path, **who))
        assert source.train.owner_names == ("al", "bo")
        assert [source.test.owner_names[i] for i in source.test.owner] == ["cy", "al"]

    def test_none_is_needed(self, tmp_path):
        source = load("npz", root=save(tmp_path))
        assert source.train.owner is source.train.domain is source.test.domain is None

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"client_train": np.zeros(ROWS)}, "client_train must hold whole numbers or text"),
            ({"client_train": np.zeros(5, int)}, r"client_train must have shape \(6,\)"),
            ({"domain_train": np.zeros(ROWS, int)}, "train has domains, test has none"),
            ({"domain_test": np.zeros(2, int)}, "test has domains, train has none"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path, changes, message):
        with pytest.raises(DataError, match=message):
            load("npz", root=save(tmp_path, **changes))


class TestTimeseries:
    def test_reads_windows(self, tmp_path):
        path = save(tmp_path, client_train=np.array([1, 1, 2, 2, 3, 3]))
        source = load("timeseries_npz", root=path, class_names=["sit", "walk", "run"])
        assert source.train.x.dtype == np.float32
        assert source.train.shape == (3, 20)
        assert source.test.class_names == ("sit", "walk", "run")
        assert source.train.owner_names == ("1", "2", "3")
        x = parts()["x_train"]
        np.testing.assert_allclose(source.train.mean, x.mean(axis=(0, 2)), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(source.train.std, x.std(axis=(0, 2)), rtol=1e-5)

    def test_one_channel_needs_no_axis(self, tmp_path):
        x = parts()["x_train"][:, 0]
        source = load("timeseries_npz", root=save(tmp_path, x_train=x, x_test=x[:2]))
        assert source.train.shape == (1, 20)
        np.testing.assert_allclose(source.train.x[:, 0], x.astype(np.float32))

    def test_is_found_in_the_shared_folder(self, tmp_path, monkeypatch):
        p = parts()
        (tmp_path / "timeseries_npz").mkdir()
        for split in ("train", "test"):
            x, y = p[f"x_{split}"], p[f"y_{split}"]
            np.savez(tmp_path / "timeseries_npz" / f"{split}.npz", x=x, y=y)
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path))
        assert len(load("timeseries_npz").train) == ROWS
        with pytest.raises(DataError, match=f"{tmp_path}/npz\n"):
            load("npz")

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros((ROWS, 1, 8, 8), np.uint8), r"toy\.npz: x_train holds bytes.*dataset=npz"),
            (np.zeros((ROWS, 3, 20), np.int16), "must be uint8 .pixels. or floating, got int16"),
            (np.zeros((ROWS, 3, 20, 2)), r"must have shape \(N, channels, time\).*got \(6, 3, "),
            (np.where(np.arange(ROWS) == 4, np.nan, 0.0)[:, None, None] + np.zeros((1, 3, 20)),
             "series 4 has no step; leave it out"),
            (np.full((ROWS, 3, 20), 1e200), "first in sample 0"),
        ],
    )  # fmt: skip
    def test_refuses_what_is_no_series(self, tmp_path, x, message):
        with pytest.raises(DataError, match=message):
            load("timeseries_npz", root=save(tmp_path, x_train=x))

    def test_half_of_the_constants(self, tmp_path):
        with pytest.raises(ConfigError, match="timeseries_npz: give both mean and std"):
            load("timeseries_npz", root=save(tmp_path), mean=[0.0, 0.0, 0.0])


@pytest.mark.parametrize("rows", [5, 4096, 4100])
def test_statistics_are_those_of_numpy(rows):
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (rows, 2, 3, 2), dtype=np.uint8)
    series = random.normal(1e3, 2.0, (rows, 2, 5)).astype(np.float32)
    for x, scale, axes in ((pixels, 255, (0, 2, 3)), (series, 1, (0, 2))):
        mean, std = statistics(x)
        np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=axes) / scale, rtol=1e-12)
        np.testing.assert_allclose(std, x.astype(np.float64).std(axis=axes) / scale, rtol=1e-10)
