"""Which rows make which batch, and the batches themselves.

The plan of a round is drawn at once, per client, from the counter hash; samples are gathered and
augmented for several steps together, because a view costs far less per row on a large batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.data import Samples, Source
from fedlabels.cohort.draws import Draws
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
        return self.sum(values) / self.n.clamp_min(1)

    def fold(self, number: int) -> "Batch":
        """Return the batch with other random numbers, for a second pass with its own dropout."""
        return replace(self, draws=self.draws.fold(number))


@dataclass(frozen=True)
class Plan:
    """Rows of every step for K clients.

    Parameters
    ----------
    position : Tensor of int64, shape (K, steps, size)
        Rows of the samples, 0 where padded.
    counts : Tensor of int64, shape (K, steps)
        Real rows of each batch.
    """

    position: Tensor
    counts: Tensor


def plan_steps(draws: Draws, n: int, size: int, steps: int) -> list[Tensor]:
    """Plan ``steps`` batches of min(size, n) rows, each without replacement by a fresh shuffle."""
    if n == 0:
        return []
    keys = draws.fold(torch.arange(steps))
    return list(keys.permutation(n)[:, : min(size, n)])


def plan_epochs(draws: Draws, n: int, size: int, epochs: int) -> list[Tensor]:
    """Plan whole epochs: a shuffle each, cut into batches; the last one may be smaller."""
    if n == 0:
        return []
    orders = draws.fold(torch.arange(epochs)).permutation(n)
    return [order[rows] for order in orders for rows in split_rows(n, size)]


def plan_cycle(draws: Draws, n: int, size: int, steps: int) -> list[Tensor]:
    """Plan ``steps`` batches by going through fresh epochs as often as needed."""
    if n == 0:
        return []
    epochs = -(-steps // -(-n // size))
    return plan_epochs(draws, n, size, epochs)[:steps]


def split_rows(n: int, size: int) -> list[Tensor]:
    """Cut rows 0 .. n - 1, in order, into batches of at most ``size``."""
    return [torch.arange(start, min(start + size, n)) for start in range(0, n, size)]


def pad_plan(plans: list[list[Tensor]], steps: int | None = None) -> Plan:
    """Join the plans of K clients into one padded plan."""
    steps = max(map(len, plans), default=0) if steps is None else steps
    width = max((len(b) for plan in plans for b in plan), default=0)
    position = torch.zeros(len(plans), steps, width, dtype=torch.int64)
    counts = torch.zeros(len(plans), steps, dtype=torch.int64)
    for k, plan in enumerate(plans):
        lengths = [len(b) for b in plan]
        if plan and min(lengths) == max(lengths):
            position[k, : len(plan), : lengths[0]] = torch.stack(plan)
        else:
            for t, batch in enumerate(plan):
                position[k, t, : len(batch)] = batch
        counts[k, : len(plan)] = torch.tensor(lengths, dtype=torch.int64)
    return Plan(position, counts)


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
    draws : Draws, key of shape (K,)
        Step numbers are folded into it.
    """

    def __init__(self, parts: Mapping[str, Part], source: Source, draws: Draws) -> None:
        self.parts, self.source = parts, source
        counts = torch.stack([part.plan.counts for part in parts.values()])
        self.steps = counts.shape[2]
        self.active = (counts > 0).any(0).cpu()  # (K, steps)
        self._keys = Draws(draws.key[:, None]).fold(torch.arange(self.steps))  # key (K, steps)
        self._tags = {name: Draws(self._keys.key).fold(i) for i, name in enumerate(parts)}

    def __iter__(self) -> Iterator[dict[str, Fields]]:
        """Yield, for every step, the fields of each stream with a leading axis K."""
        widest = max(part.plan.position.shape[2] for part in self.parts.values())
        clients = self.active.shape[0]
        chunk = max(1, ROWS_PER_GATHER // max(1, clients * widest))
        for start in range(0, self.steps, chunk):
            stop = min(start + chunk, self.steps)
            gathered = {name: self._gather(name, start, stop) for name in self.parts}
            for t in range(stop - start):
                yield {name: _step(fields, t) for name, fields in gathered.items()}

    def _gather(self, name: str, start: int, stop: int) -> Fields:
        part = self.parts[name]
        samples, position = part.samples, part.plan.position[:, start:stop]
        clients, steps, size = position.shape
        flat = position.reshape(clients, -1).to(samples.index.device)

        def take(value: Tensor) -> Tensor:
            wide = flat.reshape(flat.shape + (1,) * (value.dim() - 2))
            rows = value.gather(1, wide.expand(flat.shape + value.shape[2:]))
            return rows.reshape((clients, steps, size, *value.shape[2:]))

        columns = {k: take(v) for k, v in samples.columns.items()}
        index = take(samples.index)
        keys = Draws(self._tags[name].key[:, start:stop].to(index.device))
        given = columns.pop("x", None)
        views = {view: self._see(index, view, keys, given) for view in part.views}
        return {
            "views": views,
            "y": take(samples.y),
            "index": index,
            "n": part.plan.counts[:, start:stop].to(index.device),
            "key": keys.key,
            "columns": columns,
        }

    def _see(self, index: Tensor, view: str, keys: Draws, given: Tensor | None) -> Tensor:
        if given is not None:
            if view != "plain":
                raise ValueError(f"samples with their own x have only the plain view, got '{view}'")
            return given
        like, columns = self.source.blank(), self.source.columns(view)
        u = like.new_empty((*index.shape, 0))
        if columns:
            u = keys.fold(_VIEW_TAGS.get(view, 0)).uniform(
                index.shape[2], columns, dtype=like.dtype
            )
        rows = self.source.rows(index.flatten(), view, u.flatten(0, 2))
        return rows.reshape(index.shape + like.shape)

    def dummy(self) -> dict[str, Fields]:
        """Return the fields of one row of zeros for every client: it only shows shapes."""
        clients = self.active.shape[0]
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


def _build(fields: Fields, rows: Tensor | None) -> Batch:
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


def unpadded(fields: Fields) -> Batch:
    """Build the batch of the only client, without padding."""
    count = int(fields["n"][0])
    nested = ("views", "columns")
    own = {k: fields[k][0][:count] for k in ("y", "index")}
    inner = {k: {a: b[0][:count] for a, b in fields[k].items()} for k in nested}
    return _build({**own, **inner, "n": fields["n"][0], "key": fields["key"][0]}, None)


def padded(fields: Fields) -> Batch:
    """Build one client's batch of a stack, inside vmap."""
    rows = torch.arange(fields["y"].shape[0], device=fields["y"].device) < fields["n"]
    return _build(fields, rows)


def join(batches: Mapping[str, Batch]) -> Any:
    """Return the batch itself for a single stream, else the dict of batches."""
    return batches[""] if "" in batches else dict(batches)
