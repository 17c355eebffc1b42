import copy
import logging
import os
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import strategy as flower

from fedlabels import telemetry
from fedlabels.errors import ConfigError, RunError, WireError
from fedlabels.rounds import flower_compat, wire
from fedlabels.rounds.flower_compat import LazyArray, lazy_record, peek, quiet
from fedlabels.rounds.job import EachTerm, Job, JobResult, SumTerm, Task
from fedlabels.rounds.replies import Replies
from fedlabels.simulation import grid as grid_module
from fedlabels.simulation.grid import CohortGrid
from fedlabels.strategies.support.sampling import GridBefore
from tests.strategies.fakes import FakeBackend, Result, linear, model, same


def message(node: int, content: RecordDict, kind: str = "train") -> Message:
    return Message(content, node, kind)


def content(**settings: Any) -> RecordDict:
    return wire.encode_down(wire.Downlink(2, 5, {"model": model()}, settings=settings))


def grid_of(client: Any = linear, clients: int = 4) -> tuple[CohortGrid, FakeBackend]:
    backend = FakeBackend(client)
    return CohortGrid(range(clients), backend), backend


def test_nodes_are_a_stable_ordered_list() -> None:
    assert CohortGrid([5, 0, 3], FakeBackend()).get_node_ids() == [1000, 1003, 1005]
    assert [n.node_id for n in CohortGrid([1], FakeBackend()).get_nodes()] == [1001]


@pytest.mark.parametrize("ids", [[], [-1], [2, 2]])
def test_bad_client_ids_are_an_error(ids: list[int]) -> None:
    with pytest.raises(ConfigError, match="client_ids"):
        CohortGrid(ids, FakeBackend())


def test_no_messages_run_nothing() -> None:
    grid, backend = grid_of()
    assert list(grid.send_and_receive([])) == []
    assert backend.jobs == []
    assert grid.last == []


def test_messages_that_share_records_are_one_job_decoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: Counter[int] = Counter()
    original = grid_module.peek

    def counting(record: ArrayRecord) -> Any:
        reads[id(record)] += 1
        return original(record)

    monkeypatch.setattr(grid_module, "peek", counting)
    grid, backend = grid_of()
    shared, own = content(lr=0.5), wire.to_record({"p": np.ones(2, np.float32)})
    messages = [
        message(n, RecordDict({**shared, "own.prototypes": own})) for n in (1003, 1000, 1002)
    ]
    replies = grid.send_and_receive(messages)
    (job,) = backend.jobs
    assert [task.client_id for task in job.tasks] == [0, 2, 3]
    assert (job.exchange, job.round, job.rounds, job.settings) == ("train", 2, 5, {"lr": 0.5})
    assert set(job.shared) == {"model"}
    assert all(set(task.own) == {"prototypes"} for task in job.tasks)
    assert set(reads.values()) == {1}
    assert [r.metadata.src_node_id for r in replies] == [1003, 1000, 1002]


def test_each_shared_record_and_exchange_is_a_job_of_its_own() -> None:
    grid, backend = grid_of()
    first, second = content(), content()
    grid.send_and_receive(
        [
            message(1000, first),
            message(1001, second),
            message(1002, first, "train.pretrain"),
            message(1003, first),
        ]
    )
    assert [(j.exchange, [t.client_id for t in j.tasks]) for j in backend.jobs] == [
        ("train", [0, 3]),
        ("train", [1]),
        ("pretrain", [2]),
    ]
    assert len(grid.last) == 3


def test_sums_of_several_jobs_add_up() -> None:
    grid, _ = grid_of()
    grid.needs = {"model": "sum"}
    shared = content()
    whole = grid.send_and_receive([message(n, shared) for n in grid.get_node_ids()])
    halves = [content(), content()]
    split = grid.send_and_receive(
        [message(n, halves[i % 2]) for i, n in enumerate(grid.get_node_ids())]
    )
    assert isinstance(whole, Replies)
    assert split.sums["model"].weight == whole.sums["model"].weight == 10
    same(split.sums["model"].value(), whole.sums["model"].value(), atol=1e-12)
    assert [row.client_id for row in split.rows] == [0, 1, 2, 3]


def test_sum_replies_carry_metrics_only() -> None:
    grid, _ = grid_of()
    grid.needs = {"model": "sum"}
    shared = content()
    replies = grid.send_and_receive([message(1000, shared), message(1001, shared)])
    for k, reply in enumerate(replies):
        assert not reply.content.array_records
        assert dict(reply.content["metrics"]) == {
            "num-examples": k + 1.0,
            "loss.sum": 2.0 * (k + 1),
            "loss.count": k + 1.0,
        }


def test_replies_are_only_made_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = grid_module._answers
    monkeypatch.setattr(grid_module, "_answers", lambda *a: made.append(1) or original(*a))
    grid, _ = grid_of()
    grid.needs = {"model": "sum"}
    replies = grid.send_and_receive([message(1000, content())])
    assert replies.sums["model"].count == 1
    assert not made
    assert len(replies) == 1
    assert next(iter(replies)) is replies[0]
    assert made == [1]


def test_each_replies_are_lazy_and_isolated() -> None:
    grid, _ = grid_of()
    shared = content()
    replies = grid.send_and_receive([message(1000, shared), message(1001, shared)])
    first, second = (r.content["arrays"] for r in replies)
    assert isinstance(first, ArrayRecord)
    assert isinstance(second, ArrayRecord)
    stacked = grid.last[0].each["model"].values["conv.weight"]
    array = first["conv.weight"]
    assert isinstance(array, LazyArray)
    assert np.shares_memory(array.view(), stacked)
    before = stacked.copy()
    array.numpy()[:] = 0  # as QFedAvg does
    first.pop("conv.weight")  # as FedMedian does
    np.testing.assert_array_equal(stacked, before)
    assert "conv.weight" in second
    with pytest.raises(ValueError, match="read-only"):
        array.view()[:] = 0


def test_echoing_clients_do_not_share_the_servers_record() -> None:
    def echo(task: Task, job: Job) -> Result:
        return Result({"model": wire.UpTerm(job.shared["model"])})

    grid, _ = grid_of(echo)
    shared = content()
    replies = grid.send_and_receive([message(n, shared) for n in grid.get_node_ids()])
    for reply in replies:
        record = reply.content["arrays"]
        assert isinstance(record, ArrayRecord)
        record.clear()
    assert set(wire.decode_down(shared).shared["model"]) == set(model())


def test_failed_and_rejected_clients_answer_with_an_error() -> None:
    def client(task: Task, job: Job) -> Result:
        if task.client_id == 1:
            return Result(error="boom")
        if task.client_id == 2:
            return Result(error="not finite", rejected=True)
        return linear(task, job)

    grid, _ = grid_of(client)
    shared = content()
    replies = grid.send_and_receive([message(n, shared) for n in grid.get_node_ids()])
    assert [r.has_error() for r in replies] == [False, True, True, False]
    assert replies[1].error.reason == "client 1 failed: boom"
    assert "rejected" in str(replies[2].error.reason)
    assert replies[1].metadata.src_node_id == 1001
    assert [row.status for row in replies.rows] == ["ok", "failed", "rejected", "ok"]


def _one_empty(task: Task, job: Job) -> Result:
    return Result(weight=0.0) if task.client_id == 0 else linear(task, job)


def test_empty_clients_reply_with_weight_zero_when_terms_are_summed() -> None:
    grid, _ = grid_of(_one_empty)
    grid.needs = {"model": "sum"}
    shared = content()
    replies = grid.send_and_receive([message(n, shared) for n in grid.get_node_ids()])
    assert len(replies) == 4
    assert wire.decode_up(replies[0].content).weight == 0.0


def test_empty_clients_are_left_out_when_every_value_is_wanted() -> None:
    grid, _ = grid_of(_one_empty)
    shared = content()
    replies = grid.send_and_receive([message(n, shared) for n in grid.get_node_ids()])
    assert [r.metadata.src_node_id for r in replies] == [1001, 1002, 1003]
    assert [row.status for row in replies.rows] == ["empty", "ok", "ok", "ok"]


def test_an_evaluation_has_no_terms() -> None:
    def client(task: Task, job: Job) -> Result:
        return Result(weight=3.0, metrics={"accuracy": (1.0, 3.0)})

    grid, backend = grid_of(client)
    shared = content()
    replies = grid.send_and_receive([message(1000, shared, "evaluate")])
    assert backend.jobs[0].exchange == "evaluate"
    assert backend.jobs[0].needs == {}
    assert wire.decode_up(replies[0].content).metrics == {"accuracy": (1.0, 3.0)}


def test_a_client_is_asked_once_and_must_exist() -> None:
    grid, _ = grid_of()
    shared = content()
    with pytest.raises(WireError, match="nodes: 1"):
        grid.send_and_receive([message(1000, shared), message(1000, shared)])
    with pytest.raises(WireError, match="7"):
        grid.send_and_receive([message(7, shared)])


def test_a_backend_must_answer_for_every_client() -> None:
    class Deaf(FakeBackend):
        def run(self, job: Job) -> JobResult:
            return JobResult([])

    with pytest.raises(RunError, match="asked were"):
        CohortGrid([0], Deaf()).send_and_receive([message(1000, content())])


def test_replies_are_pulled_in_the_words_of_every_flower() -> None:
    grid, _ = grid_of()
    nodes = grid.get_node_ids()[:4]
    a, b, *more = grid.push_messages([message(node, content()) for node in nodes])
    assert len(grid.pull_messages(message_ids=[a])) == 1  # until 1.42
    assert len(grid.pull_messages(reply_to_message_ids=[b])) == 1  # since 1.43
    assert grid.pull_messages([]) == []
    assert len(grid.pull_messages()) == len(more)
    with pytest.raises(TypeError, match="not both"):
        grid.pull_messages([a], message_ids=[a])


class Before:
    """As until 1.42."""

    def pull_messages(self, message_ids: list[str]) -> list[str]:
        return message_ids


class Since:
    """As since 1.43."""

    def pull_messages(
        self,
        reply_to_message_ids: list[str] | None = None,
        *,
        message_ids: list[str] | None = None,
    ) -> list[str]:
        assert message_ids is None  # deprecated
        return ["every"] if reply_to_message_ids is None else reply_to_message_ids


@pytest.mark.parametrize("behind", [Before(), Since()])
def test_a_grid_before_another_asks_in_words_that_it_knows(behind: Any) -> None:
    grid = GridBefore(behind)
    assert grid.pull_messages(["a"]) == ["a"]
    assert grid.pull_messages(message_ids=["a"]) == ["a"]
    assert grid.pull_messages(reply_to_message_ids=iter("ab")) == ["a", "b"]
    if isinstance(behind, Since):
        assert grid.pull_messages() == ["every"]


def test_pushed_replies_are_pulled_once() -> None:
    grid, _ = grid_of()
    names = grid.push_messages([message(1000, content())])
    assert len(grid.pull_messages(names)) == 1
    assert grid.pull_messages(names) == []
    with pytest.raises(RunError, match="set_run"):
        _ = grid.run


def test_flowers_own_loop_runs_on_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, _ = grid_of()
    start = wire.to_record({"w": np.zeros(3, np.float32)})
    result = flower.FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=2)
    # Weighted mean of 0.01 * k with weights k = 1..4 is 0.03, times 1.1 and 1.2.
    np.testing.assert_allclose(result.arrays["w"].numpy(), 0.03 * 2.3, rtol=1e-6)


def test_lazy_arrays_pickle_and_copy_as_plain_ones() -> None:
    record = lazy_record({"a": np.arange(3.0)[1:], "b": np.array(2, np.int64)})
    back = pickle.loads(pickle.dumps(record))
    assert type(back["a"]) is not LazyArray
    same(wire.from_record(back), {"a": np.array([1.0, 2.0]), "b": np.array(2, np.int64)})
    same(peek(copy.deepcopy(record)), peek(record))
    assert record["a"].dtype == "float64"
    assert len(record["a"].object_id) == 64


def test_a_mean_without_weight_keeps_what_was_there() -> None:
    term = SumTerm(
        {"p": np.array([[2.0, 4.0], [0.0, 0.0]])}, {"p": np.array([[2.0], [0.0]])}, count=1
    )
    np.testing.assert_array_equal(term.value()["p"], [[1, 2], [0, 0]])
    kept = term.value(keep={"p": np.full((2, 2), 9.0, np.float32)})["p"]
    np.testing.assert_array_equal(kept, [[1, 2], [9, 9]])
    assert term.has_weight()
    assert not SumTerm({"p": np.zeros(2)}, 0.0).has_weight()
    assert SumTerm({"p": np.ones(2)}, 0.0, "sum", 1).has_weight()
    np.testing.assert_array_equal(SumTerm({"p": np.ones(2)}, 3.0, "sum").value()["p"], [1, 1])


def test_a_row_of_a_scalar_is_an_array() -> None:
    each = EachTerm([0, 1], {"n": np.array([3, 4])}, [1.0, 1.0])
    assert isinstance(each.row(1)["n"], np.ndarray)
    assert each.row(1)["n"].shape == ()


def test_flower_is_quiet_and_prints_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, seen = logging.getLogger("flwr"), []
    other = logging.Handler()
    monkeypatch.setattr(other, "emit", seen.append)
    level, propagate = logger.level, logger.propagate
    logging.getLogger().addHandler(other)  # as Hydra does
    logger.propagate = True  # whatever runs before this test have left
    try:
        logger.warning("shown by both")
        assert len(seen) == 1
        quiet()
        logger.info("hidden")
        logger.warning("shown by Flower's own handler only")
        assert len(seen) == 1
        assert not logger.isEnabledFor(logging.INFO)
    finally:
        logging.getLogger().removeHandler(other)
        logger.setLevel(level)
        logger.propagate = propagate


def test_nothing_is_sent_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    telemetry.disable()
    assert all(os.environ[key] == value for key, value in telemetry.OFF.items())


def test_another_flower_is_reported_with_the_version_that_works() -> None:
    with pytest.raises(ConfigError, match=r"flwr 1\..*install 'flwr>=1.41,<1.43'"):
        flower_compat._unsupported(AttributeError("TaskIdentity"))
