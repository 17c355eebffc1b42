"""An awkward cohort, and the comparison of looped and stacked execution on it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlabels.cohort import (
    Client,
    DataSpec,
    FitRequest,
    FitResult,
    LoopedCohort,
    Nets,
    Shard,
    StackedCohort,
    TensorSource,
    tree_map,
)
from fedlabels.cohort.tree import row, stack
from fedlabels.models.layers import BatchNorm, Dropout

CLASSES, WIDTH = 5, 6
SPEC = DataSpec((1, 6, 6), CLASSES)
# (labeled, unlabeled): ragged, no labels, no unlabeled, one sample, one of each
SIZES = [(9, 13), (3, 10), (0, 11), (12, 0), (1, 0), (1, 1), (5, 7), (0, 1)]
ONE_CLASS = 1


class Probe(nn.Module):
    """A small model with batch normalization and dropout."""

    def __init__(self, heads: Sequence[str] = ("head",)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = BatchNorm(4)
        self.dense = nn.Linear(4, WIDTH)
        self.norm2 = BatchNorm(WIDTH)
        self.drop = Dropout(0.3)
        for head in heads:
            setattr(self, head, nn.Linear(WIDTH, CLASSES))

    def features(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.drop(functional.relu(self.norm2(self.dense(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Noise:
    """A view that adds noise drawn for the sample."""

    def __init__(self, scale: float) -> None:
        self.columns, self.scale = 36, scale

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        return x + self.scale * (u.view(x.shape) - 0.5)


def shards() -> list[Shard]:
    rng = np.random.default_rng(0)
    out, start = [], 0
    for k, (labeled, unlabeled) in enumerate(SIZES):
        rows = np.arange(start, start + labeled + unlabeled)
        labels = rng.integers(0, CLASSES, labeled)
        if k == ONE_CLASS:
            labels[:] = 2
        out.append(Shard(10 + k, rows[:labeled], labels, rows[labeled:]))
        start += labeled + unlabeled
    return out


def source(dtype: torch.dtype) -> TensorSource:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(sum(map(sum, SIZES)), 1, 6, 6, generator=generator, dtype=torch.float64)
    views = {"weak": Noise(0.1), "strong": Noise(0.8)}
    return TensorSource(
        x.to(dtype), torch.tensor(0.5, dtype=dtype), torch.tensor(0.25, dtype=dtype), views
    )


class World:
    """Everything a cohort needs, in float64 unless told otherwise."""

    def __init__(
        self, client: Client, nets: Any = None, dtype: torch.dtype = torch.float64
    ) -> None:
        build = nets or (lambda: {"model": Probe()})
        self.client, self.shards, self.source = client, shards(), source(dtype)
        self.nets = Nets(
            lambda: client.nets(build()["model"], SPEC) if nets is None else build(), 3, dtype
        )

    def request(
        self,
        exchange: str = "train",
        round_index: int = 1,
        own: Any = None,
        extra: Any = None,
        settings: Any = None,
    ) -> FitRequest:
        shared = {"model": self.nets["model"].init, **(extra or {})}
        return FitRequest(exchange, round_index, 2, settings or {}, shared, own or {})

    def cohort(self, ids: Sequence[int], stacked: bool, round_index: int, state: Any) -> Any:
        kind = StackedCohort if stacked else LoopedCohort
        return kind(
            spec=SPEC,
            nets=self.nets,
            source=self.source,
            seed=5,
            round_index=round_index,
            shards=[self.shards[i] for i in ids],
            state=state or {},
        )

    def looped(self, exchange: str, request: Any, states: Any) -> list[FitResult]:
        method = getattr(self.client, "fit" if exchange == "train" else exchange)
        out = []
        for k in range(len(self.shards)):
            own = {n: row(t, k) for n, t in request.own.items()}
            one = FitRequest(
                request.exchange,
                request.round,
                request.rounds,
                request.settings,
                request.shared,
                own,
            )
            out.append(method(self.cohort([k], False, request.round, states and states[k]), one))
        return out

    def stacked(self, exchange: str, request: Any, states: Any) -> FitResult:
        method = getattr(self.client, "fit" if exchange == "train" else exchange)
        joined = stack(states) if states and states[0] else {}
        return method(self.cohort(range(len(self.shards)), True, request.round, joined), request)


def flat(result: FitResult) -> dict[str, Any]:
    terms = {f"term.{n}": dict(t.value) for n, t in result.terms.items()}
    weights = {f"weight.{n}": t.weight for n, t in result.terms.items() if t.weight is not None}
    return {
        "terms": terms,
        "weights": weights,
        "metrics": {k: (v.sum, v.count) for k, v in result.metrics.items()},
        "state": dict(result.state),
    }


def largest_gap(looped: list[FitResult], stacked: FitResult) -> float:
    """Largest absolute difference between looped and stacked results, all values."""
    gaps: list[float] = []
    whole = flat(stacked)
    for k, one in enumerate(looped):

        def compare(a: Tensor, b: Tensor) -> Tensor:
            assert a.shape == b.shape, (a.shape, b.shape)
            assert torch.isfinite(a.double()).all()
            gaps.append((a.double() - b.double()).abs().max().item() if a.numel() else 0.0)
            return a

        tree_map(compare, flat(one), row(whole, k))
    return max(gaps)


def check(
    world: World,
    exchanges: Sequence[str] = ("train",),
    rounds: int = 2,
    tol: float = 1e-9,
    **request: Any,
) -> tuple[list[FitResult], FitResult]:
    """Run rounds looped and stacked with state, and compare everything that comes out."""
    loop_state: Any = None
    stack_state: Any = None
    for round_index in range(1, rounds + 1):
        for exchange in exchanges:
            asked = world.request(exchange, round_index, **request)
            looped = world.looped(exchange, asked, loop_state)
            whole = world.stacked(exchange, asked, stack_state)
            assert largest_gap(looped, whole) <= tol
            loop_state = [dict(r.state) for r in looped]
            stack_state = [row(dict(whole.state), k) for k in range(len(looped))]
    moved = [
        (v - world.nets["model"].init[n]).abs().max().item()
        for r in looped
        for n, v in (r.terms["model"].value if "model" in r.terms else {}).items()
        if v.is_floating_point() and n in world.nets["model"].init
    ]
    assert not moved or max(moved) > 1e-3, "nothing was trained: the comparison would be empty"
    return looped, whole
