"""Reads the replies of a round: sums of simulated cohorts, or messages of real devices."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from fedlabels import wire
from fedlabels.cohort.types import Reduce
from fedlabels.errors import WireError
from fedlabels.simulation.flower_compat import peek
from fedlabels.simulation.job import Arrays, EachTerm, Need, Status, SumTerm
from fedlabels.simulation.replies import Replies

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
    got = Collected()
    usable = check(replies, got, expected=expected, client_of=client_of)
    for name, need in needs.items():
        parts = [(c, up.terms[name]) for c, up in usable if name in up.terms]
        if parts and need == "sum":
            got.sums[name] = _summed([term for _, term in parts])
        elif parts:
            got.each[name] = _stacked(parts)
    return got


def check(
    replies: Iterable[Message],
    got: Collected,
    *,
    expected: Expected,
    client_of: Callable[[int], int],
    finite: bool = False,
) -> Usable:
    """Check every reply and count its client; return what can be used, by client_id.

    The same parameters as :func:`collect`; ``got`` is added to, and ``finite`` says that the values
    are known to be finite.
    """
    usable: Usable = []
    for reply in sorted(replies, key=lambda r: client_of(r.metadata.src_node_id)):
        if reply.has_error():
            got.add("failed")
            continue
        try:
            up = wire.decode_up(reply.content, read=_read)
            for name, term in up.terms.items():
                _check_term(name, term, expected(name), finite)
        except WireError:
            got.add("rejected")
            continue
        full = up.weight > 0 and bool(up.terms)
        got.add("ok" if full else "empty", up.weight, up.metrics)
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
        it was sent, > 0; None has no bound.
    examples : float or None
        Largest number of examples that a device may claim, > 0; None has no bound.
    """

    norm: float | None = None
    examples: float | None = None


def check_uplink(content: RecordDict, expected: Expected, limits: Limits) -> wire.Uplink:
    """Read a device's reply and check it.

    Raises
    ------
    WireError
        If it is not of the agreed form, a term does not fit what is expected or is not finite, or
        it is beyond the limits.
    """
    up = wire.decode_up(content, read=_read)
    if limits.examples is not None and up.weight > limits.examples:
        raise WireError(f"claims {up.weight:g} examples, allowed are {limits.examples:g}")
    for name, term in up.terms.items():
        like = expected(name)
        _check_term(name, term, like, finite=False)
        if limits.norm is not None and (norm := _distance(term, like)) > limits.norm:
            raise WireError(f"term {name!r} moved by {norm:.3g}, allowed is {limits.norm:g}")
    return up


def _distance(term: wire.UpTerm, like: Mapping[str, NDArray[Any]] | None) -> float:
    total = 0.0
    for key, value in term.value.items():
        if value.dtype.kind == "f":
            moved = value.astype(np.float64) - (0.0 if like is None else like[key])
            total += float(np.vdot(moved, moved))
    return math.sqrt(total)


def count_rows(replies: Replies) -> Collected:
    """Count the clients of a simulated round and add up their metrics; the terms as they are."""
    got = Collected(sums=dict(replies.sums), each=dict(replies.each))
    for row in replies.rows:
        counts = row.status in ("ok", "empty")
        got.add(row.status, row.weight if counts else 0.0, row.metrics if counts else None)
    return got


def _from_simulation(replies: Replies, needs: Mapping[str, Need]) -> Collected:
    got = count_rows(replies)
    for name, need in needs.items():
        # Flower's own round loop leaves the grid at its default, every client's value.
        if need == "sum" and name not in got.sums and name in got.each:
            each = got.each.pop(name)
            terms = [wire.UpTerm(each.row(i), w) for i, w in enumerate(each.weights)]
            got.sums[name] = _summed(terms)
    return got


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
    weights = term.weight.values() if isinstance(term.weight, Mapping) else ()
    if not all(bool(np.all(np.isfinite(w) & (w >= 0))) for w in weights):
        raise WireError(f"weights of term {name!r} must be finite and >= 0")


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
