"""Contract probes: one client code, looped == stacked on an awkward cohort, in float64."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedlabels.cohort import (
    SGD,
    Adam,
    Client,
    FitResult,
    PseudoLabels,
    Ratio,
    Term,
    select,
    square_norm,
)
from fedlabels.cohort.optimizers import clip_by_norm
from tests.cohort.harness import CLASSES, SIZES, WIDTH, Probe, World, check


def ce(logits, y):
    return functional.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class Plain(Client):
    """Labeled steps with momentum; the baseline of all probes."""

    epochs: int = 2

    def fit(self, cohort, request):
        labeled = cohort.samples("labeled")

        def loss(net, batch, fixed):
            values = ce(net(batch.x), batch.y)
            return batch.mean(values), {"loss": batch.sum(values), "n": batch.n}

        tree, sums = cohort.sgd(
            cohort.start(request.shared["model"]),
            loss,
            cohort.batches(labeled, size=4, epochs=self.epochs),
            SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        )
        return FitResult(
            {"model": Term(tree, labeled.count)}, {"loss": Ratio(sums["loss"], sums["n"])}
        )


def test_momentum_and_weight_decay():
    looped, _ = check(World(Plain()))
    untouched = looped[2].terms["model"].value  # no labels: the received model comes back
    world = World(Plain())
    for name, value in world.nets["model"].init.items():
        torch.testing.assert_close(untouched[name], value, rtol=0, atol=0)
    assert looped[2].metrics["loss"].count == 0


@dataclass(frozen=True)
class Sharpness(Client):
    """Gradient, perturbation, gradient (ASAM-like), with two losses of one step."""

    def fit(self, cohort, request):
        net, optimizer = cohort.net("model"), SGD(0.05, momentum=0.9)
        names = net.parameters

        def step(carry, fixed, batch):
            probs = net.at(carry["w"])(batch.weak).softmax(-1)
            confidence, label = probs.max(-1)
            strict = (confidence > 0.228).to(probs.dtype)
            count = batch.sum(strict)

            def strict_loss(w):
                values = strict * ce(net.at(w, train=True, batch=batch)(batch.strong), label)
                return batch.sum(values) / count.clamp_min(1), {}

            first, _, _ = cohort.grad(strict_loss, carry["w"], names)
            scaled = clip_by_norm(first, 0.1)
            shifted = {
                **carry["w"],
                **{k: carry["w"][k] + torch.where(count > 0, v, 0 * v) for k, v in scaled.items()},
            }
            teacher = net.at(dict(carry["w"]), train=True, batch=batch)(batch.strong).softmax(-1)

            def consistency(w):
                log_q = net.at(w, train=True, batch=batch)(batch.strong).log_softmax(-1)
                return batch.mean(
                    strict * (teacher * (teacher.clamp_min(1e-12).log() - log_q)).sum(-1)
                ), {}

            second, _, _ = cohort.grad(consistency, shifted, names)
            third, _, moved = cohort.grad(
                lambda w: (
                    batch.mean(ce(net.at(w, train=True, batch=batch)(batch.strong), label)),
                    {},
                ),
                carry["w"],
                names,
            )
            grads = {k: third[k] + second[k] for k in names}
            moved, state = optimizer.step(moved, grads, carry["o"])
            return {"w": moved, "o": state}, {"strict": count}

        start = cohort.start(request.shared["model"])
        state = cohort.map(lambda w: optimizer.init(w, names), start)
        batches = cohort.batches(
            cohort.samples("unlabeled"), size=5, epochs=2, views=("weak", "strong")
        )
        carry, sums = cohort.scan(step, {"w": start, "o": state}, batches)
        return FitResult({"model": Term(carry["w"], sums["strict"])})


def test_sharpness_step():
    check(World(Sharpness()))


@dataclass(frozen=True)
class ThreeOptimizers(Client):
    """Model, generator and transformer trained in turn within one step; two stay in the state."""

    def fit(self, cohort, request):
        model, generator, mixer = (cohort.net(n) for n in ("model", "generator", "mixer"))
        opts = {
            "model": SGD(0.05, momentum=0.5),
            "generator": Adam(1e-2),
            "mixer": SGD(0.02, clip=1.0),
        }
        nets = {"model": model, "generator": generator, "mixer": mixer}

        def step(carry, fixed, batch):
            out = dict(carry)
            noise = batch.draws.normal(batch.x.shape[0], 3, dtype=batch.x.dtype)

            def task(w):
                view = model.at(w, train=True, batch=batch)
                z = view.features(batch.x)
                made = mixer.at(carry["mixer"])(generator.at(carry["generator"])(noise))
                return batch.mean(
                    ce(view.head(z), batch.y) + ce(view.head(z + 0.1 * made), batch.y)
                ), {}

            def fool(w):
                made = generator.at(w, train=True, batch=batch)(noise)
                return batch.mean(ce(model.at(out["model"]).head(made), batch.y)), {}

            def mix(w):
                made = mixer.at(w, train=True, batch=batch)(generator.at(out["generator"])(noise))
                return batch.mean((made**2).sum(-1)), {}

            for name, loss in (("model", task), ("generator", fool), ("mixer", mix)):
                grads, _, moved = cohort.grad(loss, out[name], nets[name].parameters)
                out[name], out[f"o.{name}"] = opts[name].step(moved, grads, out[f"o.{name}"])
            out["steps"] = {"n": carry["steps"]["n"] + 1}
            return out, {}

        kept = cohort.state
        carry = {
            "model": cohort.start(request.shared["model"]),
            "generator": cohort.start(request.shared["generator"]),
            "mixer": dict(kept["mixer"]) if kept else cohort.init("mixer"),
            "steps": {"n": cohort.map(lambda n: 0 * n, cohort.samples("labeled").count)},
        }
        for name, net in nets.items():
            saved = {k.split("/")[1]: v for k, v in kept.items() if k.startswith(f"o.{name}/")}
            carry[f"o.{name}"] = saved or cohort.map(
                lambda w, n=name, m=net: opts[n].init(w, m.parameters), carry[name]
            )
        carry, _ = cohort.scan(
            step,
            carry,
            cohort.batches(
                cohort.samples("labeled"), size=4, epochs=2, views=("weak",), min_rows=2
            ),
        )
        state = {"mixer": carry["mixer"]}
        for name in nets:
            state.update({f"o.{name}/{k}": v for k, v in carry[f"o.{name}"].items()})
        return FitResult(
            {"model": Term(carry["model"]), "generator": Term(carry["generator"])}, {}, state
        )


def three_nets():
    return {
        "model": Probe(),
        "generator": nn.Sequential(nn.Linear(3, WIDTH), nn.ReLU()),
        "mixer": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()),
    }


def test_three_optimizers_in_one_step_with_state():
    world = World(ThreeOptimizers(), three_nets)
    looped, _ = check(world, extra={"generator": world.nets["generator"].init})
    fresh = [r.state["mixer"]["0.weight"] for r in looped]
    assert not torch.equal(fresh[0], fresh[1])


@dataclass(frozen=True)
class Teacher(Client):
    """A mean teacher that is kept between rounds."""

    def fit(self, cohort, request):
        net, optimizer = cohort.net("model"), SGD(0.05, momentum=0.9)

        def step(carry, fixed, batch):
            target = net.at(carry["teacher"])(batch.weak).softmax(-1)

            def loss(w):
                q = net.at(w, train=True, batch=batch)(batch.strong).softmax(-1)
                return batch.mean(((q - target) ** 2).sum(-1)), {}

            grads, _, moved = cohort.grad(loss, carry["w"], net.parameters)
            moved, state = optimizer.step(moved, grads, carry["o"])
            n = carry["count"]["step"]
            decay = (1 - 1 / (n + 1)).clamp_max(0.999)
            teacher = {
                k: decay * v + (1 - decay) * moved[k] if k in grads else v
                for k, v in carry["teacher"].items()
            }
            return {"w": moved, "o": state, "teacher": teacher, "count": {"step": n + 1}}, {}

        start, kept = cohort.start(request.shared["model"]), cohort.state
        samples = cohort.samples("unlabeled")
        carry = {
            "w": start,
            "o": cohort.map(lambda w: optimizer.init(w, net.parameters), start),
            "teacher": dict(kept["teacher"]) if kept else cohort.start(request.shared["model"]),
            "count": dict(kept["count"])
            if kept
            else {"step": cohort.map(lambda n: (0 * n).double(), samples.count)},
        }
        carry, _ = cohort.scan(
            step, carry, cohort.batches(samples, size=6, epochs=1, views=("weak", "strong"))
        )
        return FitResult(
            {"model": Term(carry["w"])}, {}, {"teacher": carry["teacher"], "count": carry["count"]}
        )


def test_mean_teacher_in_state():
    looped, _ = check(World(Teacher()))
    assert looped[0].state["count"]["step"] == 2 * 3  # 13 samples in batches of 6, two rounds


@dataclass(frozen=True)
class OwnWeights(Client):
    """Every client receives weights of its own."""

    def fit(self, cohort, request):
        def loss(net, batch, fixed):
            return batch.mean(ce(net(batch.x), batch.y)) + 0.01 * square_norm(
                {
                    k: net.tree[k] - v
                    for k, v in fixed["received"].items()
                    if k in net.net.parameters
                }
            ), {}

        received = request.own["weights"]
        start = cohort.map(lambda w: {k: v + 0 for k, v in w.items()}, received)
        tree, _ = cohort.sgd(
            start,
            loss,
            cohort.batches(cohort.samples("labeled"), size=4, steps=3),
            SGD(0.1),
            own={"received": received},
        )
        return FitResult({"model": Term(tree, cohort.samples("labeled").count)})


def test_different_received_weights_per_client():
    world = World(OwnWeights())
    init = world.nets["model"].init
    own = {
        "weights": {
            k: torch.stack(
                [v + (0.05 * i if v.is_floating_point() else 0) for i in range(len(SIZES))]
            )
            for k, v in init.items()
        }
    }
    looped, _ = check(world, own=own)
    assert torch.equal(
        looped[2].terms["model"].value["conv.weight"], init["conv.weight"] + 0.05 * 2
    )


@dataclass(frozen=True)
class TwoExchanges(Plain):
    """Class counts first, then training weighted by what the server made of them."""

    def statistics(self, cohort, request):
        def step(carry, fixed, batch):
            hot = (batch.y[:, None] == torch.arange(CLASSES)).to(torch.float64)
            return carry, {"counts": batch.sum(hot)}

        _, sums = cohort.scan(
            step,
            {},
            cohort.batches(
                cohort.samples("labeled"), size=4, epochs=1, views=("plain",), purpose="count"
            ),
        )
        return FitResult({"counts": Term({"counts": sums["counts"]}, reduce="sum")})


def test_two_exchanges_in_one_round():
    looped, _ = check(World(TwoExchanges()), ("statistics",))
    assert [int(r.terms["counts"].value["counts"].sum()) for r in looped] == [s[0] for s in SIZES]
    check(World(TwoExchanges()), ("statistics", "train"))


@dataclass(frozen=True)
class Prototypes(Client):
    """A term that is weighted entry by entry: class means, weighted by class counts."""

    def fit(self, cohort, request):
        net = cohort.net("model")

        def step(carry, fixed, batch):
            z = net.at(fixed["model"]).features(batch.x)
            hot = (batch.y[:, None] == torch.arange(CLASSES)).to(z.dtype)
            return carry, {
                "sum": batch.sum(hot[:, :, None] * z[:, None, :]),
                "count": batch.sum(hot),
            }

        _, sums = cohort.scan(
            step,
            {},
            cohort.batches(cohort.samples("labeled"), size=4, epochs=1, views=("plain",)),
            shared={"model": request.shared["model"]},
        )
        means = cohort.map(lambda s, n: s / n.clamp_min(1)[:, None], sums["sum"], sums["count"])
        weight = cohort.map(lambda n: n[:, None], sums["count"])
        return FitResult({"prototypes": Term({"mean": means}, {"mean": weight})})


def test_per_entry_weighted_term():
    looped, stacked = check(World(Prototypes()))
    assert looped[2].terms["prototypes"].weight["mean"].shape == (CLASSES, 1)
    assert stacked.terms["prototypes"].weight["mean"].shape == (len(SIZES), CLASSES, 1)
    assert not looped[2].terms["prototypes"].value["mean"].any()


@dataclass(frozen=True)
class PrivateNorm(Plain):
    """BatchNorm stays at the client."""

    def private(self, layout):
        return layout.names(module_type="BatchNorm")

    def fit(self, cohort, request):
        from fedlabels.cohort import Layout

        hidden = self.private(Layout(cohort.net("model").skeleton))
        start = cohort.start(request.shared["model"])
        start.update(cohort.state.get("norm", {}))
        tree, _ = cohort.sgd(
            start,
            lambda net, batch, fixed: (batch.mean(ce(net(batch.x), batch.y)), {}),
            cohort.batches(cohort.samples("labeled"), size=4, steps=3),
            SGD(0.1),
        )
        public = {k: v for k, v in tree.items() if k not in hidden}
        return FitResult(
            {"model": Term(public, cohort.samples("labeled").count)},
            {},
            {"norm": {k: tree[k] for k in hidden}},
        )


def test_private_batch_norm():
    looped, _ = check(World(PrivateNorm()))
    assert not any("norm" in k for k in looped[0].terms["model"].value)
    assert looped[0].state["norm"]["norm.num_batches_tracked"] == 6


@dataclass(frozen=True)
class Synthetic(Client):
    """Training of the head on embeddings that the client made, as many as it has labels."""

    def fit(self, cohort, request):
        samples = cohort.samples("labeled")
        draws = cohort.draws("synthetic")
        z = cohort.map(
            lambda key: type(draws)(key).normal(12, WIDTH, dtype=torch.float64), draws.key
        )
        y = cohort.map(lambda key: type(draws)(key).fold(1).integers(CLASSES, 12), draws.key)
        made = cohort.made(samples.count, x=z, y=y, index_in_batch=y)

        def loss(view, batch, fixed):
            assert batch.columns["index_in_batch"].shape == batch.y.shape
            return batch.mean(ce(view.head(batch.x), batch.y)), {"n": batch.n}

        tree, sums = cohort.sgd(
            cohort.start(request.shared["model"]),
            loss,
            cohort.batches(made, size=5, epochs=1, views=("plain",)),
            SGD(0.5),
        )
        return FitResult({"model": Term(tree, sums["n"])})


def test_synthetic_samples():
    looped, _ = check(World(Synthetic()))
    assert [int(r.terms["model"].weight) for r in looped] == [s[0] for s in SIZES]


@dataclass(frozen=True)
class WholeShard(Client):
    """Pseudo-labels for the whole shard at once, then training on the confident ones."""

    def fit(self, cohort, request):
        net, samples = cohort.net("model"), cohort.samples("unlabeled")

        def label(fixed, batch):
            confidence, y = net.at(fixed["model"])(batch.x).softmax(-1).max(-1)
            return confidence, y

        confidence, y = cohort.predict(
            label, samples, view="weak", size=4, shared={"model": request.shared["model"]}
        )
        keep = cohort.map(lambda c: c > 0.228, confidence)
        kept = cohort.subset(samples, keep, y=y, confidence=confidence)

        def loss(view, batch, fixed):
            values = batch.columns["confidence"] * ce(view(batch.x), batch.y)
            marks = PseudoLabels(batch.index, batch.y, torch.ones_like(batch.y).bool(), 0 * batch.y)
            return batch.mean(values), {"n": batch.n, "marks": marks}

        tree, sums = cohort.sgd(
            cohort.start(request.shared["model"]),
            loss,
            cohort.batches(kept, size=4, epochs=1, views=("strong",)),
            SGD(0.3),
        )
        return FitResult({"model": Term(tree, kept.count)}, {"n": Ratio(sums["n"], kept.count)})


def test_whole_shard_pseudo_labels():
    looped, _ = check(World(WholeShard()))
    counts = [int(r.terms["model"].weight) for r in looped]
    assert 0 < sum(counts) < sum(s[1] for s in SIZES), counts
    assert counts[3] == counts[4] == 0  # no unlabeled samples


@dataclass(frozen=True)
class Conditional(Client):
    """A conditional step, a private head, and adaptive clipping."""

    def fit(self, cohort, request):
        net = cohort.net("model")
        optimizer = SGD(0.2, momentum=0.9, weight_decay=0.01, agc=0.3)

        def step(carry, fixed, batch):
            probs = net.at(fixed["model"])(batch.weak).softmax(-1)
            confidence, y = probs.max(-1)
            keep = confidence > 0.228
            n = batch.sum(keep.to(probs.dtype))

            def loss(w):
                view = net.at(w, train=True, batch=batch)
                z = view.features(batch.strong)
                per = view.part("private")(z.detach())
                return batch.sum(keep * (ce(view.head(z), y) + ce(per, y))) / n.clamp_min(1), {}

            grads, _, moved = cohort.grad(loss, carry["w"], net.parameters)
            moved, state = optimizer.step(moved, grads, carry["o"], when=n > 0)
            extra = select(n > 0, {"n": carry["extra"]["n"] + 1}, carry["extra"])
            return {"w": moved, "o": state, "extra": extra}, {
                "marks": PseudoLabels(batch.index, y, keep, 0 * y, {"global": y})
            }

        start = cohort.start(request.shared["model"])
        samples = cohort.samples("unlabeled")
        carry = {
            "w": start,
            "o": cohort.map(lambda w: optimizer.init(w, net.parameters), start),
            "extra": {"n": cohort.map(lambda n: 0 * n, samples.count)},
        }
        carry, _ = cohort.scan(
            step,
            carry,
            cohort.batches(samples, size=3, epochs=2, views=("weak", "strong")),
            shared={"model": request.shared["model"]},
        )
        return FitResult({"model": Term(carry["w"], carry["extra"]["n"])})


def test_conditional_step_and_two_heads():
    world = World(Conditional(), lambda: {"model": Probe(("head", "private"))})
    looped, _ = check(world)
    assert sum(int(r.terms["model"].weight) for r in looped) > 0


def test_pseudo_labels_agree_between_executions():
    world = World(Conditional(), lambda: {"model": Probe(("head", "private"))})
    request = world.request()
    found = {}
    for stacked in (False, True):
        groups = [list(range(len(SIZES)))] if stacked else [[k] for k in range(len(SIZES))]
        rows = set()
        for ids in groups:
            cohort = world.cohort(ids, stacked, 1, None)
            world.client.fit(cohort, request)
            for marks in cohort.pseudo_labels:
                real = marks.sample >= 0
                rows |= set(
                    zip(
                        marks.sample[real].tolist(),
                        marks.label[real].tolist(),
                        marks.keep[real].tolist(),
                        strict=True,
                    )
                )
        found[stacked] = rows
    assert found[False] == found[True]
    assert any(keep for _, _, keep in found[True])


@dataclass(frozen=True)
class TwoStreams(Client):
    """A labeled and an unlabeled batch in the same step."""

    def fit(self, cohort, request):
        parts = {"l": cohort.samples("labeled"), "u": cohort.samples("unlabeled")}
        net, optimizer = cohort.net("model"), SGD(0.1)

        def step(carry, fixed, batch):
            left, right = batch["l"], batch["u"]

            def loss(w):
                a = left.mean(ce(net.at(w, train=True, batch=left)(left.weak), left.y))
                b = right.mean((net.at(w, train=True, batch=right)(right.strong) ** 2).sum(-1))
                return a + 0.1 * b, {"n": left.n + right.n}

            grads, sums, moved = cohort.grad(loss, carry["w"], net.parameters)
            return {"w": optimizer.step(moved, grads, {})[0]}, sums

        batches = cohort.batches(
            parts, size={"l": 3, "u": 5}, steps=3, views={"l": ("weak",), "u": ("weak", "strong")}
        )
        carry, sums = cohort.scan(step, {"w": cohort.start(request.shared["model"])}, batches)
        return FitResult({"model": Term(carry["w"], sums["n"])})


def test_two_streams_in_one_step():
    looped, _ = check(World(TwoStreams()))
    assert [int(r.terms["model"].weight) for r in looped] == [
        3 * (min(3, a) + min(5, b)) for a, b in SIZES
    ]


def test_single_precision_is_reported_not_gated(capsys):
    _, _ = check(World(Plain(), dtype=torch.float32), tol=1e-2)


def test_net_outside_a_primitive_is_refused():
    world = World(Plain())
    with pytest.raises(RuntimeError, match="outside a primitive"):
        world.nets["model"].at(world.nets["model"].init)(torch.zeros(1, 1, 6, 6))


def test_training_on_shared_weights_is_refused():
    class Careless(Plain):
        def fit(self, cohort, request):
            net = cohort.net("model")

            def step(carry, fixed, batch):
                net.at(fixed["model"], train=True, batch=batch)(batch.x)
                return carry, {}

            cohort.scan(
                step,
                {},
                cohort.batches(cohort.samples("labeled"), size=4, steps=1),
                shared={"model": request.shared["model"]},
            )
            return FitResult()

    world = World(Careless())
    for stacked in (False, True):
        with pytest.raises(RuntimeError, match="shared weights"):
            world.client.fit(world.cohort([0], stacked, 1, None), world.request())


def test_a_step_leaves_the_received_model_as_it_was():
    world = World(Plain())
    before = {k: v.clone() for k, v in world.nets["model"].init.items()}
    world.looped("train", world.request(), None)
    world.stacked("train", world.request(), None)
    for name, value in world.nets["model"].init.items():
        assert torch.equal(value, before[name]), name
