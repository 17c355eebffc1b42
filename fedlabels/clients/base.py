"""What the labeled steps of all clients have in common."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlabels.clients._anchors import Objective, anchored
from fedlabels.cohort import (
    Batch,
    Client,
    Cohort,
    FitRequest,
    FitResult,
    Optimizer,
    Ratio,
    Sums,
    Term,
    Training,
    Tree,
    View,
)
from fedlabels.losses import cross_entropy

Penalty = Callable[[View, Mapping[str, Tree]], Tensor]


@dataclass(frozen=True)
class LabeledClient(Training, Client):
    """A client that trains on its labeled samples; its settings are those of `Training`."""

    def start(self, cohort: Cohort, request: FitRequest) -> Tree:
        """Return the weights from which each client starts: the received ones."""
        return cohort.start(request.shared["model"])

    def training(self, request: FitRequest) -> AbstractContextManager[None]:
        """Return what surrounds the training of a round: nothing."""
        return nullcontext()

    def result(
        self, cohort: Cohort, tree: Tree, weight: Tensor, metrics: Mapping[str, Ratio]
    ) -> FitResult:
        """Return what goes up: the model with its weight, and metrics."""
        return FitResult({"model": Term(tree, weight)}, metrics)

    def train_labeled(
        self, cohort: Cohort, request: FitRequest, penalty: Penalty | None = None
    ) -> tuple[Tree, Sums]:
        """Run SGD on the labeled samples from ``start``.

        Returns
        -------
        Tree, Sums
            The weights, and ``loss`` (summed over samples) and ``n``.
        """
        with self.training(request):
            return labeled_sgd(
                cohort,
                request.shared["model"],
                self.make_optimizer(request, cohort.net("model").layout),
                size=self.batch_size,
                steps=self.steps,
                epochs=self.epochs,
                penalty=penalty,
                start=self.start(cohort, request),
                objective=anchored(request),
            )


def labeled_sgd(
    cohort: Cohort,
    received: Tree,
    optimizer: Optimizer,
    *,
    size: int,
    steps: int | None,
    epochs: float | None = None,
    penalty: Penalty | None = None,
    start: Tree | None = None,
    objective: Objective | None = None,
) -> tuple[Tree, Sums]:
    """Train by cross-entropy on the labeled samples (F1), from a copy of the received model.

    ``start``, if given, are weights per client to begin with instead; they are consumed.
    ``objective`` takes the place of the cross-entropy alone.
    """
    instead = None if objective is None else objective.loss

    def loss(view: View, batch: Batch, fixed: Any) -> tuple[Tensor, Mapping[str, Any]]:
        if instead is None:
            values = cross_entropy(view(batch.x), batch.y)
            total = batch.mean(values)
        else:
            values, total = instead(view, batch, fixed)
        if penalty is not None:
            total = total + penalty(view, fixed)
        return total, {"loss": batch.sum(values), "n": batch.n}

    batches = cohort.batches(
        cohort.samples("labeled"), size=size, steps=steps, epochs=epochs, purpose="labeled"
    )
    begin = cohort.start(received) if start is None else start
    shared = {"received": received, **({} if objective is None else objective.shared)}
    return cohort.sgd(begin, loss, batches, optimizer, shared=shared)


def labeled_metrics(sums: Sums) -> dict[str, Ratio]:
    """Return the metric of the labeled steps: the mean loss of the samples as they were used."""
    return {"loss_labeled": Ratio(sums["loss"], sums["n"])}
