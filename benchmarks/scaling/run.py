"""One case: compose settings, run them, and say what it took in time and memory."""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from fedlabels.clients.fedavg import FedAvg
from fedlabels.cohort import Cohort, FitRequest, FitResult, Term, Tree
from fedlabels.federation import Federation, Ragged
from fedlabels.report import write_report
from fedlabels.rounds import Job, JobResult
from fedlabels.run import file_sha256
from fedlabels.run import main as entry
from fedlabels.run.console import Console
from fedlabels.run.folder import RunFolder
from fedlabels.run.loop import Loop
from fedlabels.run.setup import build_world
from fedlabels.run.world import World
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.worker.population import Group, Population
from scaling import probe


@dataclass(frozen=True)
class Case:
    """One run.

    Parameters
    ----------
    overrides : list of str
        As on the command line of ``run_sim.py``.
    rounds : int
        Timed rounds; one more is run before them.
    keeps : bool
        Whether clients keep a model of their own between rounds.
    nodes : int
        Nodes of a Ray cluster, one core each, that is started for the run and joined; 0 for none.
    every : int
        Rounds between two looks at the memory; none by default.
    """

    overrides: list[str]
    rounds: int
    keeps: bool = False
    nodes: int = 0
    every: int = 10**9


@dataclass(frozen=True)
class Keeper(FedAvg):
    """Sends the mean of its newest model and the one before, and keeps it."""

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on the labeled samples and keep what goes up."""
        result = super().fit(cohort, request)
        term: Term = result.terms["model"]
        tree, kept = term.value, cohort.state.get("mine")
        if kept:
            tree = cohort.map(_middle, tree, kept)
        return replace(result, terms={"model": replace(term, value=tree)}, state={"mine": tree})


def _middle(new: Tree, old: Tree) -> Tree:
    return {name: (value + old[name]) / 2 for name, value in new.items()}


@dataclass
class Meter:
    """Callback: when rounds ended, and the memory by then.

    ``outside`` is what of a round was not an even share of the workers' time with their clients:
    messages, transport, waiting for the last worker, sums, client states, tables, evaluation.
    """

    every: int
    started: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    begun: float = 0.0
    _lap: float = 0.0
    _share: float = 0.0

    def on_run_start(self, *, folder: RunFolder, config: Mapping[str, Any]) -> None:
        """Look at the memory before the first round."""
        self.started, self.begun = probe.memory(), time.perf_counter()
        self._lap = time.perf_counter()

    def on_round_end(self, *, record: Mapping[str, Any]) -> bool:
        """Mark the end of a round, tables and all."""
        self.seconds.append(time.perf_counter() - self._lap)
        self.outside.append(self.seconds[-1] - self._share)
        if record["round"] % self.every == 0:
            self.samples.append({"round": record["round"], **probe.memory()})
        self._lap, self._share = time.perf_counter(), 0.0  # looking took time, too
        return False

    def on_run_end(self, *, folder: RunFolder) -> None:
        """Look at the memory while the workers live."""
        self.last = probe.memory()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of every exchange how long its workers were busy."""
        run = SimulationBackend.run

        def heard(backend: SimulationBackend, job: Job) -> JobResult:
            result = run(backend, job)
            self._share += result.seconds["work"] / backend.workers
            return result

        with mock.patch.object(SimulationBackend, "run", heard):
            yield


def keeping(world: World) -> World:
    """Give all clients a memory."""
    group = world.population.groups[0]
    client = Keeper(**{f.name: getattr(world.client, f.name) for f in fields(FedAvg)})
    population = Population((Group(client, group.model, group.settings),), world.population.members)
    return replace(world, client=client, population=population)


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[list[str]]:
    """Start a Ray cluster on this machine; gives the settings that join it."""
    if not nodes:
        yield []
        return
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(num_cpus=1)
        yield [f"backend.address={made.address}"]
    finally:
        made.shutdown()


def held(federation: Federation) -> int:
    """Return the bytes of the arrays that say who holds what."""
    parts: list[Ragged] = [federation.labeled, federation.unlabeled, federation.test]
    lists = sum(part.index.nbytes + part.offsets.nbytes for part in parts)
    return lists + federation.client_labels.nbytes + federation.groups.nbytes


def run(case: Case, path: Path) -> dict[str, Any]:
    """Run a case in a folder."""
    entry.quiet()
    build_world(
        entry.compose_settings([*case.overrides, "clients=10", "per_round=10"])
    )  # late imports
    with cluster(case.nodes) as join:
        config = entry.compose_settings([*case.overrides, *join, f"rounds={case.rounds + 1}"])
        gc.collect()
        before, began = probe.private(), time.perf_counter()
        world = build_world(config)
        dealt = time.perf_counter()
        world = keeping(world) if case.keeps else world
        folder, meter = RunFolder(path), Meter(case.every)
        loop = Loop(config, world, folder, Console(log=folder.log), callbacks=[meter])
        with meter.listening():
            loop.run()
        ended = time.perf_counter()
        write_report(folder.path)
        reported = time.perf_counter()
    return {
        "data_and_dealing": dealt - began,
        "setup": meter.begun - began,
        "first": meter.seconds[0],
        "round": median(meter.seconds[1:]),
        "fastest": min(meter.seconds[1:]),
        "slowest": max(meter.seconds[1:]),
        "outside": median(meter.outside[1:]),
        "outside_least": min(meter.outside[1:]),
        "report": reported - ended,
        "before": before,
        "started": meter.started,
        "last": meter.last,
        "samples": meter.samples,
        "arrays": held(world.federation),
        "federation_file": folder.federation.stat().st_size,
        "model_sha256": file_sha256(folder.model),
    }


def main() -> None:
    """Read a case, run it, write what it took and what it left behind."""
    file = Path(sys.argv[1])
    case = Case(**json.loads(file.read_text()))
    left = probe.Leftovers()
    facts = run(case, file.parent / "run")
    facts["left"] = left.found()
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in facts.items()}
    (file.parent / "result.json").write_text(json.dumps(rounded))
