"""UCI HAR and WISDM in the layouts in which they are published."""

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.uci_har import SIGNALS
from fedlabels.errors import ConfigError, DataError
from fedlabels.run.data import sample_of

NAMES = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
STEPS = 8


def write_har(folder, *, rows=6):
    """Write windows whose values tell their place: subject * 1000 + row, for 3 and 2 people."""
    root = folder / "UCI HAR Dataset"
    for split, people in (("train", (1, 3, 5)), ("test", (2, 4))):
        place = root / split / "Inertial Signals"
        place.mkdir(parents=True)
        subject = np.repeat(people, 2 * rows)
        y = np.tile(np.repeat([1, 6], rows), len(people))
        start = subject * 1000 + np.arange(len(subject)) % (2 * rows)
        for number, name in enumerate(SIGNALS):
            x = np.tile(start[:, None] + number / 10, STEPS)
            np.savetxt(place / f"{name}_{split}.txt", x, fmt="  %.7e")
        np.savetxt(root / split / f"X_{split}.txt", start[:, None] + np.arange(561) / 1e4)
        np.savetxt(root / split / f"y_{split}.txt", y, fmt="%d")
        np.savetxt(root / split / f"subject_{split}.txt", subject, fmt="%d")
    lines = [f"{number} {name}\n" for number, name in enumerate(NAMES, 1)]
    (root / "activity_labels.txt").write_text("".join(lines))
    return root


@pytest.fixture
def har(tmp_path):
    return write_har(tmp_path)


class TestHar:
    @pytest.mark.parametrize("above", [False, True])
    def test_the_published_split(self, har, above):
        source = load("uci_har", root=str(har.parent if above else har))
        assert source.train.shape == (9, STEPS)
        assert source.train.class_names == NAMES
        assert source.train.owner_names == ("subject 1", "subject 3", "subject 5")
        assert source.test.owner_names == ("subject 2", "subject 4")
        assert sorted(set(source.train.y.tolist())) == [0, 5]
        np.testing.assert_allclose(source.train.x[0, :, 0], 1000 + np.arange(9) / 10, rtol=1e-6)
        people = np.floor(source.train.x[:, 0, 0] / 1000).astype(int)
        assert [f"subject {p}" for p in people] == [
            source.train.owner_names[o] for o in source.train.owner
        ]

    def test_features(self, har):
        source = load("uci_har", root=str(har), signals="features")
        assert source.train.shape == (561,)
        assert len(source.train) == 36

    def test_other_people(self, har):
        source = load("uci_har", root=str(har), test_subjects=[1, 4])
        assert source.test.owner_names == ("subject 1", "subject 4")
        assert source.train.owner_names == ("subject 2", "subject 3", "subject 5")
        assert len(source.train) + len(source.test) == 60

    def test_runs_share_no_time_step(self, tmp_path):
        source = load("uci_har", root=str(write_har(tmp_path, rows=12)), split="runs")
        train, test = (np.rint(part.x[:, 0, 0]).astype(int) for part in (source.train, source.test))
        assert source.train.owner_names == source.test.owner_names
        # neighbours overlap within a run of one person and activity: 12 rows here
        near = np.abs(train[:, None] - test[None]) < 2
        same = (train[:, None] // 1000 == test[None] // 1000) & (
            train[:, None] % 1000 // 12 == test[None] % 1000 // 12
        )
        assert not (near & same).any()
        assert set(source.test.y.tolist()) == {0, 5}

    def test_hidden_labels(self, har):
        path = har / "train" / "y_train.txt"
        path.write_text(path.read_text().replace("6", "-1"))
        assert set(load("uci_har", root=str(har)).train.y.tolist()) == {0, -1}

    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            ("train/y_train.txt", lambda t: t.replace("6", "7"), "holds class 7, first in row 7"),
            ("train/y_train.txt", lambda t: t[2:], r"one whole number a row.*\(36\), got 35"),
            ("train/subject_train.txt", lambda t: t.replace("5", "5.5"), "one whole number a row"),
            ("train/Inertial Signals/body_gyro_y_train.txt", lambda t: t[:-30], "rows of numbers"),
            ("train/Inertial Signals/body_gyro_y_train.txt",
             lambda t: t[: t.rindex("\n", 0, -1) + 1], "holds 35 rows of 8 numbers"),
            ("train/Inertial Signals/body_gyro_y_train.txt", lambda t: "", "is empty"),
            ("train/Inertial Signals/body_gyro_y_train.txt",
             lambda t: t.replace("1.0004000e+03", "nan"), "nan or infinite"),
            ("activity_labels.txt", lambda t: "WALKING 1\n", "must hold lines such as '1 WALKING'"),
        ],
    )  # fmt: skip
    def test_damage_is_named(self, har, file, change, message):
        path = har / file
        path.write_text(change(path.read_text()))
        with pytest.raises(DataError, match=message) as caught:
            load("uci_har", root=str(har))
        assert path.name in str(caught.value)

    def test_what_lacks_is_listed(self, har, tmp_path):
        (har / "test" / "y_test.txt").unlink()
        with pytest.raises(DataError, match=r"Tried:\n  .*test/y_test\.txt\nTo get it: download"):
            load("uci_har", root=str(har))
        with pytest.raises(DataError, match=r"elsewhere/UCI HAR Dataset\n"):
            load("uci_har", root=str(tmp_path / "elsewhere"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"signals": "all"}, r"dataset\.options\.signals must be one of raw, features"),
            ({"split": "random"}, r"dataset\.options\.split must be one of published, runs"),
            ({"split": "runs", "test_subjects": 1}, "give one of them"),
            ({"test_subjects": [7]}, "be some of 1, 2, 3, 4, 5; got"),
        ],
    )
    def test_options(self, har, options, message):
        with pytest.raises(ConfigError, match=message):
            load("uci_har", root=str(har), **options)


def records(user, activity, count, start=10**9, first=0):
    """Write records whose x is a number of its own."""
    return [
        f"{user},{activity},{start + i * 50_000_000},{first + i},{-i}.5,0.25;" for i in range(count)
    ]


STREAMS = [
    *records(33, "Jogging", 40),
    *records(33, "Walking", 40, first=100),
    *records(17, "Walking", 40, first=200),
    *records(17, "Walking", 40, start=9 * 10**9, first=300),  # six seconds later
    *records(17, "Jogging", 3, first=400),
]
DAMAGED = [
    "17,Walking,5,1.0,2.0,;",  # z lacks
    "17,Walking,5,1.0,2.0,3.0,;",  # a comma too much: complete
    "17,Walking,0,1.0,2.0,3.0;",
    "17,,5,1.0,2.0,3.0;",
    "17,Walking,5,1.0,2.0,3.0\n17,Walking,5,1.0,2.0,3.0;",  # nothing between two
    ";",
]


def write_wisdm(folder, lines=STREAMS):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "WISDM_ar_v1.1_raw.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = {"window": 8, "step": 4}


class TestWisdm:
    @pytest.mark.parametrize("place", ["", "WISDM_ar_v1.1", "wisdm"])
    def test_windows_of_known_people(self, tmp_path, place):
        write_wisdm(tmp_path / place)
        source = load("wisdm", root=str(tmp_path), **SMALL)
        assert source.train.shape == (3, 8)
        assert source.train.class_names == ("Jogging", "Walking")
        assert source.train.owner_names == ("user 17", "user 33")
        for part in (source.train, source.test):
            first = part.x[:, 0, 0]
            np.testing.assert_array_equal(part.x[:, 0], first[:, None] + np.arange(8))
            np.testing.assert_array_equal(part.y, (first >= 100).astype(int))
            who = [part.owner_names[o] for o in part.owner]
            assert who == ["user 17" if f >= 200 else "user 33" for f in first]
        steps = [set(part.x[:, 0].ravel().tolist()) for part in (source.train, source.test)]
        assert not steps[0] & steps[1]

    def test_the_file_itself_and_unseen_people(self, tmp_path):
        path = write_wisdm(tmp_path)
        source = load("wisdm", root=str(path), test_subjects=[33], **SMALL)
        assert source.train.owner_names == ("user 17",)
        assert source.test.owner_names == ("user 33",)

    def test_what_is_left_out_is_told(self, tmp_path):
        write_wisdm(tmp_path, STREAMS + DAMAGED)
        source = load("wisdm", root=str(tmp_path), **SMALL)
        assert sample_of(source.train) == (
            "3 channels x 8 steps; windows 4 steps apart, 36 from 4 series of 40 steps; left out "
            "of 168 records: 3 incomplete, 1 with time 0; 2 stretches are shorter than a window"
        )

    def test_a_gap_is_an_option(self, tmp_path):
        write_wisdm(tmp_path)
        source = load("wisdm", root=str(tmp_path), gap=10, **SMALL)
        assert "from 3 series of 40 to 80 steps" in source.train.reading

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": 0}, r"dataset\.options\.window must be a whole number >= 1"),
            ({"step": 0}, r"dataset\.options\.step must be a whole number >= 1"),
            ({"gap": 0}, r"dataset\.options\.gap must be a number > 0, got 0"),
            ({"gap": True}, r"dataset\.options\.gap must be a number"),
            ({"window": 41}, r"dataset\.options\.window must be <= 40, the longest stretch"),
            ({"test_subjects": 2}, "must leave a subject for training"),
            ({"window": 40, "step": 40, "test_subjects": None}, "training and .* test windows"),
        ],
    )
    def test_options(self, tmp_path, options, message):
        write_wisdm(tmp_path, STREAMS[40:80])
        with pytest.raises(ConfigError, match=message):
            load("wisdm", root=str(tmp_path), **{**SMALL, **options})

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["<html>", "no such file"], "1 of 1 records are not user,activity,time,x,y,z"),
            (["17,Walking,5,nan,2.0,3.0;"], "an acceleration is nan"),
            ([""], "0 of 0 records"),
        ],
    )
    def test_another_file_is_named(self, tmp_path, lines, message):
        write_wisdm(tmp_path, lines)
        with pytest.raises(DataError, match=message):
            load("wisdm", root=str(tmp_path), **SMALL)

    def test_nowhere(self, tmp_path):
        with pytest.raises(DataError, match=r"WISDM_ar_v1\.1/WISDM_ar_v1\.1_raw\.txt\n"):
            load("wisdm", root=str(tmp_path))
