"""Who holds what: samples and labels of every client by class, from ``federation.npz``."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import DataError

_DAMAGE = (
    *(OSError, EOFError, KeyError, IndexError, TypeError, ValueError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),
)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Holdings:
    """Samples by client and class.

    Parameters
    ----------
    labeled : ndarray, shape (clients, classes)
        Samples whose label the client knows.
    total : ndarray, shape (clients, classes)
        All its samples of known class, by their true class.
    unknown : ndarray, shape (clients,)
        Its samples whose class nobody knows.
    names : tuple of str
        One name a client where clients have some.
    """

    labeled: Counts
    total: Counts
    unknown: Counts
    names: tuple[str, ...] = ()

    def client(self, number: int) -> str:
        """Return what a client is called: its number, and its name if it has one."""
        return f"{number} {self.names[number]}" if self.names else str(number)

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return int(self.total.shape[0])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.total.shape[1])

    @property
    def sizes(self) -> Counts:
        """Samples of each client, shape (clients,)."""
        return np.asarray(self.total.sum(axis=1) + self.unknown)

    @property
    def labels(self) -> Counts:
        """Labels of each client, shape (clients,)."""
        return np.asarray(self.labeled.sum(axis=1))

    def effective_classes(self) -> float:
        """Return how many classes a client holds as it were: the median of exp(entropy).

        Returns
        -------
        float
            From 1 (one class each) to the number of classes (all alike); NaN without samples.
        """
        held = self.total[self.total.sum(axis=1) > 0].astype(np.float64)
        if not len(held):
            return float("nan")
        shares = held / held.sum(axis=1, keepdims=True)
        logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
        return float(np.median(np.exp(-(shares * logs).sum(axis=1))))


def read_holdings(path: Path) -> Holdings | None:
    """Count a federation's samples.

    Parameters
    ----------
    path : Path
        ``federation.npz``.

    Returns
    -------
    Holdings or None
        None when there is no such file.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            labels, classes = file["labels"], int(file["num_classes"])
            labeled = _count(file["labeled_index"], file["labeled_offsets"], labels, classes)
            index, offsets = _held(file, len(labels))
            every = _count(index, offsets, labels, classes)
            names = tuple(map(str, file["names"])) if "names" in file.files else ()
            return Holdings(labeled[:, :-1], every[:, :-1], every[:, -1], names)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is damaged ({error}): move it away and the report leaves this part out"
        ) from error


def _held(file: Mapping[str, Counts], samples: int) -> tuple[Counts, Counts]:
    """Join the two lists of every client; what is in both counts as often as in the longer one."""
    keys = []
    for part in ("labeled", "unlabeled"):
        offsets = file[f"{part}_offsets"]
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        keys.append(np.unique(owner * samples + file[f"{part}_index"], return_counts=True))
    every, place = np.unique(np.concatenate([key for key, _ in keys]), return_inverse=True)
    number = np.zeros(len(every), dtype=np.int64)
    np.maximum.at(number, place.reshape(-1), np.concatenate([count for _, count in keys]))
    owner, index = np.divmod(np.repeat(every, number), max(samples, 1))
    return index, np.searchsorted(owner, np.arange(len(file["labeled_offsets"])))


def _count(index: Counts, offsets: Counts, labels: Counts, classes: int) -> Counts:
    """Count by client and class; the last column is for samples of unknown class (-1)."""
    clients = len(offsets) - 1
    owner = np.repeat(np.arange(clients), np.diff(offsets))
    held = labels[index]
    cells = owner * (classes + 1) + np.where(held < 0, classes, held)
    return np.bincount(cells, minlength=clients * (classes + 1)).reshape(clients, classes + 1)
