"""FedProto's client, which is FedTGP's as well: features are pulled to the global prototypes.

Tan et al.: "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022, arXiv
2105.00243. P3 and P4 of docs/methods/fedproto.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlabels.clients._own_model import MODEL, Tables
from fedlabels.clients._prototypes import PROTOTYPES, PrototypeClient
from fedlabels.cohort import Batch, Cohort, FitRequest, FitResult, Reads, Sums, Tree, View
from fedlabels.cohort.checks import check_at_least, check_choices, require
from fedlabels.losses import cross_entropy, prototype_pull

_LOSSES = ("loss_labeled", "loss_reg")


@dataclass(frozen=True)
class FedProto(PrototypeClient):
    """Cross-entropy, and ``lambda_reg`` times the distance to the global prototype (P3).

    Parameters
    ----------
    lambda_reg : float
        Coefficient, >= 0; 0 is local training.
    proto_from : {"all_epochs", "last_epoch", "after_training"}
        Features that make the prototypes: those of all training steps, of the last epoch's, or of
        one more pass with the final weights in evaluation mode.
    """

    lambda_reg: float = 10.0
    proto_from: str = "all_epochs"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, ("lambda_reg",))
        check_choices(self, {"proto_from": ("all_epochs", "last_epoch", "after_training")})
        require(
            self.proto_from != "last_epoch" 
            or (self.epochs is not None and float(self.epochs).is_integer()),
            "client.proto_from=last_epoch needs whole epochs: set training.epochs, got "
            f"{self.epochs}",
        )

    @property
    def reads(self) -> Reads:
        """What it reads: the global prototypes in place of a model."""
        return Reads(arrays=("vectors", "present"))

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: prototypes."""
        return (PROTOTYPES,)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train the own model, and make its prototypes."""
        vectors = self.sent(cohort, request, "vectors")
        present = request.shared["model"]["present"].bool()

        def loss(view: View, batch: Batch, fixed: Any) -> tuple[Tensor, Mapping[str, Any]]:
            features = view.features(batch.x)
            values = cross_entropy(view.head(features), batch.y)
            table = fixed[PROTOTYPES]
            pull = prototype_pull(features, batch.y, table["vectors"], table["present"])
            total = batch.mean(values)
            if self.lambda_reg:
                total = total + self.lambda_reg * batch.mean(pull)
            sums = {"loss_labeled": batch.sum(values), "loss_reg": batch.sum(pull), "n": batch.n}
            feature_sums = self.prototype_sums(features.detach(), batch, table["vectors"].shape[0])
            return total, {**sums, **feature_sums}

        shared = {PROTOTYPES: {"vectors": vectors, "present": present}}
        tree, epochs = self.train(cohort, request, loss, own={}, shared=shared)
        sums = self.joined(cohort, epochs)
        seen: Mapping[str, Tensor] = sums
        if self.proto_from == "last_epoch":
            seen = epochs[-1]
        elif self.proto_from == "after_training":
            seen = self._pass(cohort, tree)
        term = self.term(cohort, self.prototypes(cohort, seen, vectors))
        metrics = {**self.loss_metrics(sums, _LOSSES), **self.prototype_metrics(cohort, term)}
        return FitResult({PROTOTYPES: term}, metrics, {MODEL: tree})

    def _pass(self, cohort: Cohort, tree: Tree) -> Sums:
        """Add up the features of all labeled samples in evaluation mode."""
        net, classes = cohort.net("model"), cohort.spec.num_classes

        def step(carry: Any, fixed: Any, batch: Batch) -> tuple[Any, Mapping[str, Any]]:
            features = net.at(fixed["model"]).features(batch.x)
            return carry, self.prototype_sums(features, batch, classes)

        plan = {"size": self.batch_size, "min_rows": self.batch_size} if self.drop_last else {}
        batches = cohort.batches(
            cohort.samples("labeled"),
            **{"size": 512, **plan},
            epochs=1,
            views=("plain",),
            purpose="prototypes",
        )
        return cohort.scan(step, {}, batches, own={"model": tree})[1]

    def tables(self, cohort: Cohort, request: FitRequest) -> Tables:
        """Return the global prototypes."""
        vectors = self.sent(cohort, request, "vectors")
        return self.prototype_table(vectors, request.shared["model"]["present"])
