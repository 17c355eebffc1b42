"""What became of one client: its result, checked and read as few times as the device allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlabels.cohort import FitResult, Ratio, Term
from fedlabels.cohort.clock import phase
from fedlabels.cohort.device import numbers
from fedlabels.cohort.engine import Made
from fedlabels.rounds.job import Arrays
from fedlabels.rounds.judge import Reading, RejectedError, plain, typed
from fedlabels.rounds.terms import readings, weight_of
from fedlabels.worker.convert import copies_of
from fedlabels.worker.kept import held, named_trees
from fedlabels.worker.scoring import SCORE, on_host, score
from fedlabels.worker.state import flatten


@dataclass
class Outcome:
    """One client's part of a result.

    Parameters
    ----------
    terms : dict of str to Term
        On the device.
    metrics : dict of str to (sum, count)
    state : Arrays or None
        Its new state, flat.
    error : str or None
        Why it failed.
    problem : str or None
        Why its result cannot be read.
    kept : dict of str to Arrays
        Terms to keep, whole: with the tensors that never leave a client.
    read : dict of str to Reading or None
        Of every term, where they were read together with those of others; None asks the tensors.
    """

    terms: dict[str, Term] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    state: Arrays | None = None
    error: str | None = None
    problem: str | None = None
    kept: dict[str, Arrays] = field(default_factory=dict)
    read: dict[str, Reading] | None = None

    def weight(self, *names: str) -> float:
        """Return the number of examples of some terms; of the whole result if none is named."""
        terms = {name: self.terms[name] for name in names} if names else self.terms
        if self.read is None:
            return weight_of(terms)
        chosen = ["model"] if "model" in terms else list(terms)
        return max((self.read[one].weight for one in chosen), default=0.0)


def outcomes(
    results: Sequence[Made],
    truth: NDArray[np.int64],
    private: frozenset[str],
    keep: Sequence[str] = (),
) -> list[Outcome]:
    """Read the results of clients; all that are numbers come from a GPU in one transfer.

    Parameters
    ----------
    results : sequence of Made
        Of one device.
    truth : ndarray of int64, shape (samples,)
        Hidden labels, -1 where nobody knows.
    private : frozenset of str
        Tensors of the model that never leave a client.
    keep : sequence of str
        Terms to keep.
    """
    out = [_outcome(one, truth, private, keep) for one in results]
    ratios = [_ratios(one) for one in results]
    values = [v for one in ratios for pair in one.values() for v in pair]
    first = next((term for outcome in out for term in outcome.terms.values()), None)
    elsewhere = first is not None and _elsewhere(first)
    checks = [v for o in out for t in o.terms.values() for v in readings(t)] if elsewhere else []
    read = iter(numbers([*values, *checks]))
    for names, outcome in zip(ratios, out, strict=True):
        outcome.metrics = {name: (next(read), next(read)) for name in names}
    for outcome in out if elsewhere else ():
        outcome.read = {
            name: Reading(bool(next(read)), next(read), next(read)) for name in outcome.terms
        }
    for one, outcome in zip(results, out, strict=True):
        if one.cohort.pseudo_labels:
            one.cohort.pseudo_labels = on_host(one.cohort.pseudo_labels)
            outcome.metrics.update(score(one.cohort.pseudo_labels, truth, one.row))
    return out


def _outcome(
    trained: Made, truth: NDArray[np.int64], private: frozenset[str], keep: Sequence[str]
) -> Outcome:
    if not isinstance(trained.result, FitResult):
        raise RejectedError(f"a FitResult is due, got {type(trained.result).__name__}")
    terms = {}
    for name, given in _named_ones("terms", trained.result.terms, "Term").items():
        term = _named(name, given)
        value = {k: v for k, v in term.value.items() if name != "model" or k not in private}
        # a number is the same for all clients of a stack and has no leading axis
        own = isinstance(given.weight, torch.Tensor | Mapping)
        weight = _taken(trained, term.weight) if own else term.weight
        terms[name] = Term(_taken(trained, value), weight, term.reduce)
    with phase("ship_back"):
        whole = named_trees(trained.result.state).items()
        # copies: a client may write into what it returned when it trains the next one
        state = {name: copies_of(_taken(trained, tree)) for name, tree in whole}
        found = {name: trained.result.terms[name].value for name in keep if name in terms}
        for name, value in found.items():
            for key, tensor in value.items():
                held(f"term '{name}': tensor '{key}'", tensor)
        kept = {name: copies_of(trained.take(dict(value))) for name, value in found.items()}
    return Outcome(terms, state=flatten(state) if state else None, kept=kept)


def _named_ones(what: str, given: Any, kind: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise RejectedError(f"{what} must be {{name: {kind}}}, got {type(given).__name__}")
    for name in given:
        if not isinstance(name, str):
            raise RejectedError(f"{what}: a name is a str, got {name!r}")
    return given


def _named(name: str, term: Term) -> Term:
    try:
        return plain(term, scalar=False)
    except RejectedError as error:
        raise RejectedError(f"term '{name}': {error}") from None


def _taken(trained: Made, value: Any) -> Any:
    """Return the client's part of a value, which has as many rows as the stack has clients."""
    leaves = value.values() if isinstance(value, Mapping) else [value]
    if trained.row is not None and any(leaf.shape[:1] != (trained.clients,) for leaf in leaves):
        raise RejectedError("a value of a stack lacks the axis of its clients")
    return trained.take(value)


def _ratios(trained: Made) -> Mapping[str, tuple[Any, Any]]:
    found = {}
    for name, ratio in _named_ones("metrics", trained.result.metrics, "Ratio").items():
        if not isinstance(ratio, Ratio):
            raise RejectedError(f"metric {name!r}: a Ratio is due, got {type(ratio).__name__}")
        if name.startswith(SCORE):
            raise RejectedError(
                f"metric {name!r}: such names are those of labels that were scored against the"
                " hidden truth; return PseudoLabels among the sums of a scan"
            )
        found[name] = tuple(_number(trained, name, value) for value in (ratio.sum, ratio.count))
    return found


def _number(trained: Made, name: str, value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return torch.tensor(float(value), dtype=torch.float64)
    if not isinstance(value, torch.Tensor):
        raise RejectedError(f"metric {name!r} is of {type(value).__name__}, a number is due")
    number: torch.Tensor = _taken(trained, value.detach())
    if number.numel() != 1 or number.is_complex():
        raise RejectedError(
            f"metric {name!r} is {typed(number.dtype)} of shape {tuple(number.shape)}, one real"
            " number is due"
        )
    return number


def _elsewhere(term: Term) -> bool:
    return any(value.device.type != "cpu" for value in term.value.values())
