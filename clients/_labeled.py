"""What the labeled steps of all clients have in common."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from clients._anchors import Objective, anchored
from clients._checks import check_above, check_at_least, check_choices, require
from fedlabels.cohort import (
    SGD,
    Batch,
    Client,
    Cohort,
    FitRequest,
    FitResult,
    Layout,
    Ratio,
    Sums,
    Term,
    Tree,
    View,
)
from fedlabels.effect import ABOVE_0, Only, only
from fedlabels.losses import cross_entropy

Penalty = Callable[[View, Mapping[str, Tree]], Tensor]
Schedule = Literal["constant", "cosine"]


def scheduled(lr: float, schedule: str, request: FitRequest) -> float:
    """Return the learning rate of a round: constant, or half a cosine down to 0."""
    if schedule == "constant":
        return lr
    progress = (request.round - 1) / max(request.rounds, 1)
    return lr * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


@dataclass(frozen=True)
class LabeledClient(Client):
    """Settings of plain SGD on the labeled samples.

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    lr_schedule : {"constant", "cosine"}
        Over the rounds of the run.
    momentum : float
        In [0, 1).
    nesterov : bool
        Nesterov's form of the momentum.
    weight_decay : float
        L2 coefficient, >= 0.
    decay_biases : bool
        Whether it counts for tensors of one axis: biases, and gains of normalization and
        standardization.
    clip : float or None
        Largest global gradient norm.
    agc : float or None
        Adaptive gradient clipping: largest norm of a unit's gradient over that of its weights, > 0;
        W2 of docs/methods/fedwon.md. The last layer is left alone.
    batch_size : int
        Labeled samples a step, >= 1.
    local_steps : int or None
        Gradient steps a round, each batch by a fresh shuffle; exclusive with ``local_epochs``.
    local_epochs : int or None
        Passes over the labeled samples a round.
    """

    lr: float = 0.1
    lr_schedule: str = "constant"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_biases: bool = True
    clip: float | None = None
    agc: float | None = None
    batch_size: int = 10
    local_steps: int | None = 10
    local_epochs: int | None = None

    counts: ClassVar[tuple[Only, ...]] = (
        only("nesterov", momentum=ABOVE_0),
        only("decay_biases", weight_decay=ABOVE_0),
    )

    def __post_init__(self) -> None:
        check_choices(self, {"lr_schedule": ("constant", "cosine")})
        check_above(self, 0, ("lr", "clip", "agc"))
        check_at_least(self, 0, ("weight_decay", "local_steps", "local_epochs"))
        check_at_least(self, 1, ("batch_size",))
        require(0 <= self.momentum < 1, f"client.momentum must be in [0, 1), got {self.momentum}")
        require(
            (self.local_steps is None) != (self.local_epochs is None),
            "give exactly one of client.local_steps and client.local_epochs (the other null), got "
            f"{self.local_steps} and {self.local_epochs}",
        )

    def optimizer(self, request: FitRequest) -> SGD:
        """Return the optimizer of this round."""
        return SGD(
            scheduled(self.lr, self.lr_schedule, request),
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            clip=self.clip,
            agc=self.agc,
        )

    def optimizer_for(self, request: FitRequest, layout: Layout) -> SGD:
        """Return the optimizer of this round for a net.

        It knows the tensors that adaptive clipping leaves alone, those of the last layer, and
        those that do not decay.
        """
        entries = () if self.decay_biases else layout.values()
        return replace(
            self.optimizer(request),
            agc_skip=layout.head,
            decay_skip=frozenset(entry.name for entry in entries if len(entry.shape) < 2),
        )

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
                self.optimizer_for(request, cohort.net("model").layout),
                size=self.batch_size,
                steps=self.local_steps,
                epochs=self.local_epochs,
                penalty=penalty,
                start=self.start(cohort, request),
                objective=anchored(request),
            )


def labeled_sgd(
    cohort: Cohort,
    received: Tree,
    optimizer: SGD,
    *,
    size: int,
    steps: int | None,
    epochs: int | None = None,
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
