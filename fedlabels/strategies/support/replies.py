"""Reads the replies of a round: sums of simulated cohorts, or messages of real devices."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from fedlabels.cohort.types import Reduce, Term
from fedlabels.errors import WireError
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import LazyArray, peek
from fedlabels.rounds.job import Arrays, EachTerm, Need, Status, SumTerm
from fedlabels.rounds.judge import (
    MAX_WEIGHT,
    Form,
    Judge,
    Known,
    Like,
    RejectedError,
    check_metrics,
    is_reserved,
    reason_of,
)
from fedlabels.rounds.replies import Replies
from fedlabels.rounds.stranger import from_stranger
from fedlabels.rounds.terms import LARGEST

Expected = Callable[[str], Mapping[str, NDArray[Any]] | None]
"""Term -> arrays of the names, shapes and dtypes that it must have; None takes any."""

Usable = list[tuple[int, wire.Uplink]]


@dataclass
class Collected:
    """What a round brought.

    Parameters
    ----------
    sums : dict of str to SumTerm
        Terms needed as ``"sum"``.
    each : dict of str to EachTerm
        Terms needed as ``"each"``, by client_id.
    metrics : dict of str to (float, float)
        Name -> (sum, count) over the clients.
    weight : float
        Number of examples, over the clients that count.
    clients : dict of str to int
        How many were ok, empty, failed and rejected.
    """

    sums: dict[str, SumTerm] = field(default_factory=dict)
    each: dict[str, EachTerm] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    weight: float = 0.0
    clients: dict[Status, int] = field(
        default_factory=lambda: {"ok": 0, "empty": 0, "failed": 0, "rejected": 0}
    )

    def add(self, status: Status, weight: float = 0.0, metrics: wire.Metrics | None = None) -> None:
        """Count a client."""
        self.clients[status] += 1
        self.weight += weight
        for name, (total, count) in ({} if metrics is None else metrics).items():
            old = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (old[0] + total, old[1] + count)

    def by_status(self) -> dict[str, int]:
        """Return how many clients were ok, empty, failed and rejected."""
        return {str(status): count for status, count in self.clients.items()}

    def means(self) -> dict[str, float]:
        """Return every metric as sum over count; one that nobody counted is left out."""
        return {name: s / n for name, (s, n) in sorted(self.metrics.items()) if n}

    def usable(self, name: str) -> SumTerm | None:
        """Return a summed term, or None when nobody has a weight for it."""
        term = self.sums.get(name)
        return term if term is not None and term.has_weight() else None


def collect(
    replies: Iterable[Message],
    *,
    needs: Mapping[str, Need],
    expected: Expected,
    client_of: Callable[[int], int],
) -> Collected:
    """Read the replies of a round.

    Parameters
    ----------
    replies : iterable of flwr.app.Message
        :class:`Replies` of a simulation, checked and reduced where they were made, or plain
        messages of devices, which are checked and summed here in float64, by client_id.
    needs : mapping of str to {"sum", "each"}
        The terms to keep.
    expected : callable
        What a device's term is checked against; a client with a bad one counts as rejected.
    client_of : callable
        Node id -> client_id.

    Returns
    -------
    Collected
        Sums, values and metrics. Metrics of empty clients count; their terms do not.
    """
    if isinstance(replies, Replies):
        return _from_simulation(replies, needs)
    collected = Collected()
    usable = check(replies, collected, expected=expected, client_of=client_of)
    for name, need in needs.items():
        parts = [(c, up.terms[name]) for c, up in usable if name in up.terms]
        if parts and need == "sum":
            collected.sums[name] = _summed([term for _, term in parts])
        elif parts:
            collected.each[name] = _stacked(parts)
    return collected


def check(
    replies: Iterable[Message],
    collected: Collected,
    *,
    expected: Expected,
    client_of: Callable[[int], int],
    finite: bool = False,
) -> Usable:
    """Check every reply and count its client; return what can be used, by client_id.

    The same parameters as :func:`collect`; ``collected`` is added to, and ``finite`` says that the
    values are known to be finite.
    """
    usable: Usable = []
    for reply in sorted(replies, key=lambda r: client_of(r.metadata.src_node_id)):
        if reply.has_error():
            collected.add("failed")
            continue
        try:
            # only this process makes lazy arrays: of values that were judged
            known = finite or _is_ours(reply.content)
            up = wire.decode_up(reply.content, read=_read if known else from_stranger)
            for name, term in up.terms.items():
                _check_term(name, term, expected(name), known)
            check_metrics(up.metrics, is_reserved, finite=False)
        except Exception:  # of a stranger's bytes nothing is sure
            collected.add("rejected")
            continue
        full = up.weight > 0 and bool(up.terms)
        collected.add("ok" if full else "empty", up.weight, up.metrics)
        if full:
            usable.append((client_of(reply.metadata.src_node_id), up))
    return usable


@dataclass(frozen=True)
class Limits:
    """What one device may do to the model at most.

    Parameters
    ----------
    norm : float or None
        Largest Euclidean distance of a term from what was sent, or of its value where nothing like
        it was sent, > 0. None is `SLACK` times the sum of the norm of what was sent and the root
        of its number of entries: what is beyond is no training, whatever the method.
    examples : float or None
        Largest weight of a device, in all terms and entries, > 0; None is that of `judge`.
    """

    norm: float | None = None
    examples: float | None = None


SLACK = 1000.0
"""How much larger than usual an update, or a weight, may be where no limit is given."""


class ToldError(WireError):
    """What a device sent does not fit what it said when it joined: it may have changed since."""


@dataclass(frozen=True)
class Due:
    """What is due from a device in an exchange.

    Parameters
    ----------
    needs : mapping of str to {"sum", "each"}
        Terms that are read; the others are not even decoded.
    reduces : mapping of str to {"mean", "sum"}
        How they are reduced; a mean where nothing is said.
    expected : callable
        Term -> arrays that it must be like; None takes any.
    floored : frozenset of str
        Tensors that are never negative.
    tests : int or None
        Samples that the device has to test what it received on; None did not ask for it.
    """

    needs: Mapping[str, Need]
    reduces: Mapping[str, Reduce]
    expected: Expected
    floored: frozenset[str] = frozenset()
    tests: int | None = None


def check_uplink(
    content: RecordDict, due: Due, limits: Limits
) -> tuple[wire.Uplink, dict[str, Form]]:
    """Read a device's reply and judge it, as a simulated client's result is judged.

    Returns
    -------
    Uplink, dict of str to Form
        The terms that are due, their tensors in the order that is due.

    Raises
    ------
    WireError
        If it is not of the agreed form, a term does not fit what is expected or is not finite, or
        it is beyond the limits or what the device said of its data.
    """
    try:
        return _judged(content, due, limits)
    except WireError:
        raise
    except RejectedError as error:
        raise WireError(str(error)) from error
    except Exception as error:  # of a stranger's bytes nothing is sure
        raise WireError(f"the reply cannot be read: {reason_of(error)}") from error


def _judged(content: RecordDict, due: Due, limits: Limits) -> tuple[wire.Uplink, dict[str, Form]]:
    like = {name: due.expected(name) for name in due.needs}
    up = wire.decode_up(
        content,
        read=from_stranger,
        wanted=lambda name: name in due.needs,
        read_as=lambda name, record: from_stranger(record, like[name]),
    )
    heaviest = limits.examples or MAX_WEIGHT
    if up.weight > heaviest:
        raise WireError(f"claims {up.weight:g} examples, allowed are {heaviest:g}")
    order = like.get(wire.MODEL) or next((v for v in like.values() if v is not None), {})
    judge = Judge(
        tuple(order or ()),
        due.floored,
        {name: Known(_likes(arrays), True) for name, arrays in like.items() if arrays is not None},
        {name: due.reduces.get(name, "mean") for name in due.needs},
        heaviest,
    )
    _, forms = judge.terms({name: _as_term(term) for name, term in up.terms.items()})
    check_metrics(up.metrics, None if due.tests is None else _may_be_tested)
    _check_tests(up.metrics, due.tests or 0)
    _check_sizes(up.metrics)
    terms = {}
    for name, term in up.terms.items():
        names, weight = forms[name].names, term.weight
        if isinstance(weight, Mapping):
            weight = {key: weight[key] for key in names}
        terms[name] = wire.UpTerm({key: term.value[key] for key in names}, weight, term.reduce)
        norm, allowed = _distance(terms[name], like[name]), _allowed(term, like[name], limits)
        if norm > allowed:
            raise WireError(f"term {name!r} moved by {norm:.3g}, allowed is {allowed:.3g}")
    return wire.Uplink(terms, up.weight, up.metrics), forms


def _may_be_tested(name: str) -> bool:
    return name.startswith("device_") and name not in ("device_clients", "device_samples")


def _check_sizes(metrics: wire.Metrics) -> None:
    """Check that one device's figures cannot make everybody's infinite.

    Raises
    ------
    WireError
        If a mean is larger than any value of a model.
    """
    for name, (total, count) in metrics.items():
        if abs(total) > LARGEST * (count or 1.0):
            raise WireError(
                f"metric {name!r} is {total:g} over {count:g}: its mean may be at most {LARGEST:g}"
            )


def _check_tests(metrics: wire.Metrics, tests: int) -> None:
    """Check what a device found with the model that it received, by what it said it has.

    Raises
    ------
    ToldError
        If it counts more samples than it said.
    WireError
        If a figure is none that a test can find.
    """
    for name, (total, count) in metrics.items():
        # figures of a client's own, of other names, may count anything
        if not name.startswith(("device_accuracy", "device_loss")):
            continue
        most = count if name.startswith("device_accuracy") else math.inf
        if count > tests:
            raise ToldError(f"{name} is over {count:g} samples, but it said that it has {tests}")
        if not 0 <= total <= most:
            raise WireError(f"{name} is {total:g} over {count:g}: no test finds that")


def _likes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Like]:
    return {k: Like(torch.Size(v.shape), _dtype(v.dtype)) for k, v in arrays.items()}


@lru_cache
def _dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype)).dtype


def _as_term(term: wire.UpTerm) -> Term:
    value = {k: torch.from_numpy(v) for k, v in term.value.items()}
    weight: Any = term.weight
    if isinstance(weight, Mapping):
        weight = {k: torch.from_numpy(v) for k, v in weight.items()}
    return Term(value, weight, term.reduce)


def _distance(term: wire.UpTerm, like: Mapping[str, NDArray[Any]] | None) -> float:
    total = 0.0
    for key, value in term.value.items():
        if value.dtype.kind == "f":
            moved = value.astype(np.float64) - (0.0 if like is None else like[key])
            total += float(np.vdot(moved, moved))
    return math.sqrt(total)


def _allowed(term: wire.UpTerm, like: Mapping[str, NDArray[Any]] | None, limits: Limits) -> float:
    if limits.norm is not None:
        return limits.norm
    entries = sum(v.size for v in term.value.values() if v.dtype.kind == "f")
    sent = 0.0 if like is None else _distance(wire.UpTerm(dict(like)), None)
    return SLACK * (math.sqrt(entries) + sent)


def count_rows(replies: Replies) -> Collected:
    """Count the clients of a simulated round and add up their metrics; the terms as they are."""
    collected = Collected(sums=dict(replies.sums), each=dict(replies.each))
    for row in replies.rows:
        counts = row.status in ("ok", "empty")
        collected.add(row.status, row.weight if counts else 0.0, row.metrics if counts else None)
    return collected


def _from_simulation(replies: Replies, needs: Mapping[str, Need]) -> Collected:
    collected = count_rows(replies)
    for name, need in needs.items():
        # Flower's own round loop leaves the grid at its default, every client's value.
        if need == "sum" and name not in collected.sums and name in collected.each:
            each = collected.each.pop(name)
            terms = [wire.UpTerm(each.row(i), w) for i, w in enumerate(each.weights)]
            collected.sums[name] = _summed(terms)
    return collected


def _read(record: ArrayRecord) -> Arrays:
    try:
        return peek(record)
    except (ValueError, TypeError, EOFError, OSError):
        return wire.from_record(record)  # names the array that is damaged


def _check_term(
    name: str, term: wire.UpTerm, expected: Mapping[str, NDArray[Any]] | None, finite: bool
) -> None:
    if expected is not None and set(expected) != set(term.value):
        wrong = sorted(set(expected) ^ set(term.value))
        raise WireError(f"term {name!r} has other tensors than the model: {wrong[:3]}")
    for key, value in term.value.items():
        like = value if expected is None else expected[key]
        if value.shape != like.shape or value.dtype != like.dtype:
            raise WireError(f"tensor {key!r} of term {name!r}: {value.dtype}{value.shape}")
        # One pass without a mask array: any nan or infinity makes the sum not finite.
        if not finite and not np.isfinite(np.sum(value, dtype=np.float64)):
            raise WireError(f"tensor {key!r} of term {name!r} is not finite")
    if isinstance(term.weight, Mapping):
        _check_weights(name, term, term.weight)


def _check_weights(name: str, term: wire.UpTerm, weights: Mapping[str, NDArray[Any]]) -> None:
    if set(weights) != set(term.value):
        raise WireError(f"weights of term {name!r} have other names than its values")
    for key, weight in weights.items():
        shape = term.value[key].shape
        if np.broadcast_shapes(weight.shape, shape) != shape:
            raise WireError(f"weight {key!r} of term {name!r} does not broadcast to {shape}")
        if not np.all(np.isfinite(weight) & (weight >= 0) & (weight <= MAX_WEIGHT)):
            raise WireError(f"weights of term {name!r} must be finite and >= 0")


def _is_ours(content: RecordDict) -> bool:
    records = content.array_records.values()
    return all(isinstance(array, LazyArray) for record in records for array in record.values())


def _summed(terms: Sequence[wire.UpTerm]) -> SumTerm:
    total: Arrays = {}
    weights: Arrays = {}
    scalar = 0.0
    for term in terms:
        for key, value in term.value.items():
            weight = term.weight[key] if isinstance(term.weight, Mapping) else term.weight
            share = np.multiply(value, weight, dtype=np.float64)
            total[key] = total[key] + share if key in total else share
            spread = np.asarray(weight, dtype=np.float64)
            weights[key] = weights[key] + spread if key in weights else spread
        scalar += 0.0 if isinstance(term.weight, Mapping) else term.weight
    by_entry = any(isinstance(term.weight, Mapping) for term in terms)
    reduce: Reduce = terms[0].reduce
    return SumTerm(total, weights if by_entry else scalar, reduce, len(terms))


def _stacked(parts: Sequence[tuple[int, wire.UpTerm]]) -> EachTerm:
    names = parts[0][1].value
    values = {name: np.stack([term.value[name] for _, term in parts]) for name in names}
    weights = [t.weight if isinstance(t.weight, float) else 1.0 for _, t in parts]
    return EachTerm([client_id for client_id, _ in parts], values, weights)
