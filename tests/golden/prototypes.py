"""Tables of prototypes and clients of the golden files, turned into the project's own types."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Message, RecordDict
from torch import Tensor, nn

from fedlabels import losses
from fedlabels.aggregation import Prototypes
from fedlabels.cohort import DataSpec, FitResult, Nets, ScriptedCohort, Shard, TensorSource, Tree
from fedlabels.models.base import Classifier
from fedlabels.rounds import wire
from fedlabels.rounds.flower_compat import identify
from fedlabels.strategies.support import Collected, collect
from fedlabels.strategies.support.prototypes import PRESENT, PROTOTYPES, VECTORS
from tests.golden.convert import floats, gradients, integers

Given = dict[str, Any]


def prototypes_of(given: Mapping[str, Any], classes: int, width: int) -> Prototypes:
    """Make a table of prototypes by class id."""
    vectors, present = np.zeros((classes, width)), np.zeros(classes, dtype=bool)
    for name, vector in given.items():
        vectors[int(name)], present[int(name)] = vector, True
    return Prototypes(vectors, present)


def table_of(
    given: Mapping[str, Any] | None, classes: int, width: int
) -> tuple[Tensor | None, Tensor | None]:
    """Make tensors of a table; None stays None."""
    if given is None:
        return None, None
    made = prototypes_of(given, classes, width)
    return torch.from_numpy(made.vectors), torch.from_numpy(made.present)


def by_class(vectors: Any, present: Any) -> Given:
    return {str(c): vectors[c] for c in np.flatnonzero(present)}


def stacked(sent: Iterable[Mapping[str, Any]], classes: int) -> tuple[Any, Any]:
    """Stack the clients' tables: values, and which of them were sent."""
    clients_ = list(sent)
    width = next(np.size(vector) for one in clients_ for vector in one.values())
    made = [prototypes_of(one, classes, width) for one in clients_]
    return np.stack([one.vectors for one in made]), np.stack([one.present for one in made])


def weights(state: Mapping[str, Any]) -> Tree:
    return {name.replace("base.", "body."): floats(value) for name, value in state.items()}


def as_given(tree: Tree) -> Given:
    return {name.replace("body.", "base."): value for name, value in tree.items()}


class Stack(Classifier):
    """Linear layers with a ReLU after each, and a head, of the shapes of a state."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for name, shape in shapes.items():
            if name.startswith("base.") and len(shape) == 2:
                layers.extend([nn.Linear(shape[1], shape[0]), nn.ReLU()])
        self.body = nn.Sequential(*layers)
        classes, width = shapes["head.weight"]
        self.head = nn.Linear(width, classes)


def scripted(inputs: Given, classes: int, state: Mapping[str, Tree]) -> ScriptedCohort:
    """Script the given batches for a client with the given state."""
    script = [{"plain": floats(b["x"]), "y": integers(b["y"])} for b in inputs["batches"]]
    shapes = {name: np.shape(value) for name, value in inputs["initial_state"].items()}
    return ScriptedCohort(
        script={"labeled": script},
        spec=DataSpec(tuple(script[0]["plain"].shape[1:]), classes),
        nets=Nets(lambda: {"model": Stack(shapes)}, 0, torch.float64),
        source=TensorSource(script[0]["plain"], floats(0), floats(1)),
        shards=[Shard(0)],
        seed=0,
        round_index=1,
        state=state,
    )


def settings_of(inputs: Given) -> Given:
    """Collect the client's settings; batches are given whole, so their sizes do not matter."""
    names = [name for name in ("lr", "lambda_reg", "mu_mcl", "nu_cc") if name in inputs]
    given = {name: float(inputs[name]) for name in names}
    return {**given, "epochs": int(inputs["epochs"])}


def round_of(result: FitResult) -> Given:
    """Name what a client's round came to."""
    value = result.terms[PROTOTYPES].value
    return {
        "final_state": as_given(result.state["model"]),
        "prototypes": by_class(value["vectors"].numpy(), value["present"].numpy()),
    }


def mean_and_gradient(values: Tensor, features: Tensor) -> Given:
    loss = losses.mean_loss(values)
    (gradient,) = gradients(loss, features)
    return {"loss": loss, "grad_features": gradient}


def collected(
    sent: Iterable[Mapping[str, Any]], counts: Iterable[Any] | None, classes: int
) -> Collected:
    """Send dictionaries of prototypes, each with weight 1 or its count."""
    given = list(sent)
    values, present = stacked(given, classes)
    weights = counts or [dict.fromkeys(one, 1) for one in given]
    uplinks = []
    for vectors, here, numbers in zip(values, present, weights, strict=True):
        weight = np.zeros(classes)
        for name, number in numbers.items():
            weight[int(name)] = number
        value = {VECTORS: vectors, PRESENT: here}
        term = wire.UpTerm(value, {VECTORS: weight[:, None], PRESENT: weight})
        sends = bool(here.any())
        uplinks.append(wire.Uplink({PROTOTYPES: term} if sends else {}, float(sends)))
    return gathered(uplinks)


def gathered(uplinks: Iterable[wire.Uplink]) -> Collected:
    """Send uplinks through messages, as devices do, and collect them."""
    identify()
    replies = []
    for node, up in enumerate(uplinks):
        asked = Message(RecordDict(), node, "train")
        replies.append(Message(wire.encode_up(up), reply_to=asked))
    return collect(
        replies, needs={PROTOTYPES: "sum"}, expected=lambda name: None, client_of=lambda node: node
    )
