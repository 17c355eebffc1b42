"""Local training: every client by itself, the lower reference of methods without a global model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlabels.clients._own_model import MODEL, OwnModelClient
from fedlabels.cohort import Batch, Cohort, FitRequest, FitResult, Ratio, Reads, View
from fedlabels.losses import cross_entropy


@dataclass(frozen=True)
class LocalTraining(OwnModelClient):
    """SGD on the own labels; nothing goes up or down."""

    @property
    def reads(self) -> Reads:
        """What it reads: nothing."""
        return Reads(arrays=())

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: none."""
        return ()

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train the own model; a client without labels keeps it."""

        def loss(view: View, batch: Batch, fixed: Any) -> tuple[Tensor, Mapping[str, Any]]:
            values = cross_entropy(view(batch.x), batch.y)
            return batch.mean(values), {"loss": batch.sum(values), "n": batch.n}

        tree, epochs = self.train(cohort, request, loss, own={}, shared={})
        sums = self.joined(cohort, epochs)
        metrics = {"loss_labeled": Ratio(sums["loss"], sums["n"])}
        return FitResult({}, metrics, {MODEL: tree})
