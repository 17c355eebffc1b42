"""Hashes of many small federations; prints them as JSON. Runs where only numpy is installed."""

import hashlib
import json
import sys

import numpy as np

from fedlabels.federation import LabelNoise, Layers, LongTail, build
from tests.federation.cases import (
    PARTITION_CASES,
    POLICY_CASES,
    case_id,
    partition_of,
    policy_of,
    with_origins,
)

CLIENTS, SAMPLES, CLASSES = 25, 1500, 10
DEALT = "4af364cc49cddf0eda146e45eb320b21db5bccda9a9649c07fd49323755e0d0e"
"""Digest of `hashes`: the same with every CPU, platform and version of numpy."""


def hashes() -> dict[str, str]:
    """Deal with every partition and policy; hands of 3, 4 and 7 of 10 classes have ties."""
    labels = np.random.default_rng(3).integers(-1, CLASSES, SAMPLES)
    samples = with_origins(labels, CLASSES, owners=CLIENTS)
    layers = Layers(
        long_tail=LongTail(factor=0.3), keep=0.8, noise=LabelNoise(kind="pair", rate=0.2)
    )
    partitions = [*PARTITION_CASES, ("extended_dirichlet", {"number": 3, "alpha": 0.3})]
    partitions += [("classes_per_client", {"number": number}) for number in (3, 4, 7)]
    pairs = [(rule, POLICY_CASES[0]) for rule in partitions]
    pairs += [(("classes_per_client", {"number": 3}), rule) for rule in POLICY_CASES]
    found = {}
    for (partition, fields), (policy, options) in pairs:
        for seed in (0, 1):
            name = f"{partition} {case_id(fields)} {policy} {case_id(options)} {seed}"
            found[name] = build(
                samples, clients=CLIENTS, partition=partition_of(partition, fields),
                policy=policy_of(policy, options), seed=seed, layers=layers,
            ).hash  # fmt: skip
    return found


def digest(found: dict[str, str]) -> str:
    """Return one digest of all."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    json.dump(hashes(), sys.stdout)
