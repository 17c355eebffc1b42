"""Series of unequal lengths in ``.npz``: every way in which they are stored gives the same."""

import os

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.pickles import load_objects
from fedlabels.errors import ConfigError, DataError
from fedlabels.run.data import sample_of

LENGTHS = (7, 12, 9, 20, 8, 16)
CHANNELS = 3


def series(lengths=LENGTHS, channels=CHANNELS):
    """Make series whose values tell where they are from: series + time / 100."""
    rows = np.arange(channels)[:, None] * 1000
    return [(rows + i + np.arange(n) / 100).astype(np.float32) for i, n in enumerate(lengths)]


def objects(items):
    x = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        x[place] = item
    return x


def filled(items, value=np.nan):
    x = np.full((len(items), len(items[0]), max(i.shape[1] for i in items)), value, np.float32)
    for place, item in enumerate(items):
        x[place, :, : item.shape[1]] = item
    return x


def stored(way, items):
    """Return the arrays of one split, stored in some way."""
    lengths = np.array([item.shape[1] for item in items])
    return {
        "objects": lambda: {"x": objects(items)},
        "objects_time_first": lambda: {"x": objects([item.T for item in items])},
        "nan": lambda: {"x": filled(items)},
        "nan_time_first": lambda: {"x": filled(items).transpose(0, 2, 1)},
        "lengths": lambda: {"x": filled(items, 0), "lengths": lengths},
        "lengths_any": lambda: {"x": filled(items, 99), "lengths": lengths.astype(np.uint8)},
        "offsets": lambda: {
            "x": np.concatenate(items, axis=1), "offsets": np.append(0, lengths.cumsum()),
        },
        "offsets_time_first": lambda: {
            "x": np.concatenate(items, axis=1).T, "offsets": np.append(0, lengths.cumsum()),
        },
    }[way]()  # fmt: skip


def save(folder, train, test=None, **more):
    y = np.arange(len(LENGTHS)) % 3
    np.savez(folder / "train.npz", **{"y": y, **train, **more})
    np.savez(folder / "test.npz", **{"y": y, **(test or train), **more})
    return str(folder)


WAYS = ("objects", "nan", "lengths", "lengths_any", "offsets", "offsets_time_first")
TURNED = ("objects_time_first", "nan_time_first", "offsets_time_first")


class TestWays:
    @pytest.mark.parametrize("way", WAYS)
    def test_windows_cross_no_series_and_take_what_theirs_has(self, tmp_path, way):
        names = np.array(["al", "bo", "al", "cy", "bo", "cy"])
        root = save(tmp_path, stored(way, series()), client=names, domain=np.arange(6) % 2)
        source = load("timeseries_npz", root=root, window=6, step=3)
        expected = [(i, t) for i, n in enumerate(LENGTHS) for t in range(0, n - 5, 3)]
        items = series()
        np.testing.assert_array_equal(
            source.train.x, np.stack([items[i][:, t : t + 6] for i, t in expected])
        )
        origin = np.array([i for i, _ in expected])
        np.testing.assert_array_equal(source.train.y, origin % 3)
        np.testing.assert_array_equal(source.train.domain, origin % 2)
        owners = [source.test.owner_names[o] for o in source.test.owner]
        assert owners == names[origin].tolist()
        said = "3 channels x 6 steps; windows 3 steps apart, 16 from 6 series of 7 to 20 steps"
        assert sample_of(source.train) == said

    @pytest.mark.parametrize("way", TURNED)
    def test_time_first_when_it_is_said(self, tmp_path, way):
        root = save(tmp_path, stored(way, series()))
        source = load("timeseries_npz", root=root, window=7, layout="time_channels")
        np.testing.assert_array_equal(source.train.x[0], series()[0])

    @pytest.mark.parametrize("way", TURNED[:2])
    def test_time_first_is_asked_about(self, tmp_path, way):
        with pytest.raises(DataError, match=r"dataset\.options\.layout=time_channels"):
            load("timeseries_npz", root=save(tmp_path, stored(way, series())), window=7)

    @pytest.mark.parametrize("way", WAYS)
    def test_unequal_lengths_are_asked_about(self, tmp_path, way):
        root = save(tmp_path, stored(way, series()))
        with pytest.raises(
            DataError,
            match=r"7 to 20 steps.* set dataset\.options\.window=W .*window=20 dataset\.options\.",
        ):
            load("timeseries_npz", root=root)
        with pytest.raises(
            DataError,
            match=r"3 of 6 series are shorter than dataset\.options\.window=12, first "
            r"series 0 with 7 steps; take a window of at most 7, or fill them by "
            r"dataset\.options\.pad=zero or =repeat",
        ):
            load("timeseries_npz", root=root, window=12)

    @pytest.mark.parametrize("way", WAYS)
    def test_equal_lengths_need_no_word(self, tmp_path, way):
        items = series((9,) * 6)
        source = load("timeseries_npz", root=save(tmp_path, stored(way, items)))
        np.testing.assert_array_equal(source.train.x, np.stack(items))
        assert sample_of(source.train) == "3 channels x 9 steps"

    def test_one_channel_needs_no_axis(self, tmp_path):
        flat = [item[0] for item in series()]
        source = load("timeseries_npz", root=save(tmp_path, {"x": objects(flat)}), window=7)
        assert source.train.shape == (1, 7)
        x = {"x": filled(series())[:, 0]}
        again = load("timeseries_npz", root=save(tmp_path, x), window=7)
        np.testing.assert_array_equal(source.train.x, again.train.x)
        joined = {"x": np.concatenate(flat), "offsets": np.append(0, np.cumsum(LENGTHS))}
        again = load("timeseries_npz", root=save(tmp_path, joined), window=7)
        np.testing.assert_array_equal(source.train.x, again.train.x)

    @pytest.mark.parametrize(("pad", "tail"), [("zero", [0, 0, 0]), ("repeat", [0, 0.01, 0.02])])
    def test_short_series_are_filled_as_the_option_says(self, tmp_path, pad, tail):
        root = save(tmp_path, stored("objects", series()))
        source = load("timeseries_npz", root=root, window=10, pad=pad)
        np.testing.assert_allclose(source.train.x[0, 0, 7:], tail, atol=1e-6)
        np.testing.assert_array_equal(source.train.x[0, :, :7], series()[0])
        assert source.train.y.tolist() == [0, 1, 2, 0, 0, 1, 2]  # two windows of the one of 20


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": 0}, r"dataset\.options\.window must be a whole number >= 1, got 0"),
            ({"window": 4, "step": 0}, r"dataset\.options\.step must be a whole number >= 1"),
            ({"window": 4, "pad": "mean"}, r"dataset\.options\.pad must be one of zero, repeat"),
            ({"step": 3}, r"options\.step has no effect without dataset\.options\.window"),
            ({"pad": "zero"}, r"options\.pad has no effect without dataset\.options\.window"),
        ],
    )
    def test_options(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            load("timeseries_npz", root=str(tmp_path), **options)

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            ({"x": filled(series()), "lengths": np.ones(5, int)}, r"lengths .* shape \(6,\)"),
            ({"x": filled(series()), "lengths": np.zeros(6, int)}, r"1\.\.20.*got 0\.\.0"),
            ({"x": filled(series()), "lengths": np.full(6, 21)}, r"1\.\.20.*got 21\.\.21"),
            ({"x": filled(series()), "lengths": np.ones(6)}, "whole numbers"),
            ({"x": filled(series()), "lengths": np.full(6, 9)}, "series 0 is nan in channel 0 at"),
            ({"x": filled(series()), "length": np.ones(6)}, "'length', which is not read"),
            ({"x": filled(series()), "lengths": np.ones(6), "offsets": np.ones(7)}, "store one"),
            ({"x": np.zeros((3, 72)), "offsets": np.arange(6)}, "rise from 0 to the number of ste"),
            ({"x": np.zeros((3, 6)), "offsets": np.arange(6) * 1.0}, "must be whole numbers"),
            ({"x": np.zeros((6, 3, 6)), "offsets": np.arange(7)}, "end to end"),
            ({"x": np.zeros((6, 6)), "offsets": np.arange(7)}, "two axes that could be time"),
            ({"x": np.zeros((3, 25)), "offsets": np.arange(6) * 5}, "holds 6 labels for 5 series"),
            ({"x": objects(series()[:-1])}, "holds 6 labels for 5 series"),
            ({"x": objects(series()[:-1] + series((9,), 2))}, "series 5 has 2 channels"),
            ({"x": objects([["a"]] * 6)}, "series 0 must hold floating numbers"),
            ({"x": objects([np.zeros((2, 3), int)] * 6)}, "series 0 must hold floating numbers"),
            ({"x": objects([[[1.0], [1.0, 2.0]]] * 6)}, "channels of series 0 have different len"),
            ({"x": objects([np.zeros((3, 0), np.float32)] * 6)}, "series 0 has no step"),
            ({"x": objects([np.full((3, 9), np.inf)] * 6)}, "series 0 is inf in channel 0"),
            ({"x": objects(series()), "lengths": np.ones(6)}, "take its lengths out"),
            ({"x": objects(series()), "y": objects(["a"] * 6)}, "y holds Python objects"),
            ({"x": objects([])[:0], "y": np.zeros(0, int)}, "holds no series"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_named(self, tmp_path, train, message):
        with pytest.raises(DataError, match=message) as caught:
            load("timeseries_npz", root=save(tmp_path, train), window=4)
        assert "train.npz" in str(caught.value)

    def test_nan_within_a_series(self, tmp_path):
        x = filled(series())
        x[3, 1, 4] = np.nan
        with pytest.raises(
            DataError, match="series 3 is nan in channel 1 at step 4, before its end; int"
        ):
            load("timeseries_npz", root=save(tmp_path, {"x": x}), window=4)

    def test_a_hostile_array_runs_nothing(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'mark'}",)

        with pytest.raises(DataError, match=r"train\.npz: x asks for \w+\.system"):
            load("timeseries_npz", root=save(tmp_path, {"x": objects([Hostile()] * 6)}), window=4)
        assert not (tmp_path / "mark").exists()

    def test_images_and_features_of_objects_stay_refused(self, tmp_path):
        with pytest.raises(DataError, match="x holds Python objects"):
            load("npz", root=save(tmp_path, stored("objects", series())))

    def test_a_damaged_pickle_is_named(self):
        with pytest.raises(DataError, match="here cannot be read"):
            load_objects("here", b"no pickle")
