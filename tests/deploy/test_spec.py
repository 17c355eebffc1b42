"""What a server tells its devices survives the way, and nothing else gets in."""

import json
from dataclasses import replace

import pytest

from fedlabels.deploy.spec import DeviceSpec, loads
from fedlabels.errors import ConfigError

SPEC = DeviceSpec(
    run="ab12",
    seed=3,
    client={"name": "fedavg", "lr": 0.1},
    model={"name": "mlp", "hidden": [8]},
    shape=(1, 8, 8),
    class_names=("a", "b"),
    mean=(0.5,),
    std=(0.25,),
    pixels=True,
    mods=("fixed_clipping",),
)


def test_it_reads_back():
    assert loads(SPEC.dumps()) == SPEC
    assert loads(SPEC.dumps()).dumps() == SPEC.dumps()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "another version"),
        ({"more": 1}, "more"),
        ({"seed": -1}, "seed"),
        ({"shape": []}, "shape"),
        ({"shape": [1, 0, 8]}, "shape"),
        ({"std": [0.0]}, "std"),
        ({"mean": [0.1, 0.2]}, "mean"),
        ({"mean": "x"}, "mean"),
        ({"client": {"lr": 1}}, "client"),
        ({"class_names": ["a"]}, "class_names"),
        ({"mods": ["os.system"]}, "mods"),
        ({"precision": "int8"}, "precision"),
        ({"run": "../x"}, "run"),
    ],
)
def test_what_is_wrong_is_named(change, said):
    values = {**json.loads(SPEC.dumps()), **change}
    with pytest.raises(ConfigError, match=said):
        loads(json.dumps(values))


def test_a_field_that_is_missing_is_named():
    values = json.loads(SPEC.dumps())
    del values["views"]
    with pytest.raises(ConfigError, match="views"):
        loads(json.dumps(values))
    with pytest.raises(ConfigError, match="no JSON"):
        loads(SPEC.dumps()[:-3])


def test_bad_values_are_refused_where_they_are_made():
    with pytest.raises(ConfigError, match="mods"):
        replace(SPEC, mods=("anything",))
