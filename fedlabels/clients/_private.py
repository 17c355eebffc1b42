"""Tensors that stay with their client: which ones, and how they come back in the next round.

The policies are those of FedBN (Li et al., ICLR 2021, arXiv 2102.07623), SiloBN (Andreux et al.,
2020, arXiv 2008.07424) and FixBN (Zhong et al., arXiv 2303.06530). The functions serve any client;
`OwnNorm` is all that one of labeled SGD needs.
"""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedlabels.clients.base import LabeledClient
from fedlabels.cohort import (
    Cohort,
    FitRequest,
    FitResult,
    Layout,
    Ratio,
    Term,
    Tree,
    score,
    statistics,
)
from fedlabels.cohort.checks import check_between, check_choices
from fedlabels.effect import Only, only

POLICIES = ("global", "local", "silo", "fix")
STATE = "private"  # the tree of a client's state that holds its own tensors
_NORM = "BatchNorm"
_ROWS = 512  # of a batch when statistics are computed anew


def private_names(
    policy: str, layers: Collection[str], batch_statistics: Collection[str]
) -> frozenset[str]:
    """Return the names of the tensors that a policy keeps with the client.

    Parameters
    ----------
    policy : {"global", "local", "silo", "fix"}
        ``local`` keeps whole batch normalization layers (FedBN), ``silo`` only their statistics
        (SiloBN), the others nothing.
    layers : collection of str
        All tensors of these layers.
    batch_statistics : collection of str
        Those of them that are statistics or counters.
    """
    return frozenset({"local": layers, "silo": batch_statistics}.get(policy, ()))


def norm_names(layout: Layout) -> tuple[frozenset[str], frozenset[str]]:
    """Name all tensors of batch normalization layers, and those that are no parameters."""
    layers = layout.names(module_type=_NORM)
    return layers, layers - layout.names(role="parameter")


def merged(tree: Tree, kept: Mapping[str, Tensor]) -> Tree:
    """Put a client's own tensors into a model; neither argument is changed."""
    return {**tree, **{name: value.clone() for name, value in kept.items() if name in tree}}


def recomputed(cohort: Cohort, tree: Tree) -> Tree:
    """Compute the statistics of batch normalization anew from all training samples of the client.

    Parameters
    ----------
    cohort : Cohort
        The clients.
    tree : Tree
        Weights per client; not changed.

    Returns
    -------
    Tree
        The weights with the mean statistics of batches of 512 samples, labeled or not, in the plain
        view. A client without samples keeps its own.
    """
    net = cohort.net("model")
    counters = net.layout.names(module_type=_NORM, role="counter")

    def from_zero(tree: Tree) -> Tree:
        return {**tree, **{name: torch.zeros_like(tree[name]) for name in counters}}

    def step(carry: Any, fixed: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        moved = dict(carry["tree"])
        net.at(moved, train=True, batch=batch)(batch.x)  # replaces the statistics in its tree
        return {"tree": moved}, {}

    batches = cohort.batches(
        cohort.samples("all"), size=_ROWS, epochs=1, views=("plain",), purpose="statistics"
    )
    with statistics("cumulative"):
        carry, _ = cohort.scan(step, {"tree": cohort.map(from_zero, tree)}, batches)
    made: Tree = carry["tree"]
    return made


@dataclass(frozen=True)
class OwnNorm(LabeledClient):
    """Labeled SGD whose clients may keep their batch normalization.

    A client gets these settings by having this class as its base; its ``fit`` starts from
    ``self.start``, trains inside ``self.training`` (as ``self.train_labeled`` does) and ends with
    ``self.result``.

    Parameters
    ----------
    bn_policy : {"global", "local", "silo", "fix"}
        ``global`` averages batch normalization as any layer; ``local`` keeps it with the client
        (FedBN); ``silo`` keeps its statistics (SiloBN); ``fix`` fixes the averaged statistics in
        the later rounds (FixBN). Layers are chosen by their type; without any, all four are equal.
    fix_after : float
        Share of the rounds, in [0, 1], after which ``fix`` fixes them.
    recompute_statistics : bool
        Whether a client that keeps statistics computes them anew from its training samples before
        it evaluates its model. It then reports ``accuracy_kept``, that of the kept ones, too.
    """

    bn_policy: str = "global"
    fix_after: float = 0.5
    recompute_statistics: bool = False

    counts: ClassVar[tuple[Only, ...]] = (
        only("fix_after", bn_policy="fix"),
        only("recompute_statistics", bn_policy=("local", "silo")),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, {"bn_policy": POLICIES})
        check_between(self, 0, 1, ("fix_after",))

    @property
    def personal(self) -> bool:
        """Whether the clients have models of their own."""
        return self.bn_policy in ("local", "silo")

    def private(self, layout: Layout) -> frozenset[str]:
        """Return the names of tensors that never leave the client."""
        return private_names(self.bn_policy, *norm_names(layout))

    def start(self, cohort: Cohort, request: FitRequest) -> Tree:
        """Return the received model with the client's own tensors in place."""
        tree = super().start(cohort, request)
        if STATE not in cohort.state:
            return tree
        start: Tree = cohort.map(merged, tree, cohort.state[STATE])
        return start

    def training(self, request: FitRequest) -> AbstractContextManager[None]:
        """Fix the statistics where the policy says so."""
        done, planned = request.round - 1, request.rounds
        fixed = self.bn_policy == "fix" and planned > 0 and done >= self.fix_after * planned
        return statistics("fixed") if fixed else nullcontext()

    def result(
        self, cohort: Cohort, tree: Tree, weight: Tensor, metrics: Mapping[str, Ratio]
    ) -> FitResult:
        """Return the model, and keep the client's own tensors."""
        names = self.private(cohort.net("model").layout)
        if not names:
            return super().result(cohort, tree, weight, metrics)
        own = {name: tree[name] for name in tree if name in names}
        return FitResult({"model": Term(tree, weight)}, metrics, {STATE: own})

    def evaluate(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Score the client's own model on its own test samples."""
        if not self.private(cohort.net("model").layout):
            return super().evaluate(cohort, request)
        own_weights = self.start(cohort, request)
        figures = score(cohort, own_weights, "test", own=True)
        if not self.recompute_statistics:
            return FitResult(metrics=figures)
        anew = score(cohort, recomputed(cohort, own_weights), "test", own=True)
        return FitResult(metrics={**anew, "accuracy_kept": figures["accuracy"]})
