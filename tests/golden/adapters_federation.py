"""Adapters of the kinds of dealing data: long tail and partition of FedLoGe."""

from typing import Any

import numpy as np

from fedlabels import federation
from fedlabels.federation import summary
from tests.golden.convert import positions
from tests.golden.registry import adapter


@adapter("fedloge.long_tail_counts")
def long_tail_counts(inputs: dict[str, Any]) -> dict[str, Any]:
    """Class sizes."""
    sizes = federation.long_tail_counts(
        int(inputs["n_max"]), int(inputs["num_classes"]), float(inputs["imbalance_factor"])
    )
    return {"counts": sizes}


@adapter("fedloge.partition")
def partition(inputs: dict[str, Any]) -> dict[str, Any]:
    """Training and test samples of every client and class; no class of the test set runs out."""
    counts, clients = positions(inputs["class_counts"]), int(inputs["num_clients"])
    classes, n_test = len(counts), int(inputs["n_test"])
    samples = federation.Samples(np.repeat(np.arange(classes), counts), classes)
    rule = federation.make(
        federation.PARTITIONS,
        "fedloge",
        {"alpha": float(inputs["alpha"]), "seed": int(inputs["seed"])},
    )
    owners = rule.owners(samples, clients=clients, random=np.random.default_rng(0))
    train = summary.class_counts(owners, samples.labels, clients, classes)
    test = federation.floored_counts(train, n_test, np.full(classes, n_test))
    return {"train_counts": train, "test_counts": test}
