import os
import sys

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.people import split_run
from fedlabels.errors import ConfigError, DataError

SUBJECTS = (1, 2, 10)
WINDOW, STEP = 8, 4
SMALL = {"window": WINDOW, "step": STEP}


def content(length=90):
    """Make recordings whose samples tell where they come from: recording + time / 1000."""
    count = 2 * len(SUBJECTS) * 2
    lengths = [length + 3 * i for i in range(count)]
    series = [np.tile(i + np.arange(n)[:, None] / 1000, (1, 6)) for i, n in enumerate(lengths)]
    return {
        "X": series,
        "y": np.arange(count) % 2,
        "subject": np.array([SUBJECTS[i % 3] for i in range(count)]),
        "side": np.array([i // 3 % 2 for i in range(count)], dtype=float),
        "X_labels": ["ax", "ay", "az", "wx", "wy", "wz"],
        "y_labels": ["PEN", "ABD"],
    }


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "watch_dataset.npy", content())


def moments(x):
    """Return the recording and the first time step of windows."""
    recording = np.floor(x[:, 0, 0]).astype(int)
    return recording, np.rint((x[:, 0, 0] - recording) * 1000).astype(int)


class TestSplit:
    def test_no_time_step_is_in_both(self, file):
        source = load("watch", root=str(file), window=8, step=3)
        used = [
            {(r, t + k) for r, t in zip(*moments(part.x), strict=True) for k in range(8)}
            for part in (source.train, source.test)
        ]
        assert not used[0] & used[1]
        assert min(map(len, used)) > 100

    def test_a_fifth_is_test_of_every_recording_at_different_times(self, file):
        source = load("watch", root=str(file), **SMALL)
        recording, start = moments(source.test.x)
        assert set(recording) == set(range(12))
        share = len(source.test) / (len(source.train) + len(source.test))
        assert 0.18 < share < 0.25
        firsts = [int(start[recording == r].min()) for r in range(5)]
        assert firsts[0] == 0
        assert np.all(np.diff(firsts) > 0)

    @pytest.mark.parametrize("overlap", [0, 1, 3])
    @pytest.mark.parametrize("count", [0, 1, 4, 5, 23])
    def test_run(self, count, overlap):
        for recording in range(5):
            train, test = split_run(count, recording, overlap=overlap)
            assert len(train) == len(test) == count
            gaps = np.abs(np.flatnonzero(train)[:, None] - np.flatnonzero(test)[None])
            assert gaps.min(initial=99) > overlap
            assert np.all(np.diff(np.flatnonzero(test)) == 1)
            assert (~train & ~test).sum() <= 2 * overlap
        covered = sum(split_run(count, r, overlap=overlap)[1].astype(int) for r in range(5))
        assert np.all(covered == 1)

    @pytest.mark.parametrize(
        ("wanted", "names"),
        [(1, ("1", "2")), (2, ("1",)), ([2], ("1", "10")), ((1, 10), ("2",))],
    )
    def test_unseen_subjects(self, file, wanted, names):
        source = load("watch", root=str(file), test_subjects=wanted, **SMALL)
        assert source.train.owner_names == tuple(f"subject {name}" for name in names)
        subject = content()["subject"]
        held = set(map(str, SUBJECTS)) - set(names)
        assert {str(s) for s in subject[moments(source.test.x)[0]]} == held
        lengths = [len(series) for series in content()["X"]]
        every = sum((n - WINDOW) // STEP + 1 for n in lengths)
        assert len(source.train) + len(source.test) == every

    @pytest.mark.parametrize("wanted", [0, 3, [], [7], [1, 2, 10], "1", ["1"], 1.5, [True], [1, 7]])
    def test_subjects_that_cannot_be_held_out(self, file, wanted):
        with pytest.raises(ConfigError, match=r"watch: dataset\.options\.test_subjects must"):
            load("watch", root=str(file), test_subjects=wanted, **SMALL)


class TestSamples:
    def test_windows_labels_domains_and_clients(self, file):
        source = load("watch", root=str(file), **SMALL)
        recording, start = moments(source.train.x)
        raw = content()
        assert source.train.x.dtype == np.float32
        assert source.train.shape == (6, WINDOW)
        assert np.all(start % STEP == 0)
        expected = raw["X"][recording[5]][start[5] : start[5] + WINDOW].T
        np.testing.assert_allclose(source.train.x[5], expected, rtol=1e-6)
        np.testing.assert_array_equal(source.train.y, raw["y"][recording])
        np.testing.assert_array_equal(source.train.domain, raw["side"][recording])
        assert source.test.domain_names == ("left", "right")
        assert source.train.class_names == ("PEN", "ABD")
        assert source.train.owner_names == ("subject 1", "subject 2", "subject 10")
        np.testing.assert_array_equal(
            np.array(SUBJECTS)[source.train.owner], raw["subject"][recording]
        )
        np.testing.assert_allclose(source.train.mean[0], source.train.x[:, 0].mean(), rtol=1e-5)

    def test_client_may_be_the_arm(self, file):
        source = load("watch", root=str(file), client="subject_arm", **SMALL)
        names = tuple(f"subject {s} {arm}" for s in SUBJECTS for arm in ("left", "right"))
        assert source.train.owner_names == names
        recording, _ = moments(source.train.x)
        raw = content()
        owner = [
            f"subject {raw['subject'][r]} {('left', 'right')[int(raw['side'][r])]}"
            for r in recording
        ]
        assert [names[i] for i in source.train.owner] == owner

    def test_test_windows_know_their_subject(self, file):
        source = load("watch", root=str(file), **SMALL)
        recording, _ = moments(source.test.x)
        names = [source.test.owner_names[i] for i in source.test.owner]
        assert names == [f"subject {content()['subject'][r]}" for r in recording]

    def test_a_short_recording_gives_none(self, tmp_path):
        raw = content()
        raw["X"][3] = raw["X"][3][:5]
        file = write(tmp_path / "watch_dataset.npy", raw)
        source = load("watch", root=str(file), **SMALL)
        assert 3 not in moments(np.concatenate([source.train.x, source.test.x]))[0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": 0}, "window must be a whole number >= 1"),
            ({"step": 1.5}, "step must be a whole number"),
            ({"client": "arm"}, "client must be one of subject, subject_arm"),
            ({"window": 1000}, "window must be <= 123, the longest recording"),
            ({"window": 122}, "leaves .* windows; take shorter windows"),
        ],
    )
    def test_options_out_of_range(self, file, options, message):
        with pytest.raises(ConfigError, match=message):
            load("watch", root=str(file), **options)


class TestSearch:
    def test_shared_folder_and_given_folder(self, tmp_path, monkeypatch):
        write(tmp_path / "shared" / "watch" / "watch_dataset.npy", content())
        assert len(load("watch", root=str(tmp_path / "shared"), **SMALL).train)
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        assert len(load("watch", **SMALL).train)

    def test_package_is_found_and_not_imported(self, tmp_path, monkeypatch):
        package = tmp_path / "site" / "seglearn"
        write(package / "data" / "watch_dataset.npy", content())
        (package / "__init__.py").write_text("raise ImportError('too old for this numpy')")
        monkeypatch.syspath_prepend(tmp_path / "site")
        assert len(load("watch", **SMALL).train)
        assert "seglearn" not in sys.modules
        with pytest.raises(DataError, match="not found"):
            load("watch", root=str(tmp_path / "elsewhere"), **SMALL)

    def test_missing_file_lists_paths_and_command(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        monkeypatch.setattr("fedlabels.data.watch.find_spec", lambda name: None)
        with pytest.raises(DataError) as caught:
            load("watch")
        for part in ("shared/watch/watch_dataset.npy", "system/watch/", "pip install --no-deps"):
            assert part in str(caught.value)


class TestDamage:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"subject": None}, "lacks subject"),
            ({"X": [np.zeros((50, 5))] * 12}, r"must have shape \(time, 6\), got \(50, 5\)"),
            ({"X": [np.full((50, 6), np.nan)] * 12}, "nan or inf"),
            ({"X": [np.zeros((50, 6))] * 11}, "11 recordings, but columns"),
            ({"y": np.full(12, 2)}, r"classes must be in 0\.\.1, got 2\.\.2"),
            ({"side": np.full(12, 3.0)}, "side must be 0 or 1"),
            ({"subject": np.array(["a"] * 12)}, "numbers were expected"),
            ({"X": 5}, "not seglearn's"),
        ],
    )
    def test_wrong_content_is_named(self, tmp_path, changes, message):
        raw = {k: v for k, v in {**content(), **changes}.items() if v is not None}
        file = write(tmp_path / "watch_dataset.npy", raw)
        with pytest.raises(DataError, match=message) as caught:
            load("watch", root=str(file), **SMALL)
        assert str(file) in str(caught.value)

    def test_a_hostile_file_runs_nothing(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'mark'}",)

        file = write(tmp_path / "watch_dataset.npy", {**content(), "X": [Hostile()]})
        with pytest.raises(DataError, match=r"asks for \w+\.system"):
            load("watch", root=str(file))
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize("damage", ["cut", "text", "numbers"])
    def test_damaged_file_is_named(self, file, damage):
        raw = file.read_bytes()
        if damage == "numbers":
            np.save(file, np.zeros(3))
        else:
            file.write_bytes(raw[: len(raw) // 2] if damage == "cut" else b"<html>")
        with pytest.raises(DataError, match=r"watch_dataset\.npy cannot be read"):
            load("watch", root=str(file))
