"""Clients of different architectures in one run."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedlabels.errors import ConfigError
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_world
from fedlabels.run.world import World
from fedlabels.strategies.fedavg import FedAvg
from fedlabels.worker.state import StateStore
from tests.end_to_end.harness import FEDAVG, config_of, simulate
from tests.end_to_end.toys import OwnModel

MIXED = (
    *FEDAVG,
    "per_round=10",
    "rounds=3",
    "architectures.models=[{name: mlp, hidden: [7]}, lenet]",
)


def own_models(world: World) -> World:
    client = OwnModel(lr=0.1, steps=10)
    groups = tuple(replace(group, client=client) for group in world.population.groups)
    return replace(world, client=client, population=replace(world.population, groups=groups))


@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_every_client_trains_and_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execution: str
) -> None:
    monkeypatch.setattr(FedAvg, "any_architecture", True)
    config = config_of(*MIXED, f"backend.execution={execution}")
    simulate(tmp_path, config, own_models)
    states = StateStore(RunFolder(tmp_path, resume=True).state, 3)
    widths = {}
    for client_id in range(10):
        state = states.read(client_id)
        assert state is not None
        widths[client_id] = next(v.shape[0] for k, v in state.items() if "body" in k)
    assert [widths[k] for k in range(3)] == [32, 7, 8]
    assert all(widths[k] == widths[k % 3] for k in range(10))
    rows = (tmp_path / "rounds.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss_labeled")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert losses[-1] < 0.9 * losses[0]


def test_a_strategy_that_averages_weights_refuses() -> None:
    with pytest.raises(ConfigError, match="averages weights, so all clients need one architecture"):
        build_world(config_of(*MIXED))


def test_random_groups_have_the_sizes_of_cyclic_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FedAvg, "any_architecture", True)
    world = build_world(config_of(*MIXED, "architectures.assign=random"))
    members = world.population.members.tolist()
    assert sorted(members) == sorted(k % 3 for k in range(10))
    assert members != [k % 3 for k in range(10)]
    assert (world.federation.groups == world.population.members).all()
