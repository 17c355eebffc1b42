"""FixMatch and UDA in federated learning: the training model labels its own weak views.

Sohn et al., NeurIPS 2020, arXiv 2001.07685 (B1); Xie et al., NeurIPS 2020, arXiv 1904.12848 (B2,
B3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedlabels.clients.base import labeled_metrics
from fedlabels.clients._private import OwnNorm
from fedlabels.cohort import (
    Batch,
    Cohort,
    FitRequest,
    FitResult,
    PseudoLabels,
    Ratio,
    Sums,
    Tree,
    UnlabeledTraining,
    View,
)
from fedlabels.cohort.checks import check_above, check_at_least, check_between, check_choices
from fedlabels.effect import Only, only
from fedlabels.losses import cross_entropy, fixmatch_loss, tsa_loss, tsa_threshold, uda_loss

Streams = Mapping[str, Batch]


@dataclass(frozen=True)
class FixMatch(UnlabeledTraining, OwnNorm):
    """One model, a labeled and an unlabeled batch in every step.

    Parameters
    ----------
    loss : {"fixmatch", "uda"}
        Hard labels (B1) or sharpened targets (B2).
    threshold : float
        Least confidence in [0, 1]; ``>=`` for FixMatch, ``>`` for UDA.
    lambda_s, lambda_u : float
        Coefficients of the labeled and the unlabeled loss, >= 0.
    temperature : float
        Of UDA's targets, > 0.
    teacher : {"live", "global"}
        Label with the model in training, or with the received one.
    tsa : str
        Training signal annealing of the labeled loss: none, linear, log or exp.
    weight : {"all", "labeled"}
        Number of examples: all samples of the client, or the labeled ones.
    """

    loss: str = "fixmatch"
    threshold: float = 0.95
    lambda_s: float = 1.0
    lambda_u: float = 1.0
    batch_unlabeled: int | None = 64  # the divisor of the unlabeled loss, passing or not
    temperature: float = 0.4
    teacher: str = "live"
    tsa: str = "none"
    weight: str = "all"

    # two streams of different lengths: steps are counted, not epochs, and each has both
    without: ClassVar[tuple[str, ...]] = ("epochs", "steps_unlabeled", "lr_unlabeled")
    counts: ClassVar[tuple[Only, ...]] = (only("temperature", loss="uda"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "loss": ("fixmatch", "uda"),
            "teacher": ("live", "global"),
            "tsa": ("none", "linear", "log", "exp"),
            "weight": ("all", "labeled"),
        }
        check_choices(self, choices)
        check_between(self, 0, 1, ("threshold",))
        check_above(self, 0, ("temperature",))
        check_at_least(self, 0, ("lambda_s", "lambda_u"))

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: the model."""
        return ("model",)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on both parts; a client that lacks one trains on the other."""
        parts = {part: cohort.samples(part) for part in ("labeled", "unlabeled")}
        batches = cohort.batches(
            parts,
            size={"labeled": self.batch_size, "unlabeled": self.unlabeled_rows},
            steps=self.steps,
            views={"labeled": ("weak",), "unlabeled": ("weak", "strong")},
            purpose="labeled",
        )
        eta = self._annealing(cohort, request)

        def loss(view: View, batch: Streams, fixed: Any) -> tuple[Tensor, Mapping[str, Any]]:
            labeled, sums = self._labeled(view, batch["labeled"], eta)
            unlabeled, more = self._unlabeled(view, batch["unlabeled"], fixed["received"])
            return self.lambda_s * labeled + self.lambda_u * unlabeled, {**sums, **more}

        layout = cohort.net("model").layout
        given: dict[str, Any] = {"shared": {"received": request.shared["model"]}}
        if self.private(layout):  # then each client's teacher has its own normalization
            given = {"own": {"received": self.start(cohort, request)}}
        with self.training(request):
            tree, sums = cohort.sgd(
                self.start(cohort, request),
                loss,
                batches,
                self.make_optimizer(request, layout),
                **given,
            )
        count = cohort.samples("all" if self.weight == "all" else "labeled").count
        return self.result(cohort, tree, count, self._metrics(sums))

    def _annealing(self, cohort: Cohort, request: FitRequest) -> Tensor | None:
        if self.tsa == "none":
            return None
        steps = self.steps or 1
        return tsa_threshold(
            (request.round - 1) * steps,
            total=request.rounds * steps,
            num_classes=cohort.spec.num_classes,
            schedule=self.tsa,  # type: ignore[arg-type]
        )

    def _labeled(
        self, view: View, batch: Batch, eta: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        logits = view.net.at(view.tree, train=True, batch=batch)(batch.x)
        values = cross_entropy(logits, batch.y)
        sums = {"loss": batch.sum(values), "n": batch.n}
        if eta is None:
            return batch.mean(values), sums
        return tsa_loss(logits, batch.y, eta=eta, rows=batch.rows).total, sums

    def _unlabeled(self, view: View, batch: Batch, received: Tree) -> tuple[Tensor, dict[str, Any]]:
        teacher = view.tree if self.teacher == "live" else received
        # labels are written in evaluation mode, so that a batch of one needs no statistics
        with torch.no_grad():
            weak = view.net.at(teacher)(batch.weak)
        strong = view.net.at(view.tree, train=True, batch=batch.fold(1))(batch.strong)
        if self.loss == "uda":
            out: Any = uda_loss(
                weak, strong, threshold=self.threshold, temperature=self.temperature,
                rows=batch.rows,
            )  # fmt: skip
        else:
            out = fixmatch_loss(weak, strong, threshold=self.threshold, rows=batch.rows)
        marks = PseudoLabels(batch.index, out.pseudo_label, out.keep, 0 * out.pseudo_label)
        sums = {
            "unlabeled": out.total * batch.n,
            "rows": batch.n,
            "pass": out.n_pass,
            "pseudo": marks,
        }
        return out.total, sums

    def _metrics(self, sums: Sums) -> dict[str, Ratio]:
        return {
            **labeled_metrics(sums),
            "loss_unlabeled": Ratio(sums["unlabeled"], sums["rows"]),
            "pass_rate": Ratio(sums["pass"], sums["rows"]),
        }
