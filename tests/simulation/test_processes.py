"""Processes of this machine: what goes between them, the same bits, and those that die."""

import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlabels.errors import ConfigError, RunError
from fedlabels.rounds.job import ClientRow
from fedlabels.rounds.order import Item, Order, Report
from fedlabels.simulation.channel import INLINE, Channel, pack
from fedlabels.simulation.pool import DEATHS, WorkerPool
from fedlabels.simulation.process_backend import STOP_SECONDS, ProcessBackend, end
from tests.end_to_end.harness import FEDAVG, REPO, config_of, prints, simulate, table, with_client
from tests.end_to_end.toys import Chaos
from tests.waiting import LIMIT, wait_for

LONG = INLINE // 8 + 1


@pytest.fixture
def ends():
    left, right = socket.socketpair()
    yield Channel(left), Channel(right)
    left.close()
    right.close()


class TestChannel:
    @pytest.mark.parametrize("size", [0, 3, LONG])
    def test_arrays_arrive_as_they_were(self, ends, size):
        value = {"w": np.arange(size, dtype=np.float64), "b": np.ones((2, 3), np.float32), "n": 7}
        ends[0].send(value)
        got = ends[1].receive()
        assert got["n"] == 7
        for name in ("w", "b"):
            assert got[name].dtype == value[name].dtype
            assert np.array_equal(got[name], value[name])

    def test_large_arrays_are_mapped_and_cannot_be_written(self, ends):
        ends[0].send(np.arange(LONG, dtype=np.float64))
        got = ends[1].receive()
        assert not got.flags.writeable
        assert isinstance(memoryview(got).obj, np.ndarray)
        base = got
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)

    def test_one_parcel_for_many(self, ends):
        parcel = pack([np.full(LONG, 2.0)])
        ends[0].send_parcel(parcel)
        ends[0].send_parcel(parcel)
        parcel.close()
        first, second = ends[1].receive(), ends[1].receive()
        assert np.array_equal(first[0], second[0])  # memory lives as long as it is looked at

    def test_order_is_kept(self, ends):
        sent = ["a", np.arange(3), np.zeros(LONG), "b", np.zeros(2 * LONG), "c"]
        thread = threading.Thread(target=lambda: [ends[0].send(value) for value in sent])
        thread.start()
        got = [ends[1].receive() for _ in sent]
        thread.join()
        assert [v if isinstance(v, str) else v.size for v in got] == [
            v if isinstance(v, str) else v.size for v in sent
        ]

    def test_a_closed_end_is_told(self, ends):
        ends[0].close()
        with pytest.raises(EOFError, match="the other process is gone"):
            ends[1].receive()


PROCESSES = (*FEDAVG, "backend=processes", "backend.num_workers=2")


@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_same_bits_as_in_this_process(tmp_path: Path, execution: str) -> None:
    way = f"backend.execution={execution}"
    simulate(tmp_path / "serial", config_of(*FEDAVG, way, "evaluate_clients=true"))
    simulate(tmp_path / "two", config_of(*PROCESSES, way, "evaluate_clients=true"))
    assert prints(tmp_path / "serial") == prints(tmp_path / "two")


def test_same_bits_with_a_memory(tmp_path: Path) -> None:
    own = (
        "method=fedbn",
        "model=lenet",
        "model.norm=batch",
        "rounds=2",
        "clients=6",
        "per_round=4",
    )
    simulate(tmp_path / "serial", config_of("backend=serial", *own))
    simulate(tmp_path / "two", config_of("backend=processes", "backend.num_workers=2", *own))
    assert prints(tmp_path / "serial") == prints(tmp_path / "two")


def test_a_worker_that_dies_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulate(tmp_path / "serial", config_of(*FEDAVG))
    dispatch, killed = ProcessBackend._dispatch, []

    def deadly(self, orders, shared):
        if len(killed) < 2:  # in two rounds, each worker once
            process = self._processes[len(killed)]
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
        return dispatch(self, orders, shared)

    monkeypatch.setattr(ProcessBackend, "_dispatch", deadly)
    simulate(tmp_path / "two", config_of(*PROCESSES))
    assert len(set(killed)) == 2
    assert "died; its" in caplog.text
    assert prints(tmp_path / "serial") == prints(tmp_path / "two")
    assert all(row["failed"] == "0" for row in table(tmp_path / "two"))


def test_who_ends_its_worker_fails_alone(tmp_path: Path) -> None:
    short = ("rounds=1", "per_round=10", "training.steps=1")
    deadly = with_client(Chaos(lr=0.1, steps=1, dies=(3,)))
    simulate(tmp_path / "one", config_of(*PROCESSES, *short, "backend.num_workers=1"), deadly)
    (failed,) = [row for row in table(tmp_path / "one", "clients") if row["status"] != "ok"]
    assert (failed["client_id"], failed["status"]) == ("3", "failed")
    assert failed["error"] == "its worker process died whenever it ran"
    raising = with_client(Chaos(lr=0.1, steps=1, raises=(3,)))
    simulate(tmp_path / "serial", config_of(*FEDAVG, *short), raising)
    model, same = (tmp_path / name / "model.safetensors" for name in ("one", "serial"))
    assert model.read_bytes() == same.read_bytes()


class Deadly(WorkerPool):
    """A pool without processes, in which some clients end their worker."""

    _GONE = (EOFError,)

    def __init__(self, deadly: range) -> None:
        self._deadly, self.replaced = deadly, 0

    def initial(self) -> Any: ...

    def _share(self, value: Any) -> Any: ...

    def _slots(self) -> int:
        return 1

    def _replace(self, slot: int) -> None:
        self.replaced += 1

    def _ask(self, slot: int, name: str, *arguments: Any) -> Any:
        return arguments[0]

    def _answer(self, asked: Order) -> Report:
        ids = [item.client_id for item in asked.items]
        if set(ids) & set(self._deadly):
            raise EOFError
        report = Report()
        report.rows = [ClientRow(k, "ok") for k in ids]
        return report


def test_what_ends_every_worker_is_not_tried_with_every_client() -> None:
    pool = Deadly(range(8))
    items = tuple(Item(k, k, {}, None) for k in range(16))
    report = pool._again(0, Order("train", 1, 1, {}, {}, items, 8, 16), None)
    assert pool.replaced == 1 + DEATHS
    rows = {row.client_id: row for row in report.rows}
    assert [rows[k].status for k in range(16)] == ["failed"] * 8 + ["ok"] * 8
    assert {rows[k].error for k in range(DEATHS)} == {"its worker process died whenever it ran"}
    assert {rows[k].error for k in range(DEATHS, 8)} == {
        "its worker process died with its block, and 3 more with one client of it"
    }


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, close = [], ProcessBackend.close

    def noting(self):
        seen.extend(process.pid for process in self._processes)
        close(self)

    monkeypatch.setattr(ProcessBackend, "close", noting)
    before = set(os.listdir("/proc/self/fd"))
    simulate(tmp_path / "run", config_of(*PROCESSES, "rounds=1"))
    assert len(seen) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1


STUCK = """
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from fedlabels.clients.fedavg import FedAvg
from tests.end_to_end import harness


@dataclass(frozen=True)
class Stuck(FedAvg):
    folder: str = ""

    def fit(self, cohort, request):
        import os

        Path(self.folder, f"{os.getpid()}.busy").touch()
        while True:
            torch.ones(300, 300) @ torch.ones(300, 300)


if __name__ == "__main__":
    sys.modules["stuck"] = sys.modules["__main__"]
    Stuck.__module__ = "stuck"
    run = harness.config_of(*harness.FEDAVG, "backend=processes", "backend.num_workers=2")
    folder = Path(sys.argv[1])
    harness.simulate(folder / "run", run, harness.with_client(Stuck(folder=sys.argv[1])))
"""


def test_workers_end_with_a_run_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    paths = os.pathsep.join([str(REPO), str(tmp_path)])
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "stuck.py"), str(tmp_path)], stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths}, cwd=REPO, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: len(list(tmp_path.glob("*.busy"))) == 2, run)
        workers = [Path(f"/proc/{path.stem}") for path in tmp_path.glob("*.busy")]
        assert len(workers) == 2
        run.kill()  # in the middle of a range
        run.wait(LIMIT)
        wait_for(lambda: not any(worker.exists() for worker in workers))
    finally:
        run.kill()
        run.wait()


def test_workers_are_ended_all_at_once() -> None:
    calls: list[str] = []

    class Busy:
        def hang_up(self) -> None:
            calls.append("hang up")

        def ended(self, seconds: float | None) -> bool:
            calls.append("wait")
            assert seconds is None or seconds <= STOP_SECONDS
            return seconds is None

        def kill(self) -> None:
            calls.append("kill")

    end([Busy(), Busy()])  # type: ignore[list-item]
    assert calls == ["hang up"] * 2 + ["wait"] * 2 + ["kill"] * 2 + ["wait"] * 2


def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedlabels.simulation.process_backend.pack", lambda value: pack("nonsense"))
    with pytest.raises(RunError, match="a worker could not start: AttributeError"):
        simulate(tmp_path / "run", config_of(*PROCESSES))


def test_number_of_workers_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"backend.num_workers must be >= 1 or null, got 0"):
        ProcessBackend.__init__(object.__new__(ProcessBackend), _Spec(), None, None, 0)


class _Spec:
    views, view_options, execution, device = "none", {}, "looped", "cpu"
