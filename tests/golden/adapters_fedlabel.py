"""Adapters of the FedLabel kinds."""

from typing import Any

import numpy as np
import torch
from torch import nn

from fedlabels import aggregation, clients, federation, losses
from fedlabels.cohort import (
    DataSpec,
    FitRequest,
    Nets,
    ScriptedCohort,
    Shard,
    TensorSource,
    Tree,
    difference,
)
from tests.golden.convert import array, floats, gradients, integers, positions, variable
from tests.golden.registry import adapter

EXPERTS = np.array(["global", "local"])


@adapter("fedlabel.confidence")
def confidence(inputs: dict[str, Any]) -> dict[str, Any]:
    """Every score of the same rows."""
    probs = floats(inputs["probs"])
    return {
        "variance": losses.confidence(probs, "variance"),
        "inverse_entropy": losses.confidence(probs, "inverse_entropy"),
        "max_prob": losses.confidence(probs, "max_prob"),
    }


@adapter("fedlabel.select")
def select(inputs: dict[str, Any]) -> dict[str, Any]:
    """Selection in full and, over the kept samples, in compact form."""
    selection = losses.select(
        floats(inputs["probs_global"]),
        floats(inputs["probs_local"]),
        threshold=float(inputs["threshold"]),
        score=inputs["options"]["metric"],
    )
    kept = np.flatnonzero(selection.keep.numpy())
    return {
        "expert": EXPERTS[selection.expert.numpy()],
        "pseudo_label": selection.pseudo_label,
        "pass_mask": selection.keep,
        "agree_mask": selection.agree,
        "ratio": selection.ratio,
        "kept_index": kept,
        "kept_label": selection.pseudo_label.numpy()[kept],
        "kept_ratio": selection.ratio.numpy()[kept],
        "fraction_local": losses.selection_counts(selection).local_share,
    }


@adapter("fedlabel.loss_paper")
def loss_paper(inputs: dict[str, Any]) -> dict[str, Any]:
    """Loss of variant ``paper`` and its gradient."""
    student = variable(inputs["logits_student_strong"])
    loss = losses.unlabeled_loss_paper(
        _selection(inputs),
        student,
        lambda0=float(inputs["lambda0"]),
        consistency_norm=inputs["options"]["consistency_norm"],
    )
    (gradient,) = gradients(loss.total, student)
    return {**_parts(loss), "grad_student": gradient}


@adapter("fedlabel.loss_flute")
def loss_flute(inputs: dict[str, Any]) -> dict[str, Any]:
    """Loss of variant ``flute`` and its gradients."""
    strong = variable(inputs["logits_student_strong"])
    weak = variable(inputs["logits_student_weak"])
    loss = losses.unlabeled_loss_flute(
        _selection(inputs),
        strong,
        weak,
        lambda0=float(inputs["lambda0"]),
        lambda_u=float(inputs["lambda_u"]),
    )
    gradient_strong, gradient_weak = gradients(loss.total, strong, weak)
    return {
        **_parts(loss),
        "grad_student_strong": gradient_strong,
        "grad_student_weak": gradient_weak,
    }


@adapter("fedlabel.aggregate")
def aggregate(inputs: dict[str, Any]) -> dict[str, Any]:
    """Server step of both variants from the clients' models of both phases."""
    server, local, student = (array(inputs[key]) for key in ("w", "local", "unlabeled"))
    v = aggregation.flute_weights(inputs["n_pseudo"])
    r = aggregation.client_weights_paper(inputs["n_labeled"], inputs["n_pseudo"])
    merged = losses.client_delta_merge(
        {"w": floats(server)},
        {"w": floats(local)},
        {"w": floats(student)},
        parameters={"w"},
        stepped=integers(1).bool(),
    )
    return {
        "flute": aggregation.merge_flute(
            server,
            aggregation.weighted_mean(local, np.ones(len(local))),
            aggregation.weighted_mean(student, v),
        ),
        "paper": aggregation.merge_paper(server, merged["w"].numpy(), r),
        "weights_unlabeled_flute": aggregation.shares(v),
        "weights_paper": aggregation.shares(r),
    }


@adapter("fedlabel.aggregate_burn_in")
def aggregate_burn_in(inputs: dict[str, Any]) -> dict[str, Any]:
    """Variant ``flute`` while no client sends a student."""
    local = array(inputs["local"])
    mean = aggregation.weighted_mean(local, np.ones(len(local)))
    return {"flute": aggregation.merge_flute(array(inputs["w"]), mean, None)}


@adapter("fedlabel.partition")
def partition(inputs: dict[str, Any]) -> dict[str, Any]:
    """Shards from given proportions and orders."""
    shards = federation.cut_by_proportions(
        positions(inputs["labels"]),
        array(inputs["p"]),
        [positions(order) for order in inputs["class_order"]],
    )
    return {"shards": [shards[k] for k in range(int(inputs["num_clients"]))]}


@adapter("fedlabel.label_split")
def label_split(inputs: dict[str, Any]) -> dict[str, Any]:
    """Sizes of both parts of a shard."""
    split = federation.label_split(
        int(inputs["n"]), float(inputs["label_fraction"]), float(inputs["unlabeled_fraction"])
    )
    return {
        "n_unlabeled": split.num_unlabeled,
        "n_labeled": split.num_labeled,
        "labeled_positions": split.labeled_positions,
        "unused": split.unused,
    }


@adapter("fedlabel.client_paper")
def client_paper(inputs: dict[str, Any]) -> dict[str, Any]:
    """Whole client round of variant ``paper``: both phases, the merged change, the weight."""
    client = clients.build({**_settings(inputs), "variant": "paper"})
    cohort, request = _cohort(inputs), _request(inputs)
    received = request.shared["model"]
    local, _ = client.labeled_phase(cohort, request)
    student, sums = client.unlabeled_phase(cohort, request, local)
    merged = client.merged(cohort, received, local, student, sums["pass"])
    return {
        "delta_labeled": _named(difference(local, received)),
        "delta_unlabeled": _named(difference(student, received)),
        "delta": _named(difference(merged, received)),
        "n_pass": int(sums["pass"]),
        "r": int(client.examples(cohort, sums["pass"])),
        "unlabeled_loss_per_step": [s["loss"].item() for s in cohort.trace if "pass" in s],
    }


@adapter("fedlabel.client_flute")
def client_flute(inputs: dict[str, Any]) -> dict[str, Any]:
    """Whole client round of variant ``flute``: the two models that go up, and the count."""
    client = clients.build({**_settings(inputs), "variant": "flute"})
    terms = client.fit(_cohort(inputs), _request(inputs)).terms
    local, student = _named(terms["local"].value), _named(terms["student"].value)
    return {
        "W_local": local["W"],
        "b_local": local["b"],
        "W_unlabeled": student["W"],
        "b_unlabeled": student["b"],
        "n_pseudo": int(terms["student"].weight),
    }


_SETTINGS = {
    "tau": "steps",
    "tau_prime": "steps_unlabeled",
    "lr_labeled": "lr",
    "lr_unlabeled": "lr_unlabeled",
    "threshold": "threshold",
    "lambda0": "lambda0",
}


def _settings(inputs: dict[str, Any]) -> dict[str, Any]:
    """Collect the client's settings; batches are given whole, so their sizes do not matter."""
    given = {name: inputs[symbol] for symbol, name in _SETTINGS.items()}
    anchor = {"lambda_anchor": inputs["lambda_anchor"]} if "lambda_anchor" in inputs else {}
    return {"name": "fedlabel", **given, **anchor, **inputs["options"]}


def _request(inputs: dict[str, Any]) -> FitRequest:
    """Send the linear model of the file."""
    model = {"weight": floats(inputs["W"]), "bias": floats(inputs["b"])}
    return FitRequest("train", 1, 1, shared={"model": model})


def _cohort(inputs: dict[str, Any]) -> ScriptedCohort:
    """Script full batches for a client with a linear softmax model."""
    classes, width = np.shape(inputs["W"])
    labeled = {"plain": floats(inputs["x_labeled"]), "y": integers(inputs["y_labeled"])}
    unlabeled = {
        "weak": floats(inputs["x_unlabeled_weak"]),
        "strong": floats(inputs["x_unlabeled_strong"]),
    }
    return ScriptedCohort(
        script={"labeled": [labeled], "unlabeled": [unlabeled]},
        spec=DataSpec((width,), classes),
        nets=Nets(lambda: {"model": nn.Linear(width, classes)}, 0, torch.float64),
        source=TensorSource(labeled["plain"], floats(0), floats(1)),
        shards=[Shard(0)],
        seed=0,
        round_index=1,
    )


def _named(tree: Tree) -> dict[str, Any]:
    """Name the tensors of the linear model as the files do."""
    return {"W": tree["weight"], "b": tree["bias"]}


def _selection(inputs: dict[str, Any]) -> losses.Selection:
    """Select from the experts' logits."""
    return losses.select(
        losses.soft_labels(floats(inputs["logits_global"])),
        losses.soft_labels(floats(inputs["logits_local"])),
        threshold=float(inputs["threshold"]),
        score=inputs["options"]["metric"],
    )


def _parts(loss: losses.UnlabeledLoss) -> dict[str, Any]:
    """Name the parts as the files do; counts are whole numbers."""
    return {
        "ce": loss.ce,
        "consistency": loss.consistency,
        "total": loss.total,
        "n_pass": int(loss.n_pass),
        "n_agree": int(loss.n_agree),
    }
