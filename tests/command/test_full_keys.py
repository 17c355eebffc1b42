"""Every setting that is refused is named as it is written on the command line, in full."""

import copy
import dataclasses
import math

import pytest
import yaml

from fedlabels import clients, strategies
from fedlabels.cohort.training import own_names, training_names
from fedlabels.data.views import make_views
from fedlabels.errors import FedLabelsError
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.models import MODELS
from fedlabels.run import data
from fedlabels.run.setup import build_world
from fedlabels.settings.config import USUAL, check
from fedlabels.settings.presets import CONFIGS
from tests.end_to_end.harness import TINY, config_of

# What has no default and must be given.
GIVEN = {
    "number": 2, "target": "IidPartitioner", "share": 0.3, "count": 2, "per_class": 2,
    "file": "nowhere",
}  # fmt: skip
# Errors that come before: what the data, or the other half of a method, lack.
OTHER = (
    "nowhere",
    "this data set",
    "needs the library",
    "do not fit",
    "needs samples of shape",
    "is for series",
)


@pytest.fixture(scope="module")
def base():
    """Settings that run, and the digits."""
    config = config_of(*TINY, "method=fedavg")
    return config, data.read_data(config)


def usual(kind, given):
    """Return the settings of a class, with what must be given."""
    values = {}
    for entry in dataclasses.fields(kind):
        if entry.default is not dataclasses.MISSING:
            values[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            values[entry.name] = entry.default_factory()
        else:
            values[entry.name] = given[entry.name]
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def wrong(value):
    """Return values of the right kind that hardly any setting allows."""
    if isinstance(value, bool | dict):
        return []
    if isinstance(value, float):
        return [-1.0, math.nan]
    if isinstance(value, int):
        return [-1]
    return [["nonsense"], [-1]] if isinstance(value, list) else ["nonsense"] if value else [-1]


def changed(config, key, value):
    """Return the settings with another value of one key."""
    copied = copy.deepcopy(config)
    *groups, last = key.split(".")
    group = copied
    for name in groups:
        group = group[name]
    group[last] = value
    return copied


def refusals(config, source, keys):
    """Yield key and error of each wrong value that is refused."""

    def deal(settings):
        return data.Dealt(*data.build_data(settings, source), data.views_of(settings, source))

    for key in keys:
        value = config
        for name in key.split("."):
            value = value[name]
        for other in wrong(value):
            try:
                composed = changed(config, key, other)
                check(composed)
                build_world(composed, deal)
            except FedLabelsError as error:
                yield f"{key}={other}", str(error)


def below(config, *groups):
    return [f"{group}.{key}" for group in groups for key in config[group] if key != "name"]


def of_partition(config, name):
    extra = {"name": name, "reuse": False, "samples_per_client": None, "keep": 1.0}
    config["partition"] = extra | usual(PARTITIONS[name], GIVEN | USUAL["partition"])
    return below(config, "partition")


def of_labels(config, name):
    config["labels"] = {"name": name} | usual(POLICIES[name], GIVEN | USUAL["labels"])
    if config["labels"].get("fraction", 0) is None:
        config["labels"]["fraction"] = 0.1
    if "share" in config["labels"]:
        config["labels"]["share"] = GIVEN["share"]
    return below(config, "labels")


def of_model(config, name):
    preset = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    config["model"] = {"name": name, "feature_dim": None} | preset
    return below(config, "model")


def of_client(config, name):
    values = usual(clients.find(name), {})
    config["client"] = {"name": name} | {k: values[k] for k in own_names(clients.find(name))}
    config["training"] = {k: values[k] for k in training_names(clients.find(name))}
    return below(config, "client", "training")


def of_strategy(config, name):
    config["strategy"] = {"name": name} | usual(strategies.find(name).Settings, {})
    return below(config, "strategy")


def of_views(config, name):
    views = make_views(name)
    config["dataset"]["views"] = name
    config["dataset"]["view_options"] = {
        entry.name: getattr(view, entry.name)
        for view in (views["weak"], views["strong"])
        for entry in dataclasses.fields(view)
        if entry.init and entry.name != "weak"
    }
    return [f"dataset.view_options.{key}" for key in config["dataset"]["view_options"]]


def of_a_run(config, _name):
    groups = ("long_tail", "label_noise", "shift", "test_shards", "backend", "early_stop", "deploy")
    numbers = [key for key, value in config.items() if isinstance(value, int | float)]
    return [*numbers, "dataset.views", *below(config, *groups)]


CASES = [
    *((of_partition, name) for name in PARTITIONS),
    *((of_labels, name) for name in POLICIES),
    *((of_model, name) for name in MODELS),
    *((of_client, name) for name in clients.names()),
    *((of_strategy, name) for name in strategies.names()),
    *((of_views, name) for name in ("fashion", "timeseries")),
    (of_a_run, "all"),
]


@pytest.mark.parametrize(
    ("settings", "name"), CASES, ids=[f"{s.__name__[3:]}-{n}" for s, n in CASES]
)
def test_a_refusal_names_the_key_in_full(settings, name, base):
    config = copy.deepcopy(base[0])
    keys = settings(config, name)
    seen = list(refusals(config, base[1], keys))
    short = [
        (given, said)
        for given, said in seen
        if given.partition("=")[0] not in said and not any(other in said for other in OTHER)
    ]
    assert not short
    assert seen or settings in (of_client, of_strategy)  # some have switches alone


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("partition.name", "iidd", "partition=iidd is not known (did you mean iid?); allowed: "),
        ("labels.name", "uniformm", "labels=uniformm is not known (did you mean uniform?)"),
        ("model.name", "resnet", "model=resnet is not known (did you mean resnet8?); allowed: al"),
        ("client.name", "fedlable", "client=fedlable is not known (did you mean fedlabel?)"),
        ("strategy.name", "fedaavg", "strategy=fedaavg is not known (did you mean fedavg?)"),
        ("dataset.views", "digit", "dataset.views=digit is not known (did you mean digits?)"),
        ("dataset.view_options", {"cutoutt": 1}, "(did you mean dataset.view_options.cutout?)"),
        (
            "architectures.models",
            ["mlpp"],
            "architectures.models=mlpp is not known (did you mean mlp?)",
        ),
    ],
)
def test_a_name_that_is_nearly_one_is_answered_with_it(key, value, said, base):
    config = changed(base[0], key, value)
    if key == "architectures.models":
        of_strategy(config, "local_training")
        of_client(config, "local_training")
    with pytest.raises(FedLabelsError) as refused:
        build_world(config)
    assert said in str(refused.value)


def test_options_of_a_reader_are_named_in_full(base):
    config = changed(base[0], "dataset.name", "npz")
    with pytest.raises(FedLabelsError, match=r"did you mean dataset\.options\.class_names\?"):
        data.read_data(changed(config, "dataset.options", {"clas_names": ["a"]}))
    with pytest.raises(FedLabelsError, match=r"mnist: dataset\.options\.download must be true or"):
        data.read_data(
            changed(changed(config, "dataset.name", "mnist"), "dataset.options", {"download": 1})
        )
