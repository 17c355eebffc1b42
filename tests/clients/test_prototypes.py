"""FedSA's, FedProto's and FedTGP's clients: whose model it is, what goes up, who is right."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedlabels.clients import build
from fedlabels.clients.base import labeled_sgd
from fedlabels.cohort import SGD, FitResult
from fedlabels.cohort.tree import row
from fedlabels.errors import ConfigError
from tests.cohort.harness import CLASSES, SIZES, SPEC, WIDTH, Probe, World, check, largest_gap
from tests.cohort.test_graphed import compared

NO_LABELS, ONE_CLASS, ONE_SAMPLE = 2, 1, 4
LABELED = [k for k, (labels, _) in enumerate(SIZES) if labels]
QUICK = {"lr": 0.1, "batch_size": 4, "epochs": 2}
CASES = {
    "local": {"name": "local_training", **QUICK},
    "fedsa": {"name": "fedsa", **QUICK},
    "fedsa options": {"name": "fedsa", **QUICK, "margin": "all_pairs", "proto_weighting": "count",
                      "min_class_count": 2, "predict_over": "client_classes", "drop_last": True,
                      "momentum": 0.9, "lambda_reg": 1.0, "mu_mcl": 0.5, "nu_cc": 2.0},
    "fedsa steps": {"name": "fedsa", **QUICK, "epochs": None, "steps": 3,
                    "predict_with": "anchor"},
    "fedproto": {"name": "fedproto", **QUICK},
    "fedproto last": {"name": "fedproto", **QUICK, "proto_from": "last_epoch", "momentum": 0.5,
                      "predict_with": "head"},
    "fedtgp": {"name": "fedproto", **QUICK, "proto_from": "after_training", "drop_last": True},
}  # fmt: skip


def table(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(CLASSES, WIDTH, generator=generator, dtype=torch.float64)


PRESENT = torch.tensor([True, True, False, True, True])
SENT: dict[str, Any] = {
    "fedsa": {
        "model": {"anchors": 3 * table(0)},
        "prototypes": {"vectors": table(1), "present": PRESENT},
    },
    "fedproto": {"model": {"vectors": table(1), "present": PRESENT.double()}},
    "local_training": {"model": {}},
}


def world(**settings: Any) -> World:
    """The awkward cohort, each client with test samples of all classes; the last one has none."""
    made = World(build({**settings}), lambda: {"model": Probe()})
    total = sum(map(sum, SIZES))
    for k, shard in enumerate(made.shards[:-1]):
        index = torch.randperm(total, generator=torch.Generator().manual_seed(k))[: 5 + k].numpy()
        made.shards[k] = replace(shard, test=index, test_labels=index % CLASSES)
    return made


def sent(made: World) -> Any:
    return SENT[type(made.client).__name__.lower().replace("localtraining", "local_training")]


def trained(made: World, rounds: int = 1, **extra: Any) -> list[FitResult]:
    states: Any = None
    for index in range(1, rounds + 1):
        asked = made.request(round_index=index, extra={**sent(made), **extra})
        results = made.looped("train", asked, states)
        states = [dict(result.state) for result in results]
    return results


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_looped_equals_stacked_over_two_rounds(case: str) -> None:
    made = world(**CASES[case])
    looped, whole = check(made, extra=sent(made))
    moved = [
        (value - made.nets.fresh("model", 10 + k)[name]).abs().max()
        for k in LABELED
        for name, value in looped[k].state["model"].items()
        if value.is_floating_point()
    ]
    assert max(moved) > 1e-2
    asked = made.request("evaluate", 2, extra=sent(made))
    alone = made.looped("evaluate", asked, [dict(result.state) for result in looped])
    together = made.stacked("evaluate", asked, [row(dict(whole.state), k) for k in range(8)])
    assert largest_gap(alone, together) <= 1e-9
    assert alone[0].metrics["accuracy"].count == 5
    fresh = largest_gap(made.looped("evaluate", asked, None), made.stacked("evaluate", asked, None))
    assert fresh <= 1e-9


@pytest.mark.parametrize("case", ["fedsa", "fedtgp"])
def test_graphed_equals_looped(case: str) -> None:
    made = world(**CASES[case])
    recorder = compared(made, rounds=2, extra=sent(made))
    assert recorder.replayed > 4 * recorder.recorded


def reference(made: World, k: int, epochs: int, lr: float) -> Any:
    """Train a client's fresh weights by plain SGD, by other code than that under test."""
    cohort = made.cohort([k], False, 1, None)
    return labeled_sgd(cohort, cohort.init("model"), SGD(lr), size=4, steps=None, epochs=epochs)


OFF = {
    "fedsa": {"lambda_reg": 0.0, "mu_mcl": 0.0, "nu_cc": 0.0},
    "fedproto": {"lambda_reg": 0.0},
    "local_training": {},
}


@pytest.mark.parametrize("name", OFF)
def test_without_its_terms_it_is_local_training_bit_for_bit(name: str) -> None:
    made = world(name=name, lr=0.1, batch_size=4, **OFF[name])
    for k, result in enumerate(trained(made)):
        expected, _ = reference(made, k, 1, 0.1)
        for tensor, value in expected.items():
            assert torch.equal(result.state["model"][tensor], value), (k, tensor)


@pytest.mark.parametrize("name", ["fedsa", "fedproto"])
def test_terms_change_what_is_learned_and_epochs_too_are_local_without_them(name: str) -> None:
    off = trained(world(name=name, **QUICK, **OFF[name]), rounds=2)
    alone = trained(world(**CASES["local"]), rounds=2)
    on = trained(world(name=name, **QUICK), rounds=2)
    for k in LABELED:
        for tensor, value in alone[k].state["model"].items():
            assert torch.equal(off[k].state["model"][tensor], value)
        # batch normalization of one row is constant; nobody sent the only class of that client
        if SIZES[k][0] > 1 and not (name == "fedproto" and k == ONE_CLASS):
            left, right = (r[k].state["model"]["dense.weight"] for r in (on, alone))
            assert not torch.equal(left, right)


def test_the_first_round_of_fedproto_is_local_training() -> None:
    nothing = {"vectors": torch.zeros(CLASSES, WIDTH).double(), "present": torch.zeros(CLASSES)}
    first = trained(world(**CASES["fedproto"]), model=nothing)
    alone = trained(world(**CASES["local"]))
    for left, right in zip(first, alone, strict=True):
        assert left.metrics["loss_reg"].sum == 0
        for tensor, value in right.state["model"].items():
            assert torch.equal(left.state["model"][tensor], value)


@pytest.mark.parametrize("case", ["fedsa", "fedproto", "fedtgp"])
def test_without_labels_nothing_goes_up_and_the_model_stays(case: str) -> None:
    made = world(**{**CASES[case], "drop_last": False})
    results = trained(made, rounds=2)
    for k in (NO_LABELS, 7):
        fresh = made.nets.fresh("model", 10 + k)
        term = results[k].terms["prototypes"]
        assert not any(weight.any() for weight in term.weight.values())
        assert not term.value["vectors"].any()
        for name, value in fresh.items():
            assert torch.equal(results[k].state["model"][name], value)


@pytest.mark.parametrize("case", ["fedsa", "fedproto", "fedtgp"])
def test_the_classes_that_go_up(case: str) -> None:
    made = world(**{**CASES[case], "drop_last": False})
    for k, result in enumerate(trained(made)):
        held = torch.bincount(torch.tensor(made.shards[k].labels, dtype=torch.int64), minlength=5)
        term = result.terms["prototypes"]
        assert set(term.value) == {"vectors", "present"}
        assert torch.equal(term.value["present"].bool(), held > 0)
        assert torch.equal(term.weight["vectors"][:, 0], (held > 0).double())
        assert result.metrics["classes_sent"].sum == (held > 0).sum()
    assert trained(made)[ONE_CLASS].terms["prototypes"].value["present"].tolist() == [0, 0, 1, 0, 0]


def test_counts_go_up_only_when_asked_and_rare_classes_stay() -> None:
    made = world(name="fedproto", **QUICK, proto_weighting="count", min_class_count=3)
    for k, result in enumerate(trained(made)):
        held = torch.bincount(torch.tensor(made.shards[k].labels, dtype=torch.int64), minlength=5)
        expected = torch.where(held >= 3, held, 0).double()  # however often training saw them
        term = result.terms["prototypes"]
        assert torch.equal(term.weight["vectors"][:, 0], expected)
        assert not term.value["vectors"][expected == 0].any()
    assert "count" not in str(trained(world(**CASES["fedsa"]))[0].terms["prototypes"].value.keys())


def test_batches_that_are_not_full_can_be_left_out() -> None:
    results = trained(world(**{**CASES["fedsa"], "drop_last": True}))
    # 9, 3, 0, 12, 1, 1, 5, 0 labels in batches of 4, two epochs
    seen = [int(result.metrics["loss_labeled"].count) for result in results]
    assert seen == [16, 0, 0, 24, 0, 0, 8, 0]


def test_prototypes_of_the_last_epoch_are_not_those_of_all() -> None:
    made = [
        trained(world(name="fedproto", **QUICK, proto_from=kind))[0].terms["prototypes"]
        for kind in ("all_epochs", "last_epoch", "after_training")
    ]
    for one in made[1:]:
        assert not torch.allclose(one.value["vectors"], made[0].value["vectors"])
    one_epoch = {**QUICK, "epochs": 1}
    same = [
        trained(world(name="fedproto", **one_epoch, proto_from=kind))[0].terms["prototypes"]
        for kind in ("all_epochs", "last_epoch")
    ]
    assert torch.equal(same[0].value["vectors"], same[1].value["vectors"])


def test_the_margin_follows_the_prototypes_of_the_last_round() -> None:
    made = world(**CASES["fedsa"])
    anchors = 1e-3 * table(0)  # so close together that the client's own gap wins later
    first = trained(made, model={"anchors": anchors})
    second = trained(made, rounds=2, model={"anchors": anchors})
    assert all(float(result.metrics["margin_local"].sum) == 0 for result in first)
    for k, result in enumerate(second):
        several = len(set(made.shards[k].labels.tolist())) > 1
        assert float(result.metrics["margin_local"].sum) == several
        grew = result.metrics["margin"].sum > 10 * first[k].metrics["margin"].sum
        assert bool(grew) == several


class TestEvaluation:
    """Features of the probe and its head are replaced by tables whose answers are known."""

    def scores(self, **settings: Any) -> list[dict[str, float]]:
        made = world(name="fedsa", **QUICK, **settings)
        asked = made.request("evaluate", extra=sent(made))
        states = [dict(result.state) for result in trained(made)]
        results = made.looped("evaluate", asked, states)
        return [
            {name: float(r.sum) / float(r.count) for name, r in one.metrics.items() if r.count}
            for one in results
        ]

    def test_the_chosen_rule_is_the_accuracy(self) -> None:
        for rule in ("prototype", "head", "anchor"):
            for one in self.scores(predict_with=rule)[:-1]:
                assert one["accuracy"] == one[f"accuracy_{rule}"]

    def test_held_and_lacking_classes(self) -> None:
        made = world(name="fedsa", **QUICK)
        asked = made.request("evaluate", extra=sent(made))
        for k, result in enumerate(made.looped("evaluate", asked, None)):
            labels = set(made.shards[k].labels.tolist())
            held = sum(label in labels for label in made.shards[k].test_labels.tolist())
            parts = result.metrics
            assert parts["accuracy_held"].count == held
            assert parts["accuracy_lacking"].count == parts["accuracy"].count - held
            both = parts["accuracy_held"].sum + parts["accuracy_lacking"].sum
            assert both == parts["accuracy"].sum

    def test_over_the_own_classes_nothing_else_can_be_right(self) -> None:
        for one in self.scores(predict_over="client_classes")[:-1]:
            assert one.get("accuracy_lacking", 0.0) == 0
        assert any(one.get("accuracy_lacking", 0.0) > 0 for one in self.scores())

    def test_without_prototypes_nothing_is_right(self) -> None:
        made = world(name="fedproto", **QUICK)
        nothing = {"vectors": torch.zeros(CLASSES, WIDTH).double(), "present": torch.zeros(CLASSES)}
        asked = made.request("evaluate", extra={"model": nothing})
        for result in made.looped("evaluate", asked, None):
            assert result.metrics["accuracy"].sum == 0
        heads = [r.metrics["accuracy_head"].sum for r in made.looped("evaluate", asked, None)]
        assert sum(map(float, heads)) > 0


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "settings", "text"),
        [
            ("fedsa", {"lambda_reg": -1}, "lambda_reg must be >= 0"),
            ("fedsa", {"margin": "mean"}, "client.margin must be one of"),
            ("fedsa", {"predict_with": "both"}, "predict_with must be one of"),
            ("fedproto", {"predict_with": "anchor"}, "predict_with must be one of"),
            ("fedproto", {"proto_from": "first"}, "proto_from must be one of"),
            ("fedproto", {"min_class_count": 0}, "min_class_count must be >= 1"),
            ("fedproto", {"predict_over": "none"}, "predict_over must be one of"),
            (
                "fedproto",
                {"proto_from": "last_epoch", "steps": 2, "epochs": None},
                "last_epoch needs whole epochs",
            ),
        ],
    )
    def test_are_checked(self, name: str, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            build({"name": name, **settings})

    @pytest.mark.parametrize("arrays", [{}, {"anchors": torch.zeros(CLASSES, WIDTH + 1)}])
    def test_a_server_of_another_method_or_width_is_named(self, arrays: Any) -> None:
        made = world(name="fedsa")
        with pytest.raises(ConfigError, match="needs anchors of width 6 from the server"):
            made.looped("train", made.request(extra={"model": arrays}), None)


FEDLABEL = {"name": "fedlabel", "threshold": 0.23, "steps": 3, "steps_unlabeled": 3, "lr": 0.2,
            "batch_size": 4, "batch_unlabeled": 5, "lr_unlabeled": 0.2}  # fmt: skip
COEFFICIENTS = ("anchor-lambda-reg", "anchor-mu-mcl", "anchor-nu-cc")
ANCHORS = {"vectors": 3 * table(0), "margin": torch.tensor(2.0).double()}


class TestAnchorsForFedLabel:
    def results(self, weight: float | None, variant: str = "paper") -> list[FitResult]:
        made = World(build({**FEDLABEL, "variant": variant}))
        if weight is None:
            return check(made)[0]
        settings = dict.fromkeys(COEFFICIENTS, weight)
        return check(made, extra={"anchors": ANCHORS}, settings=settings)[0]

    def test_off_is_off_and_on_changes_what_is_learned_where_there_are_labels(self) -> None:
        without, zero, on = (self.results(weight) for weight in (None, 0.0, 1.0))
        for k, (left, right) in enumerate(zip(without, zero, strict=True)):
            for name, value in left.terms["model"].value.items():
                assert torch.equal(value, right.terms["model"].value[name])
            moved = on[k].terms["model"].value["head.weight"]
            assert torch.equal(moved, left.terms["model"].value["head.weight"]) != (k in LABELED)

    def test_of_the_official_variant(self) -> None:
        on, off = self.results(1.0, "flute"), self.results(None, "flute")
        for k in LABELED:
            left, right = (r[k].terms["local"].value["head.weight"] for r in (on, off))
            assert not torch.equal(left, right)


def test_the_probe_has_what_the_clients_ask_of_a_model() -> None:
    assert SPEC.num_classes == CLASSES == Probe().head.out_features
