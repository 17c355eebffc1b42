"""A federation: who holds which samples with which labels, from one seed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels.errors import DataError
from fedlabels.federation import storage
from fedlabels.federation.ragged import Indices, Ragged, union
from fedlabels.federation.summary import Summary, summarize


@dataclass(frozen=True, eq=False)
class Federation:
    """All shards with their label masks.

    Parameters
    ----------
    labeled, unlabeled : Ragged
        Indices into the training set, ascending within a client; one list a client each.
    labels : ndarray of int64, shape (N,)
        The full hidden truth of the training set, -1 where nobody knows. For evaluation only.
    num_classes : int
        Number of classes.
    client_labels : ndarray of int64, shape (len(labeled.index),)
        Labels as the clients see them, along ``labeled.index``: with label noise some are wrong.

    server : ndarray of int64
        Samples at the server, with their labels; nobody else holds them.
    test : Ragged
        Indices into the test set: each client's own test samples; a sample may be in many.
    groups : ndarray of int64, shape (K,)
        Model group of every client.
    settings : mapping
        How it was made; does not enter the hash.
    names : tuple of str
        One name a client where clients have some, as people do; else none. Not in the hash.
    hash : str
        SHA-256 of the arrays above and the number of classes: the same content has the same hash,
        however the settings are spelt.

    Raises
    ------
    DataError
        If lists and labels do not fit together.
    """

    labeled: Ragged
    unlabeled: Ragged
    labels: Indices
    num_classes: int
    settings: Mapping[str, Any]
    client_labels: Indices
    server: Indices
    test: Ragged
    groups: Indices
    names: tuple[str, ...] = ()
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        if len(self.labeled) != len(self.unlabeled):
            raise DataError(
                f"{len(self.labeled)} labeled and {len(self.unlabeled)} unlabeled shards"
            )
        for part in (self.labeled, self.unlabeled):
            if len(part.index) and part.index.max() >= len(self.labels):
                raise DataError(
                    f"shards name sample {part.index.max()} of {len(self.labels)} samples"
                )
        if len(self.labels) and not -1 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise DataError(f"labels must be in -1..{self.num_classes - 1}")
        if (self.labels[self.labeled.index] < 0).any():
            raise DataError("a labeled sample has no label")
        self._check_layers()
        object.__setattr__(self, "hash", self._digest())

    def _check_layers(self) -> None:
        labels = self.client_labels
        if labels.shape != self.labeled.index.shape:
            raise DataError(f"{len(self.labeled.index)} labeled samples, {len(labels)} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise DataError(f"given labels must be in 0..{self.num_classes - 1}")
        if len(self.names) not in (0, len(self)):
            raise DataError(f"{len(self)} clients, {len(self.names)} names")
        if len(self.test) != len(self) or self.groups.shape != (len(self),):
            raise DataError(
                f"{len(self)} clients, {len(self.test)} test shards, {self.groups.shape}"
            )
        held = [self.labeled.index, self.unlabeled.index]
        if len(self.server) and np.isin(self.server, np.concatenate(held)).any():
            raise DataError("a sample of the server is also held by a client")

    @cached_property
    def held(self) -> Ragged:
        """What each client has, labeled or not, ascending; a sample of both lists counts once."""
        samples = max(len(self.labels), 1)
        parts = [part.owners * samples + part.index for part in (self.labeled, self.unlabeled)]
        owners, index = np.divmod(union(*parts), samples)
        return Ragged(index, np.searchsorted(owners, np.arange(len(self) + 1)).astype(np.int64))

    def labels_of(self, client_id: int) -> Indices:
        """Return the labels of one client's labeled samples as it sees them, shape (nL,)."""
        offsets = self.labeled.offsets
        return self.client_labels[offsets[client_id] : offsets[client_id + 1]]

    def __len__(self) -> int:
        return len(self.labeled)

    @classmethod
    def plain(
        cls,
        labeled: Ragged,
        unlabeled: Ragged,
        labels: Indices,
        num_classes: int,
        settings: Mapping[str, Any],
    ) -> "Federation":
        """Make a federation with clean labels, nothing at the server, no test shards, one group."""
        clients, empty = len(labeled), np.zeros(0, dtype=np.int64)
        known = len(labeled.index) == 0 or labeled.index.max() < len(labels)
        return cls(
            labeled,
            unlabeled,
            labels,
            num_classes,
            settings,
            labels[labeled.index] if known else np.zeros_like(labeled.index),
            empty,
            Ragged(empty, np.zeros(clients + 1, dtype=np.int64)),
            np.zeros(clients, dtype=np.int64),
        )

    def save(self, path: str | Path) -> None:
        """Write the federation to a ``.npz`` file, whole or not at all.

        Parameters
        ----------
        path : str or Path
            The file; replaced if it exists.
        """
        settings = np.array(json.dumps(self.settings, sort_keys=True))
        texts = {"settings": settings, "hash": np.array(self.hash)}
        if self.names:
            texts["names"] = np.array(self.names)
        storage.write(Path(path), {**self._arrays(), **texts})

    @classmethod
    def load(cls, path: str | Path) -> "Federation":
        """Read a federation and check it against its hash.

        Parameters
        ----------
        path : str or Path
            A file that :meth:`save` wrote.

        Returns
        -------
        Federation
            The same arrays, settings and hash.

        Raises
        ------
        DataError
            If the file is missing, damaged or no federation.
        """
        arrays = storage.read(Path(path), (*_ARRAYS, "settings", "hash"), ("names",))
        try:
            federation = cls(
                labeled=Ragged(arrays["labeled_index"], arrays["labeled_offsets"]),
                unlabeled=Ragged(arrays["unlabeled_index"], arrays["unlabeled_offsets"]),
                labels=arrays["labels"],
                num_classes=int(arrays["num_classes"]),
                settings=json.loads(str(arrays["settings"])),
                client_labels=arrays["given"],
                server=arrays["server"],
                test=Ragged(arrays["test_index"], arrays["test_offsets"]),
                groups=arrays["groups"],
                names=tuple(map(str, arrays["names"])) if "names" in arrays else (),
            )
        except (DataError, ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); make the federation again") from error
        if federation.hash != str(arrays["hash"]):
            raise DataError(
                f"{path} is damaged: its content has the hash {federation.hash[:12]}, it says "
                f"{str(arrays['hash'])[:12]}; make the federation again"
            )
        return federation

    def summary(self) -> Summary:
        """Describe sizes, label skew and labels; see :func:`fedlabels.federation.summary`."""
        return summarize(self.labeled, self.unlabeled, self.labels, self.num_classes)

    def _arrays(self) -> dict[str, Indices]:
        values = (
            self.labeled.index,
            self.labeled.offsets,
            self.unlabeled.index,
            self.unlabeled.offsets,
            self.labels,
            np.array(self.num_classes, dtype=np.int64),
            self.client_labels,
            self.server,
            self.test.index,
            self.test.offsets,
            self.groups,
        )
        return dict(zip(_ARRAYS, values, strict=True))

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            # Little-endian bytes, so that the hash is the same on every machine.
            digest.update(f"{name}{array.shape};".encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()


_ARRAYS = (
    "labeled_index",
    "labeled_offsets",
    "unlabeled_index",
    "unlabeled_offsets",
    "labels",
    "num_classes",
    "given",
    "server",
    "test_index",
    "test_offsets",
    "groups",
)
