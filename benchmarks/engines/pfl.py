"""pfl-research (pfl 0.6.0): ``pfl-1`` in one process, ``pfl-2`` in two started by torchrun."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, distributed, nn
from torch.nn import functional

from engines.work import BATCH, COHORT, LR, Data, Job, Laps, cohort, model, write

NEVER = 10**9


class Task(nn.Module):
    """A plain model with the two methods that pfl asks for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return functional.cross_entropy(self.net(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return the loss as pfl sums it; asked for before and after the first round only."""
        return {"loss": Weighted(self.loss(x, y).item() * len(y), len(y))}


class Timer(TrainingProcessCallback):
    """Marks rounds."""

    def __init__(self, laps: Laps) -> None:
        self._laps = laps

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Mark the end of a round."""
        self._laps.lap()
        return False, Metrics()


def sampler(job: Job) -> Callable[[], int]:
    """Return a function that names one client after the other, the same in every process."""

    def clients() -> Iterator[int]:
        for index in itertools.count():
            yield from cohort(job, index)

    return clients().__next__


def run(job: Job) -> None:
    """Run federated averaging; the first process writes."""
    laps = Laps()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data, net = Data(job), Task(model(job))
    users = FederatedDataset(
        lambda client: PyTorchTensorDataset(data.client(client), user_id=str(client)), sampler(job)
    )
    server = torch.optim.SGD(net.parameters(), lr=1.0)  # adds the mean difference
    wrapped = PyTorchModel(net, torch.optim.SGD, server)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=job.rounds + 1,
            evaluation_frequency=NEVER,
            train_cohort_size=COHORT,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=users, val_data=users),
        wrapped,
        NNTrainHyperParams(
            local_batch_size=BATCH,
            local_num_epochs=1 if job.work.trains else 0,
            local_learning_rate=LR,
        ),
        NNEvalHyperParams(local_batch_size=None),
        callbacks=[Timer(laps)],
    )
    if pytorch_ops.distributed.global_rank == 0:
        write(job, laps, [p.detach().numpy() for p in net.net.parameters()])
    if distributed.is_initialized():  # leaving it open, a process may abort at its end
        distributed.barrier()
        distributed.destroy_process_group()
