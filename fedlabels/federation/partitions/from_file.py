"""A partition that is there already: a paper's, another tool's, another run's."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedlabels.errors import ConfigError, DataError
from fedlabels.federation.federation import Federation
from fedlabels.federation.index_files import Lists, read_content
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import register
from fedlabels.federation.samples import Samples

_KEY = "partition.file"


@register(PARTITIONS, "from_file")
@dataclass(frozen=True, kw_only=True)
class FromFile(Partition):
    """Give each client the samples that a file names.

    Parameters
    ----------
    file : str
        A file, or a folder, with the indices of each client's training samples;
        docs/heterogeneity.md has the formats.
    shared : bool
        Whether several clients may hold a sample.
    min_size : int
        A client with fewer samples is refused, >= 0.

    Notes
    -----
    Indices count in the training set as its reader gives it. ``clients`` must be the number of
    clients in the file. Nothing is drawn, and no sample is moved.
    """

    file: str
    shared: bool = False
    min_size: int = 0

    as_it_lies: ClassVar[bool] = True

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`. Of several it is the last."""
        lists = self._lists(samples, clients).lists
        owners = np.full(len(samples), -1, dtype=np.int64)
        owners[lists.index] = lists.owners
        return owners

    def deal(self, samples: Samples, *, clients: int, seed: int) -> Ragged:
        """Return the lists of the file; see :class:`Partition`."""
        lists = self._lists(samples, clients).lists
        return Ragged(lists.index[np.lexsort((lists.index, lists.owners))], lists.offsets)

    def names_of(self, shards: Ragged, samples: Samples) -> tuple[str, ...]:
        """Return the names of the clients in the file; see :class:`Partition`."""
        return self._read(samples).names

    def _lists(self, samples: Samples, clients: int) -> Lists:
        """Read the lists and check them."""
        where, found = f"{_KEY}={self.file}", self._read(samples)
        if len(found.lists) != clients:
            raise ConfigError(
                f"clients={clients}, but {where} has {len(found.lists)} clients; set "
                f"clients={len(found.lists)}"
            )
        check_lists(found, len(samples), where, shared=self.shared)
        small = np.flatnonzero(found.lists.sizes < self.min_size)
        if len(small):
            raise ConfigError(
                f"client {found.shown(small[0])} of {where} has {found.lists.sizes[small[0]]} "
                f"samples, fewer than partition.min_size={self.min_size}; lower it, or leave the "
                "client out of the file"
            )
        return found

    def _read(self, samples: Samples) -> Lists:
        content = read_content(_KEY, self.file)
        if isinstance(content, Federation):
            check_same_data(content, samples.labels, f"{_KEY}={self.file}")
            return Lists(content.held, content.names)
        if isinstance(content, Lists):
            return content
        owners, shape = content, (len(samples),)
        if owners.shape != shape or owners.dtype.kind not in "iu" or (owners < -1).any():
            raise DataError(
                f"{_KEY}={self.file}: one array is the client of every sample, -1 for nobody: "
                f"whole numbers of shape {shape}; got {owners.dtype} of shape {owners.shape}"
            )
        return Lists(Ragged.from_owners(owners.astype(np.int64), int(owners.max(initial=-1)) + 1))


def check_same_data(federation: Federation, labels: Indices, where: str) -> None:
    """Check that a federation is of a training set with these labels.

    Raises
    ------
    DataError
        If not.
    """
    if not np.array_equal(federation.labels, labels):
        raise DataError(
            f"{where} is of another training set ({len(federation.labels)} samples, here "
            f"{len(labels)}), or of the same in another order; give the run's data set"
        )


def check_lists(found: Lists, samples: int, where: str, *, shared: bool) -> None:
    """Check the indices of lists.

    Parameters
    ----------
    found : Lists
        What a file says.
    samples : int
        Size of the training set.
    where : str
        Setting and file, for messages.
    shared : bool
        Whether a sample may be in lists of several clients.

    Raises
    ------
    DataError
        If an index is out of range, or a sample is held twice.
    """
    index, owners = found.lists.index, found.lists.owners
    beyond = np.flatnonzero(index >= samples)
    if len(beyond):
        raise DataError(
            f"{where}: client {found.shown(owners[beyond[0]])} names sample {index[beyond[0]]}, "
            f"but the training set has {samples}, 0 to {samples - 1}"
        )
    order = np.lexsort((owners, index))
    again = np.flatnonzero(np.diff(index[order]) == 0)
    for place in again:
        first, second = owners[order[place]], owners[order[place + 1]]
        sample = index[order[place]]
        if first == second:
            raise DataError(
                f"{where}: client {found.shown(first)} names sample {sample} twice; leave one"
            )
        if not shared:
            raise DataError(
                f"{where}: clients {found.shown(first)} and {found.shown(second)} both name sample "
                f"{sample}; leave one, or set partition.shared=true to let clients share samples"
            )
