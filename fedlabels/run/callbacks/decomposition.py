"""What the loss is made of, for any method that exchanges a model: ``callbacks=decomposition``.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. D1 and the variants are defined in docs/decomposition.md.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedlabels.aggregation import LossTerms, decompose, decompose_by, shares, weighted_mean
from fedlabels.cohort.types import EMPTY
from fedlabels.errors import ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, ClientRow, EachTerm, Job, Task
from fedlabels.run.callbacks import MeasuredRound
from fedlabels.run.folder import RunFolder
from fedlabels.seeds import generator
from fedlabels.strategies.base import ServerStrategy

LOG = logging.getLogger(__name__)
Variant = Literal["full", "probe", "two_term", "server"]
Labels = Literal["labeled", "all"]
Floats = NDArray[np.float64]
EXCHANGE = "shard_loss"
SECONDS = "seconds_decomposition"


@dataclass(frozen=True)
class Losses:
    """Mean losses on the samples of some clients, in nats.

    Parameters
    ----------
    mean : ndarray, shape (m,)
        nan of a client without samples.
    variance : ndarray, shape (m,)
        Of the mean, where the samples measured were drawn from many.
    samples : ndarray, shape (m,)
        How many samples a client has, measured or not.
    """

    mean: Floats
    variance: Floats
    samples: Floats

    @classmethod
    def of(cls, rows: Sequence[ClientRow]) -> "Losses":
        """Read the answers to the exchange, by client_id."""
        found = np.array([[*row.metrics["loss"], row.metrics["square"][0]] for row in rows])
        total, count, square = found.T
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / count
            variance = (square / count - mean**2) / np.maximum(count - 1, 1)
        samples = np.array([row.metrics["samples"][0] for row in rows])
        return cls(mean, variance, samples)

    def take(self, places: NDArray[np.int64]) -> "Losses":
        """Return some of the clients."""
        return Losses(self.mean[places], self.variance[places], self.samples[places])


class _LostError(Exception):
    """A client whose loss was asked for failed."""


@dataclass
class Decomposition:
    """Adds ``loss_local``, ``loss_shift``, ``loss_aggregation`` and their sum ``loss_global``.

    Parameters
    ----------
    variant : {"full", "probe", "two_term", "server"}
        All labeled samples, some of each client, without the split of shift and aggregation, or a
        part of the test set in place of the clients' samples.
    every : int
        Rounds from one report to the next, >= 1; the last round is reported, too.
    probe_samples : int
        Of each client, >= 1; drawn once a run.
    server_samples : int
        Of the test set, >= 1; drawn once a run.
    labels : {"labeled", "all"}
        ``all``: the hidden labels count, too (in simulation only).
    """

    variant: str = "full"
    every: int = 10
    probe_samples: int = 500
    server_samples: int = 1000
    labels: str = "labeled"
    _folder: RunFolder | None = None
    _seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("variant", Variant), ("labels", Labels)):
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(
                    f"callbacks.decomposition.{name} must be one of"
                    f" {', '.join(get_args(allowed))}, got {getattr(self, name)!r}"
                )
        for name in ("every", "probe_samples", "server_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"callbacks.decomposition.{name} must be >= 1, got {getattr(self, name)}"
                )

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Remember where the table goes, and the run's seed."""
        self._folder, self._seed = folder, int(config["seed"])

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Do nothing: the figures are in the record already."""
        return False

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Do nothing."""

    def wants(self, index: int, rounds: int) -> bool:
        """Say whether a round is reported."""
        return index % self.every == 0 or index == rounds

    def measure(self, finished: MeasuredRound) -> Mapping[str, float]:
        """Return the terms of a round, and the seconds that they took; nothing without clients."""
        began = time.perf_counter()
        try:
            found = self._measured(finished)
        except _LostError as error:
            LOG.warning("the loss of round %d was not decomposed: %s", finished.round, error)
            return {}
        return {**found, SECONDS: time.perf_counter() - began} if found else {}

    def _measured(self, finished: MeasuredRound) -> dict[str, float]:
        ids, models = _models(finished)
        if not ids:
            return {}
        new, split = _completed(finished), self.variant in ("full", "probe")
        first = self._losses(finished, ids, [new] if split else models)
        held = np.flatnonzero(first.samples > 0)
        if not len(held):
            return {}
        ids, models, first = [ids[i] for i in held], [models[i] for i in held], first.take(held)
        if split:
            matrix = [self._losses(finished, ids, [model]).mean for model in models]
            return self._report(finished, ids, decompose(matrix, first.mean, first.samples), first)
        if self.variant == "server":
            loss, part = finished.backend.test_loss, self._server_part(finished)
            theirs = [loss(model, part) for model in models]
            terms = decompose_by(first.mean, theirs, loss(new, part), first.samples)
            return self._report(finished, ids, terms, None, first)
        last = self._losses(finished, ids, [new])
        total = float(shares(first.samples) @ last.mean)
        terms = decompose_by(first.mean, np.full(len(ids), np.nan), total, first.samples)
        return self._report(finished, ids, terms, last)

    def _losses(
        self, finished: MeasuredRound, ids: Sequence[int], models: Sequence[Arrays]
    ) -> Losses:
        """Ask clients for the loss of one model, or each for the loss of its own."""
        shared: dict[str, Arrays] = {wire.MODEL: models[0]} if len(models) == 1 else {}
        owns = [EMPTY] * len(ids) if shared else [{wire.MODEL: model} for model in models]
        tasks = tuple(Task(i, own) for i, own in zip(ids, owns, strict=True))
        settings = {"probe": self.probe_samples} if self.variant == "probe" else {}
        # round 0: what a client draws is the same in all rounds
        job = Job(
            EXCHANGE, 0, finished.rounds, tasks, shared, settings, reveal=self.labels == "all"
        )  # fmt: skip
        rows = finished.backend.run(job).rows
        bad = [row for row in rows if row.status != "ok"]
        if bad:
            raise _LostError(f"client {bad[0].client_id} {bad[0].status}: {bad[0].error}")
        return Losses.of(rows)

    def _server_part(self, finished: MeasuredRound) -> NDArray[np.int64]:
        known = np.flatnonzero(finished.backend.spec.test.y >= 0)
        draws = generator(self._seed, "decomposition", "server")
        count = min(self.server_samples, len(known))
        return np.sort(draws.choice(known, size=count, replace=False))

    def _report(
        self,
        finished: MeasuredRound,
        ids: Sequence[int],
        terms: LossTerms,
        last: Losses | None,
        held: Losses | None = None,
    ) -> dict[str, float]:
        """Write a row a client and return the round's figures; what is not finite stays blank."""
        measured = last or held
        assert measured is not None
        everyone = np.full(len(ids), np.nan)
        columns = {
            "samples": measured.samples,
            "weight": terms.weights,
            "own_loss": terms.own,
            "federation_loss": terms.everywhere,
            "global_loss": everyone if last is None else last.mean,
            "local": terms.weights * terms.own,
            "shift": terms.weights * (terms.everywhere - terms.own),
            "aggregation": terms.weights * (terms.total - terms.everywhere),
        }
        if self._folder is not None:
            rows = [
                {name: _finite(float(values[i])) for name, values in columns.items()}
                for i in range(len(ids))
            ]
            head = [{"round": finished.round, "client_id": i, "variant": self.variant} for i in ids]
            self._folder.decomposition.append([a | b for a, b in zip(head, rows, strict=True)])
        figures = {
            "loss_local": terms.local,
            "loss_shift": terms.shift,
            "loss_aggregation": terms.aggregation,
            "loss_global": terms.total,
        }
        if self.variant == "two_term":
            figures["loss_gap"] = terms.total - terms.local
        if self.variant == "probe" and last is not None:
            figures["loss_global_error"] = math.sqrt(float(terms.weights**2 @ last.variance))
        return {name: value for name, value in figures.items() if math.isfinite(value)}


def decomposition_of(config: Mapping[str, Any], strategy: ServerStrategy) -> Decomposition | None:
    """Return the callback that the settings ask for; None when they ask for none.

    Raises
    ------
    ConfigError
        If a setting is out of range, or the clients of this strategy send no whole model.
    """
    # a run from before there were callbacks has none
    wanted = dict(config.get("callbacks", {}).get("decomposition") or {})
    if not wanted.pop("enabled", False):
        return None
    whole = strategy.has_model and not strategy.any_architecture and wire.MODEL in strategy.needs
    if not whole:
        raise ConfigError(
            f"callbacks.decomposition needs clients that send one whole model, but strategy"
            f" {config['strategy']['name']} asks for {', '.join(strategy.needs) or 'nothing'}; turn"
            " it off, or choose another strategy or variant"
        )
    return Decomposition(**wanted)


def _models(finished: MeasuredRound) -> tuple[list[int], list[Arrays]]:
    """Return the clients that count and their models; what one did not send is the server's."""
    kept = finished.models or EachTerm([], {}, [])
    order = np.argsort(kept.client_ids).tolist()
    return [kept.client_ids[i] for i in order], [{**finished.arrays, **kept.row(i)} for i in order]


def _completed(finished: MeasuredRound) -> Arrays:
    """Return the new model with the clients' mean of what they keep for themselves."""
    kept = finished.models or EachTerm([], {}, [])
    means = {
        name: weighted_mean(value, kept.weights).astype(value.dtype)
        for name, value in kept.values.items()
        if name in finished.private and value.dtype.kind == "f"
    }
    return {**finished.arrays, **means}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
