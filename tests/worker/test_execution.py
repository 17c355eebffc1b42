"""Graphed execution, measured choices and full memory in a whole run, with stand-ins for a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import Cohort, FitRequest, FitResult, PseudoLabels, Term
from fedlabels.cohort import engine as engines
from fedlabels.cohort.recorders import Lane, TapeRecorder
from fedlabels.errors import ConfigError
from fedlabels.rounds.reduce import Buffers, TreeSum, finish
from fedlabels.rounds.terms import finite, readings, weight_of
from fedlabels.run import setup
from fedlabels.run.folder import RunFolder
from fedlabels.worker import outcome, trainer
from fedlabels.worker.convert import arrays_of
from fedlabels.worker.scoring import joined, score
from tests.end_to_end.harness import (
    FEDAVG,
    TINY,
    column,
    config_of,
    prints,
    simulate,
    table,
    with_client,
)
from tests.end_to_end.toys import Chaos, Rememberer

STABLE = (
    *TINY, "method=fedlabel_stable", "training.steps=5", "training.steps_unlabeled=4",
    "client.threshold=0.2",
    "training.batch_size=16", "training.batch_unlabeled=32", "training.lr=0.1",
    "training.lr_unlabeled=0.1", "rounds=2",
)  # fmt: skip


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """Let a CPU have lanes, and results be read as if they were elsewhere."""
    made: list[Lane] = []

    def make(device: torch.device, count: int) -> list[Lane]:
        made.extend(Lane(TapeRecorder()) for _ in range(count))
        return made[-count:]

    monkeypatch.setattr(engines, "make_lanes", make)
    monkeypatch.setattr(setup, "execution_of", lambda backend: backend["execution"])
    monkeypatch.setattr(outcome, "_elsewhere", lambda term: True)
    return made


def same(left: Path, right: Path) -> None:
    """Require the same model, and the same rounds but for the last digits of sums."""
    assert prints(left)[0] == prints(right)[0]
    for one, other in zip(table(left), table(right), strict=True):
        for name, value in one.items():
            if not name.startswith("seconds") and value:
                assert float(value) == pytest.approx(float(other[name]), rel=1e-6), name


@pytest.mark.parametrize("settings", [STABLE, (*FEDAVG, "rounds=3", "per_round=7")])
def test_a_graphed_run_is_a_looped_one(tmp_path: Path, lanes: list[Lane], settings: Any) -> None:
    more = ("backend.lanes=2",)
    simulate(tmp_path / "looped", config_of(*settings))
    assert not lanes
    simulate(tmp_path / "graphed", config_of(*settings, *more, "backend.execution=graphed"))
    assert len(lanes) == 2
    assert lanes[0]._kept
    same(tmp_path / "looped", tmp_path / "graphed")


def test_graphed_clients_remember(tmp_path: Path, lanes: list[Lane]) -> None:
    change = with_client(Rememberer(lr=0.1, steps=4))
    settings = (*FEDAVG, "rounds=3", "per_round=10")
    simulate(tmp_path / "looped", config_of(*settings), change)
    simulate(tmp_path / "graphed", config_of(*settings, "backend.execution=graphed"), change)
    same(tmp_path / "looped", tmp_path / "graphed")
    for client in range(10):
        states = [
            load_file(sorted((tmp_path / kind / "state" / str(client)).iterdir())[-1])
            for kind in ("looped", "graphed")
        ]
        for name, value in states[0].items():
            np.testing.assert_array_equal(value, states[1][name])


def test_who_raises_or_poisons_fails_alone(tmp_path: Path, lanes: list[Lane]) -> None:
    settings = (*FEDAVG, "rounds=2", "per_round=10", "backend.execution=graphed")
    change = with_client(Chaos(lr=0.1, steps=3, raises=(2, 5), poisons=(7,)))
    simulate(tmp_path, config_of(*settings), change)
    rows = table(tmp_path, "clients")
    failed = {row["client_id"]: row["error"] for row in rows if row["status"] == "failed"}
    assert failed == {k: f"train: ArithmeticError: client {k} has no luck" for k in ("2", "5")}
    assert {row["client_id"] for row in rows if row["status"] == "rejected"} == {"7"}
    assert column(tmp_path, "ok") == [7.0, 7.0]


@dataclass(frozen=True)
class Peeking(FedAvg):
    """Asks for a value within its steps."""

    stackable: ClassVar[bool] = False

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        def step(carry: Any, fixed: Any, batch: Any) -> Any:
            return {"n": {"n": carry["n"]["n"] + int(batch.n.item())}}, {}

        zero = cohort.map(lambda n: 0 * n, cohort.samples("labeled").count)
        batches = cohort.batches(cohort.samples("labeled"), size=4, steps=3, purpose="peek")
        cohort.scan(step, {"n": {"n": zero}}, batches)
        return super().fit(cohort, request)


def test_steps_that_cannot_be_replayed_run_looped_and_say_so_once(
    tmp_path: Path, lanes: list[Lane], caplog: pytest.LogCaptureFixture
) -> None:
    change = with_client(Peeking(lr=0.1, steps=3))
    settings = (*FEDAVG, "rounds=3", "per_round=6")
    simulate(tmp_path / "looped", config_of(*settings), change)
    simulate(tmp_path / "graphed", config_of(*settings, "backend.execution=graphed"), change)
    same(tmp_path / "looped", tmp_path / "graphed")
    assert caplog.text.count("steps of Peeking cannot be replayed, they run looped") == 1
    assert column(tmp_path / "graphed", "failed") == [0.0] * 3


# ---- memory


@dataclass(frozen=True)
class Greedy(FedAvg):
    """Takes more memory than there is for three clients or more at once."""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        if len(cohort._shards) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().fit(cohort, request)


def test_a_stack_that_does_not_fit_is_halved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = (*FEDAVG, "rounds=2", "per_round=10", "backend.execution=stacked")
    change = with_client(Greedy(lr=0.1, steps=3))
    simulate(tmp_path / "large", config_of(*settings, "backend.stack_size=8"), change)
    simulate(tmp_path / "small", config_of(*settings, "backend.stack_size=2"), change)
    assert column(tmp_path / "large", "failed") == [0.0, 0.0]
    assert prints(tmp_path / "large") == prints(tmp_path / "small")
    said = [record.message for record in caplog.records if "does not fit" in record.message]
    # 8 into 4 and 4, each of them into 2 and 2; from then on nothing is too large
    assert [text.split()[3] for text in said] == ["8", "4", "4"]
    assert "ran one by one" not in caplog.text


# ---- the choice


@pytest.mark.parametrize("better", ["graphed", "stacked"])
def test_auto_measures_once_and_the_manifest_tells(
    tmp_path: Path, lanes: list[Lane], monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    asked = []

    def measured(ways: Any, what: str) -> str:
        asked.append((what, sorted(ways)))
        times = {name: measure() for name, measure in ways.items()}
        assert all(time > 0 for time in times.values())
        return better

    monkeypatch.setattr(trainer, "_measured", lambda device: True)
    monkeypatch.setattr(trainer, "fastest", measured)
    settings = (*FEDAVG, "rounds=3", "per_round=6", "precision=float64")
    simulate(tmp_path / "looped", config_of(*settings, "backend.execution=looped"))
    simulate(tmp_path / "auto", config_of(*settings, "backend.execution=auto"))
    assert asked == [("6 clients of group 0", ["graphed", "stacked"])]
    manifest = RunFolder(tmp_path / "auto", resume=True).read_manifest()
    assert manifest["execution"] == {"FedAvg mlp": better}
    models = [load_file(tmp_path / kind / "model.safetensors") for kind in ("looped", "auto")]
    for name, value in models[0].items():
        np.testing.assert_allclose(value, models[1][name], atol=1e-10)


def test_auto_is_looped_on_a_cpu(tmp_path: Path) -> None:
    settings = (*FEDAVG, "rounds=1", "backend.device=cpu")
    simulate(tmp_path / "auto", config_of(*settings, "backend.execution=auto"))
    simulate(tmp_path / "looped", config_of(*settings, "backend.execution=looped"))
    assert prints(tmp_path / "auto") == prints(tmp_path / "looped")
    manifest = RunFolder(tmp_path / "auto", resume=True).read_manifest()
    assert manifest["execution"] == {"FedAvg mlp": "looped"}


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("backend.device=cuda", "device=cuda was asked for"),
        ("backend.execution=graphed", "execution=graphed replays CUDA graphs and needs a GPU"),
    ],
)
def test_what_needs_a_gpu_says_so_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, text: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=text):
        simulate(tmp_path / "run", config_of(*FEDAVG, setting))
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    "wrong", ["backend.device=tpu", "backend.stack_size=0", "backend.lanes=0", "backend.tf32=maybe"]
)
def test_wrong_settings_are_refused(wrong: str) -> None:
    with pytest.raises(Exception, match=wrong.split("=")[0].split(".")[1]):
        config_of(*FEDAVG, wrong)


# ---- reading many results in few transfers


def term(*values: float, weight: Any = 2.0, **more: torch.Tensor) -> Term:
    given = weight if weight is None or isinstance(weight, dict) else torch.tensor(weight)
    return Term({"w": torch.tensor(values), "n": torch.tensor([1, 2]), **more}, given)


@pytest.mark.parametrize(
    "one",
    [
        term(1.0, 2.0),
        term(1.0, float("nan")),
        term(float("inf"), 2.0),
        term(1e30, -1e30),  # its square is not finite
        term(1.0, -1e17),
        term(1.0, half=torch.tensor([6e4, 6e4], dtype=torch.float16)),
        term(1.0, double=torch.tensor([1e200], dtype=torch.float64)),
        term(1.0, weight=None),
        term(1.0, weight=float("nan")),
        term(1.0, weight=3),
        term(1.0, weight={"w": torch.tensor([1.0, 5.0]), "n": torch.tensor([2, 3])}),
        term(1.0, weight={"w": torch.tensor([])}),
        term(1.0, empty=torch.zeros(0)),
        Term({"n": torch.tensor([1])}),
    ],
)
def test_readings_say_what_is_said_one_by_one(one: Term) -> None:
    whole, weight, least = readings(one)
    assert bool(whole) == finite(one)
    if bool(whole):
        assert float(weight) == weight_of({"a": one})
        assert float(least) <= float(weight)


def test_joined_pseudo_labels_score_the_same() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(-1, 3, 40)
    for shape in ((4,), (3, 4)):
        records = [
            PseudoLabels(
                torch.from_numpy(random.integers(-1, 40, shape)),
                torch.from_numpy(random.integers(0, 3, shape)),
                torch.from_numpy(random.random(shape) < 0.7),
                torch.from_numpy(random.integers(0, 2, shape)),
                {"global": torch.from_numpy(random.integers(0, 3, shape))},
            )
            for _ in range(5)
        ]
        for client in range(3) if len(shape) > 1 else (None,):
            found = score(records, truth, client)
            assert score(joined(records), truth, client) == found
            assert set(found) == {"pseudo_accuracy", "pseudo_accuracy_global"}


def test_arrays_that_travel_packed_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedlabels.worker import convert

    tree = {
        "a": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "n": torch.tensor(7),
        "b": torch.rand(3),
        "e": torch.zeros(0, 2),
    }
    packed = convert._packed(tree)
    assert list(packed) == list(tree)
    for name, value in arrays_of(tree).items():
        np.testing.assert_array_equal(packed[name], value)
        assert packed[name].dtype == value.dtype


def test_sums_are_made_where_the_terms_are() -> None:
    elsewhere = torch.device("meta")
    total = TreeSum(4, Buffers())
    for position in range(4):
        value = {"w": torch.rand(3, 2, device=elsewhere), "n": torch.zeros((), device=elsewhere)}
        weight = None if position % 2 else torch.ones((), device=elsewhere)
        total.push(position, Term(value, weight))
    node = finish(total.nodes, 4)
    assert node is not None
    assert node.total.memory.device == node.weight.device == elsewhere
    assert node.total.memory.dtype == torch.float64
