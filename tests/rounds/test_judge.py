"""Whatever a client returns, the run goes on: rejected and named, and all else as without it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import Cohort, FitRequest, FitResult, Layout, Ratio, Term
from fedlabels.errors import RunError
from fedlabels.rounds.job import Need, SumTerm
from fedlabels.rounds.judge import Judge, Known, Like, RejectedError, is_reserved
from fedlabels.run import file_sha256
from fedlabels.run.folder.folder import CLIENT_FIRST, ROUND_FIRST, ROUND_LAST
from fedlabels.simulation.serial import SerialBackend
from fedlabels.strategies.base import Merged
from fedlabels.strategies.fedavg import FedAvg as Average
from fedlabels.strategies.support import Collected
from tests.end_to_end.harness import (
    TINY,
    column,
    config_of,
    model_print,
    simulate,
    table,
    with_client,
)
from tests.end_to_end.toys import Rememberer

SHORT = (*TINY, "method=fedavg", "training.lr=0.1", "training.steps=2", "rounds=2")
ONE = (*SHORT, "rounds=1", "per_round=10")
BAD = 3


@pytest.fixture(autouse=True, scope="module")
def no_reports() -> Iterator[None]:
    with mock.patch("fedlabels.report.write_report", lambda folder: folder):
        yield


@contextmanager
def ranges(count: int) -> Iterator[None]:
    """Deal a cohort to several ranges, all run here."""
    with mock.patch.object(SerialBackend, "workers", count):
        yield


@dataclass(frozen=True)
class Odd(FedAvg):
    """A client whose result some clients change; one that runs stacked returns the whole stack."""

    change: Callable[[FitResult, bool], Any] = lambda result, wrong: result
    bad: tuple[int, ...] = (BAD,)

    def fit(self, cohort: Cohort, request: FitRequest) -> Any:
        ids = [shard.client_id for shard in cohort._shards]
        return self.change(super().fit(cohort, request), bool(set(ids) & set(self.bad)))


def model(result: FitResult) -> Term:
    return result.terms["model"]


def sends(**changes: Any) -> Callable[[FitResult, bool], Any]:
    def change(result: FitResult, wrong: bool) -> Any:
        if not wrong:
            return result
        return replace(result, **{k: v(result) for k, v in changes.items()})

    return change


def with_term(make: Callable[[Term], Any]) -> Callable[[FitResult, bool], Any]:
    return sends(terms=lambda result: {"model": make(model(result))})


def first(term: Term, new: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return {k: new(v) if k == "head.bias" else v for k, v in term.value.items()}


MALFORMED: dict[str, tuple[Callable[[FitResult, bool], Any], str]] = {
    "none": (lambda result, wrong: None if wrong else result, "FitResult is due"),
    "dict": (lambda result, wrong: {} if wrong else result, "FitResult is due"),
    "terms are a list": (sends(terms=lambda r: [model(r)]), "terms must be {name: Term}, got list"),
    "no terms": (sends(terms=lambda r: None), "terms must be {name: Term}, got NoneType"),
    "no metrics": (sends(metrics=lambda r: None), "metrics must be {name: Ratio}, got NoneType"),
    "no state": (sends(state=lambda r: None), "the state must be named trees"),
    "complex weight": (
        with_term(lambda t: Term(t.value, torch.ones((), dtype=torch.complex64))),
        "term 'model': a weight is a real number, got complex64",
    ),
    "vector": (
        sends(metrics=lambda r: {"seen": Ratio(torch.ones(3), torch.ones(()))}),
        "metric 'seen' is float32 of shape (3,), one real number is due",
    ),
    "complex sum": (
        sends(metrics=lambda r: {"seen": Ratio(torch.ones(()) * 1j, torch.ones(()))}),
        "metric 'seen' is complex64",
    ),
    "no term": (with_term(lambda t: t.value), "term 'model': a Term is due"),
    "list": (with_term(lambda t: Term(first(t, list))), "term 'model': its value 'head.bias'"),
    "array": (with_term(lambda t: Term(first(t, lambda v: v.numpy()))), "no tensor"),
    "value": (with_term(lambda t: Term(list(t.value.values()))), "named tensors"),  # type: ignore[arg-type]
    "text": (with_term(lambda t: Term(t.value, "5")), "a weight is a number"),  # type: ignore[arg-type]
    "negative": (with_term(lambda t: Term(t.value, -3.0)), "must be >= 0"),  # type: ignore[arg-type]
    "huge": (with_term(lambda t: Term(t.value, 1e300)), "allowed are"),  # type: ignore[arg-type]
    "nan": (with_term(lambda t: Term(t.value, torch.tensor(torch.nan))), "not finite"),
    "vast": (
        with_term(lambda t: Term({k: torch.full_like(v, -3e38) for k, v in t.value.items()})),
        "tensor 'body.1.weight' has entries that are larger than 1e+18",
    ),
    "names": (with_term(lambda t: Term(t.value, {"b": torch.ones(())})), "other names"),
    "broadcast": (
        with_term(lambda t: Term(t.value, {k: torch.ones(2, 3, 4, 5) for k in t.value})),
        "does not broadcast",
    ),
    "double": (with_term(lambda t: Term(first(t, lambda v: v.double()))), "is float64"),
    "sparse": (with_term(lambda t: Term(first(t, lambda v: v.to_sparse()))), "term 'model'"),
    "reduce": (with_term(lambda t: Term(t.value, None, "most")), "reduced by 'most'"),  # type: ignore[arg-type]
    "metric": (sends(metrics=lambda r: {"loss": 3.0}), "metric 'loss': a Ratio is due"),
    "column": (
        sends(metrics=lambda r: {"test_accuracy": Ratio(torch.ones(()), torch.ones(()))}),
        "metric 'test_accuracy' has the name of a column",
    ),
    "client_id": (
        sends(metrics=lambda r: {"client_id": Ratio(torch.ones(()), torch.ones(()))}),
        "metric 'client_id' has the name of a column",
    ),
    "count": (
        sends(metrics=lambda r: {"seen": Ratio(torch.ones(()), -torch.ones(()))}),
        "metric 'seen' is 1 over -1",
    ),
    "no count": (
        sends(metrics=lambda r: {"seen": Ratio(torch.ones(()), torch.zeros(()))}),
        "metric 'seen' is 1 over nothing",
    ),
    "endless count": (
        sends(metrics=lambda r: {"seen": Ratio(torch.ones(()), torch.tensor(1e30))}),
        "metric 'seen' is 1 over 1e+30",
    ),
    "own truth": (
        sends(metrics=lambda r: {"pseudo_accuracy_head": Ratio(torch.ones(()), torch.ones(()))}),
        "metric 'pseudo_accuracy_head': such names are those of labels that were scored",
    ),
    "state": (
        sends(state=lambda r: {"mine": {"w": torch.tensor([1.0, torch.nan])}}),
        "state 'mine/w' has entries that are not finite",
    ),
    "flat state": (
        sends(state=lambda r: {"w": torch.ones(2)}),
        "state 'w' must be a tree, {name: tensor}, got Tensor",
    ),
    "text in a state": (
        sends(state=lambda r: {"mine": {"w": "0.5"}}),
        "state 'mine/w' must be a tensor, got str",
    ),
    "slash": (sends(state=lambda r: {"a/b": {"x": torch.ones(2)}}), "a tree 'a/b'"),
    "nameless": (sends(state=lambda r: {"a": {"": torch.ones(2)}}), "state 'a' has a tensor ''"),
    "complex state": (
        sends(state=lambda r: {"mine": {"w": torch.tensor([1j * torch.nan])}}),
        "state 'mine/w' is complex64: keep real numbers",
    ),
    "half state": (
        sends(state=lambda r: {"mine": {"w": torch.ones(2, dtype=torch.bfloat16)}}),
        "state 'mine/w' is bfloat16: keep float32",
    ),
    "eighth state": (
        sends(state=lambda r: {"mine": {"w": torch.ones(2).to(torch.float8_e4m3fn)}}),
        "state 'mine/w' is float8_e4m3fn: keep float32",
    ),
}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run with a plain rejection of the odd client, and return the model's hash."""
    folder = tmp_path_factory.mktemp("without")
    change = with_term(lambda t: Term(first(t, lambda v: v * torch.nan)))
    simulate(folder, config_of(*ONE), with_client(Odd(lr=0.1, steps=2, change=change)))
    return model_print(folder)


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_result_is_rejected_by_name(fault: str, tmp_path: Path, without: str) -> None:
    change, text = MALFORMED[fault]
    with ranges(1 + len(fault) % 2):
        simulate(tmp_path, config_of(*ONE), with_client(Odd(lr=0.1, steps=2, change=change)))
    rows = {row["client_id"]: row for row in table(tmp_path, "clients")}
    assert rows[str(BAD)]["status"] == "rejected"
    assert text in rows[str(BAD)]["error"]
    assert [row["status"] for k, row in rows.items() if k != str(BAD)] == ["ok"] * 9
    assert model_print(tmp_path) == without


@pytest.mark.parametrize(
    "fault",
    ["none", "array", "negative", "vast", "metric", "state", "column", "slash", "half state"],
)
def test_in_a_stack_as_alone(fault: str, tmp_path: Path) -> None:
    change, text = MALFORMED[fault]
    config = config_of(
        *SHORT, "rounds=1", "per_round=10", "backend.execution=stacked", "backend.block_size=4"
    )
    simulate(tmp_path, config, with_client(Odd(lr=0.1, steps=2, change=change)))
    rows = {row["client_id"]: row for row in table(tmp_path, "clients")}
    assert rows[str(BAD)]["status"] == "rejected"
    assert text in rows[str(BAD)]["error"]


class Apart(Average):
    """Averages, and gets a second term of every client for itself."""

    needs: ClassVar[dict[str, Need]] = {"model": "sum", "extra": "each"}  # type: ignore[misc]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_term_for_arrays_has_a_type_of_arrays(kind: torch.dtype, tmp_path: Path) -> None:
    def change(result: FitResult, wrong: bool) -> FitResult:
        made = torch.ones(2).to(kind) if wrong else torch.ones(2)
        return replace(result, terms={**result.terms, "extra": Term({"x": made})})

    def watched(world: Any) -> Any:
        world = with_client(Odd(lr=0.1, steps=2, change=change, bad=(BAD, 4)))(world)
        return replace(world, strategy=Apart())

    simulate(tmp_path, config_of(*ONE), watched)
    rejected = [row for row in table(tmp_path, "clients") if row["status"] == "rejected"]
    assert [row["client_id"] for row in rejected] == [str(BAD), "4"]
    assert "is " + str(kind).removeprefix("torch.") in rejected[0]["error"]


@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_a_state_comes_back_as_it_was_given(execution: str, tmp_path: Path) -> None:
    seen = []

    class Keeper(FedAvg):
        def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
            seen.append({name: sorted(tree) for name, tree in cohort.state.items()})
            result = super().fit(cohort, request)
            count = cohort.samples("labeled").count
            named = cohort.map(lambda n: {"b/c": n, "x": 1.0 * n}, count)
            return replace(result, state={"a": named, "none": {}})

    config = config_of(*SHORT, "per_round=10", f"backend.execution={execution}")
    simulate(tmp_path, config, with_client(Keeper(lr=0.1, steps=2)))
    half = len(seen) // 2
    assert seen[:half] == [{}] * half
    assert seen[half:] == [{"a": ["b/c", "x"], "none": []}] * half


@pytest.mark.parametrize("exit", [SystemExit(3), type("Odd", (BaseException,), {})("why")])
@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_who_leaves_the_program_fails_alone(
    exit: BaseException, execution: str, tmp_path: Path
) -> None:
    def leaves(result: FitResult, wrong: bool) -> FitResult:
        if wrong:
            raise exit
        return result

    config = config_of(*ONE, f"backend.execution={execution}")
    simulate(tmp_path, config, with_client(Odd(lr=0.1, steps=2, change=leaves)))
    rows = {row["client_id"]: row for row in table(tmp_path, "clients")}
    assert [k for k, row in rows.items() if row["status"] != "ok"] == [str(BAD)]
    assert rows[str(BAD)]["status"] == "failed"
    assert f"{type(exit).__name__}({exit})" in rows[str(BAD)]["error"]


def test_an_interrupt_in_a_client_ends_the_run(tmp_path: Path) -> None:
    def interrupted(result: FitResult, wrong: bool) -> FitResult:
        if wrong:
            raise KeyboardInterrupt
        return result

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, config_of(*ONE), with_client(Odd(lr=0.1, steps=2, change=interrupted)))


def test_numbers_and_histories_are_taken(tmp_path: Path) -> None:
    def change(result: FitResult, wrong: bool) -> FitResult:
        count = float(model(result).weight)  # type: ignore[arg-type]
        value = {k: v.requires_grad_() for k, v in model(result).value.items()}
        plain = {"seen": Ratio(2.0, 1)}  # type: ignore[arg-type]
        return replace(result, terms={"model": Term(value, count)}, metrics=plain)  # type: ignore[arg-type]

    config = config_of(*SHORT)
    simulate(tmp_path / "plain", config)
    simulate(tmp_path / "odd", config, with_client(Odd(lr=0.1, steps=2, change=change)))
    assert column(tmp_path / "odd", "rejected") == [0, 0]
    assert column(tmp_path / "odd", "seen") == [2, 2]
    both = [model_print(tmp_path / name) for name in ("plain", "odd")]
    assert both[0] == both[1]


class Watching(Average):
    """Averages, and keeps the sums of a second term."""

    needs: ClassVar[dict[str, Need]] = {"model": "sum", "extra": "sum"}  # type: ignore[misc]
    seen: ClassVar[list[SumTerm | None]] = []

    def merge(self, round_index: int, collected: Collected, server: Any) -> Merged:
        self.seen.append(collected.sums.get("extra"))
        return super().merge(round_index, collected, server)


def extra(
    folder: Path, make: Callable[[int, Cohort], dict[str, torch.Tensor]], count: int, *more: str
) -> list[SumTerm | None]:
    """Run clients that send a second term, dealt to some ranges, and return its sums."""

    @dataclass(frozen=True)
    class Sender(FedAvg):
        def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
            result = super().fit(cohort, request)
            sent = Term(make(cohort._shards[0].client_id, cohort), reduce="sum")
            state = {"extra": sent.value}
            return replace(result, terms={**result.terms, "extra": sent}, state=state)

    Watching.seen.clear()

    def change(world: Any) -> Any:
        return replace(with_client(Sender(lr=0.1, steps=2))(world), strategy=Watching())

    with ranges(count):
        simulate(folder, config_of(*SHORT, *more), change)
    return list(Watching.seen)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sums_are_by_name_whatever_the_order_is(count: int, tmp_path: Path) -> None:
    def make(client_id: int, cohort: Cohort) -> dict[str, torch.Tensor]:
        names = [k for k in cohort.net("model").init if "bias" in k or "head" in k]
        tree = {k: v.clone() for k, v in cohort.net("model").init.items() if k in names}
        sent = {k: torch.full_like(v, float(k == "head.bias")) for k, v in tree.items()}
        return dict(reversed(sent.items())) if client_id % 2 else sent

    for total in extra(tmp_path, make, count):
        assert total is not None
        assert (total.total["head.bias"] == 5).all()
        assert all((v == 0).all() for k, v in total.total.items() if k != "head.bias")


@pytest.mark.parametrize("kind", ["names", "shapes", "types"])
def test_most_clients_decide_for_any_number_of_workers(kind: str, tmp_path: Path) -> None:
    def make(client_id: int, cohort: Cohort) -> dict[str, torch.Tensor]:
        odd = client_id in (BAD, 5, 8)
        one = torch.ones(3 if odd and kind == "shapes" else 2)
        name = "b" if odd and kind == "names" else "a"
        return {name: one.double() if odd and kind == "types" else one}

    found = []
    for count in (1, 2, 3, 10):
        folder = tmp_path / str(count)
        (total,) = extra(folder, make, count, "rounds=1", "per_round=10")
        assert total is not None
        assert total.total["a"].tolist() == [7, 7]
        status = [(row["client_id"], row["status"]) for row in table(folder, "clients")]
        states = sorted(path.name for path in (folder / "state").iterdir())
        found.append((status, states, model_print(folder)))
    assert all(one == found[0] for one in found)
    assert [k for k, status in found[0][0] if status == "rejected"] == [str(BAD), "5", "8"]
    assert len(found[0][1]) == 7


@pytest.mark.parametrize("count", [1, 3])
def test_a_state_that_is_not_finite_leaves_the_old_one(count: int, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Spoiled(Rememberer):
        def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
            result = super().fit(cohort, request)
            if request.round == 1:
                return result
            tree: Any = {k: v * torch.nan for k, v in result.state["memory"].items()}
            return replace(result, state={**result.state, "memory": tree})

    with ranges(count):
        simulate(tmp_path, config_of(*SHORT, "per_round=10"), with_client(Spoiled(lr=0.1, steps=2)))
    assert column(tmp_path, "rejected") == [0, 10]
    for folder in (tmp_path / "state").iterdir():
        (state,) = folder.glob("*.safetensors")
        assert all(np.isfinite(value).all() for value in load_file(state).values())


@dataclass(frozen=True)
class Leaky(FedAvg):
    """Forgets ``cohort.start`` for some clients."""

    leaks: tuple[int, ...] = (1, 6)

    def start(self, cohort: Cohort, request: FitRequest) -> dict[str, torch.Tensor]:
        if any(shard.client_id in self.leaks for shard in cohort._shards):
            return dict(request.shared["model"])
        return super().start(cohort, request)


@pytest.mark.parametrize(("execution", "count"), [("looped", 1), ("looped", 3), ("stacked", 2)])
def test_who_writes_into_what_all_share_is_named(
    execution: str, count: int, tmp_path: Path
) -> None:
    config = config_of(*SHORT, "per_round=10", f"backend.execution={execution}")
    with ranges(count):
        simulate(tmp_path, config, with_client(Leaky(lr=0.1, steps=2)))
    failed = [row for row in table(tmp_path, "clients") if row["status"] == "failed"]
    assert [row["client_id"] for row in failed] == ["1", "6"] * 2
    assert all("cohort.start" in row["error"] for row in failed)
    if execution == "looped":  # the others have learned nothing of it
        clean = tmp_path / "clean"
        plain = Odd(lr=0.1, steps=2, bad=(1, 6), change=with_term(lambda t: Term({})))
        simulate(clean, config, with_client(plain))
        both = [model_print(folder) for folder in (tmp_path, clean)]
        assert both[0] == both[1]


@dataclass(frozen=True)
class Drawn(FedAvg):
    """Begins at the initial weights of its net; some clients forget ``cohort.start``."""

    leaks: tuple[int, ...] = (1, 6)

    def start(self, cohort: Cohort, request: FitRequest) -> dict[str, torch.Tensor]:
        drawn = cohort.net("model").init
        leaks = any(shard.client_id in self.leaks for shard in cohort._shards)
        return dict(drawn) if leaks else cohort.start(drawn)


@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_who_writes_into_the_initial_weights_is_named(execution: str, tmp_path: Path) -> None:
    config = config_of(*SHORT, "per_round=10", f"backend.execution={execution}")
    found = []
    for count in (1, 3):
        with ranges(count):
            simulate(tmp_path / str(count), config, with_client(Drawn(lr=0.1, steps=2)))
        rows = table(tmp_path / str(count), "clients")
        failed = [row for row in rows if row["status"] == "failed"]
        assert [row["client_id"] for row in failed] == ["1", "6"] * 2
        assert all("wrote into the initial tensor" in row["error"] for row in failed)
        found.append(model_print(tmp_path / str(count)))
    assert found[0] == found[1]


@pytest.mark.parametrize("more", [(), ("method=stock", "strategy.rule=FedMedian")])
def test_what_a_client_returned_is_its_own_whatever_it_does_later(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    memory: dict[str, torch.Tensor] = {}

    @dataclass(frozen=True)
    class Thrifty(FedAvg):
        def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
            result = super().fit(cohort, request)
            made = model(result)
            for key, value in made.value.items():
                memory.setdefault(key, torch.zeros_like(value)).copy_(value)
            return replace(
                result,
                terms={"model": Term(dict(memory), made.weight)},
                state={"last": dict(memory)},
            )

    # so large a model is added up later, with its neighbours
    config = config_of(*SHORT, "rounds=1", "model.hidden=[4000]", *more)
    simulate(tmp_path / "plain", config, with_client(FedAvg(lr=0.1, steps=2)))
    simulate(tmp_path / "thrifty", config, with_client(Thrifty(lr=0.1, steps=2)))
    both = [model_print(tmp_path / name) for name in ("plain", "thrifty")]
    assert both[0] == both[1]
    states = [file_sha256(path) for path in (tmp_path / "thrifty").glob("state/*/*.safetensors")]
    assert len(states) == len(set(states)) == 5


def test_who_sends_nothing_that_is_wanted_does_not_count(tmp_path: Path) -> None:
    change = sends(terms=lambda r: {"other": Term({"x": torch.ones(())}, 1e9)})  # type: ignore[arg-type]
    simulate(tmp_path, config_of(*ONE), with_client(Odd(lr=0.1, steps=2, change=change)))
    (odd,) = [row for row in table(tmp_path, "clients") if row["client_id"] == str(BAD)]
    assert (odd["status"], odd["weight"], odd["bytes_up"]) == ("empty", "0.0", "0")
    assert column(tmp_path, "weight")[0] < 1e4


class Overflow(Average):
    """Makes a model that float32 cannot hold or compute with of good updates, in one round."""

    value = 1e300

    def merge(self, round_index: int, collected: Collected, server: Any) -> Merged:
        merged = super().merge(round_index, collected, server)
        if round_index != 2 or merged.model is None:
            return merged
        return Merged({k: np.full(v.shape, self.value) for k, v in merged.model.items()})


@pytest.mark.parametrize("value", [1e300, -3e38])
def test_a_model_that_is_of_no_use_is_refused(tmp_path: Path, caplog: Any, value: float) -> None:
    strategy = Overflow()
    strategy.value = value
    simulate(
        tmp_path / "run",
        config_of(*SHORT, "rounds=3"),
        lambda world: replace(world, strategy=strategy),
    )
    assert [row["model_refused"] for row in table(tmp_path / "run")] == ["", "1.0", ""]
    accuracy = column(tmp_path / "run", "test_loss")
    assert accuracy[0] == accuracy[1] != accuracy[2]
    assert "the new model is refused" in caplog.text
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert all(np.isfinite(value).all() for value in model.values())


def test_a_run_that_diverges_is_seen_to_diverge(tmp_path: Path) -> None:
    def change(result: FitResult, wrong: bool) -> FitResult:
        value = {k: v * 1e6 for k, v in model(result).value.items()}
        return replace(result, terms={"model": Term(value, model(result).weight)})

    simulate(tmp_path, config_of(*ONE), with_client(Odd(lr=0.1, steps=2, change=change)))
    assert column(tmp_path, "ok") == [10]
    assert column(tmp_path, "test_loss")[0] > 1e6
    assert "model_refused" not in table(tmp_path)[0]


def test_rounds_without_a_usable_update_end_the_run(tmp_path: Path) -> None:
    wild = ("method=fedavg", "training.lr=1e30", "training.steps=2", "per_round=10")
    with pytest.raises(RunError, match=r"3 rounds in a row gave no new model.* not finite"):
        simulate(tmp_path / "many", config_of(*TINY, *wild, "rounds=9"))
    assert column(tmp_path / "many", "rejected") == [10, 10, 10]
    with pytest.raises(RunError, match="the last is round 1"):
        simulate(tmp_path / "one", config_of(*TINY, *wild, "rounds=1"))


def test_updates_without_a_tensor_are_no_updates(tmp_path: Path) -> None:
    config, every = config_of(*SHORT, "rounds=9"), tuple(range(10))
    hollow = Odd(lr=0.1, steps=2, bad=every, change=with_term(lambda t: Term({})))
    with pytest.raises(RunError, match=r"3 rounds in a row gave no new model.* without a tensor"):
        simulate(tmp_path, config, with_client(hollow))
    assert column(tmp_path, "model_kept") == [1, 1, 1]
    assert len(set(column(tmp_path, "test_loss"))) == 1


def test_every_column_of_ours_is_reserved() -> None:
    ours = {*ROUND_FIRST, *ROUND_LAST, *CLIENT_FIRST, "model_kept", "model_refused"}
    made = ("personal_accuracy_p10", "local_accuracy", "final_device_loss", "recall_3")
    assert all(is_reserved(name) for name in (*ours, *made, "device_accuracy", "seconds_x"))
    assert not any(is_reserved(n) for n in ("loss_labeled", "local_share", "accuracy", "samples"))


def test_variances_and_counters_are_never_negative() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    layout = Layout(module)
    assert layout.floored == {"1.running_var", "1.num_batches_tracked"}
    tree = module.state_dict()
    known = {"model": Known({k: Like(v.shape, v.dtype) for k, v in tree.items()})}
    judge = Judge(tuple(tree), layout.floored, known)
    terms, _ = judge.terms({"model": Term(dict(reversed(tree.items())))})
    assert list(terms["model"].value) == list(tree)
    for name in layout.floored:
        with pytest.raises(RejectedError, match=f"'{name}' has negative entries"):
            judge.terms({"model": Term({**tree, name: -1 - tree[name]})})
