"""Ranges of a cohort: the slowest worker has as little as can be; few states at once."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from fedlabels.rounds.job import Job, Task
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_backend, build_world
from fedlabels.simulation import backend as module
from fedlabels.simulation.ranges import ends
from fedlabels.simulation.serial import SerialBackend
from fedlabels.worker.state import StateStore
from tests.end_to_end.harness import TINY, config_of, prints, simulate, table


def largest(work, cuts):
    return max(sum(work[a:b]) for a, b in pairwise([0, *cuts]))


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("unit", [1, 2])
def test_no_other_cut_is_better(parts, unit):
    for seed in range(20):
        work = np.random.default_rng(seed).integers(1, 50, size=7).tolist()
        found = ends(work, parts, unit)
        places = range(unit, len(work), unit)
        best = min(
            largest(work, [*cuts, len(work)])
            for number in range(parts)
            for cuts in combinations(places, number)
        )
        assert len(found) <= parts
        assert found == sorted(set(found))
        assert found[-1] == len(work)
        assert all(cut % unit == 0 for cut in found[:-1])
        assert largest(work, found) == best


def test_few_clients_and_none():
    assert ends([], 3) == []
    assert ends([5], 3) == [1]
    assert ends([1] * 10, 3) == [4, 8, 10]


SKEWED = (*TINY, "partition=quantity_dirichlet", "partition.alpha=0.3", "method=fedavg")


@pytest.mark.parametrize(
    ("exchange", "overrides", "even"),
    [
        ("train", ("training.steps=5",), True),
        ("train", ("training.steps=null", "training.epochs=1"), False),
        ("evaluate", ("training.steps=5", "test_shards.share=1.0"), False),
    ],
)
def test_workers_get_about_the_same_work(tmp_path, exchange, overrides, even):
    config = config_of(*SKEWED, *overrides)
    world = build_world(config)
    backend = build_backend(config, world, RunFolder(tmp_path), 0)
    backend.workers = 2
    job = Job(exchange, 1, 1, tuple(Task(i) for i in range(10)), {})
    orders = backend._ranges(job, backend._ordered(job.tasks))
    backend.close()
    sizes = [len(order.items) for order in orders]
    assert (sizes == [5, 5]) == even
    assert [item.position for order in orders for item in order.items] == list(range(10))


def test_states_are_read_in_portions(tmp_path, monkeypatch):
    settings = (*TINY, "method=local_training", "rounds=3", "clients=20", "per_round=10")
    settings += ("test_shards.share=1.0", "backend.block_size=2")
    simulate(tmp_path / "portions", config_of(*settings))

    most, held = [], []
    read, dispatch = StateStore.read, SerialBackend._dispatch

    def reading(self, client_id):
        state = read(self, client_id)
        held.append(state is not None)
        return state

    def dispatching(self, orders, shared):
        if orders[0].exchange == "evaluate":
            most.append(sum(held))
        held.clear()
        return dispatch(self, orders, shared)

    monkeypatch.setattr(StateStore, "read", reading)
    monkeypatch.setattr(SerialBackend, "_dispatch", dispatching)
    simulate(tmp_path / "counted", config_of(*settings))
    assert 0 < max(most) <= 4  # two blocks of two
    monkeypatch.setattr(module, "PORTION", 1000)
    most.clear()
    simulate(tmp_path / "whole", config_of(*settings))
    assert max(most) > 4
    for folder in ("counted", "whole"):
        assert prints(tmp_path / folder) == prints(tmp_path / "portions")
        rows = table(tmp_path / folder, "personal")
        assert rows == table(tmp_path / "portions", "personal")
