"""FedLD: client updates recombined along the main directions that they share.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. Every tensor, weight and bias apart, is taken by itself. With its value w at
the server, w_1 ... w_m at the m clients of the round, and G, (m, d), whose rows are the flat g_i:

    S1    g_i = w_i - w
    S2    H = G G^T / m = V diag(s) V^T,   s_1 >= s_2 >= ... >= 0
    S3    u_j = G^T V_:j / ||G^T V_:j||,   j = 1 ... k,   k = max(1, int(m k_proportion))
    S4    r_i = ||g_i|| sum_{j<=k} (s_j / sum_l s_l) sgn(<g_i, u_j>) u_j
    S5    w <- w + server_lr (1/m) sum_i r_i

The sum over l is of all m eigenvalues, not of the k that are kept: ||r_i|| is at most ||g_i||.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlabels.aggregation import (
    PrincipalRule,
    Recombination,
    aggregate_tensor,
    principal_figures,
    weighted_mean,
)
from fedlabels.effect import Only, only
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Need
from fedlabels.strategies.base import CohortStrategy, Merged, State
from fedlabels.strategies.support import Collected

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
        self.settings = settings or FedLDSettings()
        self._open: set[str] = set()
        each: Mapping[str, Need] = {wire.MODEL: "each"}
        self.needs = {wire.MODEL: "sum"} if self.settings.aggregation == "fedavg" else each

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Compute the new model by S1 to S5, tensor by tensor, or as the mean.

        The figures say how the updates lie to each other; their names start with ``pg_``.
        """
        if self.settings.aggregation == "fedavg":
            mean, figures = super().merge(round_index, collected, server)
            return Merged(None if mean is None else self._scaled(mean, server), figures)
        term = collected.each.get(wire.MODEL)
        if term is None or not term.client_ids:
            return Merged(None)
        weights = term.weights if self.settings.pg_weighted else None
        recombinations: list[Recombination] = []
        new: Arrays = {}
        for name in sorted(term.values):  # a resumed run has another order, and figures are sums
            models, old = term.values[name], server[name]
            if old.dtype.kind in "iu":
                new[name] = self._merged_counter(models)
            elif old.dtype.kind == "f" and self._is_averaged(name):
                new[name] = weighted_mean(models, term.weights)
            elif old.dtype.kind == "f":
                update, recombination = self._update(name, models - old, weights)
                new[name] = old + self._rate(name) * update.reshape(old.shape)
                recombinations += [] if recombination is None else [recombination]
        return Merged(new, principal_figures(recombinations))

    def _is_averaged(self, name: str) -> bool:
        return name in self.server.buffers and not self.settings.pg_buffers

    def _update(
        self, name: str, updates: NDArray[Any], weights: ArrayLike | None
    ) -> tuple[NDArray[np.float64], Recombination | None]:
        """Recombine the clients' updates of a tensor; one that moved takes part from now on."""
        update, recombination = aggregate_tensor(
            updates.reshape(len(updates), -1),
            has_history=name in self._open,
            rule=self.settings.rule(),
            weights=weights,
        )
        if np.any(update):
            self._open.add(name)
        return update, recombination

    def _rate(self, name: str) -> float:
        return 1.0 if name in self.server.buffers else self.settings.server_lr

    def _merged_counter(self, counters: NDArray[Any]) -> NDArray[Any]:
        if not self.settings.pg_buffers:
            return np.asarray(counters.max(axis=0))
        # the official code copies a floating-point mean into an integer tensor
        mean = counters.mean(axis=0, dtype=np.float64)
        return np.asarray(np.trunc(mean), dtype=counters.dtype)

    def _scaled(self, mean: Arrays, server: Arrays) -> Arrays:
        """Move the parameters by ``server_lr`` of the way to the mean."""
        if self.settings.server_lr == 1.0:
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
