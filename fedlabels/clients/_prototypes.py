"""What FedSA's and FedProto's clients have in common: a prototype a class goes up, nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from fedlabels.clients._own_model import OwnModelClient, Tables
from fedlabels.cohort import Batch, Cohort, FitRequest, Ratio, Term, Tree
from fedlabels.cohort.checks import check_at_least, check_choices, require
from fedlabels.effect import Only, only, other_than
from fedlabels.errors import ConfigError
from fedlabels.losses import class_means, class_sums

PROTOTYPES = "prototypes"


@dataclass(frozen=True)
class PrototypeClient(OwnModelClient):
    """A model of its own, and the mean feature of every class for the server.

    Parameters
    ----------
    proto_weighting : {"uniform", "count"}
        How the server weighs this client's prototypes: all the same, or each by its number of
        samples. Counts leave the client with ``count`` alone.
    min_class_count : int
        Fewest labeled samples of a class whose prototype goes up, >= 1. The mean of one sample IS
        its feature.
    predict_with : str
        Rule whose accuracy is ``accuracy``: ``prototype``, ``head`` or, where there are anchors,
        ``anchor``. All are reported.
    predict_over : {"all", "client_classes"}
        Candidates of the nearest vector: all, or the classes of which the client has labels.
    """

    proto_weighting: str = "uniform"
    min_class_count: int = 1
    predict_with: str = "prototype"
    predict_over: str = "all"

    # FedTGP's server trains on every prototype alike
    counts: ClassVar[tuple[Only, ...]] = (
        only("proto_weighting", **{"strategy.name": other_than("fedtgp")}),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(
            self,
            {
                "proto_weighting": ("uniform", "count"),
                "predict_over": ("all", "client_classes"),
                "predict_with": self.rules(),
            },
        )
        check_at_least(self, 1, ("min_class_count",))
        require(
            not isinstance(self.min_class_count, float),
            f"client.min_class_count must be a whole number, got {self.min_class_count}",
        )

    def rules(self) -> tuple[str, ...]:
        """Name the rules of prediction."""
        return ("prototype", "head")

    def rule(self) -> str:
        """Name the rule whose accuracy is ``accuracy``."""
        return self.predict_with

    def own_classes_only(self) -> bool:
        """Return whether only classes with labels are candidates."""
        return self.predict_over == "client_classes"

    def sent(self, cohort: Cohort, request: FitRequest, name: str) -> Tensor:
        """Return a table that the server sent, checked against the model's features.

        Raises
        ------
        ConfigError
            If the server sends no such table, or one of another width.
        """
        table = request.shared["model"].get(name)
        width = cast(Any, cohort.net("model").skeleton.head).in_features
        if table is None or table.shape[-1] != width:
            received = "nothing" if table is None else f"vectors of width {table.shape[-1]}"
            raise ConfigError(
                f"this client needs {name} of width {width} from the server, got {received}: use "
                "the strategy of the same method, and one feature_dim for model and for every "
                "entry of architectures.models"
            )
        return table

    def prototype_sums(self, features: Tensor, batch: Batch, classes: int) -> dict[str, Tensor]:
        """Return what a batch adds to the prototypes (S7)."""
        sums, counts = class_sums(features, batch.y, num_classes=classes, rows=batch.rows)
        return {"features": sums, "counts": counts}

    def prototypes(self, cohort: Cohort, sums: Mapping[str, Tensor], like: Tensor) -> Tree:
        """Return ``vectors`` (classes, width) and ``counts`` (classes,) of what was added up."""

        def means(features: Tensor, counts: Tensor) -> Tree:
            vectors = class_means(features, counts).to(like.dtype)
            return {"vectors": vectors, "counts": counts.to(like.dtype)}

        prototype_tree: Tree = cohort.map(means, sums["features"], sums["counts"])
        return prototype_tree

    def term(self, cohort: Cohort, prototypes: Tree) -> Term:
        """Return what goes up: all rows of the table, with weight 0 for classes that stay here.

        ``present`` repeats which ones count, for servers that look at every client.
        """

        def chosen(vectors: Tensor, seen: Tensor, held: Tensor) -> tuple[Tree, Tree]:
            kept = seen > 0
            if self.min_class_count > 1:  # of samples: training sees each one many times
                kept = kept & (held >= self.min_class_count)
            mask = kept.to(vectors.dtype)
            hidden = torch.where(kept.unsqueeze(-1), vectors, torch.zeros_like(vectors))
            weight = mask if self.proto_weighting == "uniform" else mask * held
            value = {"vectors": hidden, "present": mask}
            return value, {"vectors": weight.unsqueeze(-1), "present": weight}

        held = cohort.samples("labeled").class_counts(cohort.spec.num_classes)
        value, weight = cohort.map(chosen, prototypes["vectors"], prototypes["counts"], held)
        return Term(value, weight)

    def prototype_metrics(self, cohort: Cohort, term: Term) -> dict[str, Ratio]:
        """Return how many classes a client sends, for those that send any."""

        def count(present: Tensor) -> tuple[Tensor, Tensor]:
            sent = present.sum().double()
            return sent, (sent > 0).double()

        total, one = cohort.map(count, term.value["present"])
        return {"classes_sent": Ratio(total, one)}

    def loss_metrics(self, sums: Any, names: Sequence[str]) -> dict[str, Ratio]:
        """Return means over samples of the terms of the loss, as the steps saw them."""
        return {name: Ratio(sums[name], sums["n"]) for name in names}

    def prototype_table(self, vectors: Tensor, present: Tensor) -> Tables:
        """Return the table of the rule ``prototype``."""
        return {"prototype": {"vectors": vectors, "present": present.bool()}}
