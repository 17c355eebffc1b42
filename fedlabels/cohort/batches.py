"""Which rows make which batch, and the batches themselves.

The plan of a round is drawn at once, per client, from the counter hash; samples are gathered and
augmented for several steps together, because a view costs far less per row on a large batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlabels.cohort.clock import phase
from fedlabels.cohort.data import Samples, Source
from fedlabels.cohort.device import CPU, upload
from fedlabels.cohort.draws import Draws
from fedlabels.cohort.plans import Plan
from fedlabels.cohort.tree import expand_like
from fedlabels.cohort.types import EMPTY

ROWS_PER_GATHER = 4096
_VIEW_TAGS = {"plain": 0, "weak": 7_001, "strong": 7_002}


@dataclass(frozen=True)
class Batch:
    """Rows of one client in one step.

    Parameters
    ----------
    x : Tensor, shape (batch, ...)
        Samples in the first of the views that were asked for.
    y : Tensor of int64, shape (batch,)
        Labels, -1 where unlabeled.
    index : Tensor of int64, shape (batch,)
        Positions in the data set.
    n : Tensor of int64, shape ()
        Real rows.
    draws : Draws
        Random numbers of this step.
    rows : Tensor of bool or None, shape (batch,)
        Real rows; None when all are.
    views : mapping of str to Tensor, shape (batch, ...)
        Samples by view.
    columns : mapping of str to Tensor, shape (batch, ...)
        Columns attached by ``subset`` or ``made``.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    n: Tensor
    draws: Draws
    rows: Tensor | None = None
    views: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)
    columns: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)

    @property
    def weak(self) -> Tensor:
        """Samples in the weak view."""
        return self.views["weak"]

    @property
    def strong(self) -> Tensor:
        """Samples in the strong view."""
        return self.views["strong"]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over real rows, shape ``values.shape[1:]``."""
        if self.rows is not None:
            mask = expand_like(self.rows, values)
            values = torch.where(mask, values, torch.zeros_like(values))
        return values.sum(0)

    def mean(self, values: Tensor) -> Tensor:
        """Average over real rows; 0 when there is none."""
        if self.rows is None and values.shape[0]:
            return values.mean(0)
        return self.sum(values) / self.n.clamp_min(1)

    def fold(self, number: int) -> "Batch":
        """Return the batch with other random numbers, for a second pass with its own dropout."""
        return replace(self, draws=self.draws.fold(number))


@dataclass(frozen=True)
class Part:
    """One stream of batches: samples, plan and views."""

    samples: Samples
    plan: Plan
    views: tuple[str, ...]


Fields = dict[str, Any]


class Batches:
    """The batches of one scan.

    Parameters
    ----------
    parts : dict of str to Part
        One stream a name; a single stream is called ``""``.
    source : Source
        Where samples come from.
    draws : Draws, key of shape (K,), or () for a client alone
        Step numbers are folded into it.
    """

    def __init__(self, parts: Mapping[str, Part], source: Source, draws: Draws) -> None:
        self.parts, self.source, self._draws = parts, source, draws
        self.clients = len(next(iter(parts.values())).plan.rows)
        self.steps = max(part.plan.steps for part in parts.values())

    # ---- K clients, padded

    @cached_property
    def active(self) -> Tensor:
        """Whether a client has rows in a step, bool of shape (K, steps)."""
        counts = torch.stack([part.plan.padded[1] for part in self.parts.values()])
        return (counts > 0).any(0)

    @cached_property
    def _tags(self) -> dict[str, Draws]:
        key = self._draws.key.reshape(-1, 1)
        keys = Draws(key).fold(torch.arange(self.steps, device=key.device))
        return {name: keys.fold(i) for i, name in enumerate(self.parts)}  # key (K, steps)

    def __iter__(self) -> Iterator[dict[str, Fields]]:
        """Yield, for every step, the fields of each stream with a leading axis K."""
        widest = max(part.plan.padded[0].shape[2] for part in self.parts.values())
        chunk = max(1, ROWS_PER_GATHER // max(1, self.clients * widest))
        for start in range(0, self.steps, chunk):
            stop = min(start + chunk, self.steps)
            gathered = {name: self._gather(name, start, stop) for name in self.parts}
            for t in range(stop - start):
                yield {name: _step(fields, t) for name, fields in gathered.items()}

    def _gather(self, name: str, start: int, stop: int) -> Fields:
        part = self.parts[name]
        samples, (position, counts) = part.samples, part.plan.padded
        device = samples.index.device
        position, counts = position[:, start:stop], upload(counts[:, start:stop], device)
        clients, steps, size = position.shape
        flat = upload(position.reshape(clients, -1), device)

        def take(value: Tensor) -> Tensor:
            wide = flat.reshape(flat.shape + (1,) * (value.dim() - 2))
            rows = value.gather(1, wide.expand(flat.shape + value.shape[2:]))
            return rows.reshape((clients, steps, size, *value.shape[2:]))

        columns = {k: take(v) for k, v in samples.columns.items()}
        index = take(samples.index)
        keys = Draws(self._tags[name].key[:, start:stop])
        given = columns.pop("x", None)
        views = {view: self._see(index, view, keys, given) for view in part.views}
        return {
            "views": views,
            "y": take(samples.y),
            "index": index,
            "n": counts,
            "key": keys.key,
            "columns": columns,
        }

    def _see(self, index: Tensor, view: str, keys: Draws, given: Tensor | None) -> Tensor:
        if given is not None:
            _check_plain(view)
            return given
        like, columns = self.source.blank(), self.source.columns(view)
        u = like.new_empty((*index.shape, 0))
        if columns:
            with phase("views"):
                u = keys.fold(_VIEW_TAGS.get(view, 0)).uniform(
                    index.shape[2], columns, dtype=like.dtype
                )
        rows = self.source.rows(index.flatten(), view, u.flatten(0, 2))
        return rows.reshape(index.shape + like.shape)

    # ---- one client, unpadded

    def alone(self, *, tensors: bool = False) -> Iterator[Any]:
        """Yield the batch, or the batches by stream, of each step of the only client.

        Parameters
        ----------
        tensors : bool
            The keys of the steps' draws are tensors, as they always are on a GPU; numbers are
            faster on a CPU.
        """
        streams = {
            name: _Stream(part, self.source, self._draws, tag, tensors).batches(self.steps)
            for tag, (name, part) in enumerate(self.parts.items())
        }
        if "" in streams:
            yield from streams[""]
            return
        for batches in zip(*streams.values(), strict=True):
            if any(batch.index.shape[0] for batch in batches):
                yield dict(zip(streams, batches, strict=True))

    def blank(self) -> Any:
        """Return the batch of one row of zeros of the only client: it only shows shapes."""
        return join({name: built(_alone(fields), None) for name, fields in self.dummy().items()})

    def dummy(self) -> dict[str, Fields]:
        """Return the fields of one row of zeros for every client: it only shows shapes."""
        clients = self.clients
        out = {}
        for name, part in self.parts.items():
            columns = {
                k: v.new_zeros((clients, 1, *v.shape[2:])) for k, v in part.samples.columns.items()
            }
            x = columns.pop("x", None)
            if x is None:
                blank = self.source.blank()
                x = blank.expand((clients, 1, *blank.shape))
            zero = torch.zeros(clients, 1, dtype=torch.int64, device=x.device)
            out[name] = {
                "views": dict.fromkeys(part.views, x),
                "y": zero,
                "index": zero,
                "n": zero[:, 0] + 1,
                "key": zero[:, 0],
                "columns": columns,
            }
        return out


def _step(fields: Fields, t: int) -> Fields:
    """Take one step of gathered fields."""
    nested = ("views", "columns")
    out = {k: v[:, t] for k, v in fields.items() if k not in nested}
    out.update({k: {a: b[:, t] for a, b in fields[k].items()} for k in nested})
    return out


def built(fields: Fields, rows: Tensor | None) -> Batch:
    """Build one client's batch; ``rows`` tells the real ones."""
    views = fields["views"]
    first = next(iter(views.values()))
    return Batch(
        x=first,
        y=fields["y"],
        index=fields["index"],
        n=fields["n"],
        draws=Draws(fields["key"]),
        rows=rows,
        views=views,
        columns=fields["columns"],
    )


def _alone(fields: Fields) -> Fields:
    """Take the only client's fields."""
    return {k: _alone(v) if isinstance(v, dict) else v[0] for k, v in fields.items()}


class _Stream:
    """One part of one client: rows are gathered step by step, so that they stay in the cache."""

    def __init__(
        self, part: Part, source: Source, draws: Draws, tag: int, tensors: bool = False
    ) -> None:
        self._part, self._source, self._draws, self._tag = part, source, draws, tag
        self._rows = part.plan.rows[0]
        self._counts = [len(rows) for rows in self._rows]
        device = part.samples.index.device
        self._tensors = tensors or device.type != "cpu"
        sizes = sorted({0, *self._counts})
        self._n = dict(zip(sizes, _uploaded(sizes, device).unbind(), strict=True))
        order = np.concatenate(self._rows) if self._rows else np.zeros(0, dtype=np.int64)
        self._order = upload(torch.from_numpy(order), device)

    def batches(self, steps: int) -> Iterator[Batch]:
        """Yield one batch a step, with no row where the plan is over."""
        missing = steps - len(self._rows)
        counts = self._counts + [0] * missing
        samples, order = self._part.samples, self._order
        index = samples.index[0].index_select(0, order)
        pieces = zip(
            counts,
            index.split_with_sizes(counts),
            samples.y[0].index_select(0, order).split_with_sizes(counts),
            self._columns(counts),
            self._views(index, counts),
            self._step_keys(steps),
            strict=True,
        )
        for count, rows, y, columns, views, keys in pieces:
            x = next(iter(views.values()))
            yield Batch(x, y, rows, self._n[count], keys, None, views, columns)

    def _step_keys(self, steps: int) -> Iterator[Draws]:
        keys = map(self._keys, range(steps))
        if not self._tensors:
            return keys
        return map(Draws, _uploaded([key.number for key in keys], self._order.device).unbind())

    def _keys(self, t: int) -> Draws:
        return self._draws.fold(t).fold(self._tag)

    def _columns(self, counts: list[int]) -> Iterator[Mapping[str, Tensor]]:
        given = {k: v[0] for k, v in self._part.samples.columns.items() if k != "x"}
        if not given:
            return repeat(EMPTY, len(counts))
        cut = {k: v.index_select(0, self._order).split_with_sizes(counts) for k, v in given.items()}
        return ({k: v[t] for k, v in cut.items()} for t in range(len(counts)))

    def _views(self, index: Tensor, counts: list[int]) -> Iterator[dict[str, Tensor]]:
        given = self._part.samples.columns.get("x")
        cut = {view: self._seen(view, index, counts, given) for view in self._part.views}
        for _ in counts:
            yield {view: next(pieces) for view, pieces in cut.items()}

    def _seen(
        self, view: str, index: Tensor, counts: list[int], given: Tensor | None
    ) -> Iterator[Tensor]:
        if given is not None:
            _check_plain(view)
            return iter(given[0].index_select(0, self._order).split_with_sizes(counts))
        if not self._source.columns(view):
            cut = index.split_with_sizes(counts)
            return (self._source.rows(rows, view, _NOTHING) for rows in cut)
        return self._augmented(view, index, counts)

    def _augmented(self, view: str, index: Tensor, counts: list[int]) -> Iterator[Tensor]:
        """See rows through a view, many steps at once: a view costs less a row on many rows."""
        kind = self._source.blank().dtype
        columns, tag = self._source.columns(view), _VIEW_TAGS.get(view, 0)
        start, first = 0, 0
        for stop in _chunks(counts):
            width = counts[first:stop]
            with phase("views"):
                keys = [self._keys(t).fold(tag) for t in range(first, stop)]
                key = _uploaded([key.number for key in keys], index.device)
                u = Draws(key).uniform(max(width), columns, dtype=kind)
                if min(width) < max(width):
                    u = torch.cat([one[:count] for one, count in zip(u, width, strict=True)])
            rows = index[start : start + sum(width)]
            seen = self._source.rows(rows, view, u.reshape(len(rows), columns))
            yield from seen.split_with_sizes(width)
            start, first = start + sum(width), stop


_NOTHING = torch.empty(0, 0)  # never read, so it may be on the CPU
"""The random numbers of a view that needs none."""


def _chunks(counts: list[int]) -> Iterator[int]:
    """Yield the ends of runs of steps that have about ROWS_PER_GATHER rows together."""
    total = 0
    for t, count in enumerate(counts):
        if total and total + count > ROWS_PER_GATHER:
            yield t
            total = 0
        total += count
    if counts:
        yield len(counts)


def _uploaded(values: list[int], device: torch.device) -> Tensor:
    return upload(torch.tensor(values, dtype=torch.int64, device=CPU), device)


def _check_plain(view: str) -> None:
    if view != "plain":
        raise ValueError(f"samples with their own x have only the plain view, got '{view}'")


def padded(fields: Fields) -> Batch:
    """Build one client's batch of a stack, inside vmap."""
    rows = torch.arange(fields["y"].shape[0], device=fields["y"].device) < fields["n"]
    return built(fields, rows)


def join(batches: Mapping[str, Batch]) -> Any:
    """Return the batch itself for a single stream, else the dict of batches."""
    return batches[""] if "" in batches else dict(batches)
