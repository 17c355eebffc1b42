"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in the layout of torchvision.

``cifar-10-batches-py/{data_batch_1..5,test_batch}`` and ``cifar-100-python/{train,test,meta}``:
pickles of Python 2, read by :mod:`fedlabels.data.pickles`, which runs nothing of them. Labels that
people gave to the training images of CIFAR-10: CIFAR-10N (Wei et al., 2022).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource
from fedlabels.data.hub import HubSet
from fedlabels.data.options import choice, inside
from fedlabels.data.pickles import as_array, load_pickle, load_torch
from fedlabels.data.published import OR_DOWNLOAD, Part, Published
from fedlabels.data.roots import Roots, candidates, find_first
from fedlabels.errors import ConfigError, DataError

# Of the 50,000 training images, over all pixels of a channel, scaled to [0, 1]. The deviations
# (0.2023, 0.1994, 0.2010) that many programs use are means over images of each image's own.
MEAN_10, STD_10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MEAN_100, STD_100 = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

CLASSES_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
GIVEN_10 = ("worse_label", "aggre_label", "random_label1", "random_label2", "random_label3")
TESTS_10 = ("cifar10.1-v4", "cifar10.1-v6")
_CIFAR_N = "https://github.com/UCSC-REAL/cifar-10-100n"
_CIFAR_10_1 = "https://github.com/modestyachts/CIFAR-10.1"
_TRAIN_10 = tuple(f"data_batch_{i}" for i in range(1, 6))
_SHAPE = (3, 32, 32)
_SITE = "https://www.cs.toronto.edu/~kriz"
_REMEDY = f"curl -L {_SITE}/%s.tar.gz | tar xz -C $FEDLABELS_DATA, {OR_DOWNLOAD}"
_CIFAR_10 = Published(
    name="cifar10",
    folders=("cifar-10-batches-py", "cifar10/cifar-10-batches-py"),
    files=(*_TRAIN_10, "test_batch"),
    remedy=_REMEDY % "cifar-10-python",
    hub=HubSet("uoft-cs/cifar10", image="img"),
    mean=MEAN_10,
    std=STD_10,
    class_names=CLASSES_10,
)
_CIFAR_100 = Published(
    name="cifar100",
    folders=("cifar-100-python", "cifar100/cifar-100-python"),
    files=("train", "test", "meta"),
    remedy=_REMEDY % "cifar-100-python",
    hub=HubSet("uoft-cs/cifar100", image="img"),
    mean=MEAN_100,
    std=STD_100,
)


def read_cifar10(
    roots: Roots,
    /,
    *,
    labels_file: str | None = None,
    labels: str | None = None,
    test: str | None = None,
    download: bool = False,
) -> DataSource:
    """Read CIFAR-10: 50,000 + 10,000 colour images of 32 x 32 pixels, 10 classes.

    Parameters
    ----------
    roots : Roots
        Where to search.
    labels_file : str or None
        ``CIFAR-10_human.pt`` of CIFAR-10N, in the root or beside the batches: clients train on
        labels that people gave, everything is scored against those of CIFAR-10.
    labels : {"worse_label", "aggre_label", "random_label1", "random_label2", "random_label3"}
        Which of them: a wrong one where any of three people was wrong (40 % wrong), the majority of
        three (9 %), or one person's (17 to 18 %). Goes with ``labels_file``.
    test : {"cifar10.1-v4", "cifar10.1-v6"} or None
        Another test set, of 2,021 or 2,000 new photographs of these classes (Recht et al., 2018):
        ``cifar10.1_v6_data.npy`` and ``..._labels.npy`` in the root or beside the batches.
    download : bool
        Whether to fetch it through ``datasets`` where it is not found.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, 32, 32).

    Raises
    ------
    ConfigError
        If there is one of ``labels_file`` and ``labels`` without the other.
    DataError
        If the files are missing or damaged, or the labels are of other images.
    """
    if (labels_file is None) != (labels is None):
        raise ConfigError(
            "cifar10: dataset.options.labels_file (CIFAR-10_human.pt) and dataset.options.labels "
            f"(one of {', '.join(GIVEN_10)}) belong together; give both or neither"
        )
    file = None if labels_file is None else inside("cifar10", "labels_file", labels_file)
    if labels is not None:
        choice("cifar10", "labels", labels, GIVEN_10)
    if test is not None:
        choice("cifar10", "test", test, TESTS_10)
    source = _CIFAR_10.read(roots, _read_10, download=download)
    if file is not None and labels is not None:
        path = _beside(roots, file, f"labels_file={file}", f"data/CIFAR-10_human.pt of {_CIFAR_N}")
        given = _given(path, labels, source.train.y)
        source = replace(source, train=replace(source.train, given=given))
    if test is not None:
        x, y = _other_test(roots, test)
        source = replace(source, test=replace(source.test, x=x, y=y))
    return source


def read_cifar100(roots: Roots, /, *, labels: str = "fine", download: bool = False) -> DataSource:
    """Read CIFAR-100: 50,000 + 10,000 colour images of 32 x 32 pixels.

    Parameters
    ----------
    roots : Roots
        Where to search.
    labels : {"fine", "coarse"}
        Whether to use the 100 classes or the 20 superclasses.
    download : bool
        Whether to fetch it through ``datasets`` where it is not found.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 3, 32, 32).

    Raises
    ------
    ConfigError
        If ``labels`` is neither.
    DataError
        If the files are missing or damaged.
    """
    kind = choice("cifar100", "labels", labels, ("fine", "coarse"))
    published = replace(_CIFAR_100, hub=replace(_CIFAR_100.hub, label=f"{kind}_label"))
    return published.read(roots, partial(_read_100, kind), download=download)


def _read_10(folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    *parts, test = (_batch(folder / file, b"labels", len(CLASSES_10)) for file in _CIFAR_10.files)
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return (images, labels), test, CLASSES_10


def _read_100(kind: str, folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    classes = _names(folder / "meta", f"{kind}_label_names".encode())
    key = f"{kind}_labels".encode()
    train, test = (_batch(folder / split, key, len(classes)) for split in ("train", "test"))
    return train, test, classes


def _beside(roots: Roots, file: Path, option: str, source: str) -> Path:
    """Return where a file is that goes with the batches."""
    tried = [place / file for place in (*candidates(roots, _CIFAR_10.folders), *roots.shared)]
    path = find_first(tried, Path.is_file)
    if path is None:
        lines = "".join(f"\n  {path}" for path in tried)
        raise DataError(
            f"cifar10: {file} of dataset.options.{option} was not found. Tried:{lines}\n"
            f"To get it: {source}"
        )
    return path


def _other_test(roots: Roots, test: str) -> Part:
    name = test.replace("-", "_")
    paths = [
        _beside(roots, Path(f"{name}_{kind}.npy"), f"test={test}", f"datasets of {_CIFAR_10_1}")
        for kind in ("data", "labels")
    ]
    try:
        x, y = (np.load(path, allow_pickle=False) for path in paths)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{paths[0].parent}: {name} cannot be read ({error}); get it again"
        ) from error
    if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.shape != (len(x),):
        raise DataError(
            f"{paths[0]} must hold bytes of shape (N, 32, 32, 3), got {x.dtype} {x.shape}, and its "
            f"labels N numbers, got {y.shape}; get both again"
        )
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y.astype(np.int64)


def _given(path: Path, kind: str, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    content = load_torch(path)
    absent = [k for k in ("clean_label", kind) if not isinstance(content, dict) or k not in content]
    if absent:
        raise DataError(f"{path} lacks {absent[0]}; get CIFAR-10_human.pt again")
    try:
        clean, given = (as_array(content[key], np.int64) for key in ("clean_label", kind))
    except ValueError as error:
        raise DataError(f"{path} holds no plain arrays ({error}); get the file again") from error
    if given.shape != truth.shape or not np.array_equal(clean, truth):
        raise DataError(
            f"{path}: its clean_label are not the {len(truth):,} training labels that were read, "
            "in their order; get CIFAR-10_human.pt again, and read the images from data_batch_1 to "
            "data_batch_5"
        )
    return given


def _batch(path: Path, key: bytes, classes: int) -> Part:
    content = load_pickle(path)
    if not isinstance(content, dict) or not {b"data", key} <= content.keys():
        raise DataError(f"{path} lacks data or {key.decode()}; get the file again")
    try:
        x, y = as_array(content[b"data"], np.uint8), as_array(content[key], np.int64)
    except ValueError as error:
        raise DataError(f"{path} holds no plain arrays ({error}); get the file again") from error
    if x.ndim != 2 or x.shape[1] != np.prod(_SHAPE) or y.shape != (len(x),):
        raise DataError(
            f"{path} must hold images of shape (N, {np.prod(_SHAPE)}) and N labels, got {x.shape} "
            f"and {y.shape}; get the file again"
        )
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise DataError(
            f"{path}: labels must be in 0..{classes - 1}, got {y.min()}..{y.max()}; "
            "get the file again"
        )
    return x.reshape(-1, *_SHAPE), y


def _names(path: Path, key: bytes) -> tuple[str, ...]:
    content = load_pickle(path)
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
        raise DataError(f"{path} lacks {key.decode()}; get the file again")
    return tuple(n.decode() if isinstance(n, bytes) else n for n in names)
