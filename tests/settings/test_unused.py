"""Settings without effect in a combination are refused, whatever class has them."""

import pytest

from fedlabels.effect import declared, defaults, only
from fedlabels.errors import ConfigError
from tests.end_to_end.harness import REPO, config_of

TINY = ("backend=serial", "dataset=digits")
METHODS = sorted(file.stem for file in (REPO / "configs" / "method").glob("*.yaml"))

# what is given -> the setting that it needs
WITHOUT = {
    "method=fedavg training.nesterov=true": "training.momentum above 0 (training.momentum is 0.0)",
    "method=fedavg training.decay_biases=false": "training.weight_decay above 0",
    "method=fedbn client.fix_after=0.3": "client.bn_policy=fix (client.bn_policy is local)",
    "method=fixbn client.recompute_statistics=true": "client.bn_policy=local or silo",
    "method=fixmatch client.temperature=0.3": "client.loss=uda (client.loss is fixmatch)",
    "method=fedld client.margin_lambda=0 training.steps=2"
    " client.margin_on_unlabeled=true": "client.margin_lambda above 0",
    "method=fedlabel_joint client.mu=0.1": "client.variant=paper or flute",
    "method=fedlabel_flute client.merge=mean": "client.variant=paper (client.variant is flute)",
    "method=fedlabel client.lambda0=0 client.consistency_norm=agree": "client.lambda0 above 0",
    "method=fedtgp client.proto_weighting=count": "strategy.name other than fedtgp",
    "method=fedld_margin strategy.k_proportion=0.5": "strategy.aggregation=principal",
    "method=fedtgp strategy.server_epochs=0 strategy.server_lr=0.1": "strategy.server_epochs abo",
    "method=fedprox client.mu=0.1 strategy.proximal_mu=0.2": "client.mu=null (client.mu is 0.1)",
    "partition.class_order=natural": "partition.balance=true (partition.balance is false)",
    "partition.samples_per_client=20": "partition.reuse=true",
    "labels.choose=smallest": "labels.zero_label_share above 0 or labels.fully_labeled_share abo",
    "model=resnet8 model.nf_style=plain": "model.norm=ws (model.norm is batch)",
    "model=resnet8 model.norm=ws model.nf_style=plain model.skip_init=true": "model.nf_style=norm",
    "method=fedsa architectures.models=[{name:resnet8,skip_init:true}]": "models[0].norm=ws",
    "early_stop.metric=test_accuracy": "early_stop.target or early_stop.patience",
    "dataset.view_options.num_ops=0 dataset.view_options.strength=0.1": "num_ops above 0",
    "dataset.view_options.shift=0 dataset.view_options.edge=reflect": "shift above 0",
    "backend.device=cpu backend.tf32=false": "backend.device other than cpu",
    "backend.execution=stacked backend.lanes=2": "backend.execution=auto or graphed",
    "callbacks=decomposition callbacks.decomposition.probe_samples=5": "variant=probe",
}  # fmt: skip


@pytest.mark.parametrize("given", WITHOUT)
def test_what_has_no_effect_is_refused_with_what_it_needs(given):
    last = given.split()[-1].partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        config_of(*TINY, *given.split())
    assert " has no effect without " in str(caught.value)
    assert WITHOUT[given] in str(caught.value)
    if last != "architectures.models":
        assert str(caught.value).startswith(f"{last}=")


@pytest.mark.parametrize(
    "given",
    [
        "method=fedavg training.nesterov=true training.momentum=0.9",
        "method=fixbn client.fix_after=0.3",
        "method=uda client.loss=fixmatch",
        "method=fedlabel_joint client.variant=paper strategy.variant=paper client.mu=0.1",
        "method=fedwon model=lenet model.norm=ws_group",
        "method=fedprox client.mu=0.1",
        "labels=zero_label_clients labels.share=0.3 labels.choose=smallest",
        "early_stop.metric=test_accuracy early_stop.patience=3",
        "callbacks=decomposition callbacks.decomposition.variant=server"
        " callbacks.decomposition.server_samples=5",
    ],
)
def test_what_counts_passes(given):
    config_of(*TINY, *given.split())


@pytest.mark.parametrize("method", METHODS)
def test_presets_of_methods_pass(method):
    config_of(*TINY, f"method={method}")


def test_declarations_name_settings_that_there_are():
    from fedlabels import clients, strategies
    from fedlabels.federation import PARTITIONS, POLICIES

    kinds = [clients.find(name) for name in clients.names()]
    kinds += [strategies.find(name).Settings for name in strategies.names()]
    kinds += [*PARTITIONS.values(), *POLICIES.values()]
    for kind in kinds:
        known = {*kind.__dataclass_fields__, "samples_per_client"}
        for rule in declared(kind):
            assert known.issuperset(rule.keys), kind


def test_a_class_adds_to_what_its_bases_declare():
    class Base:
        counts = (only("rate", steps=(1, 2)),)

    class Derived(Base):
        counts = (only("form", mode="new"),)

    assert [rule.keys for rule in declared(Derived)] == [("form",), ("rate",)]
    assert not list(declared(int))


def test_defaults_leave_out_what_must_be_given():
    def make(width, depth=2):
        return width * depth

    assert defaults(make) == {"depth": 2}
