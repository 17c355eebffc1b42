"""FedSA's client: features are pulled to the server's anchors, the head learns all of them.

Zhou et al.: "FedSA: A Unified Representation Learning via Semantic Anchors for Prototype-based
Federated Learning", AAAI 2025, arXiv 2501.05496. S2 to S7 and S10 of docs/methods/fedsa.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from fedlabels.clients._own_model import MODEL, Tables
from fedlabels.clients._prototypes import PROTOTYPES, PrototypeClient
from fedlabels.cohort import Batch, Cohort, FitRequest, FitResult, Ratio, Reads, View
from fedlabels.cohort.checks import check_at_least, check_choices
from fedlabels.losses import Margin, anchor_margin, fedsa_loss, gap

ANCHORS = "anchors"
_LOSSES = ("loss_labeled", "loss_reg", "loss_mcl", "loss_cc")


@dataclass(frozen=True)
class FedSA(PrototypeClient):
    """Cross-entropy, pull to the anchors, contrast with a margin, calibration of the head (S6).

    Parameters
    ----------
    lambda_reg, mu_mcl, nu_cc : float
        Coefficients of the three terms, >= 0; all 0 is local training.
    margin : {"nearest", "all_pairs"}
        Gap of a set of vectors (S3, S3b).
    """

    lambda_reg: float = 10.0
    mu_mcl: float = 1.0
    nu_cc: float = 1.0
    margin: str = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, ("lambda_reg", "mu_mcl", "nu_cc"))
        check_choices(self, {"margin": ("nearest", "all_pairs")})

    def rules(self) -> tuple[str, ...]:
        """Name the rules of prediction."""
        return ("prototype", "head", "anchor")

    @property
    def reads(self) -> Reads:
        """What it reads: anchors in place of a model, and prototypes when it tests itself."""
        return Reads(payloads=(PROTOTYPES,), arrays=(ANCHORS,))

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: prototypes."""
        return (PROTOTYPES,)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train the own model against the anchors, and collect prototypes on the way."""
        anchors = self.sent(cohort, request, ANCHORS)
        margin = self.margins(cohort, anchors)

        def loss(view: View, batch: Batch, fixed: Any) -> tuple[Tensor, Mapping[str, Any]]:
            features = view.features(batch.x)
            table = fixed[ANCHORS]["vectors"]
            out = fedsa_loss(
                features,
                view.head(features),
                batch.y,
                table,
                view.head(table),
                margin=fixed["margin"]["value"],
                lambda_reg=self.lambda_reg,
                mu_mcl=self.mu_mcl,
                nu_cc=self.nu_cc,
                mean=batch.mean,
            )
            parts = zip(_LOSSES, (out.ce, out.reg, out.mcl, out.cc), strict=True)
            sums = {name: value * batch.n for name, value in parts}
            feature_sums = self.prototype_sums(features.detach(), batch, table.shape[0])
            return out.total, {**sums, "n": batch.n, **feature_sums}

        own = {"margin": {"value": margin.value}}
        shared = {ANCHORS: {"vectors": anchors}}
        tree, epochs = self.train(cohort, request, loss, own=own, shared=shared)
        sums = self.joined(cohort, epochs)
        prototypes = self.prototypes(cohort, sums, anchors)
        term = self.term(cohort, prototypes)
        metrics = {
            **self.loss_metrics(sums, _LOSSES),
            **self.prototype_metrics(cohort, term),
            **self._margin_metrics(cohort, margin),
        }
        return FitResult({PROTOTYPES: term}, metrics, {MODEL: tree, PROTOTYPES: prototypes})

    def margins(self, cohort: Cohort, anchors: Tensor) -> Margin:
        """Return d_k for a round: of the anchors, and of the client's prototypes if any (S3)."""
        form = cast("Any", self.margin)
        kept = cohort.state.get(PROTOTYPES)
        if kept is None:

            def first(count: Tensor) -> Margin:
                plain = anchor_margin(anchors, form=form)
                return Margin(*(value + 0 * count for value in plain))  # one a client

            return cast(Margin, cohort.map(first, cohort.samples("labeled").count))

        def later(vectors: Tensor, counts: Tensor) -> Margin:
            return anchor_margin(anchors, gap(vectors, counts > 0, form=form), form=form)

        return cast(Margin, cohort.map(later, kept["vectors"], kept["counts"]))

    def _margin_metrics(self, cohort: Cohort, margin: Margin) -> dict[str, Ratio]:
        """Report d_k and how often the client's own gap decides it, among clients with labels."""

        def measure(margin: Margin, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            one = (count > 0).double()
            own = (margin.local_gap > margin.anchor_gap).double()
            return margin.value.double() * one, own * one, one

        value, own, one = cohort.map(measure, margin, cohort.samples("labeled").count)
        return {"margin": Ratio(value, one), "margin_local": Ratio(own, one)}

    def tables(self, cohort: Cohort, request: FitRequest) -> Tables:
        """Return the global prototypes and the anchors."""
        anchors = self.sent(cohort, request, ANCHORS)
        global_prototypes = request.shared[PROTOTYPES]
        everywhere = torch.ones(anchors.shape[0], dtype=torch.bool, device=anchors.device)
        return {
            **self.prototype_table(global_prototypes["vectors"], global_prototypes["present"]),
            "anchor": {"vectors": anchors, "present": everywhere},
        }
