"""FedBN, SiloBN, FixBN: what stays, what comes back, what is fixed, and when all equal FedAvg."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from fedlabels.clients import build
from fedlabels.clients._private import STATE, recomputed
from fedlabels.cohort import Layout, Net, statistics
from fedlabels.cohort.context import primitive
from fedlabels.cohort.tree import row
from fedlabels.errors import ConfigError
from fedlabels.models import BatchNorm, Dropout
from fedlabels.models import build as build_model
from fedlabels.rounds.judge import RejectedError
from fedlabels.worker.convert import arrays_of
from fedlabels.worker.kept import check_state
from fedlabels.worker.state import flatten
from tests.cohort.harness import SIZES, SPEC, Probe, World
from tests.models.test_layers import batch, run

POLICIES = ("global", "local", "silo", "fix")
QUICK = {"batch_size": 4, "steps": 3}


def client(policy, **settings):
    return build({"name": "fedbn", "bn_policy": policy, **QUICK, **settings})


class Plain(nn.Module):
    """The probe without batch normalization."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), Dropout(0.3))
        self.head = nn.Linear(6, SPEC.num_classes)

    def forward(self, x):
        return self.head(self.body(x))


def fit(world, k=0, state=None, round_index=1, shift=0.0, rounds=2):
    asked = world.request(round_index=round_index)
    model = {k: v + shift if v.is_floating_point() else v for k, v in asked.shared["model"].items()}
    asked = replace(asked, shared={"model": model}, rounds=rounds)
    return world.client.fit(world.cohort([k], False, round_index, state), asked), model


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(v, right[k]) for k, v in left.items())


class TestNames:
    net = build_model("resnet8", replace(SPEC, shape=(1, 8, 8)), norm="batch")

    def expected(self, *parts):
        owners = [n for n, m in self.net.named_modules() if isinstance(m, BatchNorm)]
        return {f"{owner}.{part}" for owner in owners for part in parts}

    def test_layers_are_chosen_by_type(self):
        layout = Layout(self.net)
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        assert client("local").private(layout) == self.expected("weight", "bias", *buffers)
        assert client("silo").private(layout) == self.expected(*buffers)
        assert client("global").private(layout) == client("fix").private(layout) == frozenset()
        # the shortcut's has no "bn" in its name
        assert any("shortcut.1" in name for name in client("local").private(layout))

    def test_who_has_a_model_of_its_own(self):
        assert [client(p).personal for p in POLICIES] == [False, True, True, False]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"bn_policy": "own"}, "bn_policy must be one of"),
            ({"weight": "equal"}, "weight must be one of"),
            ({"fix_after": 1.5}, r"fix_after must be in \[0, 1\]"),
            ({"agc": 0.0}, "agc must be > 0"),
        ],
    )
    def test_wrong_settings_are_refused(self, settings, message):
        with pytest.raises(ConfigError, match=message):
            build({"name": "fedbn", **settings})


class TestRounds:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_without_batch_normalization_all_are_fedavg(self, policy):
        for net in (Plain, Probe) if policy == "global" else (Plain,):
            nets = lambda net=net: {"model": net()}  # noqa: E731
            reference = World(build({"name": "fedavg", **QUICK}), nets)
            world = World(client(policy, recompute_statistics=True), nets)
            for k in range(len(SIZES)):
                left, right = (fit(w, k, round_index=2)[0] for w in (world, reference))
                assert same(left.terms["model"].value, right.terms["model"].value)
                assert torch.equal(left.terms["model"].weight, right.terms["model"].weight)
                assert not left.state

    @pytest.mark.parametrize("policy", ["local", "silo"])
    def test_own_tensors_come_back_and_the_others_are_the_servers(self, policy):
        world = World(client(policy))
        first, _ = fit(world)
        kept = first.state[STATE]
        assert kept.keys() == world.client.private(world.nets["model"].layout)
        assert same(kept, {k: first.terms["model"].value[k] for k in kept})
        assert kept["norm.num_batches_tracked"] == 3
        idle = World(client(policy, steps=0))
        second, sent = fit(idle, state=dict(first.state), round_index=2, shift=0.25)
        assert same(second.terms["model"].value, {**sent, **kept})
        assert same(second.state[STATE], kept)

    def test_training_does_not_write_into_the_kept_state(self):
        world = World(client("local"))
        state = dict(fit(world)[0].state)
        before = {k: v.clone() for k, v in state[STATE].items()}
        fit(world, state=state, round_index=2)
        assert same(state[STATE], before)

    def test_clients_keep_different_statistics(self):
        world = World(client("silo"))
        first, second = (fit(world, k)[0].state[STATE]["norm.running_mean"] for k in (0, 3))
        assert not torch.equal(first, second)

    def test_broken_statistics_reject_the_update(self):
        world = World(client("silo"))
        state = {STATE: dict(fit(world)[0].state[STATE])}
        state[STATE]["norm.running_var"] = torch.full((4,), torch.inf, dtype=torch.float64)
        result, _ = fit(world, state=state, round_index=2)
        kept = {name: arrays_of(tree) for name, tree in result.state.items()}
        with pytest.raises(RejectedError, match=f"{STATE}/norm.running_var"):
            check_state(flatten(kept))

    def test_weights(self):
        world = World(client("local", weight="uniform"))
        assert [float(fit(world, k)[0].terms["model"].weight) for k in range(3)] == [1, 1, 0]
        world = World(client("local"))
        assert [float(fit(world, k)[0].terms["model"].weight) for k in range(3)] == [9, 3, 0]

    @pytest.mark.parametrize("k", range(len(SIZES)))
    def test_batches_of_one_stay_finite(self, k):
        result, _ = fit(World(client("local", batch_size=1)), k)
        assert all(v.isfinite().all() for v in result.terms["model"].value.values())

    def test_the_proximal_term_leaves_own_tensors_alone(self):
        moved = {}
        for mu in (0.0, 100.0):
            prox = {"name": "fedprox", "bn_policy": "local", "mu": mu, "lr": 1e-3, **QUICK}
            world = World(build(prox))
            state = {STATE: dict(fit(world)[0].state[STATE])}
            state[STATE]["norm.weight"] = torch.full((4,), 5.0, dtype=torch.float64)
            moved[mu], _ = fit(world, state=state, round_index=2)
        near, far = (moved[mu].terms["model"].value["norm.weight"] for mu in (0.0, 100.0))
        torch.testing.assert_close(near, far, atol=0.01, rtol=0)  # pulled, it would be near 4


class TestFixed:
    def test_statistics_move_in_the_first_half_only(self):
        world = World(client("fix"))
        buffers = [n for n in world.nets["model"].buffers if "running" in n]
        for round_index, moves in ((1, True), (2, True), (3, False), (4, False)):
            result, sent = fit(world, round_index=round_index, rounds=4)
            value = result.terms["model"].value
            assert [not torch.equal(value[n], sent[n]) for n in buffers] == [moves] * len(buffers)
            assert not torch.equal(value["norm.weight"], sent["norm.weight"])
            assert not torch.equal(value["norm.bias"], sent["norm.bias"])

    @pytest.mark.parametrize(
        ("share", "fixed"), [(0.0, 1), (0.25, 2), (0.5, 3), (0.9, 5), (1.0, 5)]
    )
    def test_from_which_round(self, share, fixed):
        world = World(client("fix", fix_after=share))
        kept = [
            torch.equal(result.terms["model"].value["norm.running_mean"], sent["norm.running_mean"])
            for result, sent in (fit(world, round_index=r, rounds=4) for r in range(1, 5))
        ]
        assert kept == [r >= fixed for r in range(1, 5)]

    def test_dropout_stays_on(self):
        results = []
        for p in (0.0, 0.3):
            world = World(client("fix", fix_after=0.0), lambda p=p: {"model": self.probe(p)})
            results.append(fit(world)[0].terms["model"].value["head.weight"])
        assert not torch.allclose(*results)

    @staticmethod
    def probe(p):
        net = Probe()
        net.drop.p = p
        return net

    def test_a_fixed_layer_is_one_in_evaluation_mode_with_gradients(self):
        net = Net("n", BatchNorm(4).double())
        x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        tree = {**net.init, "running_mean": torch.arange(4.0).double(),
                "running_var": torch.tensor([1.0, 2, 3, 4]).double()}  # fmt: skip
        with statistics("fixed"):
            made = dict(tree)
            torch.testing.assert_close(run(net, made, x), run(net, tree, x, train=False))
            assert same(made, tree)

            def loss(weight, x):
                return (run(net, {**tree, "weight": weight}, x) * x).sum()

            together = vmap(grad(loss))(torch.ones(2, 4).double(), torch.stack([x, 2 * x]))
            with primitive(donate=False):
                alone = grad(loss)(torch.ones(4).double(), 2 * x)
        torch.testing.assert_close(together[1], alone)
        assert alone.abs().min() > 0.1


class TestStatistics:
    def test_cumulative_ones_are_torchs(self):
        reference, net = nn.BatchNorm1d(4, momentum=None).double(), Net("n", BatchNorm(4).double())
        tree = dict(net.init)
        with statistics("cumulative"):
            for seed, size in enumerate((7, 7, 3)):
                generator = torch.Generator().manual_seed(seed)
                x = 2 + torch.randn(size, 4, generator=generator, dtype=torch.float64)
                torch.testing.assert_close(run(net, tree, x), reference(x))
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(tree[name], value)

    @pytest.mark.parametrize("stacked", [False, True])
    def test_recomputed_ones_are_those_of_all_samples(self, stacked):
        world = World(client("silo"))
        ids = range(len(SIZES)) if stacked else [1]
        cohort = world.cohort(ids, stacked, 1, None)
        tree = cohort.start(world.nets["model"].init)
        made = recomputed(cohort, tree)
        made = row(made, 1) if stacked else made
        shard, net = world.shards[1], world.nets["model"]
        index = torch.from_numpy(np.concatenate([shard.labeled, shard.unlabeled]))
        x = world.source.rows(index, "plain", torch.empty(len(index), 0))
        with primitive(donate=False):
            maps = net.at(dict(net.init)).part("conv")(x).detach()
        torch.testing.assert_close(made["norm.running_mean"], maps.mean((0, 2, 3)))
        torch.testing.assert_close(made["norm.running_var"], maps.var((0, 2, 3)))
        assert torch.equal(made["norm.weight"], net.init["norm.weight"])

    def test_without_samples_the_kept_ones_stay(self):
        world = World(client("silo"))
        none = np.zeros(0, np.int64)
        world.shards[0] = replace(world.shards[0], labeled=none, labels=none, unlabeled=none)
        cohort = world.cohort([0], False, 1, None)
        tree = {k: v + 1 for k, v in cohort.start(world.nets["model"].init).items()}
        made = recomputed(cohort, tree)
        assert same({k: v for k, v in made.items() if "tracked" not in k},
                    {k: v for k, v in tree.items() if "tracked" not in k})  # fmt: skip

    def test_padding_does_not_count(self):
        net = Net("n", BatchNorm(4).double())
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        plain, padded = dict(net.init), dict(net.init)
        with statistics("cumulative"), primitive(donate=False):
            net.at(plain, train=True, batch=batch(x[:3]))(x[:3])
            net.at(padded, train=True, batch=batch(x, torch.arange(8) < 3))(x)
        for name, value in plain.items():
            torch.testing.assert_close(padded[name], value)


class TestEvaluation:
    def world(self, policy, **settings):
        world = World(client(policy, **settings))
        pool = np.arange(sum(map(sum, SIZES)))
        world.shards = [
            replace(s, test=pool[k : k + 5 + k], test_labels=pool[k : k + 5 + k] % SPEC.num_classes)
            for k, s in enumerate(world.shards)
        ]
        return world

    @pytest.mark.parametrize("policy", ["local", "silo"])
    @pytest.mark.parametrize("anew", [False, True])
    def test_own_model_looped_and_stacked(self, policy, anew):
        world = self.world(policy, recompute_statistics=anew)
        states = [dict(fit(world, k)[0].state) for k in range(len(SIZES))]
        asked = world.request("evaluate", round_index=2)
        looped = world.looped("evaluate", asked, states)
        whole = world.stacked("evaluate", asked, states)
        names = {"loss", "accuracy"} | ({"accuracy_kept"} if anew else set())
        for k, one in enumerate(looped):
            assert one.metrics.keys() == whole.metrics.keys() == names
            for name, ratio in one.metrics.items():
                torch.testing.assert_close(ratio.sum, whole.metrics[name].sum[k])
                assert ratio.count == whole.metrics[name].count[k] == 5 + k
        # never asked before: batch normalization of the server, or statistics of its own samples
        fresh = world.looped("evaluate", asked, None)
        pairs = zip(fresh, looped, strict=True)
        alike = [torch.allclose(f.metrics["loss"].sum, r.metrics["loss"].sum) for f, r in pairs]
        assert all(alike) == (anew and policy == "silo")

    def test_it_is_the_model_that_it_sent_while_the_server_changes_nothing(self):
        world = self.world("local")
        first, _ = fit(world)
        sent = first.terms["model"].value
        asked = replace(world.request("evaluate"), shared={"model": sent})
        plain = World(build({"name": "fedavg"}))
        plain.shards = world.shards
        own = world.looped("evaluate", asked, [dict(first.state)] * len(SIZES))[0]
        theirs = plain.looped("evaluate", asked, None)[0]
        torch.testing.assert_close(own.metrics["loss"].sum, theirs.metrics["loss"].sum)

    def test_global_policies_evaluate_the_received_model(self):
        world = self.world("fix", recompute_statistics=True)
        asked = world.request("evaluate")
        plain = World(build({"name": "fedavg"}))
        plain.shards = world.shards
        for left, right in zip(
            world.looped("evaluate", asked, None),
            plain.looped("evaluate", asked, None),
            strict=True,
        ):
            assert left.metrics["loss"].sum == right.metrics["loss"].sum
