"""Many clients, many rounds: what they cost in memory, and what is left when a run is over."""

import gc
import os
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from fedlabels.clients.fedavg import FedAvg
from fedlabels.errors import RunError
from fedlabels.run.setup import build_world
from tests.end_to_end.harness import FEDAVG, TINY, column, config_of, simulate, with_client
from tests.end_to_end.toys import Chaos, Rememberer
from tests.waiting import LIMIT, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from scaling import probe

LINUX = pytest.mark.skipif(not probe.PROC.is_dir(), reason="reads /proc")
CLIENTS = 20_000
MANY = (
    *TINY, "method=fedavg", f"clients={CLIENTS}", "per_round=10", "rounds=1",
    "partition.reuse=true", "partition.samples_per_client=20", "training.steps=2",
)  # fmt: skip
WIDE = "model.hidden=[2000]"  # 600 KB: one model a round left behind would be seen


class TestManyClients:
    def test_are_set_up_in_bounded_memory_each(self) -> None:
        config = config_of(*MANY)
        build_world(config_of(*TINY, "method=fedavg"))  # what is imported late
        gc.collect()
        tracemalloc.start()
        try:
            world = build_world(config)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(world.federation) == CLIENTS
        # 20 indices of 8 bytes, labels, offsets; nothing of Python for a single client
        assert held / CLIENTS < 500
        assert peak / CLIENTS < 2500

    def test_run(self, tmp_path: Path) -> None:
        simulate(tmp_path / "run", config_of(*MANY))
        assert column(tmp_path / "run", "ok") == [10.0]
        size = (tmp_path / "run" / "federation.npz").stat().st_size
        assert size / CLIENTS < 200


@dataclass
class Watch:
    """Callback: looks at the memory after some rounds."""

    look: Any
    rounds: tuple[int, ...]
    seen: list[Any] = field(default_factory=list)

    def on_run_start(self, **_: Any) -> None:
        pass

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        if record["round"] in self.rounds:
            self.seen.append(self.look())
        return False

    def on_run_end(self, **_: Any) -> None:
        pass


def in_python() -> tuple[int, int]:
    """Return the bytes that Python and numpy hold, and the number of tensors."""
    gc.collect()
    tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
    return tracemalloc.get_traced_memory()[0], tensors


REMEMBER = with_client(Rememberer(lr=0.1, steps=2))
SOAK = (*FEDAVG, "per_round=4", "rounds=30", "checkpoint_every=2", "evaluate_every=5")


def test_memory_does_not_grow_over_the_rounds(tmp_path: Path) -> None:
    watch = Watch(in_python, (10, 20, 30))
    tracemalloc.start()
    try:
        simulate(
            tmp_path / "run", config_of(*SOAK, "model.hidden=[200]"), REMEMBER, callbacks=[watch]
        )
    finally:
        tracemalloc.stop()
    (first, tensors), *_, (last, tensors_later) = watch.seen
    assert tensors_later == tensors
    # a model a round would be 1,200 KB; small caches take 1 KB a round until they are full
    assert last - first < 256_000
    kept = [len(list(path.iterdir())) for path in (tmp_path / "run" / "state").iterdir()]
    assert len(kept) == 10
    assert max(kept) <= 3


@dataclass(frozen=True)
class Place:
    """A folder of Ray's own, and the processes that were there before."""

    folder: Path
    processes: frozenset[int]

    def left(self) -> list[Path]:
        """Check that no process lives; return what lies in the folder."""
        assert probe.survivors(self.processes) == []
        return sorted((self.folder / "ray").iterdir())


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give Ray a folder of its own; sockets lie in it, so its path must be short."""
    monkeypatch.setattr(probe, "PATIENCE", LIMIT)
    with tempfile.TemporaryDirectory(prefix="fl-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Place(Path(folder), frozenset(probe.descendants()))


def on_ray(workers: int, *overrides: str) -> dict[str, Any]:
    return config_of(*overrides, "backend=ray", f"backend.num_workers={workers}")


@LINUX
@pytest.mark.ray
def test_a_run_on_ray_does_not_grow_and_leaves_nothing_when_it_fails(
    tmp_path: Path, place: Place
) -> None:
    watch, store = Watch(probe.memory, (20, 60)), Watch(in_store, (60,))
    config = on_ray(2, *SOAK, WIDE, "rounds=61")
    chaos = Chaos(lr=0.1, steps=2, raises=tuple(range(10)), from_round=61)
    with pytest.raises(RunError, match="has no luck"):
        simulate(tmp_path / "run", config, with_client(chaos), callbacks=[watch, store])
    first, last = watch.seen
    assert first["workers"] > 100e6, "the workers were not found"
    # a model a round would be 24 MB in each process; the allocator takes up to 7 MB
    assert last["driver"] - first["driver"] < 16e6
    assert last["workers"] - first["workers"] < 32e6
    assert store.seen[0] < 16e6  # the data, and what the last rounds sent
    assert place.left() == []


def in_store() -> float:
    """Return the bytes of objects that Ray holds once it had time to free what nobody names."""
    import ray

    def used() -> float:
        kind = "object_store_memory"
        return float(ray.cluster_resources()[kind] - ray.available_resources().get(kind, 0.0))

    wait_for(lambda: used() < 16e6, pause=0.2)
    return used()


@dataclass(frozen=True)
class Stillborn(FedAvg):
    """Ends the process of every worker that builds its nets."""

    def nets(self, model: Any, spec: Any) -> Any:
        os._exit(1)


@LINUX
@pytest.mark.ray
def test_when_a_worker_dies_its_logs_are_kept_and_named(
    tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RunError, match="a worker died while it started"):
        simulate(tmp_path / "run", on_ray(1, *FEDAVG), with_client(Stillborn()))
    session, link = place.left()
    assert link.name == "session_latest"
    assert f"a worker died; Ray's logs are in {session}" in caplog.text
    assert list(session.glob("logs/*"))
