"""Splits of recordings of people: by person, or within recordings without sharing a time step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.options import whole
from fedlabels.errors import ConfigError

RUNS = 5


def held_out_subjects(
    reader: str, subjects: NDArray[np.int64], option: int | Sequence[int] | None
) -> NDArray[np.int64] | None:
    """Return the people whose recordings are test data.

    Parameters
    ----------
    reader : str
        Name of the reader, for messages.
    subjects : ndarray of int64
        Numbers of all people, in any order and as often as one likes.
    option : int, sequence of int, or None
        The option ``test_subjects``: how many of the last ones, or their numbers.

    Returns
    -------
    ndarray of int64 or None
        Their numbers; None where the option is None.

    Raises
    ------
    ConfigError
        If somebody is not known, or nobody is left for training.
    """
    if option is None:
        return None
    name, known = "dataset.options.test_subjects", np.unique(subjects)
    if isinstance(option, int):
        chosen = known[len(known) - whole(reader, name, option) :]
    else:
        if not isinstance(option, Sequence) or isinstance(option, str) or not option:
            raise ConfigError(
                f"{reader}: {name} must be a number of subjects or a list of their numbers, "
                f"got {option!r}"
            )
        chosen = np.array([whole(reader, name, subject, low=0) for subject in option])
    if not np.isin(chosen, known).all() or not 0 < len(np.unique(chosen)) < len(known):
        raise ConfigError(
            f"{reader}: {name} must leave a subject for training and be some of "
            f"{', '.join(map(str, known.tolist()))}; got {option!r}"
        )
    return chosen


def split_run(
    count: int, recording: int, *, overlap: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split the windows of one recording into training and test windows that share no time step.

    Parameters
    ----------
    count : int
        Number of windows, in order of time.
    recording : int
        Number of the recording, which chooses the run that is test data.
    overlap : int
        How many following windows share a time step with a window, >= 0.

    Returns
    -------
    ndarray of bool, ndarray of bool, each of shape (count,)
        Marks of the training and of the test windows; windows in neither are left out.

    Examples
    --------
    >>> train, test = split_run(10, 1, overlap=1)
    >>> np.flatnonzero(test).tolist(), np.flatnonzero(~train & ~test).tolist()
    ([2, 3], [1, 4])
    """
    index = np.arange(count)
    test = index * RUNS // max(count, 1) == recording % RUNS
    places = index[test]
    if not len(places):
        return ~test, test
    near = (index >= places[0] - overlap) & (index <= places[-1] + overlap)
    return ~near, test


def split_series(
    series: NDArray[np.int64], *, overlap: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split the windows of many recordings; see :func:`split_run`.

    Parameters
    ----------
    series : ndarray of int64, shape (N,)
        Recording of every window, rising; windows of one are in order of time.
    overlap : int
        How many following windows share a time step with a window, >= 0.

    Returns
    -------
    ndarray of bool, ndarray of bool, each of shape (N,)
        Marks of the training and of the test windows; windows in neither are left out.
    """
    numbers, counts = np.unique(series, return_counts=True)
    parts = [
        split_run(count, number, overlap=overlap)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    ]
    train, test = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return train, test


def subject_names(names: Sequence[Any], what: str = "subject") -> tuple[str, ...]:
    """Call people by their numbers."""
    return tuple(f"{what} {name}" for name in names)
