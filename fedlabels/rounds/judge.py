"""The one place where what a client returned is judged: a simulated one's, or a device's.

A result is taken whole or rejected whole: its terms must be tensors of the names, shapes and types
that are due, with weights and metrics that can be added up; its state must be finite. What is
known of a term is compared at once; what is not must be the same for all clients, and most of them
decide (see `winners`). Nothing here writes to what it reads.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedlabels.cohort.types import EMPTY, Reduce, Term
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.terms import (
    LARGEST,
    all_finite,
    finite,
    lowest,
    misfit,
    unlike,
    weight_of,
)

MAX_WEIGHT = 2.0**53
"""Largest weight: above, float64 does not count examples one by one."""

MAX_METRICS = 64
"""Metrics of one client."""

RESERVED = frozenset(
    (
        "round", "client_id", "status", "error", "labeled", "unlabeled", "weight", "sampled",
        "ok", "empty", "failed", "rejected", "bytes_up", "bytes_down", "name", "model_kept",
        "model_refused", "local_accuracy", "local_accuracy_p10", "num-examples", "domain",
    )
)  # fmt: skip
"""Names of columns that are not a client's."""

RESERVED_STARTS = ("test_", "personal_", "final_", "recall_", "seconds", "device_", "local_clients")
"""What the names of further such columns start with."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/ ()%+-]{0,63}")
_KNOWN_FORMS = 256  # remembered; more than a run has


class RejectedError(ValueError):
    """A result that cannot be used; the text says why."""


def reason_of(error: Exception) -> str:
    """Say what is wrong with a result: what was judged, or what the code stumbled over."""
    if isinstance(error, RejectedError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


class Form(NamedTuple):
    """What a term looks like, whatever order its tensors came in.

    Parameters
    ----------
    names : tuple of str
        Of the tensors: in the model's order if all are the model's, else sorted.
    kinds : tuple of (shape, dtype)
        Of the tensors, in that order.
    reduce : {"mean", "sum"}
    weights : tuple of shape or None
        Of weights per entry, in that order; None for one weight.
    """

    names: tuple[str, ...]
    kinds: tuple[tuple[torch.Size, torch.dtype], ...]
    reduce: Reduce
    weights: tuple[torch.Size, ...] | None


Votes = dict[str, dict[Form, tuple[int, int]]]
"""Term -> form -> clients that sent it, and the first of their positions."""


class Like(NamedTuple):
    """Shape and type that a tensor must have."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Known:
    """What is known of a term.

    Parameters
    ----------
    tensors : mapping of str to Like
        Its tensors.
    whole : bool
        Whether all of them must be there, or a part of them may.
    """

    tensors: Mapping[str, Like]
    whole: bool = False


@dataclass(frozen=True)
class Reading:
    """What is read off one term.

    Parameters
    ----------
    finite : bool
        Whether values and weights are, and no value is beyond `terms.LARGEST`.
    weight, lowest : float
        Largest and smallest weight.
    """

    finite: bool
    weight: float
    lowest: float


@dataclass
class Judge:
    """Judges results of one kind of clients.

    Parameters
    ----------
    order : tuple of str
        Names of the model's tensors, in its order.
    floored : frozenset of str
        Those that are never negative: running variances, counters of batches.
    known : mapping of str to Known
        Terms of which something is known.
    reduces : mapping of str to {"mean", "sum"}
        How terms are reduced, as the strategy says; others are reduced as most clients say.
    heaviest : float
        Largest weight.
    """

    order: tuple[str, ...] = ()
    floored: frozenset[str] = frozenset()
    known: Mapping[str, Known] = field(default_factory=lambda: EMPTY)
    reduces: Mapping[str, Reduce] = field(default_factory=lambda: EMPTY)
    heaviest: float = MAX_WEIGHT
    _forms: dict[object, Form] = field(default_factory=dict, repr=False)

    def terms(
        self, given: Mapping[str, Term], read: Mapping[str, Reading] | None = None
    ) -> tuple[dict[str, Term], dict[str, Form]]:
        """Check the terms of one client and bring their tensors into the order of their form.

        Parameters
        ----------
        given : mapping of str to Term
            The terms.
        read : mapping of str to Reading or None
            What was read of them on a device; None reads them here.

        Returns
        -------
        dict of str to Term, dict of str to Form

        Raises
        ------
        RejectedError
            If one of them cannot be used; it is named.
        """
        terms, forms = {}, {}
        for name, term in given.items():
            try:
                terms[name], forms[name] = self._term(
                    name, term, None if read is None else read[name]
                )
            except Exception as error:
                raise RejectedError(f"term '{name}': {reason_of(error)}") from error
        return terms, forms

    def _term(self, name: str, term: Term, read: Reading | None) -> tuple[Term, Form]:
        term = plain(term)
        value, weight = term.value, term.weight
        entries = weight if isinstance(weight, dict) else None
        key = (
            name,
            term.reduce,
            tuple((k, v.shape, v.dtype) for k, v in value.items()),
            None if entries is None else tuple((k, w.shape) for k, w in entries.items()),
        )
        form = self._forms.get(key)
        if form is None:
            form = self._formed(name, term)
            if len(self._forms) >= _KNOWN_FORMS:
                self._forms.clear()
            self._forms[key] = form
        names = form.names
        if tuple(value) != names:
            value = {k: value[k] for k in names}
        if entries is not None and tuple(entries) != names:
            weight = {k: entries[k] for k in names}
        term = Term(value, weight, term.reduce)
        self._check(term, self._read(term) if read is None else read)
        return term, form

    @staticmethod
    def _read(term: Term) -> Reading:
        if not finite(term):
            return _BAD
        weights = list(term.weight.values()) if isinstance(term.weight, dict) else [term.weight]
        least = lowest([w for w in weights if w is not None])
        return Reading(True, weight_of({"": term}), least)

    def _check(self, term: Term, read: Reading) -> None:
        if not read.finite:
            bad = [k for k, v in term.value.items() if not all_finite([v], LARGEST)]
            where = f"tensor '{bad[0]}' has" if bad else "its weight has"
            large = bad and all_finite([term.value[bad[0]]])
            raise RejectedError(f"{where} entries that are {_BEYOND if large else 'not finite'}")
        if read.lowest < 0:
            raise RejectedError(f"a weight is {read.lowest:g}, it must be >= 0")
        if read.weight > self.heaviest:
            raise RejectedError(f"a weight is {read.weight:g}, allowed are {self.heaviest:g}")
        held = [v for k, v in term.value.items() if k in self.floored] if self.floored else []
        if held and lowest(held) < 0:
            bad = [k for k, v in term.value.items() if k in self.floored and lowest([v]) < 0]
            raise RejectedError(f"tensor '{bad[0]}' has negative entries, which it never has")

    def _formed(self, name: str, term: Term) -> Form:
        """Check what the tensors look like, and say it."""
        entries = term.weight if isinstance(term.weight, dict) else {}
        for key, value in (*term.value.items(), *entries.items()):
            if value.layout is not torch.strided or value.is_complex() or value.is_quantized:
                raise RejectedError(f"tensor '{key}' is not of real numbers that lie in memory")
            if value.is_floating_point() and value.element_size() == 1:
                raise RejectedError(f"tensor '{key}' is {typed(value.dtype)}: send float32")
        due = self.reduces.get(name)
        if term.reduce not in ("mean", "sum") or (due is not None and term.reduce != due):
            raise RejectedError(
                f"it is to be reduced by {term.reduce!r}, the strategy reduces by {due or 'mean'!r}"
                " (a strategy says how in its `reduces`)"
            )
        known = self.known.get(name)
        if known is not None:
            like = {k: v.shape for k, v in known.tensors.items()}
            wrong = misfit(term, like, known.whole)
            if wrong is not None:
                raise RejectedError(wrong)
            for key, value in term.value.items():
                if value.dtype != known.tensors[key].dtype:
                    raise RejectedError(
                        f"tensor '{key}' is {typed(value.dtype)}, expected is"
                        f" {typed(known.tensors[key].dtype)}"
                    )
        weights = None
        names = tuple(sorted(term.value))
        if self.order and set(names) <= set(self.order):
            names = tuple(k for k in self.order if k in term.value)
        if isinstance(term.weight, dict):
            _check_entries(term)
            weights = tuple(term.weight[k].shape for k in names)
        kinds = tuple((term.value[k].shape, term.value[k].dtype) for k in names)
        return Form(names, kinds, term.reduce, weights)


_BAD = Reading(False, 0.0, 0.0)
_BEYOND = f"larger than {LARGEST:g}: float32 cannot compute with them"


def plain(term: Term, *, scalar: bool = True) -> Term:
    """Return a term as tensors without a history; a weight may be a number.

    Parameters
    ----------
    term : Term
        What a client returned, or a stack of clients.
    scalar : bool
        Whether a weight that is one tensor must have one entry: not that of a stack.

    Raises
    ------
    RejectedError
        If it is anything else.
    """
    if not isinstance(term, Term):
        raise RejectedError(f"a Term is due, got {type(term).__name__}")
    weight = term.weight
    if isinstance(weight, bool | int | float):
        weight = torch.tensor(float(weight), dtype=torch.float64)
    elif isinstance(weight, Mapping):
        weight = _tree(weight, "weight")
    elif isinstance(weight, Tensor):
        if scalar and weight.numel() != 1:
            raise RejectedError(f"one weight is due, got a tensor of shape {tuple(weight.shape)}")
        if weight.is_complex():
            raise RejectedError(f"a weight is a real number, got {typed(weight.dtype)}")
        weight = weight.detach().reshape(()) if scalar else weight.detach()
    elif weight is not None:
        raise RejectedError(f"a weight is a number or tensors, got {type(weight).__name__}")
    return Term(_tree(term.value, "value"), weight, term.reduce)


def _tree(given: object, what: str) -> dict[str, Tensor]:
    if not isinstance(given, Mapping):
        raise RejectedError(f"its {what} must be named tensors, got {type(given).__name__}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise RejectedError(f"its {what} {name!r} is no tensor, got {type(value).__name__}")
    return {k: v.detach() if v.requires_grad else v for k, v in given.items()}


def _check_entries(term: Term) -> None:
    """Check that weights per entry are there for every tensor, and broadcast to it."""
    assert isinstance(term.weight, dict)
    if set(term.weight) != set(term.value):
        wrong = sorted(set(term.weight) ^ set(term.value))
        raise RejectedError(f"values and weights have other names: {', '.join(wrong[:3])}")
    for name, weight in term.weight.items():
        shape = term.value[name].shape
        ends = zip(reversed(weight.shape), reversed(shape), strict=False)
        fits = weight.dim() <= len(shape) and all(mine in (1, full) for mine, full in ends)
        if not fits:
            raise RejectedError(
                f"weight '{name}' has shape {tuple(weight.shape)}, which does not broadcast to"
                f" {tuple(shape)}"
            )


def difference(form: Form, due: Form) -> str:
    """Say how a term differs from the form that it should have."""
    shapes = [{k: v[0] for k, v in zip(f.names, f.kinds, strict=True)} for f in (form, due)]
    wrong = unlike(shapes[0], shapes[1], whole=True)
    if wrong is not None:
        return wrong
    for name, kind, due_kind in zip(form.names, form.kinds, due.kinds, strict=True):
        if kind[1] != due_kind[1]:
            return f"tensor '{name}' is {typed(kind[1])}, expected is {typed(due_kind[1])}"
    if form.reduce != due.reduce:
        return f"it is to be reduced by {form.reduce!r}, others by {due.reduce!r}"
    return "its weights are not given as those of most clients are"


def vote(votes: Votes, position: int, forms: Mapping[str, Form]) -> None:
    """Count the forms of one client."""
    for name, form in forms.items():
        known = votes.setdefault(name, {})
        count, first = known.get(form, (0, position))
        known[form] = count + 1, min(first, position)


def counted(votes: Iterable[Votes]) -> Votes:
    """Add up the votes of several groups of clients."""
    total: Votes = {}
    for one in votes:
        for name, forms in one.items():
            known = total.setdefault(name, {})
            for form, (count, first) in forms.items():
                seen, earliest = known.get(form, (0, first))
                known[form] = seen + count, min(first, earliest)
    return total


def winners(votes: Votes) -> dict[str, Form]:
    """Return per term the form of most clients; of equally many the one of the first position."""
    return {
        name: min(forms, key=lambda form: (-forms[form][0], forms[form][1]))
        for name, forms in votes.items()
    }


def check_metrics(
    metrics: Mapping[str, tuple[float, float]],
    allowed: Callable[[str], bool] | None = None,
    *,
    finite: bool = True,
) -> None:
    """Check names and values of metrics.

    Parameters
    ----------
    metrics : mapping of str to (float, float)
        Name -> (sum, count).
    allowed : callable or None
        Whether a name of the server's may be a client's after all.
    finite : bool
        Whether sums must be finite; those of an evaluation need not be.

    Raises
    ------
    RejectedError
        If a name is a column of the run's tables or no name, a sum is not finite or over nothing,
        or a count is negative or larger than a weight may be.
    """
    if len(metrics) > MAX_METRICS:
        raise RejectedError(f"{len(metrics)} metrics, allowed are {MAX_METRICS}")
    for name, (total, count) in metrics.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RejectedError(
                f"metric {str(name)[:80]!r} has no good name: 1 to 64 letters, digits and _.:/-"
            )
        if is_reserved(name) and not (allowed is not None and allowed(name)):
            raise RejectedError(
                f"metric '{name}' has the name of a column of the run's own: call it another name"
            )
        if not 0 <= count <= MAX_WEIGHT or (finite and not math.isfinite(total)):
            raise RejectedError(
                f"metric '{name}' is {total:g} over {count:g}: the sum must be finite, the count"
                f" >= 0 and no larger than {MAX_WEIGHT:g}"
            )
        if not count and total:
            raise RejectedError(f"metric '{name}' is {total:g} over nothing: its count is 0")


def check_tested(metrics: Mapping[str, tuple[float, float]], tests: int) -> None:
    """Check what a client found when it tested a model on its own samples.

    Parameters
    ----------
    metrics : mapping of str to (float, float)
        Name -> (sum, count); what is called an accuracy must be one.
    tests : int
        Test samples that it has.

    Raises
    ------
    RejectedError
        If an accuracy is none that a test of so many samples finds.
    """
    for name, (total, count) in metrics.items():
        if name.startswith("accuracy") and not 0 <= total <= count <= tests:
            raise RejectedError(
                f"metric '{name}' is {total:g} over {count:g}: no test of its {tests} samples"
                " finds that"
            )


def is_reserved(name: str) -> bool:
    """Say whether the name of a metric is one of the run's own columns."""
    return name in RESERVED or name.startswith(RESERVED_STARTS)


def broken(arrays: Arrays, floored: frozenset[str] = frozenset()) -> str | None:
    """Say what is wrong with a merged model; None if nothing is."""
    for name, value in arrays.items():
        if value.dtype.kind != "f" or not value.size:
            continue
        if not (value.min() >= -LARGEST and value.max() <= LARGEST):  # nan is neither
            large = np.isfinite(value).all()
            return f"tensor '{name}' has entries that are {_BEYOND if large else 'not finite'}"
    for name in floored & arrays.keys():
        if arrays[name].size and arrays[name].min() < 0:
            return f"tensor '{name}' is negative, which it never is"
    return None


def infinite(arrays: Arrays) -> str | None:
    """Name the first array with an entry that is not finite; None without any."""
    with np.errstate(over="ignore", invalid="ignore"):
        for name, value in arrays.items():
            # a sum has no mask of the size of the model; that of large finite numbers may overflow
            if value.dtype.kind not in "fc" or np.isfinite(value.sum()):
                continue
            if not np.isfinite(value).all():
                return name
    return None


def typed(dtype: torch.dtype) -> str:
    """Return the name of a type of numbers, without that of torch."""
    return str(dtype).removeprefix("torch.")
