"""A federation: who holds which samples with which labels, from one seed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels.errors import ConfigError, DataError
from fedlabels.federation import storage
from fedlabels.federation.labels import POLICIES, LabelMasks, LabelPolicy
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import check_count, name_of
from fedlabels.federation.summary import Summary, summarize
from fedlabels.seeds import generator


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
    settings : mapping
        How it was made; does not enter the hash.
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
        object.__setattr__(self, "hash", self._digest())

    def __len__(self) -> int:
        return len(self.labeled)

    def save(self, path: str | Path) -> None:
        """Write the federation to a ``.npz`` file, whole or not at all.

        Parameters
        ----------
        path : str or Path
            The file; replaced if it exists.
        """
        settings = np.array(json.dumps(self.settings, sort_keys=True))
        texts = {"settings": settings, "hash": np.array(self.hash)}
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
        arrays = storage.read(Path(path), (*_ARRAYS, "settings", "hash"))
        try:
            federation = cls(
                labeled=Ragged(arrays["labeled_index"], arrays["labeled_offsets"]),
                unlabeled=Ragged(arrays["unlabeled_index"], arrays["unlabeled_offsets"]),
                labels=arrays["labels"],
                num_classes=int(arrays["num_classes"]),
                settings=json.loads(str(arrays["settings"])),
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
        return dict(
            zip(
                _ARRAYS,
                (
                    self.labeled.index,
                    self.labeled.offsets,
                    self.unlabeled.index,
                    self.unlabeled.offsets,
                    self.labels,
                    np.array(self.num_classes, dtype=np.int64),
                ),
                strict=True,
            )
        )

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
)


def build(
    labels: Indices,
    num_classes: int,
    *,
    clients: int,
    partition: Partition,
    policy: LabelPolicy,
    seed: int,
    reuse: bool = False,
    samples_per_client: int | None = None,
) -> Federation:
    """Deal a training set to clients and choose the labeled samples.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Classes of the training set; samples with -1 are unlabeled wherever they land.
    num_classes : int
        Number of classes.
    clients : int
        Number of clients, >= 1.
    partition, policy : Partition, LabelPolicy
        Who gets which sample, and which of them are labeled.
    seed : int
        The run's seed, >= 0.
    reuse : bool
        Make artificial users: the clients draw ``samples_per_client`` samples each out of a pool in
        which the training set is repeated as often as needed, so that a sample has many owners.
        Counted over all clients, no sample is used twice before all others are used once.
    samples_per_client : int or None
        Mean size of a shard under ``reuse``, >= 1; None is ``max(min_size, N // clients)``.

    Returns
    -------
    Federation
        The same for the same arguments, on every machine.

    Raises
    ------
    ConfigError
        If there are more clients than samples without ``reuse``, or a setting is not allowed.
    """
    _check_request(labels, num_classes, clients, seed, reuse, samples_per_client)
    pool = np.arange(len(labels))
    if reuse:
        size = samples_per_client or max(partition.min_size, len(labels) // clients, 1)
        pool = _pool(len(labels), clients * size, seed)
    dealt = partition.deal(labels[pool], clients=clients, num_classes=num_classes, seed=seed)
    shards = Ragged(pool[dealt.index], dealt.offsets)
    labeled, unlabeled = _label(shards, labels, num_classes, policy, seed)
    settings = {
        "samples": len(labels),
        "clients": clients,
        "seed": seed,
        "reuse": reuse,
        "samples_per_client": samples_per_client,
        "partition": {"name": name_of(PARTITIONS, partition), **asdict(partition)},
        "labels": {"name": name_of(POLICIES, policy), **asdict(policy)},
    }
    return Federation(labeled, unlabeled, labels, num_classes, settings)


def _check_request(
    labels: Indices,
    num_classes: int,
    clients: int,
    seed: int,
    reuse: bool,
    samples_per_client: int | None,
) -> None:
    check_count("clients", clients, low=1)
    check_count("num_classes", num_classes, low=2)
    check_count("seed", seed)
    if samples_per_client is not None:
        check_count("samples_per_client", samples_per_client, low=1)
        if not reuse:
            raise ConfigError(
                "samples_per_client is for artificial users; set partition.reuse=true or leave it"
            )
    if not len(labels):
        raise ConfigError("the training set is empty; there is nothing to deal")
    if clients > len(labels) and not reuse:
        raise ConfigError(
            f"{clients} clients but only {len(labels)} samples; lower clients, or set "
            "partition.reuse=true to let clients share samples"
        )


def _pool(samples: int, total: int, seed: int) -> Indices:
    """Repeat the training set, shuffled anew each time, up to a total."""
    random = generator(seed, "reuse")
    rounds = [random.permutation(samples) for _ in range(-(-total // samples))]
    return np.concatenate(rounds)[:total]


def _label(
    shards: Ragged, labels: Indices, num_classes: int, policy: LabelPolicy, seed: int
) -> tuple[Ragged, Ragged]:
    known = labels[shards.index] >= 0
    visible = shards.keep(known)
    random = generator(seed, "labels")
    masks = policy.masks(visible, labels, num_classes=num_classes, random=random)
    labeled, unlabeled = np.zeros(len(known), dtype=bool), ~known
    labeled[known] = masks.labeled
    unlabeled[known] = masks.unlabeled
    _drop_copies(shards, labels, LabelMasks(labeled, unlabeled))
    return _ascending(shards.keep(labeled)), _ascending(shards.keep(unlabeled))


def _drop_copies(shards: Ragged, labels: Indices, masks: LabelMasks) -> None:
    """Under reuse a client may hold a sample twice: take the copies of labeled ones out."""
    key = shards.owners * len(labels) + shards.index
    alone = masks.unlabeled & ~masks.labeled
    copies = np.isin(key[alone], key[masks.labeled])
    masks.unlabeled[np.flatnonzero(alone)[copies]] = False


def _ascending(shards: Ragged) -> Ragged:
    bound = int(shards.index.max(initial=0)) + 1
    return Ragged(np.sort(shards.owners * bound + shards.index) % bound, shards.offsets)
