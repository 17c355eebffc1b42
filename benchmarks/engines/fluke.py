"""fluke (fluke-fl 0.8.1): FedAvg in one process, as all of it runs."""

import importlib
import sys
from collections.abc import Sequence

import torch


def _declare() -> None:
    """Declare two operators of torchvision when its compiled part is for another build of torch.

    fluke imports torchvision for its data sets, which are not used here.
    """
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
    for name in ("nms", "qnms"):
        _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")


_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
_declare()

# ruff: noqa: E402
from fluke import FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.client import Client
from fluke.config import OptimizerConfigurator
from fluke.data import FastDataLoader
from fluke.server import Server
from torch import nn

from engines.work import BATCH, CLASSES, CLIENTS, COHORT, LR, Data, Job, Laps, cohort, model, write


class Chosen(Server):
    """A server that asks the clients that all engines ask."""

    job: Job
    index = 0

    def get_eligible_clients(self, eligible_perc: float) -> Sequence[Client]:
        """Return the clients of the next round."""
        self.index += 1
        return [self.clients[k] for k in cohort(self.job, self.index - 1)]


class Timed(FedAVG):
    """Marks rounds; the last exchange with all clients that ever took part is left out."""

    laps: Laps

    def _compute_evaluation(self, round: int, eligible: Sequence[Client]) -> None:
        self.laps.lap()

    def finalize(self) -> None:
        """Do nothing."""


def clients(job: Job) -> list[Client]:
    """Return all clients; they forget the model after a round, as those of the others do."""
    data = Data(job)
    optimizer = OptimizerConfigurator({"name": torch.optim.SGD, "lr": LR})
    epochs = 1 if job.work.trains else 0

    def client(index: int) -> Client:
        loader = FastDataLoader(*data.client(index), num_labels=CLASSES, batch_size=BATCH)
        loss = nn.CrossEntropyLoss()
        return Client(index, loader, None, optimizer, loss, epochs, persistency=False)

    return [client(index) for index in range(CLIENTS)]


def run(job: Job) -> None:
    """Run the federation."""
    laps = Laps()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    FlukeENV().set_eval_cfg(server=False)
    everybody = clients(job)
    server = Chosen(model(job), None, everybody)
    server.job = job
    algorithm = Timed(CLIENTS, None, {}, clients=everybody, server=server)
    algorithm.laps = laps
    laps.start()
    algorithm.run(job.rounds + 1, COHORT / CLIENTS)
    write(job, laps, [p.detach().numpy() for p in server.model.parameters()])
