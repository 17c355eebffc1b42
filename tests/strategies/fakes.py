"""An in-memory backend whose clients are simple formulas, and a round loop around it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message

from fedlabels.rounds import wire
from fedlabels.rounds.job import (
    Arrays,
    ClientRow,
    EachTerm,
    Job,
    JobResult,
    Need,
    SumTerm,
    Task,
    num_bytes,
)
from fedlabels.simulation.grid import CohortGrid
from fedlabels.strategies.base import Outcome, Server, ServerStrategy
from fedlabels.strategies.stock import Stock, StockSettings


@dataclass
class Result:
    """What a fake client does: terms, weight, metrics; an error makes it fail."""

    terms: dict[str, wire.UpTerm] = field(default_factory=dict)
    weight: float = 1.0
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    error: str | None = None
    rejected: bool = False


Client = Callable[[Task, Job], Result]


def shifted(arrays: Arrays, by: float) -> Arrays:
    """Return floats + by and integers + 1."""
    return {
        k: (v + np.asarray(by, v.dtype)) if v.dtype.kind == "f" else v + 1
        for k, v in arrays.items()
    }


def linear(task: Task, job: Job) -> Result:
    """Return w + 0.01 * (client_id + 1) with weight client_id + 1."""
    k = task.client_id + 1
    model = shifted(job.shared["model"], 0.01 * k * (1 + 0.1 * job.round))
    return Result({"model": wire.UpTerm(model, float(k))}, float(k), {"loss": (2.0 * k, float(k))})


class FakeBackend:
    """Runs a client function for every task, and reduces as the real backends do."""

    def __init__(self, client: Client = linear) -> None:
        self.client = client
        self.jobs: list[Job] = []

    def run(self, job: Job) -> JobResult:
        """Run the job."""
        self.jobs.append(job)
        results = [(task, self.client(task, job)) for task in job.tasks]
        rows = [self._row(task, result, job) for task, result in results]
        ok = [
            (row.client_id, result)
            for row, (_, result) in zip(rows, results, strict=True)
            if row.status == "ok"
        ]
        out = JobResult(rows, seconds={"train": 0.0})
        for name, need in job.needs.items():
            parts = [(c, r.terms[name]) for c, r in ok if name in r.terms]
            if parts and need == "sum":
                out.sums[name] = _sum(parts)
            elif parts:
                values = {
                    key: np.stack([t.value[key] for _, t in parts]) for key in parts[0][1].value
                }
                weights = [t.weight for _, t in parts if isinstance(t.weight, float)]
                out.each[name] = EachTerm([c for c, _ in parts], values, weights)
        return out

    def close(self) -> None:
        """Do nothing."""

    def _row(self, task: Task, result: Result, job: Job) -> ClientRow:
        down = sum(num_bytes(a) for a in job.shared.values())
        if result.error is not None:
            status: Any = "rejected" if result.rejected else "failed"
            return ClientRow(task.client_id, status, result.error, bytes_down=down)
        empty = result.weight == 0 or (not result.terms and job.exchange != "evaluate")
        return ClientRow(
            task.client_id,
            "empty" if empty else "ok",
            weight=result.weight,
            metrics=result.metrics,
            bytes_up=sum(num_bytes(t.value) for t in result.terms.values()),
            bytes_down=down,
        )


def _sum(parts: Sequence[tuple[int, wire.UpTerm]]) -> SumTerm:
    total: Arrays = {}
    weight = 0.0
    for _, term in parts:
        assert isinstance(term.weight, float)
        for key, value in term.value.items():
            total[key] = total.get(key, np.zeros(value.shape)) + term.weight * value
        weight += term.weight
    return SumTerm(total, weight, parts[0][1].reduce, len(parts))


def model(dtype: str = "float32") -> Arrays:
    """Return parameters, a BN-like float buffer, a 0-d and a 1-d integer buffer, a 0-d float."""
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(3, 2)).astype(dtype),
        "bn.running_mean": rng.normal(size=(3,)).astype(dtype),
        "bn.num_batches_tracked": np.array(7, dtype=np.int64),
        "table": np.arange(4, dtype=np.int64),
        "scale": np.array(0.5, dtype=dtype),
    }


@dataclass
class History:
    """Models and outcomes of a run, by round."""

    models: list[Arrays] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    backend: FakeBackend = field(default_factory=FakeBackend)


def run(
    strategy: ServerStrategy,
    client: Client = linear,
    *,
    rounds: Iterable[int] = (1, 2, 3),
    clients: int = 6,
    per_round: int | None = 4,
    start: Arrays | None = None,
    seed: int = 3,
    needs: dict[str, Need] | None = None,
) -> History:
    """Drive a strategy through rounds, as the round loop does."""
    history = History(backend=FakeBackend(client))
    grid = CohortGrid(range(clients), history.backend)
    strategy.bind(Server(seed=seed, rounds=10, clients_per_round=per_round))
    arrays: ArrayRecord = wire.to_record(model() if start is None else start)
    for round_index in rounds:
        grid.needs = strategy.needs if needs is None else needs
        messages = strategy.configure("train", round_index, arrays, grid)
        outcome = strategy.aggregate("train", round_index, grid.send_and_receive(messages))
        arrays = arrays if outcome.arrays is None else outcome.arrays
        history.models.append(wire.from_record(arrays))
        history.outcomes.append(outcome)
    return history


def device_replies(messages: Sequence[Message], results: Sequence[Result]) -> list[Message]:
    """Answer messages as real devices would: with every tensor's bytes."""
    return [
        Message(wire.encode_up(wire.Uplink(r.terms, r.weight, r.metrics)), reply_to=m)
        for m, r in zip(messages, results, strict=True)
    ]


def same(a: Arrays, b: Arrays, *, atol: float = 0.0) -> None:
    """Assert equal names, dtypes and values."""
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].shape == b[name].shape, name
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol, err_msg=name)


def asked(strategy: ServerStrategy, clients: int = 6, **server: Any) -> list[Message]:
    """Bind a strategy and return the messages of its first round."""
    grid = CohortGrid(range(clients), FakeBackend())
    strategy.bind(Server(**{"seed": 1, "rounds": 4, **server}))
    return strategy.configure("train", 1, wire.to_record(model()), grid)


DP: dict[str, dict[str, Any]] = {
    "DifferentialPrivacyServerSideFixedClipping": {"noise_multiplier": 0.1, "clipping_norm": 1},
    "DifferentialPrivacyClientSideFixedClipping": {"noise_multiplier": 0.1, "clipping_norm": 1.0},
}
PLAIN: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedProx": {"proximal_mu": 0.1},
    "FedAvgM": {"server_momentum": 0.9, "server_learning_rate": 0.5},
    "FedAdagrad": {},
    "FedAdam": {},
    "FedYogi": {},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.25},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 2},
    "Bulyan": {},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "loss"},
}


def stock(name: str, inner: str = "FedAvg", **options: Any) -> Stock:
    """Make a stock strategy with arguments that suit the fakes."""
    if name in DP:
        options = {**DP[name], "num_sampled_clients": 4, "strategy": {"name": inner}, **options}
    return Stock(StockSettings(name, {**PLAIN.get(name, {}), **options}))
