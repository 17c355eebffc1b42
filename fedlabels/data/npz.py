"""Your own data as ``.npz``: a folder with train.npz and test.npz, or one file with both splits.

In a folder each file holds ``x`` and ``y``; a single file holds ``x_train``, ``y_train``,
``x_test`` and ``y_test``. A label of -1 marks a sample whose class is not known.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.roots import Roots, find_first, missing
from fedlabels.errors import ConfigError, DataError

Split = tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64]]

_FOLDERS = ("", "npz")


def read_npz(
    roots: Roots,
    /,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> DataSource:
    """Read a data set from ``.npz`` files.

    Parameters
    ----------
    roots : Roots
        ``root`` is the file, or the folder with train.npz and test.npz.
    num_classes : int or None
        Number of classes; None takes the largest label plus one.
    class_names : sequence of str or None
        One name a class; None takes the numbers.
    mean, std : sequence of float or None
        Per channel, of pixels scaled to [0, 1] (uint8) or of x (float). Give both or neither; None
        takes those of the training split, with 1 for a channel that never changes.

    Returns
    -------
    DataSource
        Training and test split. Images (N, H, W) get a channel axis, float64 becomes float32.

    Raises
    ------
    ConfigError
        If options contradict each other.
    DataError
        If files are missing, damaged or do not fit together.
    """
    if (mean is None) != (std is None):
        raise ConfigError("npz: give both mean and std, or neither; got only one of them")
    path, tried = _locate(roots)
    if path is None:
        raise missing("npz", tried, "set dataset.root to the file or to the folder that holds them")
    train, test = _splits(path)
    classes = _class_names(num_classes, class_names, train[1], test[1])
    if mean is None or std is None:
        mean, std = _statistics(train[0])
    constants: dict[str, Any] = {"mean": _floats(mean), "std": _floats(std)}
    return pair(path.stem, train, test, class_names=classes, **constants)


def _locate(roots: Roots) -> tuple[Path | None, list[Path]]:
    shared = [root / folder for root in roots.shared for folder in _FOLDERS]
    tried = [roots.given] if roots.given else shared
    return find_first(tried, _is_complete), tried


def _is_complete(path: Path) -> bool:
    return path.is_file() or all((path / f"{split}.npz").is_file() for split in ("train", "test"))


def _splits(path: Path) -> tuple[Split, Split]:
    if path.is_dir():
        train, test = (_arrays(path / f"{name}.npz", ("x", "y")) for name in ("train", "test"))
        return _split(path / "train.npz", *train), _split(path / "test.npz", *test)
    arrays = _arrays(path, ("x_train", "y_train", "x_test", "y_test"))
    return _split(path, *arrays[:2]), _split(path, *arrays[2:])


def _arrays(path: Path, keys: Sequence[str]) -> list[NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in keys if key not in archive]
            if absent:
                raise DataError(
                    f"{path} lacks {', '.join(absent)}; it must hold {', '.join(keys)}, "
                    f"it holds {', '.join(archive.files) or 'nothing'}"
                )
            return [archive[key] for key in keys]
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as .npz without pickle ({error})") from error


def _split(path: Path, x: NDArray[Any], y: NDArray[Any]) -> Split:
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: labels must be integers, got {y.dtype}")
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.floating):
            raise DataError(f"{path}: x must be uint8 (pixels) or floating, got {x.dtype}")
        return x.astype(np.float32), y.astype(np.int64)
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        raise DataError(
            f"{path}: images must be (N, C, H, W), got {x.shape}, which looks like (N, H, W, C); "
            "store x.transpose(0, 3, 1, 2)"
        )
    return x, y.astype(np.int64)


def _class_names(
    num_classes: int | None,
    class_names: Sequence[str] | None,
    *labels: NDArray[np.int64],
) -> tuple[str, ...]:
    if num_classes is None:
        found = max((int(y.max()) + 1 for y in labels if len(y)), default=0)
        num_classes = len(class_names) if class_names is not None else max(found, 2)
    if class_names is None:
        return tuple(str(c) for c in range(num_classes))
    if len(class_names) != num_classes:
        raise ConfigError(f"npz: {num_classes} classes but {len(class_names)} class names")
    return tuple(class_names)


def _statistics(x: NDArray[np.uint8] | NDArray[np.float32]) -> tuple[list[float], list[float]]:
    if x.ndim < 2:
        raise DataError(f"npz: x must have shape (N, C, ...), got {x.shape}")
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axis=axes, dtype=np.float64) / scale
    std = x.std(axis=axes, dtype=np.float64) / scale
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
