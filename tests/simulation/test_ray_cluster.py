"""Joining a Ray cluster of two nodes: the bits of one process, whatever the nodes do."""

import hashlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fedlabels.cohort import Cohort, FitRequest, FitResult
from fedlabels.errors import RunError
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_backend, build_world
from fedlabels.simulation import ray_backend
from fedlabels.simulation.ray_support import signals_kept
from tests.end_to_end.harness import FEDAVG, config_of, prints, simulate, with_client
from tests.end_to_end.toys import Rememberer
from tests.waiting import wait_for

pytestmark = pytest.mark.ray

REMEMBER = with_client(Rememberer(lr=0.1, steps=5))


@dataclass(frozen=True)
class Tracer(Rememberer):
    """Notes in a folder where it ran, and what data it saw."""

    notes: str = ""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        import ray

        result = super().fit(cohort, request)
        node = ray.get_runtime_context().get_node_id()
        rows = cohort._source.rows(torch.arange(500), "plain", torch.empty(500, 0))
        data = hashlib.sha256(rows.numpy().tobytes()).hexdigest()
        name = f"{cohort._shards[0].client_id} {request.round} {bool(cohort.state)}"
        Path(self.notes, name).write_text(f"{node} {data}")
        return result


@dataclass
class Nodes:
    """A cluster on this machine."""

    cluster: Any

    @property
    def join(self) -> tuple[str, ...]:
        return ("backend=ray", f"backend.address={self.cluster.address}")

    def ids(self) -> set[str]:
        return {node.node_id for node in self.cluster.list_all_nodes()}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    with signals_kept():
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1)
    yield Nodes(made)
    made.shutdown()


class TestTwoNodes:
    def test_give_the_bits_of_one_process(self, nodes: Nodes, tmp_path: Path) -> None:
        notes = tmp_path / "notes"
        notes.mkdir()
        settings = (*FEDAVG, "per_round=7", "rounds=6")
        simulate(tmp_path / "serial", config_of(*settings), REMEMBER)
        tracer = with_client(Tracer(lr=0.1, steps=5, notes=str(notes)))
        config = config_of(*settings, *nodes.join)
        simulate(tmp_path / "cluster", config, tracer)
        assert prints(tmp_path / "cluster") == prints(tmp_path / "serial")
        ran = {tuple(path.name.split()): path.read_text().split() for path in notes.iterdir()}
        assert {node for node, _ in ran.values()} == nodes.ids()
        assert len({data for _, data in ran.values()}) == 1
        assert moved(ran), "no state went from one node to the other: the test shows nothing"

    def test_stacked(self, nodes: Nodes, tmp_path: Path) -> None:
        blocks = ("backend.execution=stacked", "backend.block_size=2", "backend.stack_size=2")
        settings = (*FEDAVG, "per_round=6", "rounds=2", *blocks)
        simulate(tmp_path / "serial", config_of(*settings), REMEMBER)
        simulate(tmp_path / "cluster", config_of(*settings, *nodes.join), REMEMBER)
        assert prints(tmp_path / "cluster") == prints(tmp_path / "serial")

    def test_hold_the_data_once_each_and_are_free_afterwards(
        self,
        nodes: Nodes,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        import ray

        backend = started(nodes, tmp_path)
        try:
            backend.initial()
            assert "nodes differ" not in caplog.text
            places = backend.placement()
            held = ray.experimental.get_object_locations([backend._spec])[backend._spec]
            assert {place["node"] for place in places} == nodes.ids() == set(held["node_ids"])
            monkeypatch.setattr(backend, "placement", lambda: [{"software": s} for s in "ab"])
            backend.initial()
            assert "nodes differ, results depend on who runs what: a; b" in caplog.text
        finally:
            backend.close()
        assert not ray.is_initialized()
        with signals_kept():
            ray.init(nodes.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            wait_for(lambda: ray.available_resources().get("CPU") == 2)
        finally:
            ray.shutdown()


def moved(ran: Mapping[Any, list[str]]) -> bool:
    """Say whether a client with a state ran on another node than before."""
    where: dict[str, set[str]] = {}
    for (client_id, *_), (node, _) in ran.items():
        where.setdefault(client_id, set()).add(node)
    return any(len(where[client_id]) == 2 for client_id, _, state in ran if state == "True")


def test_a_full_cluster_is_waited_for_and_said(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    class Occupant:
        def is_here(self) -> bool:
            return True

    def leave_when_it_is_said() -> None:
        wait_for(lambda: said in caplog.text)
        ray.kill(occupant)

    said = "of 2 workers have not started; Ray may have no free core"
    monkeypatch.setattr(ray_backend, "START_SECONDS", 0.5)
    with signals_kept():
        ray.init(nodes.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        occupant = ray.remote(Occupant).options(num_cpus=1).remote()
        assert ray.get(occupant.is_here.remote())
        backend = started(nodes, tmp_path)
        leaving = threading.Thread(target=leave_when_it_is_said)
        leaving.start()
        try:
            assert backend.initial()
        finally:
            leaving.join()
            backend.close()
    finally:
        ray.shutdown()
    assert said in caplog.text


def test_an_address_where_nobody_answers_fails_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = config_of(*FEDAVG, "backend=ray", f"backend.address=127.0.0.1:{port}")
    with pytest.raises(RunError, match=rf"could not be joined at address '127.0.0.1:{port}'"):
        simulate(tmp_path / "run", config)
    assert not (tmp_path / "run" / "manifest.json").exists()


class Killer:
    """Callback that ends a node after a round, without warning."""

    def __init__(self, nodes: Nodes, node: Any, round_index: int) -> None:
        self.nodes, self.node, self.round_index = nodes, node, round_index

    def on_run_start(self, **_: Any) -> None:
        pass

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        if record["round"] == self.round_index:
            self.nodes.cluster.remove_node(self.node, allow_graceful=False)
        return False

    def on_run_end(self, **_: Any) -> None:
        pass


def test_a_node_that_dies_leaves_its_work_to_the_others(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_backend, "START_SECONDS", 1.0)  # nothing has room: do not wait long
    settings = (*FEDAVG, "per_round=9")
    simulate(tmp_path / "serial", config_of(*settings), REMEMBER)
    with signals_kept():
        third = nodes.cluster.add_node(num_cpus=1)
    config = config_of(*settings, *nodes.join, "backend.num_workers=3")
    simulate(tmp_path / "ray", config, REMEMBER, callbacks=[Killer(nodes, third, 2)])
    assert prints(tmp_path / "ray") == prints(tmp_path / "serial")
    assert "its 3 clients run again" in caplog.text
    assert "2 workers go on" in caplog.text


def started(nodes: Nodes, path: Path) -> Any:
    config = config_of(*FEDAVG, *nodes.join)
    return build_backend(config, build_world(config), RunFolder(path), 0)
