"""Clients for tests: one with a memory, and one that goes wrong in every way."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import Cohort, FitRequest, FitResult, Ratio, Term
from fedlabels.losses import cross_entropy


@dataclass(frozen=True)
class Rememberer(FedAvg):
    """Mixes its newest model with the one that it sent before, and counts its rounds."""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        tree, sums = self.train_labeled(cohort, request)
        count = cohort.samples("labeled").count
        memory = cohort.state.get("memory")
        seen = cohort.state["seen"]["rounds"] if memory else cohort.map(lambda n: 0 * n, count)
        if memory:
            mix = {k: v for k, v in memory.items() if k in tree}
            tree = cohort.map(
                lambda new, old: {k: 0.8 * new[k] + 0.2 * old[k] for k in new}, tree, mix
            )
        state = {"memory": tree, "seen": {"rounds": cohort.map(lambda n: n + 1, seen)}}
        one = cohort.map(lambda n: 0 * n + 1, count)
        metrics = {"loss_labeled": Ratio(sums["loss"], sums["n"]), "seen": Ratio(seen, one)}
        return FitResult({"model": Term(tree, count)}, metrics, state)


@dataclass(frozen=True)
class Loner(FedAvg):
    """The same client, but never stacked."""

    stackable: ClassVar[bool] = False


@dataclass(frozen=True)
class Careless(FedAvg):
    """Says that it can be stacked, and then reads a number of one client."""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        cohort.map(lambda n: n.item(), cohort.samples("labeled").count)
        return super().fit(cohort, request)


@dataclass(frozen=True)
class Chaos(Rememberer):
    """Goes wrong for some clients, in some rounds.

    Parameters
    ----------
    raises, poisons, dies, reshapes : tuple of int
        Clients that raise, send nan, end their process, or send tensors of a wrong shape (looped).
    from_round : int
        First round in which they do.
    marker : str
        A file: who dies, dies only while it is not there, and makes it.
    """

    raises: tuple[int, ...] = ()
    poisons: tuple[int, ...] = ()
    dies: tuple[int, ...] = ()
    reshapes: tuple[int, ...] = ()
    from_round: int = 1
    marker: str = ""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        # A real client cannot know its number.
        ids = [shard.client_id for shard in cohort._shards]
        if request.round < self.from_round:
            return super().fit(cohort, request)
        if set(ids) & set(self.dies):
            self._die()
        if bad := set(ids) & set(self.raises):
            raise ArithmeticError(f"client {min(bad)} has no luck")
        result = super().fit(cohort, request)
        if set(ids) & set(self.reshapes):
            term: Any = result.terms["model"]
            flat = {k: v.flatten()[:1] for k, v in term.value.items()}
            return replace(result, terms={"model": replace(term, value=flat)})
        if set(ids) & set(self.poisons):
            return self._poisoned(result, torch.tensor([i in self.poisons for i in ids]))
        return result

    def _die(self) -> None:
        if not self.marker:
            os._exit(1)
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            os._exit(1)

    def _poisoned(self, result: FitResult, where: torch.Tensor) -> FitResult:
        def spoil(value: torch.Tensor) -> torch.Tensor:
            mask = where.reshape(-1, *[1] * (value.dim() - 1)) if len(where) > 1 else where.all()
            return torch.where(mask, torch.nan, value)

        term: Any = result.terms["model"]
        spoilt = replace(term, value={k: spoil(v) for k, v in term.value.items()})
        return replace(result, terms={"model": spoilt})


@dataclass(frozen=True)
class OwnModel(FedAvg):
    """Trains a model of its own architecture, which stays in its state; sends nothing."""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        kept = cohort.state.get("mine")
        start = cohort.init("model") if kept is None else kept

        def loss(view: Any, batch: Any, fixed: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            values = cross_entropy(view(batch.x), batch.y)
            return batch.mean(values), {"loss": batch.sum(values), "n": batch.n}

        batches = cohort.batches(
            cohort.samples("labeled"), size=self.batch_size, steps=self.steps, purpose="own"
        )
        tree, sums = cohort.sgd(
            start, loss, batches, self.make_optimizer(request, cohort.net("model").layout)
        )
        metrics = {"loss_labeled": Ratio(sums["loss"], sums["n"])}
        return FitResult({}, metrics, {"mine": tree})
