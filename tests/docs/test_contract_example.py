"""The example of docs/contract.md is complete: it runs looped and stacked with equal results."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from fedlabels.cohort import Client
from fedlabels.errors import ConfigError
from tests.cohort.harness import CLASSES, SIZES, World, check

PAGE = Path(__file__).parents[2] / "docs" / "contract.md"


def source():
    text = PAGE.read_text(encoding="utf-8").split("## A complete client", 1)[1]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Import the example as a file of its own and return its client class."""
    path = tmp_path_factory.mktemp("example") / "contract_example.py"
    path.write_text(source(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("contract_example", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["contract_example"] = module
    spec.loader.exec_module(module)
    yield next(
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Client) and v.__module__ == "contract_example"
    )
    del sys.modules["contract_example"]


def test_looped_equals_stacked(example):
    client = example(steps=4, size=4, threshold=0.21, lr=0.1)
    looped, whole = check(World(client))
    assert whole.terms["counts"].value["counts"].shape == (len(SIZES), CLASSES)
    assert sum(float(r.terms["counts"].value["counts"].sum()) for r in looped) > 0
    assert all(r.terms["model"].weight == sum(SIZES[k]) for k, r in enumerate(looped))


def test_the_teacher_is_state_and_pseudo_labels_are_scored(example):
    world = World(example(steps=4, size=4, threshold=0.0, lr=0.1))
    first = world.looped("train", world.request(), None)
    kept = [dict(result.state) for result in first]
    cohort = world.cohort([0], False, 2, kept[0])
    second = world.client.fit(cohort, world.request(round_index=2))
    fresh = world.client.fit(world.cohort([0], False, 2, None), world.request(round_index=2))
    names = second.state["teacher"], fresh.state["teacher"]
    assert (names[0]["head.bias"] != names[1]["head.bias"]).any()
    assert len(cohort.pseudo_labels) == 4


def test_settings_are_checked(example):
    with pytest.raises(ConfigError, match="decay"):
        example(decay=2.0)


def test_the_page_names_what_there_is():
    """Every method of the cohort that the page shows exists, and none is missing."""
    import fedlabels.cohort as contract

    text = PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"`cohort\.(\w+)\(", text))
    public = {n for n in vars(contract.Cohort) if not n.startswith("_") and n != "stacked"}
    assert public <= shown
    assert shown <= public
