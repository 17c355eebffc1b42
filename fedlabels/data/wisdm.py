"""WISDM 1.1: activities of 36 people with a phone in the pocket, accelerometer at 20 Hz.

Kwapisz et al., SensorKDD 2010: ``WISDM_ar_v1.1_raw.txt``, records ``user,activity,time,x,y,z;``.
Some lack a field, some their own line, some a time; these are left out, and how many is told.

Splits
------
- By default every stretch without a gap, of one person and activity, is cut into five runs of
  successive windows. One of them, another one from stretch to stretch, is test data; training
  windows that share a time step with it are left out. It measures new repetitions of known people.
- ``test_subjects`` holds out whole people.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import numbered, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.options import whole
from fedlabels.data.people import held_out_subjects, split_series, subject_names
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.data.windows import Cutter
from fedlabels.errors import ConfigError, DataError

FILE = "WISDM_ar_v1.1_raw.txt"
_NAME = "wisdm"
_FOLDERS = ("WISDM_ar_v1.1", _NAME)
_FIELDS = 6
_NANOSECONDS = 1e9


class _Records(NamedTuple):
    """Records in the order of the file, and how many were left out."""

    user: NDArray[np.int64]
    activity: NDArray[np.int64]
    names: tuple[str, ...]
    time: NDArray[np.int64]
    x: NDArray[np.float32]
    incomplete: int
    timeless: int


def read_wisdm(
    roots: Roots,
    /,
    *,
    window: int = 200,
    step: int = 100,
    gap: float = 1.0,
    test_subjects: int | Sequence[int] | None = None,
) -> DataSource:
    """Read the accelerometer as windows.

    Parameters
    ----------
    roots : Roots
        ``root`` is the file, its folder, or one that holds that.
    window, step : int
        Length of a window and distance of two, in time steps of 50 ms, >= 1.
    gap : float
        Seconds between two records from which on a window may not cross them, > 0; nor does it
        where time goes back.
    test_subjects : int, sequence of int, or None
        People that are test data as a whole; a number takes the last of them. None splits each
        stretch; see the module.

    Returns
    -------
    DataSource
        float32 (N, 3, window), with the person of every window as client. Constants are those of
        the training windows.

    Raises
    ------
    ConfigError
        If an option is out of range.
    DataError
        If the file is missing or not of this form.
    """
    whole(_NAME, "dataset.options.window", window)
    whole(_NAME, "dataset.options.step", step)
    if isinstance(gap, bool) or not isinstance(gap, int | float) or not gap > 0:
        raise ConfigError(f"{_NAME}: dataset.options.gap must be a number > 0, got {gap!r}")
    cutter = Cutter(_NAME, window, step)
    path = _locate(roots)
    records = _read(path)
    people = held_out_subjects(_NAME, records.user, test_subjects)
    breaks = (
        (np.diff(records.user) != 0)
        | (np.diff(records.activity) != 0)
        | (np.diff(records.time) < 0)
        | (np.diff(records.time) > gap * _NANOSECONDS)
    )
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    stretches = np.split(records.x, starts[1:], axis=1)
    long = np.array([stretch.shape[1] >= window for stretch in stretches])
    if not long.any():
        longest = max(stretch.shape[1] for stretch in stretches)
        raise ConfigError(
            f"{_NAME}: dataset.options.window must be <= {longest}, the longest stretch without a "
            f"gap, got {window}"
        )
    cut = cutter.cut(str(path), [s for s, fits in zip(stretches, long, strict=True) if fits])
    first = starts[long][cut.series]  # a record of the window's stretch
    user, y = records.user[first], records.activity[first]
    if people is None:
        train, test = split_series(cut.series, overlap=cutter.overlap)
    else:
        test = np.isin(user, people)
        train = ~test
    if not train.any() or not test.any():
        raise ConfigError(
            f"{_NAME}: dataset.options.window={window}, step={step} leave {train.sum()} training "
            f"and {test.sum()} test windows; take shorter windows or smaller steps"
        )
    mean, std = statistics(cut.x[train])
    (owners,), names = numbered(user[train])
    (tested,), test_names = numbered(user[test])
    return pair(
        _NAME,
        (np.ascontiguousarray(cut.x[train]), y[train]),
        (np.ascontiguousarray(cut.x[test]), y[test]),
        class_names=records.names,
        mean=mean,
        std=std,
        owners=(owners, subject_names(names, "user")),
        test_owners=(tested, subject_names(test_names, "user")),
        reading=f"{cut.reading}; {_dropped(records, int((~long).sum()))}",
    )


def _dropped(records: _Records, short: int) -> str:
    total = len(records.time) + records.incomplete + records.timeless
    return (
        f"left out of {total:,} records: {records.incomplete:,} incomplete, {records.timeless:,} "
        f"with time 0; {short:,} stretches are shorter than a window"
    )


def _locate(roots: Roots) -> Path:
    tried = [folder / FILE for folder in candidates(roots, _FOLDERS)]
    if roots.option is not None and roots.option.suffix == ".txt":
        tried = [roots.option]
    found = find_first(tried, Path.is_file)
    if found is None:
        raise missing(
            _NAME,
            tried,
            "download WISDM_ar_latest.tar.gz (version 1.1) from www.cis.fordham.edu/wisdm, unpack "
            f"it and set dataset.root to its folder, or to {FILE}",
        )
    return found


def _read(path: Path) -> _Records:
    try:
        raw = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    rows: list[tuple[int, str, int, float, float, float]] = []
    incomplete = timeless = 0
    for record in raw.split(";"):
        stripped = record.strip().rstrip(",")
        if not stripped:
            continue
        fields = [part.strip() for part in stripped.split(",")]
        try:
            if len(fields) != _FIELDS or not fields[1]:
                raise ValueError
            row = (int(fields[0]), fields[1], int(fields[2]), *map(float, fields[3:]))
        except ValueError:
            incomplete += 1
            continue
        if row[2] == 0:
            timeless += 1
            continue
        rows.append(row)  # type: ignore[arg-type]  # three floats
    if len(rows) <= incomplete:
        total = len(rows) + incomplete + timeless
        raise DataError(
            f"{path} is not {FILE}: {incomplete:,} of {total:,} records are not "
            "user,activity,time,x,y,z;"
        )
    user, activity, time, *axes = zip(*rows, strict=True)
    (number,), names = numbered(np.array(activity))
    x = np.array(axes, dtype=np.float32)
    if not np.isfinite(x).all():
        raise DataError(f"{path}: an acceleration is nan or infinite; get the file again")
    return _Records(np.array(user), number, names, np.array(time), x, incomplete, timeless)
