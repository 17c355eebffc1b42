"""Your own data as ``.npz``: a folder with train.npz and test.npz, or one file with both splits.

In a folder each file holds ``x`` and ``y``; a single file holds ``x_train``, ``y_train``,
``x_test`` and ``y_test``. A label of -1 marks a sample whose class is not known. Optional are
``domain`` (in both splits) and ``client`` (of the training samples, or of both splits): whole
numbers or text, one a sample, in a single file ``domain_train``, ``client_test`` and so on; and
``clean`` (``clean_train``), the true labels where ``y`` is what people wrote: clients train on
``y``, everything is scored against ``clean``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data import labels
from fedlabels.data.arrays import numbered, origins, owners, statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.layout import ARRAYS, arrays_first
from fedlabels.data.options import choice, numbers
from fedlabels.data.pickles import load_objects
from fedlabels.data.roots import Roots, find_first, missing
from fedlabels.data.windows import Windows
from fedlabels.errors import ConfigError, DataError

Values = NDArray[np.uint8] | NDArray[np.float32]
Convert = Callable[[str, NDArray[Any]], Values]

_SPLITS = ("train", "test")
_OPTIONAL = ("client", "domain", "clean")


class Split(NamedTuple):
    """Arrays of one split, as far as the file has them."""

    x: Values
    y: NDArray[np.int64]
    client: NDArray[Any] | None
    domain: NDArray[Any] | None
    given: NDArray[np.int64] | None
    reading: str = ""


class Ragged(NamedTuple):
    """What a reader of series of unequal lengths wants from a file.

    Parameters
    ----------
    keys : tuple of str
        Arrays beside x that say where a series ends.
    cut : callable
        Makes windows: of where x comes from, x (arrays of objects as their elements), and what the
        file has of the keys.
    """

    keys: tuple[str, ...]
    cut: Callable[[str, NDArray[Any], Mapping[str, NDArray[Any]]], Windows]


def read_npz(
    roots: Roots,
    /,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
) -> DataSource:
    """Read images or features from ``.npz`` files.

    Parameters
    ----------
    roots : Roots
        ``root`` is the file, or the folder with train.npz and test.npz.
    num_classes : int or None
        Number of classes, 2 to 1,000,000; None takes the largest label plus one, if every class
        below it occurs.
    class_names : sequence of str or None
        One name a class; None takes the numbers.
    mean, std : sequence of float or None
        Per channel, of pixels scaled to [0, 1] (uint8) or of x (float). Give both or neither; None
        takes those of the training split, with 1 for a channel that never changes.
    layout : {"channels_first", "channels_last"} or None
        Whether x is (N, C, ...) or (N, ..., C); None is the first, and asks where the shape looks
        like the second. uint8 of shape (N, H, W) has no channel axis and needs none of it.

    Returns
    -------
    DataSource
        Training and test split, channels first. Images (N, H, W) get a channel axis, float64
        becomes float32.

    Raises
    ------
    ConfigError
        If options contradict each other.
    DataError
        If files are missing, damaged or do not fit together.
    """
    if layout is not None:
        choice("npz", "layout", layout, ARRAYS)
    constants = (mean, std)
    return read_archives(
        "npz", roots, partial(plain_samples, layout=layout), num_classes, class_names, constants
    )


def read_archives(
    name: str,
    roots: Roots,
    convert: Convert | Ragged,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    constants: tuple[Sequence[float] | None, Sequence[float] | None],
) -> DataSource:
    """Read a data set from ``.npz`` files of any kind of sample; see :func:`read_npz`.

    Parameters
    ----------
    name : str
        Name of the reader; without ``root``, also of the folder below ``$FEDLABELS_DATA``.
    roots : Roots
        Where to search.
    convert : callable or Ragged
        Checks and converts x; its first argument says where x comes from, for messages. Or how
        windows are cut.
    num_classes, class_names
        As in :func:`read_npz`.
    constants : (mean, std)
        As in :func:`read_npz`.

    Returns
    -------
    DataSource
        Training and test split.
    """
    mean, std = constants
    if (mean is None) != (std is None):
        raise ConfigError(f"{name}: give both mean and std, or neither; got only one of them")
    if mean is not None and std is not None:
        mean, std = numbers(name, "mean", mean), numbers(name, "std", std)
    tried = [roots.option] if roots.option else [root / name for root in roots.shared]
    path = find_first(tried, _is_complete)
    if path is None:
        raise missing(
            name,
            tried,
            "set dataset.root to the folder with train.npz and test.npz, or to one .npz file",
        )
    train, test = (read_split(path, split, convert) for split in _SPLITS)
    if mean is None or std is None:
        mean, std = statistics(train.x)
    known = [y for y in (train.y, test.y, train.given) if y is not None]
    return pair(
        path.stem,
        (train.x, train.y),
        (test.x, test.y),
        class_names=labels.class_names(name, num_classes, class_names, *known),
        mean=tuple(mean),
        std=tuple(std),
        domains=_domains(path, train, test),
        owners=owners(train.client),
        test_owners=owners(test.client),
        given=train.given,
        reading=train.reading,
    )


def _is_complete(path: Path) -> bool:
    return path.is_file() or all((path / f"{split}.npz").is_file() for split in _SPLITS)


def read_split(path: Path, split: str, convert: Convert | Ragged) -> Split:
    """Read one split.

    Parameters
    ----------
    path : Path
        A folder with ``<split>.npz``, or a file that holds both splits.
    split : {"train", "test"}
        Which.
    convert : callable or Ragged
        As in :func:`read_archives`.

    Returns
    -------
    Split
        Samples, true labels (int64), where the samples come from as far as the file says it, and of
        a training split the given labels where they are not the true ones.

    Raises
    ------
    DataError
        If it is missing, damaged, or there is not one whole number a sample as label.
    """
    single = not path.is_dir()
    file = path if single else path / f"{split}.npz"
    ending = f"_{split}" if single else ""
    needed = [f"{key}_{part}" for part in _SPLITS for key in "xy"] if single else ["x", "y"]
    more = convert.keys if isinstance(convert, Ragged) else ()
    keys = [f"{key}{ending}" for key in ("x", "y", *_OPTIONAL, *more)]
    objects = f"x{ending}" if isinstance(convert, Ragged) else None
    found = _arrays(file, needed, keys, objects)
    x, y = found[f"x{ending}"], found[f"y{ending}"]
    known, given = labels.one_a_sample(f"{file}: y{ending}", y), None
    if f"clean{ending}" in found:
        given, known = known, labels.one_a_sample(f"{file}: clean{ending}", found[f"clean{ending}"])
        if len(given) != len(known):
            raise DataError(
                f"{file}: {len(given)} labels y{ending} but {len(known)} labels clean{ending}; "
                "store both of every sample, in one order"
            )
    if isinstance(convert, Ragged):
        ends = {key: found[f"{key}{ending}"] for key in more if f"{key}{ending}" in found}
        windows = convert.cut(f"{file}: x{ending}", x, ends)
        samples: Values = windows.x
        count = windows.total
    else:
        samples, count = convert(f"{file}: x{ending}", x), len(x)
    client, domain = (
        origins(f"{file}: {key}", found[key], count) if key in found else None
        for key in (f"client{ending}", f"domain{ending}")
    )
    # nobody trains on test samples: what they were given as plays no part
    read = Split(samples, known, client, domain, given if split == "train" else None)
    return _of_windows(f"{file}: y{ending}", read, windows) if objects else read


def _of_windows(where: str, read: Split, windows: Windows) -> Split:
    """Give every window what its series has."""
    if len(read.y) != windows.total:
        raise DataError(f"{where} holds {len(read.y)} labels for {windows.total} series")
    columns = {
        key: value[windows.series]
        for key, value in read._asdict().items()
        if key != "x" and isinstance(value, np.ndarray)
    }
    return read._replace(**columns, reading=windows.reading)


def _arrays(
    path: Path, needed: Sequence[str], keys: Sequence[str], objects: str | None = None
) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in needed if key not in archive]
            for key in archive.files:
                _refuse_near(path, key, keys)
            if absent:
                raise DataError(
                    f"{path} lacks {', '.join(absent)}; it must hold {', '.join(needed)}, "
                    f"it holds {', '.join(archive.files) or 'nothing'}"
                    + ("; dataset=medmnist reads it" if "train_images" in archive else "")
                )
            return {
                key: _elements(path, archive, key) if key == objects else archive[key]
                for key in keys
                if key in archive
            }
    except DataError:
        raise
    # A damaged archive has no common class of error: zip, zlib, an unknown compression, a password.
    except Exception as error:
        if "Object arrays" in str(error):
            key = _pickled(path, [key for key in keys if key != objects])
            raise DataError(
                f"{path}: {key} holds Python objects, which nothing reads without"
                " pickle: store numbers, or text as y.astype(str) and so on"
            ) from error
        raise DataError(f"{path} cannot be read as .npz without pickle ({error})") from error


def _elements(path: Path, archive: Any, key: str) -> NDArray[Any]:
    """Read an array; of one of objects the elements, by the unpickler that runs nothing."""
    try:
        found: NDArray[Any] = archive[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raw = archive.zip.read(f"{key}.npy")
        items = load_objects(f"{path}: {key}", raw)
        found = np.empty(len(items), dtype=object)
        for place, item in enumerate(items):  # numpy would look into lists of equal shape
            found[place] = item
    return found


def _refuse_near(path: Path, key: str, keys: Sequence[str]) -> None:
    """Refuse a key that means one of the optional ones, but is called otherwise."""
    stem, _, split = key.partition("_")
    origin = stem.lower().removesuffix("s")
    here = [name for name in keys if name.partition("_")[0].removesuffix("s") == origin]
    if not here or origin in ("x", "y") or key in keys:
        return
    if stem == here[0].partition("_")[0] and split in _SPLITS and "_" in here[0]:
        return  # of the other split of the same file
    raise DataError(
        f"{path} holds {key!r}, which is not read: {here[0]!r} is; call it so, or take it out"
    )


def _pickled(path: Path, keys: Sequence[str]) -> str:
    """Return the first of some keys that cannot be read without pickle."""
    with np.load(path, allow_pickle=False) as archive:
        for key in keys:
            try:
                archive.get(key)
            except ValueError:
                return key
    return "an array"


def plain_samples(where: str, x: NDArray[Any], layout: str | None = None) -> Values:
    """Check images or features; images without a channel axis get one.

    Raises
    ------
    DataError
        If x is of a type or shape that no sample has, or in an order that has to be said.
    """
    values: Values = x if x.dtype == np.uint8 else features(where, x)
    if values.ndim < 2:
        raise DataError(f"{where} must have shape (N, C, ...), got {values.shape}")
    if values.dtype == np.uint8 and values.ndim == 3:
        return values[:, None]
    return arrays_first(where, values, layout)


def features(where: str, x: NDArray[Any]) -> NDArray[np.float32]:
    """Check and convert samples that are no pixels.

    Parameters
    ----------
    where : str
        What is read, for the message.
    x : ndarray
        Floating numbers of any precision.

    Returns
    -------
    ndarray of float32
        The same, all finite.

    Raises
    ------
    DataError
        If x is of another type, or a number is nan, infinite or beyond float32.
    """
    if not np.issubdtype(x.dtype, np.floating):
        raise DataError(f"{where} must be uint8 (pixels) or floating, got {x.dtype}; {_remedy(x)}")
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    if not np.isfinite(values).all():
        sample = int(np.argwhere(~np.isfinite(values))[0][0])
        raise DataError(
            f"{where} holds nan, inf or a number beyond float32, first in sample {sample}; "
            "clean the samples"
        )
    return values


def _remedy(x: NDArray[Any]) -> str:
    if x.dtype.kind not in "biu":
        return "make numbers of its columns, then store x.astype('float32')"
    return "store x.astype('float32') for features, x.astype('uint8') for pixels from 0 to 255"


def _domains(
    path: Path, train: Split, test: Split
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]] | None:
    if train.domain is None and test.domain is None:
        return None
    if train.domain is None or test.domain is None:
        has, lacks = _SPLITS if test.domain is None else _SPLITS[::-1]
        raise DataError(f"{path}: {has} has domains, {lacks} has none; store both or neither")
    (first, second), names = numbered(train.domain, test.domain)
    return first, second, names
