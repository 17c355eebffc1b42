"""FedLD's client: looped == stacked, FedAvg without the term, the rates of the first rounds."""

import pytest
import torch

from fedlabels.clients import build
from fedlabels.clients.fedld import warmup_rate
from fedlabels.errors import ConfigError
from fedlabels.losses import margin_term
from tests.cohort.harness import SIZES, World, check

QUICK = {"name": "fedld", "batch_size": 4, "lr": 0.2}
STEPS = {**QUICK, "steps": 3, "epochs": None}
CASES = {
    "epochs": {**QUICK, "epochs": 2, "margin_lambda": 0.5},
    "steps": {**STEPS, "margin_lambda": 0.5},
    "logits": {**STEPS, "margin_lambda": 0.5, "margin_form": "logits"},
    "unlabeled": {**STEPS, "margin_lambda": 0.5, "margin_on_unlabeled": True},
    "warm-up": {**QUICK, "epochs": 2, "warmup": "per_round"},
}


def fit(settings, k=0, round_index=1):
    world = World(build(settings))
    request = world.request(round_index=round_index)
    return world, world.client.fit(world.cohort([k], False, round_index, None), request)


def model(result):
    return result.terms["model"].value


@pytest.mark.parametrize("case", CASES)
def test_looped_equals_stacked(case):
    looped, whole = check(World(build(CASES[case])))
    assert whole.metrics["margin"].count.tolist() == [
        int(r.metrics["margin"].count) for r in looped
    ]


@pytest.mark.parametrize("form", ["softmax_batch", "logits"])
def test_without_the_term_it_is_fedavg_bit_for_bit(form):
    usual = {"lr": 0.2, "momentum": 0.5, "weight_decay": 5e-4, "batch_size": 4}
    plan = {"steps": None, "epochs": 2}
    _, ours = fit({"name": "fedld", "margin_lambda": 0.0, "margin_form": form, **usual, **plan})
    _, plain = fit({"name": "fedavg", **usual, **plan})
    assert all(torch.equal(v, model(plain)[n]) for n, v in model(ours).items())
    _, held = fit({"name": "fedld", "margin_lambda": 0.5, "margin_form": form, **usual, **plan})
    assert not torch.equal(model(held)["head.weight"], model(plain)["head.weight"])


def test_the_term_makes_predictions_less_confident():
    found = {}
    for strength in (0.0, 3.0):
        world, result = fit({**STEPS, "steps": 30, "margin_lambda": strength})
        net, cohort = world.nets["model"], world.cohort([0], False, 1, None)
        x = world.source.rows(torch.arange(9), "plain", torch.empty(9, 0))
        found[strength] = float(margin_term(cohort.map(lambda x: net.at(model(result))(x), x)))  # noqa: B023
    assert found[3.0] < found[0.0] - 0.1


def test_the_unlabeled_term_needs_no_label_and_counts_nothing():
    _, result = fit(CASES["unlabeled"], k=2)  # no labels
    assert result.terms["model"].weight == 0
    assert result.metrics["loss_labeled"].count == 0
    assert result.metrics["margin"].count == 0
    _, alone = fit(CASES["steps"], k=0)
    _, both = fit(CASES["unlabeled"], k=0)
    assert not torch.equal(model(alone)["head.weight"], model(both)["head.weight"])


@pytest.mark.parametrize("k", range(len(SIZES)))
def test_every_awkward_client_answers(k):
    world, result = fit(CASES["steps"], k=k)
    assert result.terms["model"].weight == SIZES[k][0]
    assert all(v.isfinite().all() for v in model(result).values() if v.is_floating_point())
    moved = not torch.equal(model(result)["head.bias"], world.nets["model"].init["head.bias"])
    assert moved == (SIZES[k][0] > 0)


def test_the_first_round_of_the_warm_up_moves_only_statistics():
    world, result = fit(CASES["warm-up"])
    start, net = world.nets["model"].init, world.nets["model"]
    assert all(torch.equal(model(result)[n], start[n]) for n in net.parameters)
    assert not torch.equal(model(result)["norm.running_mean"], start["norm.running_mean"])
    _, later = fit(CASES["warm-up"], round_index=2)
    assert not torch.equal(model(later)["head.weight"], start["head.weight"])


def test_rates_of_the_warm_up():
    rates = [warmup_rate(0.01, local_epochs=1, round_index=r) for r in range(1, 9)]
    assert rates == pytest.approx([0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.01, 0.01])
    assert [warmup_rate(1.0, local_epochs=5, round_index=r) for r in (1, 2)] == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin_lambda": -0.1}, "margin_lambda must be >= 0"),
        ({"margin_form": "other"}, "margin_form must be one of"),
        ({"warmup": "linear"}, "warmup must be one of"),
        ({"margin_on_unlabeled": True}, "set training.steps"),
        ({"steps": 3}, "exactly one of training.steps and training.epochs"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ConfigError, match=message):
        build({"name": "fedld", **wrong})
