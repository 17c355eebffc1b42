"""Reader of the icons that the builder has collected."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.arrays import statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.options import whole
from fedlabels.data.roots import Roots, candidates, data_home, find_first, missing
from fedlabels.errors import DataError

FILE = "icons.npz"
NAME = "icons"
CLASSES = ("actions", "apps", "mimetypes", "status", "devices", "places")
THEMES = ("oxygen", "tango", "gnome", "faenza", "elementary-xfce")
SIDE = 32
_TEST_EVERY = 5


def read_icons(roots: Roots, /, *, test_every: int = _TEST_EVERY) -> DataSource:
    """Read the icons that ``make data-icons`` has collected.

    Parameters
    ----------
    roots : Roots
        Where to search; ``root`` may be the file. Last comes ``~/.cache/fedlabels``.
    test_every : int
        Test data are the icons whose name hashes to 0 modulo this number, >= 2.

    Returns
    -------
    DataSource
        uint8 (N, 3, 32, 32), six classes, the theme as domain. Constants are those of the training
        split.

    Raises
    ------
    ConfigError
        If ``test_every`` is out of range.
    DataError
        If the file is missing or damaged.
    """
    every = whole(NAME, "test_every", test_every, low=2)
    tried = [folder / FILE for folder in candidates(roots, (NAME,))]
    if roots.option is None:
        tried.append(data_home(shared=False) / NAME / FILE)
    elif roots.option.suffix == ".npz":
        tried.insert(0, roots.option)
    path = find_first(tried, Path.is_file)
    if path is None:
        raise missing(NAME, tried, "make data-icons")
    x, y, theme, icon = _read(path)
    test = np.array([is_test(name, every) for name in icon.tolist()], dtype=bool)
    if test.all() or not test.any():
        raise DataError(f"{path}: {test.sum()} of {len(test)} icons are test data; collect more")
    mean, std = statistics(x[~test])
    return pair(
        NAME,
        (x[~test], y[~test]),
        (x[test], y[test]),
        class_names=CLASSES,
        mean=mean,
        std=std,
        domains=(theme[~test], theme[test], THEMES),
    )


def is_test(icon: str, every: int = _TEST_EVERY) -> bool:
    """Say whether an icon is test data, by a hash of its name that is the same everywhere.

    Parameters
    ----------
    icon : str
        Name without ending, for instance ``"edit-copy"``.
    every : int
        One in this many is test data.

    Returns
    -------
    bool
        The split.
    """
    digest = hashlib.sha256(icon.encode()).digest()
    return int.from_bytes(digest[:8], "big") % every == 0


def _read(
    path: Path,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            x, y, theme, icon = (archive[key] for key in ("x", "y", "theme", "icon"))
    # A damaged archive has no common class of error; whatever it is, the file is of no use.
    except Exception as error:
        raise DataError(f"{path} cannot be read ({error}); run make data-icons again") from error
    fits = x.dtype == np.uint8 and x.shape[1:] == (3, SIDE, SIDE) and icon.dtype.kind == "U"
    if not fits or any(a.shape != (len(x),) for a in (y, theme, icon)):
        raise DataError(f"{path} holds no icons of {SIDE} pixels; run make data-icons again")
    return x, y.astype(np.int64), theme.astype(np.int64), icon
