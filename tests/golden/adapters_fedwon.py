"""Adapters of the kinds of FedWon and of the baselines that treat batch normalization apart."""

from typing import Any

import numpy as np
import torch
from flwr.app import Message

from fedlabels import aggregation, models, strategies
from fedlabels.clients._private import merged, private_names
from fedlabels.cohort import SGD
from fedlabels.cohort.optimizers import clip_units
from fedlabels.rounds import flower_compat, wire
from fedlabels.simulation.grid import CohortGrid
from fedlabels.strategies.base import Server
from tests.golden.convert import array, floats, integers, tree
from tests.golden.registry import adapter

flower_compat.quiet()

POLICIES = {"fedavg": "global", "silobn": "silo", "fedbn": "local"}


def _optional(value: Any) -> Any:
    return None if value is None else floats(value)


def _unbiased(inputs: dict[str, Any]) -> bool:
    return int(inputs["options"]["ddof"]) == 1


@adapter("fedwon.standardize_weight")
def standardize_weight(inputs: dict[str, Any]) -> dict[str, Any]:
    """The weight that a convolution works with."""
    weight = models.standardize_weight(
        floats(inputs["weight"]),
        _optional(inputs["gain"]),
        gamma=float(inputs["gamma"]),
        eps=float(inputs["eps"]),
        unbiased=_unbiased(inputs),
    )
    return {"weight_standardized": weight}


@adapter("fedwon.ws_conv")
def ws_conv(inputs: dict[str, Any]) -> dict[str, Any]:
    """A layer with given weights, and its gradients for a given cotangent."""
    weight, groups = floats(inputs["weight"]), int(inputs["groups"])
    layer = models.WSConv2d(
        weight.shape[1] if groups == 1 else floats(inputs["x"]).shape[1],
        weight.shape[0],
        tuple(weight.shape[2:]),
        *(int(inputs[key]) for key in ("stride", "padding", "dilation")),
        groups,
        bias=inputs["bias"] is not None,
        gamma=float(inputs["gamma"]),
        eps=float(inputs["eps"]),
        unbiased=_unbiased(inputs),
    ).double()
    given = {key: inputs[key] for key in ("weight", "gain", "bias") if inputs[key] is not None}
    layer.load_state_dict(tree(given))
    output = layer(floats(inputs["x"]))
    names = list(given)
    parts = torch.autograd.grad(
        output, [layer.get_parameter(name) for name in names], floats(inputs["upstream"])
    )
    found = dict(zip(names, parts, strict=True))
    return {"output": output, **{f"grad_{k}": found.get(k) for k in ("weight", "gain", "bias")}}


@adapter("fedwon.agc")
def agc(inputs: dict[str, Any]) -> dict[str, Any]:
    """The clipped gradient of one tensor."""
    clipped, units = clip_units(
        floats(inputs["param"]),
        floats(inputs["grad"]),
        float(inputs["clipping"]),
        float(inputs["eps"]),
    )
    return {"clipped_grad": clipped, "unit_triggered": units.flatten()}


@adapter("fedwon.agc_sgd")
def agc_sgd(inputs: dict[str, Any]) -> dict[str, Any]:
    """Steps of the optimizer."""
    optimizer = SGD(
        float(inputs["lr"]),
        momentum=float(inputs["momentum"]),
        weight_decay=float(inputs["weight_decay"]),
        agc=float(inputs["clipping"]),
        agc_eps=float(inputs["eps"]),
        agc_skip=frozenset(inputs["not_clipped"].tolist()),
    )
    params = tree(inputs["params"])
    state, steps = optimizer.init(params, list(params)), []
    for grads in inputs["grads_per_step"]:
        params, state = optimizer.step(params, tree(grads), state)
        steps.append({name: value.clone() for name, value in params.items()})
    return {"params_after_each_step": steps}


@adapter("fedwon.bn_policies")
def bn_policies(inputs: dict[str, Any]) -> dict[str, Any]:
    """One round of the server, and the models with which the clients go on."""
    return {name: _round(policy, inputs) for name, policy in POLICIES.items()}


def _round(policy: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Let clients reply to the server of FedAvg with what they share."""
    order, clients = list(inputs["server_state"]), range(len(inputs["client_states"]))
    private = private_names(
        policy, inputs["bn_keys"].tolist(), inputs["bn_statistic_keys"].tolist()
    )
    server = strategies.build("fedavg", {})
    grid = CohortGrid(clients, None)
    client_of = dict(zip(grid.get_node_ids(), clients, strict=True))
    server.bind(Server(private=private, client_of=client_of))
    arrays = wire.to_record({k: array(v) for k, v in inputs["server_state"].items()})
    asked = server.configure("train", 1, arrays, grid)
    replies = []
    for message, state, count in zip(
        asked, inputs["client_states"], inputs["n_samples"], strict=True
    ):
        shared = {k: array(v) for k, v in state.items() if k not in private}
        up = wire.Uplink({wire.MODEL: wire.UpTerm(shared)}, float(count))
        replies.append(Message(wire.encode_up(up), reply_to=message))
    outcome = server.train_outcome(1, replies)
    new = {k: floats(v) for k, v in wire.from_record(outcome.arrays).items()}
    return {
        "global_state": {k: new[k] for k in order if k not in private},
        "client_states_next_round": [
            merged(new, {k: v for k, v in tree(state).items() if k in private})
            for state in inputs["client_states"]
        ],
        "not_communicated": np.array([name for name in order if name in private], dtype=str),
    }


@adapter("fedwon.aggregate_raw")
def aggregate_raw(inputs: dict[str, Any]) -> dict[str, Any]:
    """The mean of raw weights, and what the convolution makes of it."""
    mean = aggregation.weighted_mean(array(inputs["client_weights"]), inputs["n_samples"])
    weight = models.standardize_weight(
        floats(mean), eps=float(inputs["eps"]), unbiased=_unbiased(inputs)
    )
    return {"aggregated_raw_weight": mean, "standardized_after_averaging": weight}


@adapter("fedwon.nf_beta")
def nf_beta(inputs: dict[str, Any]) -> dict[str, Any]:
    """Input scales of the blocks."""
    depths = integers(inputs["stage_depths"]).tolist()
    return {"beta": models.nf_betas(depths, float(inputs["alpha"]))}


@adapter("fedwon.relu_gain")
def relu_gain(inputs: dict[str, Any]) -> dict[str, Any]:
    """The factor of a ReLU."""
    return {"gamma_analytic": models.relu_gain()}
