"""FedLD: client updates recombined along the main directions that they share.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. S1 to S5 are defined in docs/methods/fedld.md.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedlabels.aggregation import (
    PrincipalRule,
    Recombination,
    aggregate_tensor,
    figures,
    weighted_mean,
)
from fedlabels.effect import Only, only
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, EachTerm, Need
from strategies.base import CohortStrategy, Outcome, State
from strategies.support import Collected

Aggregation = Literal["principal", "fedavg"]


@dataclass(frozen=True)
class FedLDSettings:
    """Settings of FedLD's server.

    Parameters
    ----------
    aggregation : {"principal", "fedavg"}
        ``fedavg`` is the mean weighted by the number of examples: the margin term alone.
    k_proportion : float
        Share kappa of the directions that are kept, in (0, 1].
    calibration : {"none", "vote"}
        ``vote``: one sign a direction for all clients.
    norm_restore : bool
        Give every tensor's update the length of the plain mean.
    cos_tol : float
        Cosine up to which a client counts as orthogonal to a direction, >= 0.
    pg_weighted : bool
        Weigh clients by their number of examples; the official code weighs all alike.
    pg_buffers : bool
        Treat BatchNorm statistics like parameters, as the official code does. A running variance
        can then become negative. Otherwise they are averaged, weighted by examples.
    server_lr : float
        Factor of the update of all parameters, > 0.
    """

    aggregation: str = "principal"
    k_proportion: float = 0.8
    calibration: str = "none"
    norm_restore: bool = False
    cos_tol: float = 1e-6
    pg_weighted: bool = False
    pg_buffers: bool = False
    server_lr: float = 1.0

    counts: ClassVar[tuple[Only, ...]] = (
        only(
            "k_proportion", "calibration", "norm_restore", "cos_tol", "pg_weighted", "pg_buffers",
            aggregation="principal",
        ),
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.aggregation not in get_args(Aggregation):
            words = ", ".join(get_args(Aggregation))
            raise ConfigError(f"aggregation must be one of {words}; got {self.aggregation!r}")
        if not (math.isfinite(self.server_lr) and self.server_lr > 0):
            raise ConfigError(f"server_lr must be > 0, got {self.server_lr}")
        self.rule()

    def rule(self) -> PrincipalRule:
        """Return how a tensor's updates are recombined."""
        return PrincipalRule(self.k_proportion, self.calibration, self.norm_restore, self.cos_tol)


class FedLD(CohortStrategy):
    """Needs every client's model; works with any client that sends one.

    A tensor takes part from the round on after the first in which it moved; before, and if it has
    one entry, its update is the plain mean. Integer buffers take the largest value.

    Parameters
    ----------
    settings : FedLDSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedLDSettings

    def __init__(self, settings: FedLDSettings | None = None) -> None:
        super().__init__()
        self._chosen = settings or FedLDSettings()
        self._open: set[str] = set()
        self._figures: dict[str, float] = {}
        self._counters: Arrays = {}
        each: Mapping[str, Need] = {wire.MODEL: "each"}
        self.needs = {wire.MODEL: "sum"} if self._chosen.aggregation == "fedavg" else each

    def train_outcome(self, round_index: int, replies: Iterable[Message]) -> Outcome:
        """Aggregate; the metrics say how the updates lie to each other (names start with pg_)."""
        self._figures, self._counters = {}, {}
        outcome = super().train_outcome(round_index, replies)
        arrays = outcome.arrays
        if arrays is not None and self._counters:
            arrays = wire.to_record({**wire.from_record(arrays), **self._counters})
        return replace(outcome, arrays=arrays, metrics={**outcome.metrics, **self._figures})

    def merge(self, round_index: int, got: Collected, server: Arrays) -> Arrays | None:
        """Compute the new model by S1 to S5, tensor by tensor, or as the mean."""
        if self._chosen.aggregation == "fedavg":
            return self._stepped(super().merge(round_index, got, server), server)
        term = got.each.get(wire.MODEL)
        if term is None or not term.client_ids:
            return None
        made: list[Recombination] = []
        new: Arrays = {}
        for name in sorted(term.values):  # a resumed run has another order, and figures are sums
            models, old = term.values[name], server[name]
            if old.dtype.kind in "iu":
                self._counters[name] = self._counted(models, old)
            elif old.dtype.kind == "f" and self._is_averaged(name):
                new[name] = weighted_mean(models, term.weights)
            elif old.dtype.kind == "f":
                new[name] = self._recombined(name, models, old, term, made)
        self._figures = figures(made)
        return new

    def _is_averaged(self, name: str) -> bool:
        return name in self.server.buffers and not self._chosen.pg_buffers

    def _recombined(
        self,
        name: str,
        models: NDArray[Any],
        old: NDArray[Any],
        term: EachTerm,
        made: list[Recombination],
    ) -> NDArray[Any]:
        update, how = aggregate_tensor(
            (models - old).reshape(len(models), -1),
            has_history=name in self._open,
            rule=self._chosen.rule(),
            weights=term.weights if self._chosen.pg_weighted else None,
        )
        if how is not None:
            made.append(how)
        if np.any(update):
            self._open.add(name)
        return old + self._rate(name) * update.reshape(old.shape)

    def _rate(self, name: str) -> float:
        return 1.0 if name in self.server.buffers else self._chosen.server_lr

    def _counted(self, models: NDArray[Any], old: NDArray[Any]) -> NDArray[Any]:
        if not self._chosen.pg_buffers:
            return np.asarray(models.max(axis=0), dtype=old.dtype)
        # the official code copies a floating-point mean into an integer tensor
        mean = models.mean(axis=0, dtype=np.float64)
        return np.asarray(np.trunc(mean), dtype=old.dtype)

    def _stepped(self, mean: Arrays | None, server: Arrays) -> Arrays | None:
        rate = self._chosen.server_lr
        if mean is None or rate == 1.0:
            return mean
        return {
            name: server[name] + self._rate(name) * (value - server[name].astype(np.float64))
            for name, value in mean.items()
            if server[name].dtype.kind == "f"
        }

    def state(self) -> State:
        """Return the tensors whose gate is open."""
        return State({}, {"open": sorted(self._open)})

    def load_state(self, state: State) -> None:
        """Go on with stored gates."""
        if set(state.values) != {"open"}:
            raise CheckpointError("the state is not one of FedLD: resume with the run's strategy")
        self._open = set(state.values["open"])
