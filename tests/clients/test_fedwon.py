"""FedWon is FedAvg with another model: centralized training, means, batches of one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlabels.clients import build
from fedlabels.aggregation import weighted_mean
from fedlabels.models import LeNet, standardize_weight
from tests.cohort.harness import SIZES, SPEC, World, check


def world(**settings):
    return World(
        build({"name": "fedavg", "batch_size": 4, "steps": 3, **settings}),
        lambda: {"model": LeNet(SPEC, norm="ws")},
    )


def test_one_client_is_centralized_training():
    made = world(steps=None, epochs=2, lr=0.05, momentum=0.9)
    cohort = made.cohort([0], False, 1, None)
    result = made.client.fit(cohort, made.request())
    net = LeNet(SPEC, norm="ws").double()
    net.load_state_dict(made.nets["model"].init)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    again = made.cohort([0], False, 1, None)
    for batch in again.batches(
        again.samples("labeled"), size=4, epochs=2, purpose="labeled"
    ).alone():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(batch.x), batch.y).backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(result.terms["model"].value[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("agc", [None, 0.05])
@pytest.mark.parametrize("size", [1, 4])
def test_looped_equals_stacked(agc, size):
    check(world(batch_size=size, agc=agc, decay_biases=False, weight_decay=1e-3))


@pytest.mark.parametrize("k", range(len(SIZES)))
def test_no_labels_one_sample_one_class(k):
    made = world(batch_size=1)
    result = made.client.fit(made.cohort([k], False, 1, None), made.request())
    value, init = result.terms["model"].value, made.nets["model"].init
    assert all(v.isfinite().all() for v in value.values())
    labeled = SIZES[k][0]
    assert result.terms["model"].weight == labeled
    assert torch.equal(value["body.0.weight"], init["body.0.weight"]) == (labeled == 0)
    assert not result.state


def test_every_client_sends_raw_weights():
    """A scale of the raw weight changes nothing that a client computes, yet it is sent along."""
    made = world(steps=0)
    asked = made.request()
    model = {**asked.shared["model"]}
    model["body.0.weight"] = 3 * model["body.0.weight"]
    result = made.client.fit(
        made.cohort([0], False, 1, None), replace(asked, shared={"model": model})
    )
    assert torch.equal(result.terms["model"].value["body.0.weight"], model["body.0.weight"])


def test_the_mean_of_equal_models_is_the_model_and_means_do_not_commute():
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, 3, 2, 2, 2))
    equal = np.stack([weights[0]] * 3)
    np.testing.assert_allclose(weighted_mean(equal, [5, 5, 5]), weights[0])
    weights[1] *= 10
    raw = standardize_weight(torch.from_numpy(weighted_mean(weights, [1, 1])))
    late = weighted_mean(
        np.stack([standardize_weight(torch.from_numpy(w)) for w in weights]), [1, 1]
    )
    assert float((raw - torch.from_numpy(late)).abs().max()) > 0.05
