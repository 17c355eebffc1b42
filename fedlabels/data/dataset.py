"""A data set as two arrays in memory, with what a model and a view must know of it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Samples and labels of one split.

    Parameters
    ----------
    name : str
        Name for messages and reports.
    x : ndarray
        Pixels 0..255 as uint8, shape (N, C, H, W), or features as float32, shape (N, C, ...).
    y : ndarray of int64, shape (N,)
        Class 0..num_classes-1, or -1 where the class is not known.
    num_classes : int
        Number of classes, >= 2.
    class_names : tuple of str
        One name a class.
    mean, std : tuple of float
        Per channel (axis 1 of ``x``): of the pixels scaled to [0, 1] for uint8, of ``x`` itself for
        float32. ``std`` > 0.
    domain : ndarray of int64, shape (N,), or None
        Where a sample comes from (style, device, hospital): 0..len(domain_names)-1. None where the
        data set has no such structure.
    domain_names : tuple of str
        One name a domain.
    owner : ndarray of int64, shape (N,), or None
        Natural client of a sample (person, writer): 0..len(owner_names)-1.
    owner_names : tuple of str
        One name a natural client.
    given : ndarray of int64, shape (N,), or None
        What clients train on where it is not the truth ``y``, as people wrote it: class
        0..num_classes-1, or -1 for a sample that nobody labeled. None where ``y`` is what is given.
    reading : str
        How the files were read, for people: what was cut, and what was left out.

    Raises
    ------
    DataError
        If shapes, types, labels or constants do not fit together.
    """

    name: str
    x: NDArray[np.uint8] | NDArray[np.float32]
    y: NDArray[np.int64]
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    domain: NDArray[np.int64] | None = None
    domain_names: tuple[str, ...] = ()
    owner: NDArray[np.int64] | None = None
    owner_names: tuple[str, ...] = ()
    given: NDArray[np.int64] | None = None
    reading: str = ""

    def __post_init__(self) -> None:
        self._check_samples()
        self._check_labels("y", self.y)
        self._check_given()
        self._check_origin("domain", self.domain, self.domain_names)
        self._check_origin("owner", self.owner, self.owner_names)
        self._check_constants()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, for images (C, H, W)."""
        return tuple(self.x.shape[1:])

    def _fail(self, problem: str) -> DataError:
        return DataError(f"data set {self.name!r}: {problem}")

    def _check_samples(self) -> None:
        if self.x.dtype == np.uint8:
            if self.x.ndim != 4:
                raise self._fail(
                    f"uint8 x must have shape (N, C, H, W), got {self.x.shape}; "
                    "reshape the images or store features as float32"
                )
        elif self.x.dtype != np.float32:
            raise self._fail(f"x must be uint8 (pixels) or float32, got {self.x.dtype}; convert it")
        elif self.x.ndim < 2:
            raise self._fail(f"float32 x must have shape (N, C, ...), got {self.x.shape}")
        elif not np.isfinite(self.x).all():
            raise self._fail("x holds nan or inf; clean the samples first")
        if 0 in self.x.shape[1:]:
            raise self._fail(f"a sample must not be empty, got x of shape {self.x.shape}")

    def _check_labels(self, field: str, labels: NDArray[np.int64]) -> None:
        if labels.dtype != np.int64 or labels.shape != (len(self.x),):
            raise self._fail(
                f"{field} must be int64 of shape ({len(self.x)},), got {labels.dtype} "
                f"{labels.shape}"
            )
        if self.num_classes < 2:
            raise self._fail(f"num_classes must be >= 2, got {self.num_classes}")
        if len(labels) and not (labels.min() >= -1 and labels.max() < self.num_classes):
            raise self._fail(
                f"labels must be in 0..{self.num_classes - 1}, or -1 for unlabeled, "
                f"got {labels.min()}..{labels.max()}"
            )
        if len(self.class_names) != self.num_classes:
            raise self._fail(f"{self.num_classes} classes but {len(self.class_names)} class names")

    def _check_given(self) -> None:
        if self.given is None:
            return
        self._check_labels("given", self.given)
        unchecked = (self.given >= 0) & (self.y < 0)
        if unchecked.any():
            raise self._fail(
                f"{int(unchecked.sum())} samples have a given label but no true one, the first is "
                f"sample {int(unchecked.argmax())}; store the true class, or make the sample "
                "unlabeled (-1 as given label, too)"
            )

    def _check_origin(
        self, field: str, values: NDArray[np.int64] | None, names: tuple[str, ...]
    ) -> None:
        if values is None:
            if names:
                raise self._fail(f"{field}_names without {field}")
            return
        if values.dtype != np.int64 or values.shape != (len(self.x),):
            raise self._fail(
                f"{field} must be int64 of shape ({len(self.x)},), got {values.dtype} "
                f"{values.shape}"
            )
        if len(values) and not (values.min() >= 0 and values.max() < len(names)):
            raise self._fail(
                f"{field} must be in 0..{len(names) - 1} (one of {field}_names), got "
                f"{values.min()}..{values.max()}"
            )

    def _check_constants(self) -> None:
        channels = self.x.shape[1]
        if len(self.mean) != channels or len(self.std) != channels:
            raise self._fail(
                f"mean and std need one number a channel ({channels}), "
                f"got {len(self.mean)} and {len(self.std)}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and min(self.std) > 0):
            raise self._fail(f"mean must be finite and std > 0, got {self.mean} and {self.std}")
        largest = max(*self.mean, *self.std)
        if self.x.dtype == np.uint8 and (min(self.mean) < 0 or largest > 1):
            raise self._fail(
                f"mean and std are of pixels scaled to [0, 1], got {self.mean} and {self.std}; "
                "divide those of pixels from 0 to 255 by 255"
            )


@dataclass(frozen=True, eq=False)
class DataSource:
    """The official training and test split of one data set.

    Parameters
    ----------
    train, test : ArrayDataset
        Splits with the same sample shape, type, classes and constants.
    empty : bool
        Whether splits may be empty, as at a server that only knows what samples look like.
    content : str
        Hash of what was read, before any shift; empty where nobody asked for it.

    Raises
    ------
    DataError
        If the splits do not belong together.
    """

    train: ArrayDataset
    test: ArrayDataset
    empty: bool = False
    content: str = ""

    def __post_init__(self) -> None:
        for field in ("shape", "num_classes", "class_names", "mean", "std", "domain_names"):
            of_train, of_test = getattr(self.train, field), getattr(self.test, field)
            if of_train != of_test:
                raise DataError(
                    f"data set {self.train.name!r}: {field} of train and test differ, "
                    f"{of_train} and {of_test}"
                )
        if self.train.x.dtype != self.test.x.dtype:
            raise DataError(
                f"data set {self.train.name!r}: train is {self.train.x.dtype}, "
                f"test is {self.test.x.dtype}; store both in one type"
            )
        if not self.empty and not (len(self.train) and len(self.test)):
            raise DataError(
                f"data set {self.train.name!r}: both splits need samples, "
                f"got {len(self.train)} and {len(self.test)}"
            )


Samples = tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64]]


def pair(
    name: str,
    train: Samples,
    test: Samples,
    *,
    class_names: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    domains: tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]] | None = None,
    owners: tuple[NDArray[np.int64], tuple[str, ...]] | None = None,
    test_owners: tuple[NDArray[np.int64], tuple[str, ...]] | None = None,
    given: NDArray[np.int64] | None = None,
    reading: str = "",
) -> DataSource:
    """Make a source of two (x, y) pairs that share everything else.

    Parameters
    ----------
    name : str
        Name of the data set.
    train, test : tuple of ndarray
        Samples and labels as :class:`ArrayDataset` wants them.
    class_names : tuple of str
        One name a class; their number is the number of classes.
    mean, std : tuple of float
        Normalisation constants per channel.
    domains : (ndarray, ndarray, tuple of str) or None
        Domain of every training and test sample, and the domains' names.
    owners, test_owners : (ndarray, tuple of str) or None
        Natural client of every training and of every test sample, and their names: each split
        numbers its own, since some may have samples in one of them only.
    given : ndarray or None
        Labels of the training samples that clients train on, where they are not the truth.
    reading : str
        How the files were read, for people.

    Returns
    -------
    DataSource
        The two splits.

    Raises
    ------
    DataError
        If the arrays do not fit together.
    """
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"data set {name!r}: training samples have shape {train[0].shape[1:]}, test samples "
            f"{test[0].shape[1:]}; store both in one shape"
        )
    first = ArrayDataset(name, *train, len(class_names), class_names, mean, std, reading=reading)
    second = ArrayDataset(name, *test, len(class_names), class_names, mean, std)
    if domains is not None:
        first = replace(first, domain=domains[0], domain_names=domains[2])
        second = replace(second, domain=domains[1], domain_names=domains[2])
    if owners is not None:
        first = replace(first, owner=owners[0], owner_names=owners[1])
    if given is not None:
        first = replace(first, given=given)
    if test_owners is not None:
        second = replace(second, owner=test_owners[0], owner_names=test_owners[1])
    return DataSource(train=first, test=second)
