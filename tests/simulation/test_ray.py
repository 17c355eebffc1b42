"""Simulation on Ray actors: the same bits as in one process, whoever dies on the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedlabels.errors import ConfigError, RunError
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_backend, build_world
from fedlabels.run.world import World
from fedlabels.worker.population import Group, Population
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

pytestmark = pytest.mark.ray

STABLE = (
    *TINY, "method=fedlabel_stable", "training.steps=10", "training.steps_unlabeled=5",
    "training.batch_size=16", "training.batch_unlabeled=32", "training.lr=0.1",
    "training.lr_unlabeled=0.1", "rounds=3",
)  # fmt: skip
REMEMBER = with_client(Rememberer(lr=0.1, steps=20))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all tests of this file, told of two GPUs that are not there."""
    import ray

    from fedlabels.simulation.ray_backend import RaySettings, start_ray

    start_ray(RaySettings(num_workers=4, num_gpus=2))
    yield
    ray.shutdown()


def on_ray(workers: int, *overrides: str) -> tuple[str, ...]:
    return (
        *overrides,
        "backend=ray",
        f"backend.num_workers={workers}",
        "backend.gpus_per_worker=0",
    )


def test_same_bits_looped_and_with_a_memory(tmp_path: Path) -> None:
    settings = (*FEDAVG, "dataset=digits", "per_round=7")
    simulate(tmp_path / "serial", config_of(*settings), REMEMBER)
    for workers in (1, 3):
        simulate(tmp_path / str(workers), config_of(*on_ray(workers, *settings)), REMEMBER)
        assert prints(tmp_path / str(workers)) == prints(tmp_path / "serial")
    accuracy = column(tmp_path / "serial", "test_accuracy")
    assert accuracy[-1] > 0.4
    assert accuracy[-1] > accuracy[0] + 0.1
    assert max(float(row["seen"]) for row in table(tmp_path / "serial", "clients")) >= 2


def test_same_bits_of_a_convolutional_net(tmp_path: Path) -> None:
    settings = ("backend=serial", "method=fedavg", "clients=6", "per_round=6", "rounds=2")
    simulate(tmp_path / "serial", config_of(*settings))
    simulate(tmp_path / "ray", config_of(*on_ray(2, *settings)))
    assert prints(tmp_path / "ray") == prints(tmp_path / "serial")


def test_same_bits_stacked(tmp_path: Path) -> None:
    settings = (
        *STABLE,
        "backend.execution=stacked",
        "backend.block_size=2",
        "backend.stack_size=2",
    )
    simulate(tmp_path / "serial", config_of(*settings))
    for workers in (1, 2):
        simulate(tmp_path / str(workers), config_of(*on_ray(workers, *settings)))
        assert prints(tmp_path / str(workers)) == prints(tmp_path / "serial")
    assert column(tmp_path / "serial", "test_accuracy")[-1] > 0.2


@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_a_worker_that_dies_once_changes_nothing(tmp_path: Path, execution: str) -> None:
    settings = (*FEDAVG, "rounds=2", "per_round=10", "backend.block_size=4")
    settings += (f"backend.execution={execution}",)
    change = with_client(Rememberer(lr=0.1, steps=5))
    simulate(tmp_path / "serial", config_of(*settings), change)
    marker = tmp_path / "died"
    fragile = Chaos(lr=0.1, steps=5, dies=(3,), from_round=2, marker=str(marker))
    simulate(tmp_path / "ray", config_of(*on_ray(2, *settings)), with_client(fragile))
    assert marker.exists()
    assert prints(tmp_path / "ray") == prints(tmp_path / "serial")


def test_a_client_that_always_kills_loses_only_itself(tmp_path: Path) -> None:
    settings = (*FEDAVG, "rounds=2", "per_round=10", "backend.block_size=2")
    deadly = with_client(Chaos(lr=0.1, steps=5, dies=(3,), from_round=2))
    simulate(tmp_path / "ray", config_of(*on_ray(2, *settings)), deadly)
    failed = [r for r in table(tmp_path / "ray", "clients") if r["status"] == "failed"]
    assert {row["round"] for row in failed} == {"2"}
    assert [row["client_id"] for row in failed] == ["3"]
    assert failed[0]["error"] == "its worker process died whenever it ran"
    assert column(tmp_path / "ray", "ok") == [10.0, 9.0]


def test_errors_of_ray_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import ObjectStoreFullError

    backend = started(tmp_path, "backend.num_workers=1", "backend.gpus_per_worker=0")
    try:
        with pytest.raises(RunError, match="a worker failed: 'str' object cannot"):
            backend._answer(backend._ask(0, "evaluate", {}, 0, "x", None))

        def full(value: Any) -> None:
            raise ObjectStoreFullError("no room for 5 GB\nobjects: ...")

        monkeypatch.setattr("fedlabels.simulation.ray_backend.ray.put", full)
        with pytest.raises(RunError, match=r"memory is full \(.*make room in /dev/shm.*processes"):
            backend._share({})
    finally:
        backend.close()


def test_placement_gives_every_worker_a_gpu_of_its_own(tmp_path: Path) -> None:
    backend = started(tmp_path, "backend.num_workers=2", "backend.gpus_per_worker=1")
    try:
        places = backend.placement()
    finally:
        backend.close()
    assert {place["cuda_visible_devices"] for place in places} == {"0", "1"}
    assert {tuple(place["gpus"]) for place in places} == {(0,), (1,)}
    assert len({place["pid"] for place in places}) == 2


def test_one_worker_a_gpu_is_the_default(tmp_path: Path) -> None:
    backend = started(tmp_path)
    backend.close()
    assert backend.workers == 2


@pytest.mark.parametrize(
    ("workers", "gpus", "named"),
    [(3, "1", "Ray has 2"), (2, "1.5", "Ray has 2"), (99, "0", "Ray has . cores")],
)
def test_more_than_there_is(tmp_path: Path, workers: int, gpus: str, named: str) -> None:
    wrong = (f"backend.num_workers={workers}", f"backend.gpus_per_worker={gpus}")
    with pytest.raises(ConfigError, match=f"{workers} workers.*too many: {named}"):
        started(tmp_path, *wrong)
    assert not (tmp_path / "manifest.json").exists()


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    def nonsense(world: World) -> World:
        group = Group(world.client, "nonsense")
        members = world.population.members
        return replace(world, population=Population((group,), members))

    with pytest.raises(RunError, match=r"could not start.*model=nonsense is not known"):
        simulate(tmp_path / "run", config_of(*on_ray(1, *FEDAVG)), nonsense)


def started(path: Path, *overrides: str) -> Any:
    config = config_of(*FEDAVG, "backend=ray", *overrides)
    return build_backend(config, build_world(config), RunFolder(path), 0)
