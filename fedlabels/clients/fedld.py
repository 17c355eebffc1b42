"""FedLD's client: FedAvg's with a margin term that holds over-confident predictions back.

Zeng et al.: "Tackling Data Heterogeneity in Federated Learning via Loss Decomposition", MICCAI
2024, arXiv 2408.12300. M1, M2 and W1 are defined in docs/methods/fedld.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fedlabels.clients.base import LabeledClient, labeled_metrics
from fedlabels.cohort import (
    Batch,
    Batches,
    Cohort,
    FitRequest,
    FitResult,
    Ratio,
    Sums,
    View,
)
from fedlabels.cohort.checks import check_at_least, check_choices, require
from fedlabels.effect import ABOVE_0, Only, only
from fedlabels.losses import MarginForm, margin_loss, margin_term

WARMUP_EPOCHS = 5  # W of the official code


def warmup_rate(
    lr: float, *, local_epochs: float, round_index: int, warmup_epochs: int = WARMUP_EPOCHS
) -> float:
    """Return the rate that the official code really uses in a round (W1).

    Parameters
    ----------
    lr : float
        Base rate, > 0.
    local_epochs : float
        Epochs a round, >= 0.
    round_index : int
        Round, from 1. In the first round the rate is 0.
    warmup_epochs : int
        Epochs after which the base rate is reached, >= 1.

    Examples
    --------
    >>> [warmup_rate(0.01, local_epochs=1, round_index=r) for r in (1, 2, 6, 7)]
    [0.0, 0.002, 0.01, 0.01]
    """
    return lr * min(1.0, local_epochs * (round_index - 1) / warmup_epochs)


@dataclass(frozen=True)
class FedLD(LabeledClient):
    """SGD on labeled samples with ``margin_lambda * R`` added to the cross-entropy.

    Parameters
    ----------
    margin_lambda : float
        Coefficient, >= 0; 0 is FedAvg.
    margin_form : {"softmax_batch", "logits"}
        R of the official code (M1), or of the paper's figure (M2).
    margin_on_unlabeled : bool
        Add R of a batch of unlabeled samples, as large as the labeled one, in every step.
    warmup : {"none", "per_round"}
        ``per_round`` reproduces the rates of the official code: the first round trains nothing.
        A round counts ``epochs`` epochs, or one where ``steps`` are given.
    """

    lr: float = 0.01
    momentum: float = 0.5
    weight_decay: float = 5e-4
    batch_size: int = 50
    steps: int | None = None
    epochs: int | float | None = 1
    margin_lambda: float = 0.1
    margin_form: str = "softmax_batch"
    margin_on_unlabeled: bool = False
    warmup: str = "none"

    counts: ClassVar[tuple[Only, ...]] = (only("margin_on_unlabeled", margin_lambda=ABOVE_0),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, ("margin_lambda",))
        choices = {"margin_form": ("softmax_batch", "logits"), "warmup": ("none", "per_round")}
        check_choices(self, choices)
        require(
            not self.margin_on_unlabeled or self.steps is not None,
            "client.margin_on_unlabeled has two streams of different lengths and needs steps, not "
            "epochs: set training.steps",
        )

    def learning_rate(self, request: FitRequest, lr: float | None = None) -> float:
        """Return the learning rate of a round, that of the warm-up where it is asked for."""
        rate = super().learning_rate(request, lr)
        if self.warmup == "none":
            return rate
        epochs = 1 if self.epochs is None else self.epochs
        return warmup_rate(rate, local_epochs=epochs, round_index=request.round)

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: the model."""
        return ("model",)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on the labeled samples; a client without any returns the model with weight 0."""
        optimizer = self.make_optimizer(request, cohort.net("model").layout)
        with self.training(request):
            start = self.start(cohort, request)
            tree, sums = cohort.sgd(start, self._loss, self._batches(cohort), optimizer)
        weight = cohort.samples("labeled").count
        return self.result(cohort, tree, weight, self._metrics(sums))

    def _batches(self, cohort: Cohort) -> Batches:
        plan: dict[str, Any] = {"steps": self.steps, "epochs": self.epochs}
        names = ("labeled", "unlabeled") if self.margin_on_unlabeled else ("labeled",)
        parts = {name: cohort.samples(name) for name in names}
        chosen = parts if self.margin_on_unlabeled else parts["labeled"]
        return cohort.batches(chosen, size=self.batch_size, purpose="labeled", **plan)

    def _loss(self, view: View, batch: Any, fixed: Any) -> tuple[Tensor, Mapping[str, Any]]:
        labeled: Batch = batch["labeled"] if self.margin_on_unlabeled else batch
        logits = view.net.at(view.tree, train=True, batch=labeled)(labeled.x)
        objective = margin_loss(
            logits, labeled.y, margin_lambda=self.margin_lambda, form=self._form, rows=labeled.rows
        )
        sums = {
            "loss": labeled.sum(objective.losses),
            "n": labeled.n,
            "margin": objective.margin,
            "batches": (labeled.n > 0).to(labeled.n.dtype),
            "confidence": labeled.sum(logits.detach().softmax(-1).amax(-1)),
        }
        if not self.margin_lambda:
            return labeled.mean(objective.losses), sums  # FedAvg, bit for bit
        if not self.margin_on_unlabeled:
            return objective.total, sums
        more = self._unlabeled_margin(view, batch["unlabeled"])
        return objective.total + self.margin_lambda * more, sums

    @property
    def _form(self) -> MarginForm:
        return self.margin_form  # type: ignore[return-value]

    def _unlabeled_margin(self, view: View, batch: Batch) -> Tensor:
        logits = view.net.at(view.tree, train=True, batch=batch.fold(1))(batch.x)
        return margin_term(logits, form=self._form, rows=batch.rows)

    def _metrics(self, sums: Sums) -> dict[str, Ratio]:
        return {
            **labeled_metrics(sums),
            "margin": Ratio(sums["margin"], sums["batches"]),
            "confidence": Ratio(sums["confidence"], sums["n"]),
        }
