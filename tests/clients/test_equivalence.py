"""Every client: looped == stacked in float64 on the awkward cohort, with BatchNorm and dropout."""

import pytest
import torch

from fedlabels.clients import build
from tests.cohort.harness import SIZES, World, check

QUICK = {"batch_size": 4, "batch_unlabeled": 5, "steps": 3, "steps_unlabeled": 3,
         "lr": 0.2, "lr_unlabeled": 0.2}  # fmt: skip
CASES = {
    "fedavg": {"name": "fedavg", "batch_size": 4, "steps": 3},
    "fedavg epochs": {"name": "fedavg", "batch_size": 4, "steps": None, "epochs": 2,
                      "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, "clip": 1.0},
    "fedprox": {"name": "fedprox", "batch_size": 4, "steps": 3, "mu": 0.5},
    "fixmatch": {"name": "fixmatch", "batch_size": 3, "batch_unlabeled": 5, "steps": 3,
                 "threshold": 0.22},
    "fixmatch global": {"name": "fixmatch", "batch_size": 3, "batch_unlabeled": 5, "steps": 3,
                        "threshold": 0.22, "teacher": "global"},
    "uda": {"name": "fixmatch", "loss": "uda", "batch_size": 3, "batch_unlabeled": 5,
            "steps": 3, "threshold": 0.22, "tsa": "linear"},
    "fedavg agc": {"name": "fedavg", "batch_size": 4, "steps": 3, "agc": 0.05,
                   "weight_decay": 1e-2, "decay_biases": False, "momentum": 0.9},
    "fedbn": {"name": "fedbn", "batch_size": 4, "steps": 3},
    "fedbn uniform": {"name": "fedbn", "batch_size": 4, "steps": 3, "weight": "uniform"},
    "silobn": {"name": "fedbn", "bn_policy": "silo", "batch_size": 4, "steps": 3},
    "fixbn": {"name": "fedbn", "bn_policy": "fix", "batch_size": 4, "steps": 3},
    "fedbn one by one": {"name": "fedbn", "batch_size": 1, "steps": 3},
    "fedprox with fedbn": {"name": "fedprox", "bn_policy": "local", "batch_size": 4,
                           "steps": 3, "mu": 0.5},
    "fixmatch with silobn": {"name": "fixmatch", "bn_policy": "silo", "batch_size": 3,
                             "batch_unlabeled": 5, "steps": 3, "threshold": 0.22,
                             "teacher": "global"},
    "paper": {"name": "fedlabel", "threshold": 0.23, "lambda0": 1.0, **QUICK},
    "paper stable": {"name": "fedlabel", "threshold": 0.23, "lambda0": 1.0, "weight": "shard",
                     "unlabeled_divisor": "batch", "phase2_start": "local", "clip": 1.0, **QUICK},
    "paper options": {"name": "fedlabel", "threshold": 0.2, "lambda0": 1.0, "merge": "mean",
                      "mu": 0.1, "consistency_norm": "agree", "consistency_view": "weak",
                      "score": "max_prob", "consistency_teacher": "local", "temperature": 0.7,
                      **QUICK},
    "flute": {"name": "fedlabel", "variant": "flute", "threshold": 0.23, **QUICK,
              "lr_unlabeled": 0.05},
    "flute accumulate": {"name": "fedlabel", "variant": "flute", "threshold": 0.23,
                         "accumulate_grad": True, **QUICK, "lr_unlabeled": 0.02},
    "joint": {"name": "fedlabel", "variant": "joint", "score": "max_prob", "threshold": 0.23,
              **QUICK},
    "flexmatch": {"name": "fedlabel", "threshold": 0.24, "threshold_rule": "flexmatch", **QUICK},
    "freematch": {"name": "fedlabel", "threshold": 0.24, "threshold_rule": "freematch", **QUICK},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.replace(" ", "-"))
def test_looped_equals_stacked(case):
    check(World(build(CASES[case])))


@pytest.mark.parametrize("case", ["paper", "paper stable", "flute", "joint", "fixmatch"])
def test_pseudo_labels_are_written_and_equal(case):
    world = World(build(CASES[case]))
    found = []
    for groups, stacked in (([[k] for k in range(len(SIZES))], False), ([range(len(SIZES))], True)):
        rows = set()
        for ids in groups:
            cohort = world.cohort(ids, stacked, 1, None)
            world.client.fit(cohort, world.request())
            for marks in cohort.pseudo_labels:
                real = marks.sample >= 0
                columns = (marks.sample, marks.label, marks.keep, marks.expert)
                rows |= set(zip(*(c[real].tolist() for c in columns), strict=True))
        found.append(rows)
    assert found[0] == found[1]
    assert any(keep for _, _, keep, _ in found[0])


def test_without_labels_every_expert_is_global():
    world = World(build({**CASES["paper"], "threshold": 0.0}))
    for k in (2, 7):  # no labels
        cohort = world.cohort([k], False, 1, None)
        result = world.client.fit(cohort, world.request())
        assert all(not m.expert.any() for m in cohort.pseudo_labels)
        assert result.metrics["ratio"].sum == result.metrics["ratio"].count
        assert result.metrics["local_share"].sum == 0


def test_hidden_labels_cannot_reach_a_client():
    world = World(build(CASES["paper"]))
    for shard in world.shards:
        assert (shard.part("unlabeled")[1] == -1).all()
        assert (shard.part("all")[1][len(shard.labeled) :] == -1).all()


def test_empty_federated_client_has_no_weight():
    world = World(build(CASES["fedavg"]))
    result = world.client.fit(world.cohort([2], False, 1, None), world.request())
    assert result.terms["model"].weight == 0
    assert torch.equal(
        result.terms["model"].value["head.weight"], world.nets["model"].init["head.weight"]
    )
