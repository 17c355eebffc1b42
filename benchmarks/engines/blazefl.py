"""BlazeFL 3.0.0: FedAvg in its pool of threads, meant for a Python without the global lock."""

import copy

import torch
from blazefl.contrib import (
    FedAvgBaseServerHandler,
    FedAvgPartitionType,
    FedAvgThreadPoolClientTrainer,
)
from torch import Generator, nn
from torch.utils.data import DataLoader, TensorDataset

from engines.work import BATCH, CLIENTS, COHORT, LR, Data, Job, Laps, cohort, model, write


class Selector:
    """Hands out copies of the first model: BlazeFL asks for one a client."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    def select_model(self, model_name: str) -> nn.Module:
        """Return a copy."""
        return copy.deepcopy(self._net)


class Partitions:
    """The clients' samples."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def get_dataloader(
        self,
        type_: FedAvgPartitionType,
        cid: int,
        batch_size: int,
        generator: Generator | None = None,
    ) -> DataLoader:
        """Return a client's batches, in the given order."""
        return DataLoader(TensorDataset(*self._data.client(cid)), batch_size=batch_size)


class Quiet(FedAvgThreadPoolClientTrainer):
    """Without a progress bar."""

    def progress_fn(self, it: list) -> list:
        """Return what was given."""
        return it


def run(job: Job) -> None:
    """Run the loop of BlazeFL's own examples."""
    laps = Laps()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data, selector = Partitions(Data(job)), Selector(model(job))
    handler = FedAvgBaseServerHandler(
        selector, "", data, job.rounds + 1, CLIENTS, COHORT / CLIENTS, "cpu", BATCH, job.seed
    )
    epochs = 1 if job.work.trains else 0
    trainer = Quiet(selector, "", data, "cpu", CLIENTS, epochs, BATCH, LR, job.seed, job.workers)
    laps.start()
    for index in range(job.rounds + 1):
        trainer.local_process(handler.downlink_package(), cohort(job, index))
        for package in trainer.uplink_package():
            handler.load(package)
        laps.lap()
    write(job, laps, [p.detach().numpy() for p in handler.model.parameters()])
