"""Clients that keep a model of their own: it never leaves them, whatever its architecture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlabels.clients.base import LabeledClient
from fedlabels.cohort import (
    Batch,
    Batches,
    Cohort,
    FitRequest,
    FitResult,
    Ratio,
    Sums,
    Tree,
    View,
)
from fedlabels.cohort.tree import clone
from fedlabels.losses import cross_entropy, nearest_prototype

Loss = Callable[[View, Batch, Any], tuple[Tensor, Mapping[str, Any]]]
Tables = dict[str, Tree]
"""Rules of prediction beside the head: name -> ``vectors`` (classes, width), ``present``."""

MODEL = "model"  # the client's own model among its states
NUMBERS_AT_ONCE = 1 << 22  # of differences to all vectors of a table, in one batch


@dataclass(frozen=True)
class OwnModelClient(LabeledClient):
    """SGD on the labels with a model that stays; it tests itself on its own test samples.

    Parameters
    ----------
    drop_last : bool
        Leave out batches that are not full, as the official code does: a client with fewer labels
        than a batch then never trains. It does not shuffle either; here epochs are shuffled.
    """

    lr: float = 0.01
    batch_size: int = 10
    steps: int | None = None
    epochs: int | float | None = 1
    drop_last: bool = False

    @property
    def personal(self) -> bool:
        """Whether it evaluates with a model of its own: always."""
        return True

    def own_model(self, cohort: Cohort) -> Tree:
        """Return each client's model: the one it kept, or fresh weights."""
        if MODEL not in cohort.state:
            return cohort.init("model")
        kept: Tree = cohort.map(clone, dict(cohort.state[MODEL]))  # training overwrites in place
        return kept

    def train(
        self,
        cohort: Cohort,
        request: FitRequest,
        loss: Loss,
        *,
        own: Mapping[str, Tree],
        shared: Mapping[str, Tree],
    ) -> tuple[Tree, list[Sums]]:
        """Train the own model for a round.

        Parameters
        ----------
        loss : callable
            As for ``Cohort.sgd``.
        own, shared : mapping of str to Tree
            What the loss finds in ``fixed``.

        Returns
        -------
        Tree, list of Sums
            The model, and the sums of every epoch (of all steps together with ``steps``).
        """
        optimizer = self.make_optimizer(request, cohort.net("model").layout)
        with self.training(request):
            return cohort.sgd_in_parts(
                self.own_model(cohort),
                loss,
                self._epochs(cohort),
                optimizer,
                own=own,
                shared=shared,
            )

    def _epochs(self, cohort: Cohort) -> Iterator[Batches]:
        """Plan every epoch by itself, so that what one of them adds up can be told apart."""
        samples = cohort.samples("labeled")
        plan: dict[str, Any] = {
            "size": self.batch_size,
            "min_rows": self.batch_size if self.drop_last else 1,
        }
        if self.epochs is None:
            yield cohort.batches(samples, steps=self.steps, purpose="labeled", **plan)
            return
        if not float(self.epochs).is_integer():
            yield cohort.batches(samples, epochs=self.epochs, purpose="labeled", **plan)
            return
        for epoch in range(max(int(self.epochs), 1)):
            purpose = f"labeled/{epoch}" if epoch else "labeled"
            yield cohort.batches(samples, epochs=min(int(self.epochs), 1), purpose=purpose, **plan)

    def joined(self, cohort: Cohort, sums: Sequence[Sums]) -> dict[str, Tensor]:
        """Add up the sums of several epochs."""

        def add(*parts: dict[str, Tensor]) -> dict[str, Tensor]:
            total = parts[0]
            for part in parts[1:]:
                total = {name: value + part[name] for name, value in total.items()}
            return total

        total: dict[str, Tensor] = cohort.map(add, *[dict(part) for part in sums])
        return total

    # ---- test

    def tables(self, cohort: Cohort, request: FitRequest) -> Tables:
        """Return the tables by whose nearest vector the client predicts; the default has none."""
        return {}

    def rule(self) -> str:
        """Name the rule whose accuracy is reported as ``accuracy``: ``head``, or a table's."""
        return "head"

    def own_classes_only(self) -> bool:
        """Return whether tables count the classes alone of which the client has labels."""
        return False

    def evaluate(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Score the own model on the own test samples, by every rule.

        ``accuracy_held`` and ``accuracy_lacking`` split ``accuracy`` by whether the client has a
        label of the sample's class.
        """
        net, classes = cohort.net("model"), cohort.spec.num_classes
        counts = cohort.samples("labeled").class_counts(classes)
        held = cohort.map(lambda n: n > 0, counts)
        tables = self.tables(cohort, request)
        names = tuple(tables)

        def step(carry: Any, fixed: Any, batch: Batch) -> tuple[Any, Mapping[str, Any]]:
            view = net.at(fixed["model"])
            features = view.features(batch.x)
            logits = view.head(features)
            known = fixed["held"]["classes"]
            guesses = {"head": logits.argmax(-1)}
            for name in names:
                table = fixed[name]
                present = table["present"] & known if self.own_classes_only() else table["present"]
                guesses[name] = nearest_prototype(features, table["vectors"], present)
            return carry, self._hits(batch, guesses, known, cross_entropy(logits, batch.y))

        widest = max((t["vectors"].shape[-1] for t in tables.values()), default=1)
        size = max(16, min(512, NUMBERS_AT_ONCE // (classes * widest)))
        batches = cohort.batches(
            cohort.samples("test"), size=size, epochs=1, views=("plain",), purpose="score"
        )
        own = {"model": self.own_model(cohort), "held": {"classes": held}}
        _, sums = cohort.scan(step, {}, batches, own=own, shared=tables)
        return FitResult(metrics=self._scores(sums, [*names, "head"]))

    def _hits(
        self, batch: Batch, guesses: Mapping[str, Tensor], held: Tensor, loss: Tensor
    ) -> dict[str, Tensor]:
        right = {name: (guess == batch.y).to(loss.dtype) for name, guess in guesses.items()}
        labeled = (batch.y >= 0).to(loss.dtype)  # nobody is scored on a class that nobody knows
        chosen, known = right[self.rule()], held[batch.y.clamp_min(0)].to(loss.dtype) * labeled
        sums = {f"hit_{name}": batch.sum(hits) for name, hits in right.items()}
        return {
            **sums,
            "loss": batch.sum(loss),
            "n": batch.sum(labeled),
            "hit_held": batch.sum(chosen * known),
            "n_held": batch.sum(known),
            "hit_lacking": batch.sum(chosen * (labeled - known)),
            "n_lacking": batch.sum(labeled - known),
        }

    def _scores(self, sums: Sums, rules: Sequence[str]) -> dict[str, Ratio]:
        by_rule = {f"accuracy_{name}": Ratio(sums[f"hit_{name}"], sums["n"]) for name in rules}
        return {
            "loss": Ratio(sums["loss"], sums["n"]),
            "accuracy": Ratio(sums[f"hit_{self.rule()}"], sums["n"]),
            **by_rule,
            "accuracy_held": Ratio(sums["hit_held"], sums["n_held"]),
            "accuracy_lacking": Ratio(sums["hit_lacking"], sums["n_lacking"]),
        }
