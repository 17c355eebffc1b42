"""FedLabel's client: per sample, the local or the global model writes the pseudo-label.

Cho, Joshi, Dimitriadis: "Local or Global: Selective Knowledge Assimilation for Federated Learning
with Limited Labels", ICCV 2023, arXiv 2307.08809. Equations as in docs/methods/fedlabel.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from fedlabels.clients._anchors import ANCHOR_READS, anchored
from fedlabels.clients._experts import ExpertClient
from fedlabels.clients.base import labeled_metrics, labeled_sgd
from fedlabels.clients._selection import movement_metrics, selection_sums, unlabeled_metrics
from fedlabels.cohort import (
    Batch,
    Cohort,
    FitRequest,
    FitResult,
    Net,
    Ratio,
    Reads,
    Sums,
    Term,
    Tree,
)
from fedlabels.cohort.checks import check_at_least, check_choices, require
from fedlabels.cohort.tree import clone
from fedlabels.effect import ABOVE_0, Only, only
from fedlabels.losses import (
    Selection,
    UnlabeledLoss,
    anchor_penalty,
    client_delta_merge,
    cross_entropy,
    proximal_term,
    unlabeled_loss_flute,
    unlabeled_loss_paper,
)

_CHOICES = {
    "variant": ("paper", "flute", "joint"),
    "consistency_norm": (None, "pass", "agree"),
    "consistency_view": (None, "strong", "weak"),
    "consistency_teacher": (None, "discarded", "local"),
    "unlabeled_divisor": ("pass", "batch"),
    "weight": ("labeled_plus_pass", "shard"),
    "phase2_start": ("received", "local"),
    "merge": ("sum", "mean"),
}


@dataclass(frozen=True)
class FedLabel(ExpertClient):
    """A few labeled steps make a local expert; then the more confident expert labels each sample.

    ``training.steps`` are the paper's tau, ``training.steps_unlabeled`` its tau'.

    Parameters
    ----------
    variant : {"paper", "flute", "joint"}
        The paper's algorithm; the official code's (two models go up); one live model with both
        losses in every step, as in later benchmarks.
    lambda0 : float
        Upper bound of the weight of the consistency term, >= 0.
    lambda_u : float
        Coefficient of the cross-entropy on pseudo-labels, >= 0.
    lambda_anchor : float or None
        Pull to the received model in phase 2; None is 10 for ``flute`` and 0 otherwise.
    burn_in_rounds : int
        Rounds without phase 2, >= 0.
    consistency_norm, consistency_view, consistency_teacher : str or None
        None is the variant's: pass, strong, discarded (``paper``); agree, weak, local (``flute``).
    unlabeled_divisor : {"pass", "batch"}
        Divide the unlabeled loss by the passing samples or by the batch.
    weight : {"labeled_plus_pass", "shard"}
        Number of examples: nL + passing samples of all steps, or nL + nU.
    phase2_start : {"received", "local"}
        Weights from which phase 2 starts.
    merge : {"sum", "mean"}
        Add the two changes, or half of each.
    accumulate_grad : bool
        Reproduce the official code, which never zeroes gradients in phase 2.
    mu : float
        Proximal coefficient of phase 1, >= 0.
    """

    steps: int | None = 30
    steps_unlabeled: int | None = 10
    batch_size: int = 64
    lr: float = 0.003

    variant: str = "paper"
    lambda0: float = 0.05
    lambda_u: float = 1.0
    lambda_anchor: float | None = None
    burn_in_rounds: int = 0
    consistency_norm: str | None = None
    consistency_view: str | None = None
    consistency_teacher: str | None = None
    unlabeled_divisor: str = "pass"
    weight: str = "labeled_plus_pass"
    phase2_start: str = "received"
    merge: str = "sum"
    accumulate_grad: bool = False
    mu: float = 0.0

    counts: ClassVar[tuple[Only, ...]] = (
        only(
            "steps_unlabeled", "lr_unlabeled", "phase2_start", "accumulate_grad", "mu",
            variant=("paper", "flute"),
        ),
        only("merge", "weight", variant="paper"),
        only("consistency_norm", "consistency_teacher", lambda0=ABOVE_0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, _CHOICES)
        check_at_least(self, 0, ("lambda0", "lambda_u", "lambda_anchor", "burn_in_rounds", "mu"))
        require(
            self.variant != "joint" or self.threshold_rule == "fixed",
            "client.variant=joint has no pass over the shard to set thresholds from: use "
            f"client.threshold_rule=fixed, got {self.threshold_rule}",
        )

    @property
    def inclusive(self) -> bool:
        """Whether a confidence that equals the threshold passes: in the joint variant."""
        return self.variant == "joint"

    @property
    def reads(self) -> Reads:
        """What it reads beside the model: anchors, in the labeled phase."""
        return Reads() if self.variant == "joint" else ANCHOR_READS

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: one model or two."""
        return ("local", "student") if self.variant == "flute" else ("model",)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Run one round; a client without labels, or with labels only, runs the same code."""
        if self.variant == "joint":
            return self._fit_joint(cohort, request)
        local, labeled = self.labeled_phase(cohort, request)
        student, unlabeled = self.unlabeled_phase(cohort, request, local)
        metrics = {**labeled_metrics(labeled), **unlabeled_metrics(unlabeled)}
        passed = unlabeled["pass"]
        if self.variant == "flute":
            weight = cohort.map(lambda n: torch.where(n > 0, n, 1.0), passed)  # F10b
            return FitResult({"local": Term(local), "student": Term(student, weight)}, metrics)
        received = request.shared["model"]
        start = local if self.phase2_start == "local" else None
        metrics.update(movement_metrics(cohort, received, local, student, start))
        merged = self.merged(cohort, received, local, student, passed)
        return FitResult({"model": Term(merged, self.examples(cohort, passed))}, metrics)

    def labeled_phase(self, cohort: Cohort, request: FitRequest) -> tuple[Tree, Sums]:
        """Make the local expert by labeled steps from the received model (F1)."""
        penalty = None
        if self.mu:

            def penalty(view: Any, fixed: Mapping[str, Tree]) -> Tensor:
                return proximal_term(view.tree, fixed["received"], self.mu, view.net.parameters)

        return labeled_sgd(
            cohort,
            request.shared["model"],
            self.make_optimizer(request, cohort.net("model").layout),
            size=self.batch_size,
            steps=self.steps,
            penalty=penalty,
            objective=anchored(request),
        )

    def unlabeled_phase(
        self, cohort: Cohort, request: FitRequest, local: Tree
    ) -> tuple[Tree, Sums]:
        """Train a student on what the experts label (F2 to F9).

        Returns
        -------
        Tree, Sums
            The student (the start of phase 2 where nothing passed), and the sums ``rows``,
            ``pass``, ``local``, ``agree``, ``ratio``, ``loss``, ``steps``.
        """
        net, received = cohort.net("model"), request.shared["model"]
        optimizer = self.make_optimizer(request, net.layout, self.lr_unlabeled)
        planned = self.steps if self.steps_unlabeled is None else self.steps_unlabeled
        steps = 0 if request.round <= self.burn_in_rounds else planned
        own = {"local": local, "rule": self.rule(cohort, request, local)}

        def step(carry: Any, fixed: Any, batch: Batch) -> tuple[Any, Mapping[str, Any]]:
            chosen = self.select(net, fixed, batch)

            def objective(weights: Tree) -> tuple[Tensor, UnlabeledLoss]:
                out = self._loss(net, weights, batch, chosen, fixed["received"])
                return out.total, out

            grads, out, moved = cohort.grad(objective, carry["student"], net.parameters)
            passed = out.n_pass > 0  # F8: without passing samples there is no step at all
            new = dict(carry)
            if self.accumulate_grad:
                grads = {k: carry["grads"][k] + g for k, g in grads.items()}
                new["grads"] = {
                    k: torch.where(passed, g, carry["grads"][k]) for k, g in grads.items()
                }
            kept = {k: torch.where(passed, moved[k], carry["student"][k]) for k in net.buffers}
            new["student"], new["optimizer"] = optimizer.step(
                {**moved, **kept}, grads, carry["optimizer"], when=passed
            )
            return new, selection_sums(chosen, out, batch)

        start = local if self.phase2_start == "local" else None
        student = cohort.start(received) if start is None else cohort.map(clone, start)
        carry: dict[str, Any] = {
            "student": student,
            "optimizer": cohort.map(lambda tree: optimizer.init(tree, net.parameters), student),
        }
        if self.accumulate_grad:
            zero = cohort.start({k: torch.zeros_like(received[k]) for k in net.parameters})
            carry["grads"] = zero
        batches = cohort.batches(
            cohort.samples("unlabeled"),
            size=self.unlabeled_rows,
            steps=steps,
            views=("weak", "strong"),
            purpose="unlabeled",
        )
        carry, sums = cohort.scan(step, carry, batches, own=own, shared={"received": received})
        return carry["student"], sums

    def merged(
        self, cohort: Cohort, received: Tree, local: Tree, student: Tree, passed: Tensor
    ) -> Tree:
        """Merge the two models into the one that goes up (F10a)."""
        names = cohort.net("model").parameters

        def merge(local: Tree, student: Tree, passed: Tensor) -> Tree:
            return client_delta_merge(
                received,
                local,
                student,
                parameters=names,
                stepped=passed > 0,
                merge=cast("Any", self.merge),
                phase2_start=cast("Any", self.phase2_start),
            )

        merged: Tree = cohort.map(merge, local, student, passed)
        return merged

    def examples(self, cohort: Cohort, passed: Tensor) -> Tensor:
        """Return r_k: nL + passing samples, or the size of the shard."""
        if self.weight == "shard":
            return cohort.samples("all").count
        count = cohort.samples("labeled").count
        weight: Tensor = cohort.map(lambda n, p: n + p, count, passed)
        return weight

    def _loss(
        self, net: Net, weights: Tree, batch: Batch, chosen: Selection, received: Tree
    ) -> UnlabeledLoss:
        """Compute F8a or F8b for the student's weights."""
        view = net.at(weights, train=True, batch=batch)
        flute = self.variant == "flute"
        seen = self.consistency_view or ("weak" if flute else "strong")
        strong = view(batch.strong)
        other = view(batch.weak) if seen == "weak" else strong
        options: dict[str, Any] = {
            "lambda0": self.lambda0,
            "lambda_u": self.lambda_u,
            "consistency_norm": self.consistency_norm or ("agree" if flute else "pass"),
            "consistency_teacher": self.consistency_teacher or ("local" if flute else "discarded"),
            "unlabeled_divisor": self.unlabeled_divisor,
            "temperature": self.temperature,
            "rows": batch.rows,
        }
        if flute:
            out = unlabeled_loss_flute(chosen, strong, other, **options)
        else:
            out = unlabeled_loss_paper(chosen, strong, logits_consistency=other, **options)
        anchor = (10.0 if flute else 0.0) if self.lambda_anchor is None else self.lambda_anchor
        if not anchor:
            return out
        pull = anchor * anchor_penalty(weights, received, net.parameters)
        return out._replace(total=out.total + pull)

    def _fit_joint(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train one live model on both losses; its own weak view is the local expert."""
        net, received = cohort.net("model"), request.shared["model"]
        optimizer = self.make_optimizer(request, net.layout)
        rule = self.rule(cohort, request, None)
        burnt_in = float(request.round > self.burn_in_rounds)

        def step(carry: Any, fixed: Any, batch: Any) -> tuple[Any, Mapping[str, Any]]:
            left, right = batch["labeled"], batch["unlabeled"]
            live = {**fixed, "local": carry["model"]}
            chosen = self.select(net, live, right)

            def objective(weights: Tree) -> tuple[Tensor, Any]:
                values = cross_entropy(net.at(weights, train=True, batch=left)(left.x), left.y)
                out = self._loss(net, weights, right.fold(1), chosen, fixed["received"])
                sums = {"labeled": left.sum(values), "n": left.n}
                return left.mean(values) + burnt_in * out.total, (out, sums)

            grads, (out, sums), moved = cohort.grad(objective, carry["model"], net.parameters)
            moved, state = optimizer.step(moved, grads, carry["optimizer"])
            return {"model": moved, "optimizer": state}, {
                **selection_sums(chosen, out, right),
                **sums,
            }

        parts = {part: cohort.samples(part) for part in ("labeled", "unlabeled")}
        batches = cohort.batches(
            parts,
            size={"labeled": self.batch_size, "unlabeled": self.unlabeled_rows},
            steps=self.steps,
            views={"labeled": ("weak",), "unlabeled": ("weak", "strong")},
            purpose="labeled",
        )
        start = cohort.start(received)
        state = cohort.map(lambda tree: optimizer.init(tree, net.parameters), start)
        carry, sums = cohort.scan(
            step, {"model": start, "optimizer": state}, batches,
            own={"rule": rule}, shared={"received": received},
        )  # fmt: skip
        metrics = {"loss_labeled": Ratio(sums["labeled"], sums["n"]), **unlabeled_metrics(sums)}
        weight = cohort.samples("all").count
        return FitResult({"model": Term(carry["model"], weight)}, metrics)
