"""Adapters of the FedSA kinds."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedlabels import aggregation, clients, losses
from fedlabels.cohort import FitRequest
from fedlabels.rounds import wire
from fedlabels.strategies.fedsa import FedSA, FedSASettings
from fedlabels.strategies.support import Server
from fedlabels.strategies.support.prototypes import PROTOTYPES, mean_prototypes
from tests.golden.convert import array, floats, gradients, integers, variable
from tests.golden.prototypes import (
    Given,
    as_given,
    by_class,
    collected,
    gathered,
    mean_and_gradient,
    prototypes_of,
    round_of,
    scripted,
    settings_of,
    table_of,
    weights,
)
from tests.golden.registry import adapter


@adapter("fedsa.anchor_init")
def anchor_init(inputs: Given) -> Given:
    """Anchors from given centers and layers."""
    layers = aggregation.Projection(*(array(inputs[key]) for key in ("W1", "b1", "W2", "b2")))
    centers, eps = array(inputs["random_centres"]), float(inputs["bn_eps"])
    return {"anchors": aggregation.semantic_anchors(centers, layers, eps=eps)}


@adapter("fedsa.anchor_gap")
def anchor_gap(inputs: Given) -> Given:
    """Gap of all anchors."""
    return {"gap": losses.gap(floats(inputs["anchors"]), form=inputs["options"]["margin"])}


@adapter("fedsa.margin")
def fedsa_margin(inputs: Given) -> Given:
    """Gaps and margin at the start of a local round."""
    anchors, given = floats(inputs["anchors"]), inputs["local_prototypes"]
    local = None if given is None else losses.gap(*table_of(given, *anchors.shape))
    margin = losses.anchor_margin(anchors, local)
    return {"local_gap": margin.local_gap, "margin": margin.value}


@adapter("fedsa.loss_mcl")
def loss_mcl(inputs: Given) -> Given:
    """Contrastive loss and its gradient."""
    features, anchors = variable(inputs["features"]), floats(inputs["anchors"])
    margin = losses.anchor_margin(anchors, floats(inputs["local_gap"])).value
    values = losses.margin_contrast(features, integers(inputs["labels"]), anchors, margin)
    return {"margin": margin, **mean_and_gradient(values, features)}


@adapter("fedsa.loss_reg")
def loss_reg(inputs: Given) -> Given:
    """Pull to the anchors and its gradient."""
    features = variable(inputs["features"])
    values = losses.prototype_pull(features, integers(inputs["labels"]), floats(inputs["anchors"]))
    return mean_and_gradient(values, features)


@adapter("fedsa.loss_cc")
def loss_cc(inputs: Given) -> Given:
    """Calibration of a head and its gradients."""
    head, weight, bias = _head(inputs)
    values = losses.calibration_loss(head(floats(inputs["anchors"])))
    loss = losses.mean_loss(values)
    by_weight, by_bias = gradients(loss, weight, bias)
    return {
        "loss": loss,
        "per_class": values,
        "grad_head_weight": by_weight,
        "grad_head_bias": by_bias,
    }


@adapter("fedsa.loss_total")
def loss_total(inputs: Given) -> Given:
    """All terms together."""
    head, weight, bias = _head(inputs)
    features, anchors = variable(inputs["features"]), floats(inputs["anchors"])
    loss = losses.fedsa_loss(
        features,
        head(features),
        integers(inputs["labels"]),
        anchors,
        head(anchors),
        margin=losses.anchor_margin(anchors, floats(inputs["local_gap"])).value,
        **{name: float(inputs[name]) for name in ("lambda_reg", "mu_mcl", "nu_cc")},
    ).total
    by_features, by_weight, by_bias = gradients(loss, features, weight, bias)
    return {
        "loss": loss,
        "grad_features": by_features,
        "grad_head_weight": by_weight,
        "grad_head_bias": by_bias,
    }


@adapter("fedsa.nearest_prototype")
def nearest_prototype(inputs: Given) -> Given:
    """Predictions by the nearest prototype."""
    features = floats(inputs["features"])
    table = table_of(inputs["global_prototypes"], int(inputs["num_classes"]), features.shape[1])
    predictions = losses.nearest_prototype(features, *table)
    right = np.equal(predictions.numpy(), inputs["labels"])
    return {"predictions": predictions, "num_correct": np.count_nonzero(right)}


@adapter("fedsa.local_prototypes")
def local_prototypes(inputs: Given) -> Given:
    """Prototypes of all steps."""
    classes = int(inputs["num_classes"])
    script = [{"x": step["features"], "y": step["labels"]} for step in inputs["steps"]]
    state = {"head.weight": np.zeros((classes, np.shape(script[0]["x"])[1]))}
    cohort = scripted({"batches": script, "initial_state": state}, classes, {})

    def step(carry: Any, fixed: Any, batch: Any) -> tuple[Any, Given]:
        sums, counts = losses.class_sums(batch.x, batch.y, num_classes=classes)
        return carry, {"sums": sums, "counts": counts}

    batches = cohort.batches(cohort.samples("labeled"), size=1, epochs=1)
    _, added = cohort.scan(step, {}, batches)
    means = losses.class_means(added["sums"], added["counts"])
    return {"prototypes": by_class(means.numpy(), added["counts"].numpy())}


@adapter("fedsa.aggregate_prototypes")
def aggregate_prototypes(inputs: Given) -> Given:
    """Unweighted means over the clients."""
    made = mean_prototypes(collected(inputs["clients"], None, int(inputs["num_classes"])))
    assert made is not None
    return {"global_prototypes": by_class(*made)}


@adapter("fedsa.anchor_ema")
def anchor_ema(inputs: Given) -> Given:
    """Anchors after several updates."""
    anchors = array(inputs["anchors"])
    prototypes = prototypes_of(inputs["global_prototypes"], *anchors.shape)
    for _ in range(int(inputs["num_updates"])):
        anchors = aggregation.anchor_ema(anchors, prototypes, float(inputs["alpha"]))
    return {"anchors": anchors}


@adapter("fedsa.local_round")
def fedsa_local_round(inputs: Given) -> Given:
    """A FedSA client's round."""
    classes = int(inputs["num_classes"])
    anchors = {"anchors": floats(inputs["anchors"])}
    state = {"model": weights(inputs["initial_state"])}
    if inputs["previous_local_prototypes"] is not None:
        shape = np.shape(inputs["anchors"])
        vectors, present = table_of(inputs["previous_local_prototypes"], *shape)
        assert present is not None
        state["prototypes"] = {"vectors": vectors, "counts": present.double()}
    client = clients.build({"name": "fedsa", **settings_of(inputs)})
    cohort = scripted(inputs, classes, state)
    result = client.fit(cohort, FitRequest("train", 1, 1, shared={"model": anchors}))
    margin = client.margins(cohort, anchors["anchors"])  # type: ignore[attr-defined]
    return {
        **round_of(result),
        "local_gap": margin.local_gap,
        "anchor_gap": margin.anchor_gap,
    }


@adapter("fedsa.rounds")
def fedsa_rounds(inputs: Given) -> Given:
    """Rounds of FedSA's server with clients of their own architectures."""
    classes, width = np.shape(inputs["initial_anchors"])
    strategy = FedSA(FedSASettings(alpha=float(inputs["alpha"])))
    strategy.bind(Server(num_classes=classes, feature_dim=width))
    arrays = strategy.initial({"any": np.zeros(1)})
    strategy.anchors = arrays["anchors"] = array(inputs["initial_anchors"])
    states = [{"model": weights(one["initial_state"])} for one in inputs["clients"]]
    client = clients.build({"name": "fedsa", **settings_of({**inputs, "epochs": 1})})
    rounds = []
    for index, chosen in enumerate(inputs["selected"]):
        terms = []
        shared = {"model": {"anchors": floats(arrays["anchors"])}}
        for k in chosen:
            cohort = scripted(inputs["clients"][k], classes, states[k])
            result = client.fit(cohort, FitRequest("train", index, 1, shared=shared))
            states[k] = dict(result.state)
            terms.append(result.terms[PROTOTYPES])
        got = gathered([_uplink(term) for term in terms])
        merged = strategy.merge(index, got, arrays)
        assert merged.model is not None
        arrays = merged.model
        rounds.append({"global_prototypes": by_class(*strategy.prototypes), **arrays})
    return {"rounds": rounds, "final_states": [as_given(state["model"]) for state in states]}


def _uplink(term: Any) -> wire.Uplink:
    value = {name: part.numpy() for name, part in term.value.items()}
    weight = {name: part.numpy() for name, part in term.weight.items()}
    return wire.Uplink({PROTOTYPES: wire.UpTerm(value, weight)}, 1.0)


def _head(inputs: Given) -> tuple[nn.Linear, Tensor, Tensor]:
    """Load a head; return it with its parameters."""
    head = nn.Linear(*reversed(np.shape(inputs["head_weight"])), dtype=torch.float64)
    state = {"weight": floats(inputs["head_weight"]), "bias": floats(inputs["head_bias"])}
    head.load_state_dict(state)
    return head, head.weight, head.bias
