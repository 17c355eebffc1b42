"""FedLabel's client against section 9 of its specification: what it reduces to, what it leaves."""

import pytest
import torch

from clients import build
from fedlabels.errors import ConfigError
from tests.cohort.harness import SIZES, World

SAME = {"batch_labeled": 4, "tau": 3, "lr_labeled": 0.2, "batch_unlabeled": 5, "lr_unlabeled": 0.2}


def models(settings, state=None):
    world = World(build(settings))
    results = world.looped("train", world.request(), None)
    return world, results


@pytest.mark.parametrize("off", [{"tau_prime": 0}, {"threshold": 1.0}, {"burn_in_rounds": 9}])
def test_switched_off_it_is_fedavg_bit_for_bit(off):
    _, ours = models({"name": "fedlabel", **SAME, **off})
    _, plain = models({"name": "fedavg", "batch_size": 4, "local_steps": 3, "lr": 0.2})
    for k, (a, b) in enumerate(zip(ours, plain, strict=True)):
        assert a.terms["model"].weight == b.terms["model"].weight == SIZES[k][0]
        for name, value in b.terms["model"].value.items():
            if value.is_floating_point():
                assert torch.equal(a.terms["model"].value[name], value), (k, name)


def test_fixmatch_without_unlabeled_loss_is_fedavg_bit_for_bit():
    settings = {"name": "fixmatch", "batch_size": 4, "local_steps": 3, "lr": 0.2, "lambda_u": 0.0,
                "weight": "labeled"}  # fmt: skip
    _, ours = models(settings)
    _, plain = models({"name": "fedavg", "batch_size": 4, "local_steps": 3, "lr": 0.2})
    for k in (0, 1, 3, 4, 6):
        for name in ("conv.weight", "head.weight", "head.bias"):
            pair = ours[k].terms["model"].value[name], plain[k].terms["model"].value[name]
            torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


def test_fedprox_with_huge_mu_stays_at_the_received_model():
    world, far = models(
        {"name": "fedprox", "batch_size": 4, "local_steps": 3, "lr": 1e-3, "mu": 0.0}
    )
    _, near = models(
        {"name": "fedprox", "batch_size": 4, "local_steps": 3, "lr": 1e-3, "mu": 900.0}
    )
    start = world.nets["model"].init["conv.weight"]
    moved = [(r[0].terms["model"].value["conv.weight"] - start).norm() for r in (far, near)]
    assert moved[1] < 0.7 * moved[0]


def test_tau_zero_has_one_expert():
    world = World(build({"name": "fedlabel", **SAME, "tau": 0, "threshold": 0.0}))
    cohort = world.cohort([0], False, 1, None)
    result = world.client.fit(cohort, world.request())
    assert result.metrics["local_share"].sum == 0
    assert result.metrics["agreement"].sum == result.metrics["agreement"].count > 0
    assert result.metrics["ratio"].sum == result.metrics["ratio"].count


def test_counts_are_labels_plus_passing_samples():
    _, results = models({"name": "fedlabel", **SAME, "tau_prime": 2, "threshold": 0.0})
    for (labeled, unlabeled), result in zip(SIZES, results, strict=True):
        assert result.terms["model"].weight == labeled + 2 * min(5, unlabeled)


def test_integer_buffers_are_the_servers():
    world, results = models({"name": "fedlabel", **SAME})
    for result in results:
        assert result.terms["model"].value["norm.num_batches_tracked"] == 0


def test_running_variances_stay_positive():
    _, results = models({"name": "fedlabel", **SAME, "threshold": 0.0, "tau": 9, "tau_prime": 9})
    assert all((r.terms["model"].value["norm.running_var"] > 0).all() for r in results)


def test_accumulated_gradients_agree_with_zeroed_ones_for_one_step_only():
    def student(steps, accumulate):
        world = World(build({"name": "fedlabel", **SAME, "variant": "flute", "tau_prime": steps,
                             "threshold": 0.0, "accumulate_grad": accumulate}))  # fmt: skip
        return world.looped("train", world.request(), None)[0].terms["student"].value["head.bias"]

    assert torch.equal(student(1, True), student(1, False))
    assert not torch.allclose(student(2, True), student(2, False))


@pytest.mark.parametrize(
    ("bad", "text"),
    [({"threshold": 1.5}, "threshold"), ({"variant": "x"}, "variant"), ({"tau": -1}, "tau"),
     ({"lr_labeled": 0}, "lr_labeled"), ({"lamda0": 1}, "lamda0"), ({"clip": 0}, "clip")],
)  # fmt: skip
def test_bad_settings_are_refused(bad, text):
    with pytest.raises(ConfigError, match=text):
        build({"name": "fedlabel", **bad})


def test_unknown_client_lists_the_known_ones():
    with pytest.raises(ConfigError, match="fedavg, fedlabel"):
        build({"name": "os"})
