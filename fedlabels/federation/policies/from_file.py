"""Labels that are given already: which samples keep theirs stands in a file."""

from dataclasses import dataclass

import numpy as np

from fedlabels.errors import ConfigError, DataError
from fedlabels.federation.federation import Federation
from fedlabels.federation.index_files import Content, Lists, read_content
from fedlabels.federation.labels import POLICIES, LabelPolicy, Mask, Shuffled
from fedlabels.federation.partitions.from_file import check_lists, check_same_data
from fedlabels.federation.ragged import Indices, Ragged
from fedlabels.federation.registry import register
from fedlabels.federation.samples import Samples

_KEY = "labels.file"


@register(POLICIES, "from_file")
@dataclass(frozen=True, kw_only=True)
class FromFile(LabelPolicy):
    """Label the samples that a file names.

    Parameters
    ----------
    file : str
        A file, or a folder, with the indices of the labeled training samples: by client, as one
        list, or as one true or false a sample; docs/heterogeneity.md has the formats.

    Notes
    -----
    Of another run's federation the unlabeled samples are those of its clients, too.
    """

    file: str

    def labeled(self, shuffled: Shuffled, random: np.random.Generator) -> Mask:
        """Mark the labeled entries; see :class:`LabelPolicy`."""
        content = self._read(shuffled.samples)
        if isinstance(content, Federation):
            return self._of_clients(shuffled, Lists(content.labeled, content.names))
        if isinstance(content, Lists):
            return self._of_clients(shuffled, content)
        count = len(shuffled.samples)
        if content.dtype.kind == "b":
            if content.shape != (count,):
                raise DataError(
                    f"{self._where}: true or false for every sample takes shape ({count},), got "
                    f"{content.shape}"
                )
            marks: Mask = content[shuffled.shards.index]
            return marks
        lists = Ragged.from_lists([content.astype(np.int64)])
        check_lists(Lists(lists), count, self._where, shared=False)
        self._check_known(lists.index, shuffled)
        nobody = np.setdiff1d(lists.index, shuffled.shards.index)
        if len(nobody):
            raise DataError(
                f"{self._where} names {len(nobody)} samples that no client holds, the first is "
                f"{nobody[0]}; leave them out, or deal them"
            )
        marks = np.isin(shuffled.shards.index, lists.index)
        return marks

    def _pool(self, shuffled: Shuffled, labeled: Mask) -> Mask:
        """See :class:`LabelPolicy`; a run's federation says itself what is unlabeled."""
        content = self._read(shuffled.samples)
        if not isinstance(content, Federation):
            return super()._pool(shuffled, labeled)
        if self.unlabeled_fraction is not None:
            raise ConfigError(
                f"labels.unlabeled_fraction has no effect: {self._where} is a run's, and says "
                "which samples are unlabeled; leave it"
            )
        count = len(shuffled.samples)
        marks: Mask = np.isin(_cells(shuffled.shards, count), _cells(content.unlabeled, count))
        return marks

    @property
    def _where(self) -> str:
        return f"{_KEY}={self.file}"

    def _read(self, samples: Samples) -> Content:
        content = read_content(_KEY, self.file)
        if isinstance(content, Federation):
            check_same_data(content, samples.labels, self._where)
        elif not isinstance(content, Lists):
            whole = content.shape == (len(samples),) and content.dtype.kind in "iu"
            if whole and len(samples) > 1 and np.isin(content, (0, 1)).all():
                return content.astype(bool)  # an index stands in a list once, so it is no list
            if content.ndim != 1 or (content.size and content.dtype.kind not in "iub"):
                raise DataError(
                    f"{self._where} is to hold indices of the labeled samples, or true or false "
                    f"for every sample, got {content.dtype} of shape {content.shape}"
                )
        return content

    def _of_clients(self, shuffled: Shuffled, found: Lists) -> Mask:
        """Mark the entries that the file names for the clients that hold them."""
        shards, count = shuffled.shards, len(shuffled.samples)
        if len(found.lists) != len(shards):
            raise ConfigError(
                f"clients={len(shards)}, but {self._where} has {len(found.lists)} clients; both "
                "are to be of the same federation"
            )
        check_lists(found, count, self._where, shared=True)
        self._check_known(found.lists.index, shuffled)
        held, wanted = _cells(shards, count), _cells(found.lists, count)
        foreign = np.flatnonzero(~np.isin(wanted, held))
        if len(foreign):
            client, index = divmod(int(wanted[foreign[0]]), count)
            raise DataError(
                f"{self._where}: client {client} has a label of sample {index}, which it does not "
                "hold; give the partition that the labels belong to"
            )
        marks: Mask = np.isin(held, wanted)
        return marks

    def _check_known(self, index: Indices, shuffled: Shuffled) -> None:
        hidden = index[shuffled.samples.visible[index] < 0]
        if len(hidden):
            raise DataError(
                f"{self._where}: sample {hidden[0]} is to be labeled, but the data set has no "
                "label for it"
            )


def _cells(shards: Ragged, samples: int) -> Indices:
    """Return one number for every client and sample."""
    return shards.owners * samples + shards.index
