"""LEAF: federated sets as json, ``users``, ``num_samples`` and ``user_data`` with x and y of each.

Caldas et al., arXiv 1812.01097. ``train`` and ``test`` hold one or more files each, or
``all_data`` (or the folder itself) has ``all_data_*.json`` and every user gets test samples from
their own. Users are natural clients, in both splits under their names.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data import labels
from fedlabels.data.arrays import numbered, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.digits import every_nth_of_class
from fedlabels.data.options import whole
from fedlabels.data.progress import counted
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import ConfigError, DataError

_NAME = "leaf"
_SPLITS = ("train", "test")


class _Part(NamedTuple):
    """Samples of one split, as flat rows, with class and user of each."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    user: NDArray[Any]

    def at(self, chosen: NDArray[np.bool_]) -> "_Part":
        return _Part(self.x[chosen], self.y[chosen], self.user[chosen])


def read_leaf(
    roots: Roots,
    /,
    *,
    shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    test_every: int | None = None,
) -> DataSource:
    """Read json files of LEAF.

    Parameters
    ----------
    roots : Roots
        ``root`` is the folder with ``train`` and ``test``, or with ``all_data_*.json``.
    shape : sequence of int or None
        Of one sample, channels first, such as [1, 28, 28]; None takes the rows as features.
    num_classes, class_names
        As in :func:`fedlabels.data.npz.read_npz`.
    test_every : int or None
        Without a folder ``test``: distance of the samples of a user, in the order of the file, that
        are test data, >= 2.

    Returns
    -------
    DataSource
        float32 (N, *shape) with the user of every sample as client, in both splits. Constants are
        those of the training samples.

    Raises
    ------
    ConfigError
        If an option is out of range.
    DataError
        If files are missing or damaged, hold text, or do not fit together.
    """
    if test_every is not None:
        whole(_NAME, "dataset.options.test_every", test_every, low=2)
    sizes = _sizes(shape)
    folders = candidates(roots, (_NAME, "data"))
    folder = find_first(folders, lambda path: bool(_files(path, "train") or _all_files(path)))
    if folder is None:
        raise missing(
            _NAME,
            folders,
            "make the json files by preprocess.sh of the set in LEAF (github.com/TalwalkarLab/leaf)"
            " and set dataset.root to its folder data, with train and test",
        )
    train, test = _splits(folder, test_every)
    names = labels.class_names(_NAME, num_classes, class_names, train.y, test.y)
    (owners,), users = numbered(train.user)
    (tested,), test_users = numbered(test.user)
    samples = [_shaped(folder, part.x, sizes) for part in (train, test)]
    mean, std = statistics(samples[0])
    return pair(
        folder.name if folder.name != "data" else folder.resolve().parent.name,
        (samples[0], train.y),
        (samples[1], test.y),
        class_names=names,
        mean=mean,
        std=std,
        owners=(owners, users),
        test_owners=(tested, test_users),
    )


def _sizes(shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    if isinstance(shape, str) or not isinstance(shape, Sequence) or not shape:
        raise ConfigError(
            f"{_NAME}: dataset.options.shape must be a list of sizes, such as [1,28,28], got "
            f"{shape!r}"
        )
    return tuple(whole(_NAME, "dataset.options.shape", size) for size in shape)


def _files(folder: Path, split: str) -> list[Path]:
    return sorted((folder / split).glob("*.json"))


def _all_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("all_data*.json")) or sorted(folder.glob("all_data/*.json"))


def _splits(folder: Path, test_every: int | None) -> tuple[_Part, _Part]:
    files = [_files(folder, split) for split in _SPLITS]
    if all(files):
        if test_every is not None:
            raise ConfigError(
                f"{_NAME}: dataset.options.test_every has no effect, {folder} has a test split"
            )
        return _read(files[0]), _read(files[1])
    together = files[0] or _all_files(folder)
    if test_every is None:
        raise DataError(
            f"{folder} has no test/*.json: set dataset.options.test_every=5 to make each fifth "
            "sample of every user test data"
        )
    part = _read(together)
    (user,), _ = numbered(part.user)
    test = every_nth_of_class(user, test_every) & (part.y >= 0)
    return part.at(~test), part.at(test)


def _read(files: Sequence[Path]) -> _Part:
    x: list[NDArray[np.float32]] = []
    y: list[NDArray[np.int64]] = []
    sizes: dict[str, int] = {}
    for path in counted(files, "files"):
        for user, rows, classes in _users(path):
            if user in sizes:
                raise DataError(f"{path}: user {user!r} is in another file, too; keep one of them")
            if x and rows.shape[1] != x[0].shape[1]:
                raise DataError(
                    f"{path}: samples of user {user!r} have {rows.shape[1]} numbers, those before "
                    f"{x[0].shape[1]}"
                )
            sizes[user] = len(rows)
            x.append(rows)
            y.append(classes)
    if not x:
        raise DataError(f"{files[0].parent} holds no samples")
    users = np.repeat(np.array(list(sizes)), list(sizes.values()))
    return _Part(np.concatenate(x), np.concatenate(y), users)


def _users(path: Path) -> list[tuple[str, NDArray[np.float32], NDArray[np.int64]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as json ({error}); make it again") from error
    keys = ("users", "num_samples", "user_data")
    absent = [key for key in keys if not isinstance(content, dict) or key not in content]
    if absent:
        raise DataError(f"{path} lacks {', '.join(absent)}; a file of LEAF holds {', '.join(keys)}")
    users, counts, data = (content[key] for key in keys)
    if not isinstance(users, list) or not isinstance(counts, list) or len(users) != len(counts):
        raise DataError(f"{path}: users and num_samples must be lists of one length")
    found = []
    for user, count in zip(users, counts, strict=True):
        where = f"{path}: user {user!r}"
        if not isinstance(user, str) or not user or not isinstance(data, dict) or user not in data:
            raise DataError(f"{where} has no entry in user_data")
        entry = data[user]
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), list) for k in "xy"):
            raise DataError(f"{where} has no lists x and y in user_data")
        if not len(entry["x"]) == len(entry["y"]) == count:
            raise DataError(
                f"{where} has {len(entry['x'])} samples x, {len(entry['y'])} labels y and "
                f"num_samples {count}; make the file again"
            )
        if count:
            found.append((user, _rows(where, entry["x"]), _classes(where, entry["y"])))
    return found


def _rows(where: str, x: Any) -> NDArray[np.float32]:
    try:
        values = np.asarray(x)
    except ValueError as error:
        raise DataError(f"{where}: its samples x have different lengths ({error})") from error
    if values.dtype.kind in "US":
        raise DataError(
            f"{where}: its samples x are text, as in shakespeare, sent140 and celeba (names of "
            "files); only numbers are read"
        )
    if values.dtype.kind not in "biuf" or values.ndim < 2:
        raise DataError(f"{where}: its samples x must be lists of numbers of one length")
    rows = values.reshape(len(values), -1).astype(np.float32)
    if not np.isfinite(rows).all():
        raise DataError(f"{where}: a number of its samples x is nan, infinite or beyond float32")
    return rows


def _classes(where: str, y: Any) -> NDArray[np.int64]:
    try:
        return labels.one_a_sample(f"{where}: y", np.asarray(y))
    except ValueError as error:
        raise DataError(f"{where}: its labels y must be one whole number a sample") from error


def _shaped(
    folder: Path, x: NDArray[np.float32], sizes: tuple[int, ...] | None
) -> NDArray[np.float32]:
    if sizes is None:
        return x
    if int(np.prod(sizes)) != x.shape[1]:
        raise ConfigError(
            f"{_NAME}: dataset.options.shape={list(sizes)} has {int(np.prod(sizes))} numbers, a "
            f"sample in {folder} has {x.shape[1]}"
        )
    return x.reshape(len(x), *sizes)
