"""Where a cohort's rows come from: the resident data, one client's shard, ragged samples."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedlabels.cohort.clock import phase
from fedlabels.cohort.device import CPU, upload
from fedlabels.cohort.types import EMPTY, Indices

View = Callable[[Tensor, Tensor], Tensor]


class Source(Protocol):
    """Data that a worker holds on its device."""

    def columns(self, view: str) -> int:
        """Return how many uniform numbers a view needs per sample."""
        ...

    def rows(self, index: Tensor, view: str, u: Tensor) -> Tensor:
        """Return normalized samples, shape (rows, ...), seen through a view.

        Parameters
        ----------
        index : Tensor of int64, shape (rows,)
            Positions in the data.
        view : str
            ``"plain"``, ``"weak"`` or ``"strong"``.
        u : Tensor, shape (rows, columns(view))
            Uniform numbers in [0, 1).
        """
        ...

    def blank(self) -> Tensor:
        """Return one sample of zeros, shape (...)."""
        ...


class ViewLike(Protocol):
    """A batched augmentation; see ``fedlabels.data.views``."""

    @property
    def columns(self) -> int:
        """Uniform numbers needed per sample."""
        ...

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Transform samples in [0, 1], shape (rows, ...)."""
        ...


class TensorSource:
    """Samples in memory.

    Parameters
    ----------
    x : Tensor, shape (samples, ...)
        Values in [0, 1] (images) or raw (floating-point data).
    mean, std : Tensor, broadcastable to one sample
        Normalization, applied after the view.
    views : mapping of str to view
        Augmentations by name; ``"plain"`` is always there.
    same : collection of str
        Further names under which samples are seen as they are.
    """

    def __init__(
        self,
        x: Tensor,
        mean: Tensor,
        std: Tensor,
        views: Mapping[str, ViewLike] = EMPTY,
        same: Collection[str] = (),
    ) -> None:
        self._views, self._same = dict(views), frozenset(same) | {"plain"}
        self._scale = 1 / std
        self._shift = -mean / std
        # Where nothing comes between sample and normalization it is done once, not each time.
        self._ready = not self._views
        self._x = torch.addcmul(self._shift, x, self._scale) if self._ready else x
        # Images lie channels last, as the nets read them: a gathered batch needs no other copy.
        self._rows = self._x.permute(0, 2, 3, 1).contiguous() if self._x.dim() == 4 else None
        if self._rows is not None:
            self._x = self._rows.permute(0, 3, 1, 2)

    def columns(self, view: str) -> int:
        """Return how many uniform numbers a view needs per sample."""
        return 0 if view in self._same else self._view(view).columns

    def _view(self, name: str) -> ViewLike:
        if name not in self._views:
            known = ", ".join([*sorted(self._same), *self._views])
            raise KeyError(f"unknown view '{name}'; this data set has: {known}")
        return self._views[name]

    def rows(self, index: Tensor, view: str, u: Tensor) -> Tensor:
        """Return normalized samples; see `Source.rows`."""
        if self._rows is None:
            x = self._x.index_select(0, index)
        else:
            x = self._rows.index_select(0, index).permute(0, 3, 1, 2)
        if view not in self._same:
            with phase("views"):
                x = self._view(view)(x, u)
        if self._ready:
            return x
        return torch.addcmul(self._shift, x, self._scale)

    def blank(self) -> Tensor:
        """Return one sample of zeros."""
        return self._x.new_zeros(self._x.shape[1:])


def _none() -> Indices:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Shard:
    """One client's data: positions in the source, and the labels that the client may see.

    Parameters
    ----------
    client_id : int
        Partition number.
    labeled, labels : integer arrays, shape (nL,)
        Positions of the labeled samples, and their classes.
    unlabeled : integer array, shape (nU,)
        Positions of the unlabeled samples. Their labels are not here, so no client can read them.
    test, test_labels : integer arrays, shape (nT,)
        The client's own test samples, of known class all of them.

    Raises
    ------
    ValueError
        If a test sample has no label: nobody is scored on it.
    """

    client_id: int
    labeled: Indices = field(default_factory=_none)
    labels: Indices = field(default_factory=_none)
    unlabeled: Indices = field(default_factory=_none)
    test: Indices = field(default_factory=_none)
    test_labels: Indices = field(default_factory=_none)

    def __post_init__(self) -> None:
        if (self.test_labels < 0).any():
            raise ValueError(f"client {self.client_id}: a test sample has no label")

    def part(self, name: str) -> tuple[Indices, Indices]:
        """Return positions and visible labels (-1 where unlabeled) of a part.

        Raises
        ------
        KeyError
            If the part is none of labeled, unlabeled, all, test.
        """
        hidden = np.full(len(self.unlabeled), -1, dtype=np.int64)
        if name == "labeled":
            return self.labeled, self.labels
        if name == "unlabeled":
            return self.unlabeled, hidden
        if name == "all":
            both = np.concatenate([self.labeled, self.unlabeled])
            return both, np.concatenate([self.labels, hidden])
        if name == "test":
            return self.test, self.test_labels
        raise KeyError(f"unknown part '{name}'; use labeled, unlabeled, all or test")


@dataclass(frozen=True)
class Samples:
    """Rows of K clients, ragged; a client sees only its own.

    Parameters
    ----------
    part : str
        Which part of the shard they come from.
    sizes : tuple of int, length K
        Rows of each client.
    index : Tensor of int64, shape (K, rows)
        Positions in the source, 0 where padded.
    y : Tensor of int64, shape (K, rows)
        Visible labels, -1 where unlabeled, 0 where padded.
    columns : dict of str to Tensor, shape (K, rows, ...)
        Further values per row. A column ``"x"`` replaces the source's samples.
    stacked : bool
        Whether per-client values carry the leading axis K.
    """

    part: str
    sizes: tuple[int, ...]
    index: Tensor
    y: Tensor
    stacked: bool
    columns: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)

    @property
    def count(self) -> Tensor:
        """Number of rows as a per-client value, int64."""
        count = _whole_numbers(self.sizes, self.index.device)
        return count if self.stacked else count[0]

    def class_counts(self, classes: int) -> Tensor:
        """Count the rows of every visible label, as a per-client value.

        Parameters
        ----------
        classes : int
            Number of classes.

        Returns
        -------
        Tensor of int64, shape (classes,)
            Unlabeled rows belong to none.
        """
        real = row_mask(self.sizes, self.y.shape[1], self.y) & (self.y >= 0)
        zero = torch.zeros(len(self.sizes), classes, dtype=torch.int64, device=self.y.device)
        counts = zero.scatter_add(1, self.y.clamp_min(0), real.to(torch.int64))
        return counts if self.stacked else counts[0]


def gather_samples(shards: list[Shard], part: str, stacked: bool, device: torch.device) -> Samples:
    """Collect one part of K shards, padded to the longest."""
    parts = [shard.part(part) for shard in shards]
    sizes = tuple(len(index) for index, _ in parts)
    index = np.zeros((len(parts), max(sizes)), dtype=np.int64)
    y = np.zeros_like(index)
    for k, (rows, labels) in enumerate(parts):
        index[k, : sizes[k]], y[k, : sizes[k]] = rows, labels
    there = [upload(torch.from_numpy(values), device) for values in (index, y)]
    return Samples(part, sizes, there[0], there[1], stacked)


def _whole_numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    return upload(torch.tensor(values, dtype=torch.int64, device=CPU), device)


def keep_rows(samples: Samples, keep: Tensor, columns: Mapping[str, Tensor]) -> Samples:
    """Keep the rows where ``keep`` is true and attach columns; see ``Cohort.subset``."""
    lead = keep.shape[0] if samples.stacked else 1
    mask = keep.reshape(lead, -1).bool() & row_mask(samples.sizes, samples.index.shape[1], keep)
    sizes = tuple(mask.sum(1).tolist())
    order = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, : max(sizes, default=0)]

    def take(value: Tensor) -> Tensor:
        wide = order.reshape(order.shape + (1,) * (value.dim() - 2))
        return value.gather(1, wide.expand(order.shape + value.shape[2:]))

    given = {k: v if samples.stacked else v.unsqueeze(0) for k, v in columns.items()}
    taken = {k: take(v) for k, v in {**samples.columns, **given}.items()}
    y = taken.pop("y", None)
    return Samples(
        samples.part,
        sizes,
        take(samples.index),
        take(samples.y) if y is None else y.to(torch.int64),
        samples.stacked,
        taken,
    )


def row_mask(sizes: tuple[int, ...], width: int, like: Tensor) -> Tensor:
    """Return a bool mask of real rows, shape (K, width)."""
    count = _whole_numbers(sizes, like.device)[:, None]
    return torch.arange(width, device=like.device)[None] < count
