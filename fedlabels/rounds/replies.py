"""Replies of a cohort, with what was reduced on the way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np

from fedlabels.errors import WireError
from fedlabels.rounds.job import Arrays, ClientRow, EachTerm, JobResult, SumTerm

if TYPE_CHECKING:
    from flwr.app import Message


class Replies(Sequence["Message"]):
    """Replies in message order, with what was reduced on the way.

    Parameters
    ----------
    messages : iterable of flwr.app.Message, or callable that returns one
        The replies. Those of summed terms carry metrics only. A callable is asked when somebody
        looks at a message: strategies that need sums never do.
    results : sequence of JobResult
        Results of the jobs behind them.
    """

    def __init__(
        self,
        messages: Iterable["Message"] | Callable[[], Iterable["Message"]] = (),
        results: Sequence[JobResult] = (),
    ) -> None:
        self._source = messages
        self.rows: list[ClientRow] = sorted(
            (row for result in results for row in result.rows), key=lambda row: row.client_id
        )
        self.sums: dict[str, SumTerm] = _merged_sums(results)
        self.each: dict[str, EachTerm] = _merged_each([result.each for result in results])
        self.kept: dict[str, EachTerm] = _merged_each([result.kept for result in results])

    @cached_property
    def _messages(self) -> list["Message"]:
        return list(self._source() if callable(self._source) else self._source)

    @overload
    def __getitem__(self, place: int) -> "Message": ...
    @overload
    def __getitem__(self, place: slice) -> "list[Message]": ...
    def __getitem__(self, place: int | slice) -> "Message | list[Message]":
        return self._messages[place]

    def __len__(self) -> int:
        return len(self._messages)


def _merged_sums(results: Sequence[JobResult]) -> dict[str, SumTerm]:
    merged: dict[str, SumTerm] = {}
    for result in results:
        for name, term in result.sums.items():
            merged[name] = _added(name, merged[name], term) if name in merged else term
    return merged


def _added(name: str, a: SumTerm, b: SumTerm) -> SumTerm:
    if set(a.total) != set(b.total) or a.reduce != b.reduce:
        raise WireError(f"term {name!r} has another form in another group of clients")
    total = {key: value + b.total[key] for key, value in a.total.items()}
    weight: float | Arrays
    if isinstance(a.weight, Mapping) or isinstance(b.weight, Mapping):
        wa, wb = _spread(a), _spread(b)
        weight = {key: wa[key] + wb[key] for key in total}
    else:
        weight = a.weight + b.weight
    return SumTerm(total, weight, a.reduce, a.count + b.count)


def _spread(term: SumTerm) -> Arrays:
    if isinstance(term.weight, Mapping):
        return term.weight
    return {name: np.full((), term.weight) for name in term.total}


def _merged_each(results: Sequence[Mapping[str, EachTerm]]) -> dict[str, EachTerm]:
    parts: dict[str, list[EachTerm]] = {}
    for result in results:
        for name, term in result.items():
            parts.setdefault(name, []).append(term)
    return {name: _joined(terms) for name, terms in parts.items()}


def _joined(terms: Sequence[EachTerm]) -> EachTerm:
    if len(terms) == 1:
        return terms[0]
    values: Arrays = {
        name: np.concatenate([term.values[name] for term in terms]) for name in terms[0].values
    }
    ids = [client_id for term in terms for client_id in term.client_ids]
    return EachTerm(ids, values, [weight for term in terms for weight in term.weights])
