"""Shoulder exercises recorded by a smartwatch: ``watch_dataset.npy`` of the package ``seglearn``.

Burns et al., arXiv 1802.01489: 140 recordings at 50 Hz of six axes (ax ay az wx wy wz), seven
exercises, ten subjects with both arms. The file is found in the installed package, which is not
imported. It is a pickle in an ``.npy`` file; see :mod:`fedlabels.data.pickles` for how it is read.

Splits
------
- By default each recording is cut into five runs of successive windows. One of them, another one
  from recording to recording, is test data; training windows that share a time step with it are
  left out. Test subjects are those of training: it measures new repetitions of known people.
- ``test_subjects`` holds out whole subjects: it measures people never seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import numbered, statistics
from fedlabels.data.dataset import DataSource, Samples, pair
from fedlabels.data.options import choice, whole
from fedlabels.data.people import held_out_subjects, split_run
from fedlabels.data.pickles import as_array, load_pickle
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import ConfigError, DataError

FILE = "watch_dataset.npy"
_NAME = "watch"
_AXES = 6
_ARMS = ("left", "right")
_KEYS = ("X", "y", "subject", "side", "y_labels")


@dataclass(frozen=True)
class _Recordings:
    """What the file holds: series of shape (time, 6) with class, subject and arm of each."""

    series: list[NDArray[np.float32]]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]
    side: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class _Windows:
    """Windows of all recordings: their samples, recordings, and places in train and test."""

    x: NDArray[np.float32]
    recording: NDArray[np.int64]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def read_watch(
    roots: Roots,
    /,
    *,
    window: int = 128,
    step: int = 64,
    client: str = "subject",
    test_subjects: int | Sequence[int] | None = None,
) -> DataSource:
    """Read the watch recordings as windows.

    Parameters
    ----------
    roots : Roots
        Where to search; ``root`` may be the file.
    window, step : int
        Length of a window and distance of two, in time steps of 20 ms, >= 1.
    client : {"subject", "subject_arm"}
        Natural client: the person (10), or the person's arm (20).
    test_subjects : int, sequence of int, or None
        Subjects that are test data as a whole; a number takes the last of them. None splits each
        recording; see the module.

    Returns
    -------
    DataSource
        float32 (N, 6, window) with the client of every window, and the arm as domain.
        Constants are those of the training windows.

    Raises
    ------
    ConfigError
        If an option is out of range.
    DataError
        If the file is missing, damaged or not of this layout.
    """
    window, step = whole(_NAME, "window", window), whole(_NAME, "step", step)
    by_arm = choice(_NAME, "client", client, ("subject", "subject_arm")) == "subject_arm"
    path, tried = _locate(roots)
    if path is None:
        raise missing(_NAME, tried, "pip install --no-deps seglearn")
    data = _read(path)
    windows = _cut(data, window, step, held_out_subjects(_NAME, data.subject, test_subjects))
    _check_split(windows, window, step)
    train, test = (_samples(data, windows, chosen) for chosen in (windows.train, windows.test))
    arms = [data.side[windows.recording[chosen]] for chosen in (windows.train, windows.test)]
    mean, std = statistics(train[0])
    return pair(
        _NAME,
        train,
        test,
        class_names=data.class_names,
        mean=mean,
        std=std,
        domains=(arms[0], arms[1], _ARMS),
        owners=_owners(data, windows.recording[windows.train], by_arm),
        test_owners=_owners(data, windows.recording[windows.test], by_arm),
    )


def _locate(roots: Roots) -> tuple[Path | None, list[Path]]:
    folders = candidates(roots, (_NAME,))
    tried = [folder / FILE for folder in folders]
    if roots.option is not None:
        tried = [roots.option, *tried] if roots.option.suffix == ".npy" else tried
    else:
        tried += [folder / "data" / FILE for folder in _package()]
    return find_first(tried, Path.is_file), tried


def _package() -> list[Path]:
    try:
        spec = find_spec("seglearn")
    except ValueError:  # a module of that name without a spec, made by hand
        return []
    return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]


def _read(path: Path) -> _Recordings:
    content = load_pickle(path, skip_npy_header=True)
    absent = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if absent:
        raise DataError(f"{path} lacks {', '.join(absent)}; it is not seglearn's {FILE}")
    try:
        series = [as_array(item, np.float32) for item in content["X"]]
        y, subject, side = (as_array(content[k], np.int64) for k in ("y", "subject", "side"))
        names = tuple(str(name) for name in content["y_labels"])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not seglearn's {FILE} ({error})") from error
    problem = _problem(series, (y, subject, side), len(names))
    if problem:
        raise DataError(f"{path} is not seglearn's {FILE}: {problem}")
    return _Recordings(series, y, subject, side, names)


def _problem(
    series: list[NDArray[np.float32]], columns: tuple[NDArray[np.int64], ...], classes: int
) -> str | None:
    y, _, side = columns
    if any(column.shape != (len(series),) for column in columns):
        return f"{len(series)} recordings, but columns of shape {[c.shape for c in columns]}"
    wrong = [item.shape for item in series if item.ndim != 2 or item.shape[1] != _AXES]
    if wrong:
        return f"a recording must have shape (time, {_AXES}), got {wrong[0]}"
    if not all(np.isfinite(item).all() for item in series):
        return "a recording holds nan or inf"
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        return f"classes must be in 0..{classes - 1}, got {y.min()}..{y.max()}"
    if not np.isin(side, (0, 1)).all():
        return f"side must be 0 or 1, got {sorted(set(side.tolist()))}"
    return None


def _cut(data: _Recordings, window: int, step: int, held_out: NDArray[np.int64] | None) -> _Windows:
    parts, recordings, train, test = [], [], [], []
    for number, series in enumerate(data.series):
        if len(series) < window:
            continue
        views = np.lib.stride_tricks.sliding_window_view(series, window, axis=0)[::step]
        parts.append(views)  # (n, 6, window)
        recordings.append(np.full(len(views), number))
        if held_out is None:
            marks = split_run(len(views), number, overlap=-(-window // step) - 1)
        else:
            unseen = np.full(len(views), data.subject[number] in held_out)
            marks = (~unseen, unseen)
        train.append(marks[0])
        test.append(marks[1])
    if not parts:
        longest = max((len(series) for series in data.series), default=0)
        raise ConfigError(f"{_NAME}: window must be <= {longest}, the longest recording")
    joined = [np.concatenate(group) for group in (parts, recordings, train, test)]
    return _Windows(*joined)


def _check_split(windows: _Windows, window: int, step: int) -> None:
    if not windows.train.any() or not windows.test.any():
        raise ConfigError(
            f"{_NAME}: window={window}, step={step} leaves {windows.train.sum()} training and "
            f"{windows.test.sum()} test windows; take shorter windows or smaller steps"
        )


def _samples(data: _Recordings, windows: _Windows, chosen: NDArray[np.bool_]) -> Samples:
    return np.ascontiguousarray(windows.x[chosen]), data.y[windows.recording[chosen]]


def _owners(
    data: _Recordings, recording: NDArray[np.int64], by_arm: bool
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    subject = data.subject[recording]
    if not by_arm:
        (owners,), names = numbered(subject)
        return owners, tuple(f"subject {name}" for name in names)
    (owners,), names = numbered(subject * len(_ARMS) + data.side[recording])
    return owners, tuple(f"subject {int(n) // 2} {_ARMS[int(n) % 2]}" for n in names)
