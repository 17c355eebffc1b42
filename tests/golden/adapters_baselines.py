"""Adapters of the kinds of FedAvg, FedProx, FixMatch, UDA, FlexMatch and FreeMatch."""

from typing import Any

import torch

from fedlabels import aggregation, losses
from tests.golden.convert import array, floats, gradients, integers, tree, variable
from tests.golden.registry import adapter


@adapter("fedavg.mean")
def fedavg_mean(inputs: dict[str, Any]) -> dict[str, Any]:
    """Mean weighted by samples."""
    return {"mean": aggregation.weighted_mean(array(inputs["tensors"]), inputs["num_samples"])}


@adapter("fedprox.term")
def fedprox_term(inputs: dict[str, Any]) -> dict[str, Any]:
    """Proximal term and its gradient."""
    local = {name: part.requires_grad_() for name, part in tree(inputs["params"]).items()}
    value = losses.proximal_term(local, tree(inputs["global_params"]), float(inputs["mu"]))
    return {"value": value, "grads": gradients(value, *local.values())}


@adapter("fixmatch.loss")
def fixmatch_loss(inputs: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradient."""
    strong = variable(inputs["logits_strong"])
    loss = losses.fixmatch_loss(
        floats(inputs["logits_weak"]), strong, threshold=float(inputs["threshold"])
    )
    (gradient,) = gradients(loss.total, strong)
    return {
        "pseudo_label": loss.pseudo_label,
        "mask": loss.keep,
        "loss": loss.total,
        "grad_strong": gradient,
    }


@adapter("uda.loss")
def uda_loss(inputs: dict[str, Any]) -> dict[str, Any]:
    """Both forms of the loss; the gradient is that of the minimized one."""
    augmented = variable(inputs["logits_aug"])
    loss = losses.uda_loss(
        floats(inputs["logits_weak"]),
        augmented,
        threshold=float(inputs["threshold"]),
        temperature=float(inputs["temperature"]),
    )
    (gradient,) = gradients(loss.total, augmented)
    return {
        "mask": loss.keep,
        "target": loss.target,
        "loss_ce": loss.total,
        "loss_kl": loss.kl,
        "grad_aug": gradient,
    }


@adapter("uda.tsa")
def uda_tsa(inputs: dict[str, Any]) -> dict[str, Any]:
    """Schedules, and the loss half way with the linear one."""
    total, classes = int(inputs["total"]), int(inputs["num_classes"])
    steps = floats(inputs["steps"])
    etas = {
        schedule: losses.tsa_threshold(steps, total=total, num_classes=classes, schedule=schedule)
        for schedule in ("linear", "log", "exp")
    }
    half = losses.tsa_threshold(torch.tensor(0.5), total=1, num_classes=classes)
    loss = losses.tsa_loss(floats(inputs["logits"]), integers(inputs["labels"]), eta=half)
    return {"eta": etas, "kept": loss.keep, "loss": loss.total}


@adapter("flexmatch.threshold")
def flexmatch_threshold(inputs: dict[str, Any]) -> dict[str, Any]:
    """Thresholds of every form that the file names."""
    given: dict[str, Any] = {"tau": float(inputs["tau"]), "num_unlabeled": inputs["num_unlabeled"]}
    counts = floats(inputs["counts"])
    linear = losses.flexmatch_threshold(counts, **given, warmup=False, curve="linear")
    convex = losses.flexmatch_threshold(counts, **given, warmup=False, curve="convex")
    warmed = losses.flexmatch_threshold(counts, **given, warmup=True, curve="convex")
    return {
        "beta": linear.beta,
        "beta_warmup": warmed.beta,
        "threshold_linear": linear.threshold,
        "threshold_convex": convex.threshold,
        "threshold_warmup_convex": warmed.threshold,
    }


@adapter("freematch.threshold")
def freematch_threshold(inputs: dict[str, Any]) -> dict[str, Any]:
    """State, thresholds and mask after the update of every batch."""
    batches = floats(inputs["batches"])
    state = losses.freematch_init(batches.shape[-1], dtype=batches.dtype)
    per_batch = []
    for probs in batches:
        state = losses.freematch_update(state, probs, momentum=float(inputs["momentum"]))
        threshold = losses.freematch_threshold(state)
        labels = losses.hard_labels(probs, threshold=threshold, inclusive=True)
        per_batch.append({**state._asdict(), "threshold": threshold, "mask": labels.keep})
    return {"per_batch": per_batch}
