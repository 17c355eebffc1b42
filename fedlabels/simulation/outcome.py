"""What became of one client: its result, checked and read as few times as the device allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fedlabels.cohort import Term
from fedlabels.cohort.clock import phase
from fedlabels.cohort.device import numbers
from fedlabels.cohort.engine import Made
from fedlabels.simulation.convert import arrays_of
from fedlabels.simulation.job import Arrays
from fedlabels.simulation.scoring import on_host, score
from fedlabels.simulation.state import flatten
from fedlabels.simulation.terms import finite, readings, weight_of


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
    kept : dict of str to Arrays
        Terms to keep, whole: with the tensors that never leave a client.
    read : dict of str to (bool, float) or None
        Per term whether it is finite, and its weight, where they were read together with those of
        others; None asks the tensors.
    """

    terms: dict[str, Term] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    state: Arrays | None = None
    error: str | None = None
    kept: dict[str, Arrays] = field(default_factory=dict)
    read: dict[str, tuple[bool, float]] | None = None

    def is_finite(self, name: str) -> bool:
        """Say whether all entries of a term are finite."""
        return finite(self.terms[name]) if self.read is None else self.read[name][0]

    def weight(self, name: str | None = None) -> float:
        """Return the number of examples of a term; of the whole result if none is named."""
        terms = self.terms if name is None else {name: self.terms[name]}
        if self.read is None:
            return weight_of(terms)
        chosen = ["model"] if "model" in terms else list(terms)
        return max((self.read[one][1] for one in chosen), default=0.0)


def outcomes(
    made: Sequence[Made],
    truth: NDArray[np.int64],
    private: frozenset[str],
    keep: Sequence[str] = (),
) -> list[Outcome]:
    """Read the results of clients; all that are numbers come from a GPU in one transfer.

    Parameters
    ----------
    made : sequence of Made
        Of one device.
    truth : ndarray of int64, shape (samples,)
        Hidden labels, -1 where nobody knows.
    private : frozenset of str
        Tensors of the model that never leave a client.
    keep : sequence of str
        Terms to keep.
    """
    out = [_outcome(one, truth, private, keep) for one in made]
    ratios = [_ratios(one) for one in made]
    values = [v for one in ratios for pair in one.values() for v in pair]
    first = next((term for outcome in out for term in outcome.terms.values()), None)
    there = first is not None and _elsewhere(first)
    checks = [v for o in out for t in o.terms.values() for v in readings(t)] if there else []
    read = iter(numbers([*values, *checks]))
    for names, outcome in zip(ratios, out, strict=True):
        outcome.metrics = {name: (next(read), next(read)) for name in names}
    for outcome in out if there else ():
        outcome.read = {name: (bool(next(read)), next(read)) for name in outcome.terms}
    for one, outcome in zip(made, out, strict=True):
        if one.cohort.pseudo_labels:
            one.cohort.pseudo_labels = on_host(one.cohort.pseudo_labels)
            outcome.metrics.update(score(one.cohort.pseudo_labels, truth, one.row))
    return out


def _outcome(
    made: Made, truth: NDArray[np.int64], private: frozenset[str], keep: Sequence[str]
) -> Outcome:
    terms = {}
    for name, term in made.result.terms.items():
        weight = None if term.weight is None else made.take(term.weight)
        value = {k: v for k, v in term.value.items() if name != "model" or k not in private}
        terms[name] = Term(made.take(value), weight, term.reduce)
    with phase("ship_back"):
        whole = made.result.state.items()
        state = {name: arrays_of(made.take(dict(tree))) for name, tree in whole}
        found = {name: made.result.terms[name].value for name in keep if name in terms}
        kept = {name: arrays_of(made.take(dict(value))) for name, value in found.items()}
    return Outcome(terms, state=flatten(state) if state else None, kept=kept)


def _ratios(made: Made) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    ratios = made.result.metrics.items()
    return {name: (made.take(ratio.sum), made.take(ratio.count)) for name, ratio in ratios}


def _elsewhere(term: Term) -> bool:
    return any(value.device.type != "cpu" for value in term.value.values())
