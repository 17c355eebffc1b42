"""Adapters of the FedProto and FedTGP kinds."""

import numpy as np
import torch

from fedlabels import aggregation, clients, losses
from fedlabels.cohort import FitRequest, Tree
from fedlabels.rounds import wire
from fedlabels.strategies.fedtgp import FedTGP, FedTGPSettings
from fedlabels.strategies.support.prototypes import mean_prototypes
from tests.golden.convert import floats, gradients, integers, variable
from tests.golden.prototypes import (
    Given,
    by_class,
    collected,
    gathered,
    mean_and_gradient,
    round_of,
    scripted,
    settings_of,
    stacked,
    table_of,
    weights,
)
from tests.golden.registry import adapter


@adapter("fedproto.regularizer")
def regularizer(inputs: Given) -> Given:
    """Pull to the prototypes that exist, and its gradient."""
    features = variable(inputs["features"])
    width = features.shape[1]
    table, present = table_of(inputs["global_prototypes"], int(inputs["num_classes"]), width)
    values = losses.prototype_pull(features, integers(inputs["labels"]), table, present)
    return mean_and_gradient(values, features)


@adapter("fedproto.predict")
def predict(inputs: Given) -> Given:
    """Predictions among the client's classes."""
    features, classes = floats(inputs["features"]), int(inputs["num_classes"])
    table, present = table_of(inputs["global_prototypes"], classes, features.shape[1])
    held = torch.from_numpy(np.isin(np.arange(classes), inputs["client_classes"]))
    candidates = torch.logical_and(present, held)
    return {
        "predictions": losses.nearest_prototype(features, table, candidates),
        "distances": losses.prototype_distances(features, table, candidates),
    }


@adapter("fedproto.aggregate")
def fedproto_aggregate(inputs: Given) -> Given:
    """Means over the clients, unweighted or by counts."""
    got = collected(inputs["clients"], inputs["counts"], int(inputs["num_classes"]))
    made = mean_prototypes(got)
    assert made is not None
    return {"global_prototypes": by_class(*made)}


@adapter("fedtgp.generator")
def tgp_generator(inputs: Given) -> Given:
    """Prototypes of a generator."""
    return {"prototypes": losses.generate(_generator(inputs))}


@adapter("fedtgp.margin")
def tgp_margin(inputs: Given) -> Given:
    """Gaps of the uploaded prototypes' means, and both margins."""
    means = aggregation.prototype_mean(*stacked(inputs["clients"], int(inputs["num_classes"])))
    given = [torch.from_numpy(part) for part in means]
    margin = losses.tgp_margin(*given, tau=float(inputs["tau"]))
    every = losses.tgp_margin(*given, tau=float(inputs["tau"]), form="max_pair")
    return {
        "class_gap": margin.gaps,
        "min_gap": margin.smallest,
        "max_gap": margin.largest,
        "margin": margin.value,
        "all_pairs_margin": every.value,
    }


@adapter("fedtgp.server_loss")
def server_loss(inputs: Given) -> Given:
    """Contrastive loss of the uploaded prototypes and the generator's gradients."""
    generator = {name: part.requires_grad_() for name, part in _generator(inputs).items()}
    prototypes, labels = floats(inputs["prototypes"]), integers(inputs["labels"])
    loss = losses.generator_loss(generator, prototypes, labels, float(inputs["margin"]))
    grads = dict(zip(generator, gradients(loss, *generator.values()), strict=True))
    return {"loss": loss, "grads": _named_as_given(grads)}


@adapter("fedtgp.server_update")
def server_update(inputs: Given) -> Given:
    """Training of the generator in full batches."""
    values, sent = stacked(inputs["clients"], int(inputs["num_classes"]))
    settings = FedTGPSettings(
        tau=float(inputs["tau"]),
        server_epochs=int(inputs["server_epochs"]),
        server_lr=float(inputs["lr"]),
        server_batch=int(np.size(sent)),
    )
    strategy = FedTGP(settings)
    strategy.generator = _generator(inputs)
    prototypes, _ = strategy.train(values, sent, 1)
    return {
        "global_prototypes": by_class(*prototypes),
        "generator_state": _named_as_given(strategy.generator),
    }


@adapter("fedproto.local_round")
def fedproto_local_round(inputs: Given) -> Given:
    """A FedProto client's round."""
    classes = int(inputs["num_classes"])
    width = np.shape(inputs["initial_state"]["head.weight"])[1]
    vectors, present = table_of(inputs["global_prototypes"] or {}, classes, width)
    settings = {**settings_of(inputs), "momentum": float(inputs["momentum"]), **inputs["options"]}
    client = clients.build({"name": "fedproto", **settings})
    shared = {"model": {"vectors": vectors, "present": present}}
    cohort = scripted(inputs, classes, {"model": weights(inputs["initial_state"])})
    result = client.fit(cohort, FitRequest("train", 1, 1, shared=shared))
    metrics = {name: (float(r.sum), float(r.count)) for name, r in result.metrics.items()}
    got = gathered([wire.Uplink({}, 1.0, metrics)])
    return {**round_of(result), "mean_reg_loss": got.means()["loss_reg"]}


_GENERATOR = {
    "embedings.weight": "embedding",
    "middle.0.0.weight": "hidden.weight",
    "middle.0.0.bias": "hidden.bias",
    "fc.weight": "output.weight",
    "fc.bias": "output.bias",
}


def _generator(inputs: Given) -> Tree:
    return {ours: floats(inputs["generator_state"][name]) for name, ours in _GENERATOR.items()}


def _named_as_given(tree: Tree) -> Given:
    return {name: tree[ours] for name, ours in _GENERATOR.items()}
