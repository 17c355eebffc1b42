"""FedLabel's client against section 9 of its specification: what it reduces to, what it leaves."""

import pytest
import torch
from torch import nn

from fedlabels.clients import build
from fedlabels import losses
from fedlabels.cohort import (
    DataSpec,
    FitRequest,
    Nets,
    ScriptedCohort,
    Shard,
    TensorSource,
    tree_map,
)
from fedlabels.errors import ConfigError
from tests.cohort.harness import SIZES, World

SAME = {"batch_size": 4, "steps": 3, "lr": 0.2, "batch_unlabeled": 5, "lr_unlabeled": 0.2}


def models(settings, state=None):
    world = World(build(settings))
    results = world.looped("train", world.request(), None)
    return world, results


@pytest.mark.parametrize("off", [{"steps_unlabeled": 0}, {"threshold": 1.0}, {"burn_in_rounds": 9}])
def test_switched_off_it_is_fedavg_bit_for_bit(off):
    _, ours = models({"name": "fedlabel", **SAME, **off})
    _, plain = models({"name": "fedavg", "batch_size": 4, "steps": 3, "lr": 0.2})
    for k, (a, b) in enumerate(zip(ours, plain, strict=True)):
        assert a.terms["model"].weight == b.terms["model"].weight == SIZES[k][0]
        for name, value in b.terms["model"].value.items():
            if value.is_floating_point():
                assert torch.equal(a.terms["model"].value[name], value), (k, name)


def test_fixmatch_without_unlabeled_loss_is_fedavg_bit_for_bit():
    settings = {"name": "fixmatch", "batch_size": 4, "steps": 3, "lr": 0.2, "lambda_u": 0.0,
                "weight": "labeled"}  # fmt: skip
    _, ours = models(settings)
    _, plain = models({"name": "fedavg", "batch_size": 4, "steps": 3, "lr": 0.2})
    for k in (0, 1, 3, 4, 6):
        for name in ("conv.weight", "head.weight", "head.bias"):
            pair = ours[k].terms["model"].value[name], plain[k].terms["model"].value[name]
            torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


def test_fedprox_with_huge_mu_stays_at_the_received_model():
    world, far = models({"name": "fedprox", "batch_size": 4, "steps": 3, "lr": 1e-3, "mu": 0.0})
    _, near = models({"name": "fedprox", "batch_size": 4, "steps": 3, "lr": 1e-3, "mu": 900.0})
    start = world.nets["model"].init["conv.weight"]
    moved = [(r[0].terms["model"].value["conv.weight"] - start).norm() for r in (far, near)]
    assert moved[1] < 0.7 * moved[0]


def test_tau_zero_has_one_expert():
    world = World(build({"name": "fedlabel", **SAME, "steps": 0, "threshold": 0.0}))
    cohort = world.cohort([0], False, 1, None)
    result = world.client.fit(cohort, world.request())
    assert result.metrics["local_share"].sum == 0
    assert result.metrics["agreement"].sum == result.metrics["agreement"].count > 0
    assert result.metrics["ratio"].sum == result.metrics["ratio"].count


def test_counts_are_labels_plus_passing_samples():
    _, results = models({"name": "fedlabel", **SAME, "steps_unlabeled": 2, "threshold": 0.0})
    for (labeled, unlabeled), result in zip(SIZES, results, strict=True):
        assert result.terms["model"].weight == labeled + 2 * min(5, unlabeled)


def test_integer_buffers_are_the_servers():
    _, results = models({"name": "fedlabel", **SAME})
    for result in results:
        assert result.terms["model"].value["norm.num_batches_tracked"] == 0


def test_running_variances_stay_positive():
    _, results = models(
        {"name": "fedlabel", **SAME, "threshold": 0.0, "steps": 9, "steps_unlabeled": 9}
    )
    assert all((r.terms["model"].value["norm.running_var"] > 0).all() for r in results)


def test_accumulated_gradients_agree_with_zeroed_ones_for_one_step_only():
    def student(steps, accumulate):
        settings = {"variant": "flute", "steps_unlabeled": steps, "threshold": 0.0}
        client = build({"name": "fedlabel", **SAME, **settings, "accumulate_grad": accumulate})
        world = World(client)
        return world.looped("train", world.request(), None)[0].terms["student"].value["head.bias"]

    assert torch.equal(student(1, True), student(1, False))
    assert not torch.allclose(student(2, True), student(2, False))


def bits(tree):
    return tree_map(torch.clone, dict(tree))


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"phase2_start": "local"}, {"variant": "flute"},
     {"variant": "flute", "accumulate_grad": True}],
    ids=lambda o: "-".join(map(str, o.values())) or "paper",
)  # fmt: skip
def test_phase_two_changes_neither_expert(options, stacked):
    world = World(build({"name": "fedlabel", **SAME, "threshold": 0.0, **options}))
    cohort, request = world.cohort(range(8) if stacked else [0], stacked, 1, None), world.request()
    received = bits(request.shared["model"])
    local, _ = world.client.labeled_phase(cohort, request)
    before = bits(local)
    student, _ = world.client.unlabeled_phase(cohort, request, local)
    assert equal(bits(local), before)
    assert equal(bits(request.shared["model"]), received)
    assert not torch.equal(student["head.bias"], before["head.bias"])


@pytest.mark.parametrize("variant", ["paper", "flute", "joint"])
def test_the_whole_call_leaves_the_received_model(variant):
    world = World(build({"name": "fedlabel", **SAME, "threshold": 0.0, "variant": variant}))
    request = world.request()
    before, skeleton = (
        bits(request.shared["model"]),
        bits(world.nets["model"].skeleton.state_dict()),
    )
    world.looped("train", request, None)
    world.stacked("train", request, None)
    assert equal(bits(request.shared["model"]), before)
    assert equal(bits(world.nets["model"].skeleton.state_dict()), skeleton)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("start", ["received", "local"])
def test_without_passing_samples_the_student_does_not_move(start, stacked):
    world = World(build({"name": "fedlabel", **SAME, "threshold": 1.0, "phase2_start": start}))
    cohort, request = world.cohort(range(8) if stacked else [0], stacked, 1, None), world.request()
    local, _ = world.client.labeled_phase(cohort, request)
    student, sums = world.client.unlabeled_phase(cohort, request, local)
    begin = local if start == "local" else cohort.start(request.shared["model"])
    assert equal(student, begin)  # buffers, too: no step at all
    assert not sums["pass"].any()
    assert not sums["steps"].any()
    assert sums["rows"].all() or stacked


def test_burn_in_of_flute_sends_the_received_model_as_student():
    world, results = models({"name": "fedlabel", **SAME, "variant": "flute", "burn_in_rounds": 1})
    for result in results:
        assert equal(result.terms["student"].value, world.nets["model"].init)
        assert result.terms["student"].weight == 1


LINEAR = {"name": "fedlabel", "steps_unlabeled": 1, "lr_unlabeled": 0.5, "threshold": 0.4}


def one_linear_step(labeled=0, **settings):
    """Run one unlabeled step of a linear model; return its start, its end and the batch."""
    generator = torch.Generator().manual_seed(4)
    weak, strong, plain = (
        torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (9, 9, max(labeled, 1))
    )
    labels = torch.arange(max(labeled, 1)) % 4
    script = {
        "labeled": [{"plain": plain[:labeled], "y": labels[:labeled]}],
        "unlabeled": [{"weak": weak, "strong": strong}],
    }
    nets = Nets(lambda: {"model": nn.Linear(3, 4)}, 3, torch.float64)
    cohort = ScriptedCohort(
        script=script, spec=DataSpec((3,), 4), nets=nets, shards=[Shard(0)], seed=0, round_index=1,
        source=TensorSource(weak, torch.tensor(0.0), torch.tensor(1.0)),
    )  # fmt: skip
    client = build({**LINEAR, **settings})
    start = nets["model"].init
    request = FitRequest("train", 1, 1, shared={"model": start})
    local, _ = client.labeled_phase(cohort, request)
    student, sums = client.unlabeled_phase(cohort, request, local)
    return start, student, weak, strong, sums


def moved_by(loss, start):
    weights = {k: v.clone().requires_grad_() for k, v in start.items()}
    grads = torch.autograd.grad(loss(weights), list(weights.values()))
    return {k: v - 0.5 * g for (k, v), g in zip(start.items(), grads, strict=True)}


def linear(weights, x):
    return nn.functional.linear(x, weights["weight"], weights["bias"])


def test_tau_zero_is_pseudo_labeling_by_the_received_model_with_self_distillation():
    start, student, weak, strong, _ = one_linear_step(labeled=6, steps=0, lambda0=0.7)
    teacher = linear(start, weak).softmax(-1)
    kept = teacher.amax(-1) > 0.4
    assert 0 < kept.sum() < 9

    def expected(weights):
        log = linear(weights, strong[kept]).log_softmax(-1)
        labels = nn.functional.nll_loss(log, teacher[kept].argmax(-1))
        return labels + 0.7 * nn.functional.kl_div(log, teacher[kept], reduction="batchmean")

    for name, value in moved_by(expected, start).items():
        torch.testing.assert_close(student[name], value, rtol=0, atol=1e-12)


def test_forced_global_expert_without_distillation_is_fixmatch_over_the_passing_samples():
    options = {"steps": 5, "lr": 0.5, "lambda0": 0.0, "expert": "global"}
    start, student, weak, strong, sums = one_linear_step(labeled=6, **options)

    def expected(weights):
        out = losses.fixmatch_loss(linear(start, weak), linear(weights, strong), threshold=0.4)
        return out.total * 9 / sums["pass"]

    assert 0 < sums["pass"] < 9
    for name, value in moved_by(expected, start).items():
        torch.testing.assert_close(student[name], value, rtol=0, atol=1e-12)
    _, whole, *_ = one_linear_step(labeled=6, unlabeled_divisor="batch", **options)
    fixmatch = moved_by(lambda w: expected(w) * sums["pass"] / 9, start)
    torch.testing.assert_close(whole["bias"], fixmatch["bias"], rtol=0, atol=1e-12)


def test_a_client_without_labels_takes_the_received_model_for_both_experts():
    with_labels = one_linear_step(labeled=6, steps=0, lambda0=0.7)[1]
    without = one_linear_step(labeled=0, steps=5, lr=0.5, lambda0=0.7)[1]
    assert equal(with_labels, without)


def test_scripted_cohort_feeds_clients_with_two_streams():
    x = torch.linspace(0, 1, 12, dtype=torch.float64).view(4, 3)
    script = {
        "labeled": [{"plain": x, "y": torch.arange(4)}],
        "unlabeled": [{"weak": x, "strong": x}],
    }
    nets = Nets(lambda: {"model": nn.Linear(3, 4)}, 3, torch.float64)
    source = TensorSource(x, torch.tensor(0.0), torch.tensor(1.0))
    settings = {"spec": DataSpec((3,), 4), "nets": nets, "shards": [Shard(0)], "source": source,
                "seed": 0, "round_index": 1}  # fmt: skip
    request = FitRequest("train", 1, 1, shared={"model": nets["model"].init})
    client = build({"name": "fixmatch", "steps": 3, "threshold": 0.0})
    cohort = ScriptedCohort(script=script, **settings)
    result = client.fit(cohort, request)
    assert result.terms["model"].weight == 8  # "all" is labeled and unlabeled
    assert result.metrics["pass_rate"].count == 12
    assert [s["pass"].item() for s in cohort.trace] == [4, 4, 4]
    assert len(cohort.pseudo_labels) == 3
    with pytest.raises(ValueError, match="no batch for any of labeled, unlabeled"):
        client.fit(ScriptedCohort(script={}, **settings), request)


@pytest.mark.parametrize(
    ("bad", "text"),
    [({"threshold": 1.5}, "threshold"), ({"variant": "x"}, "variant"), ({"steps": -1}, "steps"),
     ({"variant": "joint", "threshold_rule": "flexmatch"}, "threshold_rule"),
     ({"lr": 0}, "lr"), ({"lamda0": 1}, "lamda0"), ({"clip": 0}, "clip")],
)  # fmt: skip
def test_bad_settings_are_refused(bad, text):
    with pytest.raises(ConfigError, match=text):
        build({"name": "fedlabel", **bad})


def test_unknown_client_lists_the_known_ones():
    with pytest.raises(ConfigError, match="fedavg, fedbn"):
        build({"name": "os"})
