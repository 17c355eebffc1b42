"""UCI HAR: activities of 30 people with a smartphone at the waist, at 50 Hz.

Anguita et al., ESANN 2013. Windows of 128 steps that overlap by half, of nine signals (body
acceleration, rotation and total acceleration in three axes), or 561 features of each window.

Splits
------
- As published: 21 people are training data, 9 others test data.
- ``test_subjects`` holds out other people.
- ``split="runs"`` tests people that are trained on: every run of successive windows of one person
  and activity is cut into five, one of which is test data; training windows that share a time step
  with it are left out. An activity comes back within a person, so rows alone tell no run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import numbered, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.options import choice
from fedlabels.data.people import held_out_subjects, split_series, subject_names
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import ConfigError, DataError

SIGNALS = tuple(
    f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
_NAME = "uci_har"
_FOLDERS = ("UCI HAR Dataset", _NAME)
_SPLITS = ("train", "test")
_NAMES = "activity_labels.txt"


@dataclass(frozen=True)
class _Rows:
    """Windows or features with the class and the person of each."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]

    def at(self, chosen: NDArray[np.bool_]) -> "_Rows":
        return _Rows(np.ascontiguousarray(self.x[chosen]), self.y[chosen], self.subject[chosen])


def read_uci_har(
    roots: Roots,
    /,
    *,
    signals: str = "raw",
    split: str = "published",
    test_subjects: int | Sequence[int] | None = None,
) -> DataSource:
    """Read the folder ``UCI HAR Dataset``.

    Parameters
    ----------
    roots : Roots
        ``root`` is that folder, or one that holds it.
    signals : {"raw", "features"}
        The nine signals of ``Inertial Signals``, or the 561 features of ``X_train.txt``.
    split : {"published", "runs"}
        The published people, or a fifth of every run of windows of one person and activity.
    test_subjects : int, sequence of int, or None
        People that are test data; a number takes the last of them.

    Returns
    -------
    DataSource
        float32 (N, 9, 128) or (N, 561), with the person of every window as client. Constants are
        those of the training windows.

    Raises
    ------
    ConfigError
        If an option is out of range, or both choose the test data.
    DataError
        If files are missing, damaged or do not fit together.
    """
    choice(_NAME, "dataset.options.signals", signals, ("raw", "features"))
    runs = choice(_NAME, "dataset.options.split", split, ("published", "runs")) == "runs"
    if runs and test_subjects is not None:
        raise ConfigError(
            f"{_NAME}: dataset.options.split=runs tests the people of training, "
            "dataset.options.test_subjects others: give one of them"
        )
    folder = _locate(roots, signals)
    names, numbers = _activities(folder / _NAMES)
    train, test = (_read(folder, part, signals, numbers) for part in _SPLITS)
    if runs or test_subjects is not None:
        train, test = _split(train, test, test_subjects)
    mean, std = statistics(train.x)
    (owners,), people = numbered(train.subject)
    (tested,), test_people = numbered(test.subject)
    return pair(
        _NAME,
        (train.x, train.y),
        (test.x, test.y),
        class_names=names,
        mean=mean,
        std=std,
        owners=(owners, subject_names(people)),
        test_owners=(tested, subject_names(test_people)),
    )


def _files(folder: Path, split: str, signals: str) -> list[Path]:
    if signals == "features":
        return [folder / split / f"X_{split}.txt"]
    return [folder / split / "Inertial Signals" / f"{name}_{split}.txt" for name in SIGNALS]


def _locate(roots: Roots, signals: str) -> Path:
    def needed(folder: Path) -> list[Path]:
        parts = [
            path
            for split in _SPLITS
            for path in (
                *_files(folder, split, signals),
                folder / split / f"y_{split}.txt",
                folder / split / f"subject_{split}.txt",
            )
        ]
        return [folder / _NAMES, *parts]

    folders = candidates(roots, _FOLDERS)
    found = find_first(folders, lambda folder: all(path.is_file() for path in needed(folder)))
    if found is None:
        begun = find_first(folders, lambda folder: (folder / _NAMES).is_file())
        tried = [path for path in needed(begun) if not path.is_file()] if begun else folders
        raise missing(
            _NAME,
            tried,
            'download "Human Activity Recognition Using Smartphones" from archive.ics.uci.edu '
            '(CC BY 4.0), unpack it and set dataset.root to its folder "UCI HAR Dataset"',
        )
    return found


def _activities(path: Path) -> tuple[tuple[str, ...], dict[int, int]]:
    """Return the names of the classes, and the number of each in the files -> its place."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(len(row) == 2 and row[0].isdecimal() for row in rows) or len(rows) < 2:
        raise DataError(f"{path} must hold lines such as '1 WALKING'")
    rows.sort(key=lambda row: int(row[0]))
    return tuple(row[1] for row in rows), {int(row[0]): place for place, row in enumerate(rows)}


def _read(folder: Path, split: str, signals: str, numbers: dict[int, int]) -> _Rows:
    files = _files(folder, split, signals)
    columns = [_numbers(path) for path in files]
    sizes = [column.shape for column in columns]
    for path, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise DataError(f"{path} holds {size[0]} rows of {size[1]} numbers, {files[0]} "
                            f"{sizes[0][0]} of {sizes[0][1]}; get the files again")  # fmt: skip
    x = columns[0] if signals == "features" else np.stack(columns, axis=1)
    whole = []
    for stem in ("y", "subject"):
        path = folder / split / f"{stem}_{split}.txt"
        column = _numbers(path)
        if column.shape != (len(x), 1) or (column != np.floor(column)).any():
            raise DataError(
                f"{path} must hold one whole number a row, as many as {files[0]} has rows "
                f"({len(x)}), got {column.shape[0]} rows of {column.shape[1]}"
            )
        whole.append(column[:, 0].astype(np.int64))
    y, subject = whole
    strange = np.setdiff1d(y, [-1, *numbers])
    if len(strange):
        raise DataError(
            f"{folder / split / f'y_{split}.txt'} holds class {strange[0]}, first in row "
            f"{int((y == strange[0]).argmax()) + 1}; {_NAMES} names "
            f"{', '.join(map(str, numbers))}, and -1 is unlabeled"
        )
    return _Rows(x, np.array([numbers.get(value, -1) for value in y.tolist()]), subject)


def _numbers(path: Path) -> NDArray[np.float32]:
    try:
        values = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as rows of numbers ({error})") from error
    if not values.size or not np.isfinite(values).all():
        raise DataError(f"{path} is empty, or a number of it is nan or infinite; get it again")
    return values


def _split(train: _Rows, test: _Rows, option: int | Sequence[int] | None) -> tuple[_Rows, _Rows]:
    joined = _Rows(
        *(np.concatenate([getattr(part, key) for part in (train, test)])
          for key in ("x", "y", "subject"))
    )  # fmt: skip
    people = held_out_subjects(_NAME, joined.subject, option)
    if people is not None:
        unseen = np.isin(joined.subject, people)
        return joined.at(~unseen), joined.at(unseen)
    changes = (np.diff(joined.subject) != 0) | (np.diff(joined.y) != 0)
    run = np.concatenate([[0], changes.cumsum()])
    trained, tested = split_series(run, overlap=1)
    return joined.at(trained), joined.at(tested)
