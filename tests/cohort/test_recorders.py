"""What is asked of CUDA, in which order: with stand-ins that write down the calls."""

import contextlib
import gc
from typing import Any

import pytest
import torch

from fedlabels.cohort.device import upload
from fedlabels.cohort.probe import CudaMemory
from fedlabels.cohort.recorders import (
    GraphRecorder,
    Lane,
    RecordError,
    TapeRecorder,
    make_lanes,
)

CUDA = torch.device("cuda", 0)


class FakeGraph:
    """Writes down what it is asked."""

    calls: list[Any]

    def capture_begin(self, **options: Any) -> None:
        self.calls.append(("begin", options, gc.isenabled()))

    def capture_end(self) -> None:
        self.calls.append("end")

    def replay(self) -> None:
        self.calls.append("replay")


class FakeStream:
    """Writes down who waits for whom."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self.name, self.calls, self.device = name, calls, CUDA

    def wait_stream(self, other: "FakeStream") -> None:
        self.calls.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self.calls.append(f"{self.name} is waited for")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setattr(FakeGraph, "calls", made, raising=False)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, len(made)))
    main = FakeStream("main", made)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)

    @contextlib.contextmanager
    def inside(stream: FakeStream) -> Any:
        made.append(f"into {stream.name}")
        yield
        made.append(f"out of {stream.name}")

    monkeypatch.setattr(torch.cuda, "stream", inside)
    return made


def test_a_capture_begins_and_ends_and_nothing_is_collected_in_between(calls: list[Any]) -> None:
    assert gc.isenabled()
    recorder = GraphRecorder()
    pool = recorder.pool()
    replay, ran = recorder.record(lambda: calls.append("body"), pool)
    assert gc.isenabled()
    assert not ran  # nothing runs while it is captured
    replay()
    options = {"pool": pool, "capture_error_mode": "thread_local"}
    assert calls == [("begin", options, False), "body", "end", "replay"]


def test_a_body_that_raises_ends_its_capture(calls: list[Any]) -> None:
    def body() -> None:
        raise ArithmeticError("no luck")

    with pytest.raises(RecordError, match="ArithmeticError: no luck"):
        GraphRecorder().record(body, None)
    assert calls[-1] == "end"
    assert gc.isenabled()


def test_a_lane_is_a_queue_between_two_moments_of_the_main_one(calls: list[Any]) -> None:
    lane = Lane(GraphRecorder(), FakeStream("lane", calls))
    lane.follow()
    with lane.open():
        calls.append("work")
    lane.join()
    assert calls == [
        "lane waits for main", "into lane", "work", "out of lane", "main waits for lane"
    ]  # fmt: skip


def test_a_graph_that_may_still_run_is_waited_for_before_it_is_dropped(calls: list[Any]) -> None:
    lane = Lane(GraphRecorder(), FakeStream("lane", calls))
    for _ in range(2):
        lane.begin()
        lane.recall("a", list)
    assert calls == []
    lane.begin()
    lane.begin()
    assert calls == ["lane is waited for"]
    lane.forget()
    assert calls == ["lane is waited for"] * 2


def test_lanes_of_a_gpu_have_streams_of_their_own(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(str(device), calls))
    lanes = make_lanes(CUDA, 3)
    assert len({id(lane._stream) for lane in lanes}) == 3
    assert all(isinstance(lane.recorder, GraphRecorder) for lane in lanes)


def test_a_lane_of_a_cpu_waits_for_nothing(calls: list[Any]) -> None:
    lane = Lane(TapeRecorder())
    lane.follow()
    with lane.open():
        pass
    lane.join()
    assert calls == []


def test_a_tape_does_again_what_was_done() -> None:
    place, weight = torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])
    runs = []

    def body() -> None:
        runs.append(1)
        point = weight.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((point**2 * place.sum().add(1)).sum(), point)
        part = place[1:]
        part += 1
        weight.sub_(slope, alpha=0.1)

    replay, ran = TapeRecorder().record(body, None)
    replay()
    replay()
    assert ran
    assert len(runs) == 1
    done = place.clone(), weight.clone()
    place.zero_()
    weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    for _ in range(3):
        body()
    assert torch.equal(place, done[0])
    assert torch.equal(weight, done[1])
    assert place.tolist() == [0, 3, 3]


def test_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"memory_reserved": 70, "memory_allocated": 40, "max_memory_allocated": 65}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    reset = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    memory = CudaMemory(CUDA)
    assert memory.free() == 130  # free, and held without being used
    memory.start()
    assert memory.taken() == 25
    assert reset == [CUDA]


def test_a_gpu_copies_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Pinned:
        def to(self, device: torch.device, *, non_blocking: bool) -> str:
            asked.append((device, non_blocking))
            return "there"

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: Pinned())
    assert upload(torch.ones(2), CUDA) == "there"
    assert asked == [(CUDA, True)]
