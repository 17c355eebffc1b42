"""Every golden entry passes, and the adapters leave the maths to the project."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedlabels import losses
from tests.golden import runner
from tests.golden.purity import maths, project_calls
from tests.golden.registry import adapters
from tests.golden.values import Tolerance, compare, decode, normalize

FILES = sorted(Path(__file__).parent.glob("*.json"))
TABLE = adapters()
EXACT = Tolerance(0.0, 0.0)


def entries() -> list[Any]:
    return [
        pytest.param(entry, id=f"{entry['kind']}-{entry['name']}")
        for path in FILES
        for entry in runner.load_entries(path)
    ]


@pytest.mark.parametrize("entry", entries())
def test_entry(entry: dict[str, Any]) -> None:
    assert runner.check_entry(entry, TABLE) == ""


@pytest.mark.parametrize("kind", sorted(TABLE))
def test_adapter_calls_the_project(kind: str) -> None:
    assert project_calls(TABLE[kind])


@pytest.mark.parametrize("kind", sorted(TABLE))
def test_adapter_contains_no_maths(kind: str) -> None:
    assert maths(TABLE[kind]) == set()


def computes_itself(inputs: dict[str, Any]) -> dict[str, Any]:
    logits = torch.as_tensor(inputs["logits"])
    return {"loss": -logits.softmax(-1)[0] @ logits[0] + 1}


def calls_the_project(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"loss": losses.mean_loss(inputs["loss"])}


def hides_in_a_helper(inputs: dict[str, Any]) -> dict[str, Any]:
    return computes_itself(inputs)


class Model:
    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.exp()


def hides_in_a_class(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"loss": Model()(inputs["logits"])}


def test_purity_check_sees_operators_and_calls() -> None:
    seen = {"operator MatMult", "operator Add", "operator USub", "call of softmax"}
    assert {problem.split(" in ")[0] for problem in maths(computes_itself)} == seen
    assert maths(hides_in_a_helper) == maths(computes_itself)
    assert maths(hides_in_a_class) == {"call of exp in Model"}
    assert project_calls(computes_itself) == set()


def test_purity_check_accepts_calls_into_the_project() -> None:
    assert maths(calls_the_project) == set()
    assert project_calls(calls_the_project) == {"fedlabels.losses.base.mean_loss"}


def test_decode_follows_the_content() -> None:
    assert decode([[1, 2], [3, 4]]).dtype == np.int64
    assert decode([1, 2.5]).dtype == np.float64
    assert decode([True, False]).dtype == bool
    assert np.array_equal(decode(["nan", 1.0, "-inf"]), [np.nan, 1.0, -np.inf], equal_nan=True)
    assert decode({"dtype": "int64", "shape": [0, 3], "data": []}).shape == (0, 3)
    assert [part.shape for part in decode([[1.0], [1.0, 2.0]])] == [(1,), (2,)]
    assert decode({"a": None, "b": "text", "c": []}) == {"a": None, "b": "text", "c": []}


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (torch.tensor([1.0, 2.0]), [1, 2]),
        (float("nan"), "nan"),
        ([1.0, np.inf], [1.0, "inf"]),
        ([torch.tensor([1]), torch.tensor([2])], [[1], [2]]),
        ((torch.ones(1), torch.ones(2)), [[1.0], [1.0, 1.0]]),
        ({"a": np.float64(3.0)}, {"a": 3}),
        (None, None),
        (np.bool_(True), True),
        ([{"a": torch.ones(1)}], [{"a": [1.0]}]),
        (np.array(["x", "y"]), ["x", "y"]),
    ],
)
def test_compare_accepts(got: Any, expected: Any) -> None:
    assert compare("key", normalize(got), decode(expected), EXACT) is None


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ([1.0, 2.0], [[1.0, 2.0]]),
        ([np.inf], ["-inf"]),
        ([1.0], ["nan"]),
        ([np.nan], [1.0]),
        ([1e308], ["inf"]),
        ([2], [3]),
        ([True], [1]),
        (1, True),
        (0.0, None),
        ({"a": 1, "b": 2}, {"a": 1}),
        (["x"], ["y"]),
        ([[1.0], [1.0, 2.0]], [[1.0], [1.0, 2.5]]),
        ([[1.0]], [[1.0], [1.0, 2.0]]),
        ("text", [1.0]),
    ],
)
def test_compare_rejects(got: Any, expected: Any) -> None:
    assert compare("key", normalize(got), decode(expected), EXACT) is not None


def test_tolerance_is_absolute_plus_relative() -> None:
    tolerance = Tolerance(rtol=0.1, atol=0.5)
    assert compare("key", 11.5, 10.0, tolerance) is None
    wrong = compare("key", np.array([11.6, 13.0]), np.array([10.0, 10.0]), tolerance)
    assert wrong is not None
    assert wrong.largest == pytest.approx(3.0)


def entry(**changes: Any) -> dict[str, Any]:
    base = {
        "kind": "toy.copy",
        "name": "toy",
        "inputs": {"a": 1.0, "b": 2.0},
        "outputs": {"a": 1.1, "b": 2.0},
        "tolerance": {"rtol": 0, "atol": 0, "per_output": {"a": {"rtol": 0, "atol": 0.2}}},
    }
    return {**base, **changes}


def broken(inputs: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("no")


def test_tolerance_per_output_replaces_the_general_one() -> None:
    table = {"toy.copy": lambda inputs: inputs}
    assert runner.check_entry(entry(), table) == ""
    assert "b: " in runner.check_entry(entry(outputs={"b": 2.1}), table)


def test_failures_are_told_apart() -> None:
    assert runner.check_entry(entry(), {}) == "no adapter for this kind"
    assert runner.check_entry(entry(), {"toy.copy": broken}) == "raised RuntimeError: no"
    assert "a: missing" in runner.check_entry(entry(), {"toy.copy": lambda inputs: {}})


def test_command_reports_and_sets_the_exit_status(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({"entries": [entry(), entry(kind="other.kind")]}))
    lines: list[str] = []
    assert runner.main([str(path)], lines.append) == 1
    assert lines[0] == "FAIL toy.json toy.copy toy - no adapter for this kind\n"
    assert lines[-1] == "0 passed, 2 failed\n"
    assert runner.main([str(path), "--kinds", "nothing."], lines.append) == 0
    assert lines[-1] == "0 passed, 0 failed\n"
    assert runner.main([str(tmp_path / "absent.json")], lines.append) == 1


def test_command_passes_a_file_of_this_folder() -> None:
    lines: list[str] = []
    path = FILES[-1]
    assert runner.main([str(path), "--kinds", "fixmatch."], lines.append) == 0
    assert lines[0].startswith(f"PASS {path.name} fixmatch.loss ")
    assert lines[-1] == "2 passed, 0 failed\n"
