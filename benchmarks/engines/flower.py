"""Stock Flower: ``run_simulation`` on its Ray backend, FedAvg, the plain loop in the client."""

import functools
import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # all three before Flower and Ray are imported
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from engines.work import CLIENTS, COHORT, SAMPLES, Data, Job, Laps, model, train, write


@functools.cache
def _kept(job: Job) -> tuple[Data, torch.nn.Module]:
    """Keep data and model in the actor: nothing is built a second time."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return Data(job), model(job)


def fit(job: Job, message: Message, context: Context) -> Message:
    """Load, train, send."""
    data, net = _kept(job)
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    if job.work.trains:
        x, y = data.client(int(context.node_config["partition-id"]))
        train(net, list(net.parameters()), x, y)
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"num-examples": SAMPLES}),
        }
    )
    return Message(content, reply_to=message)


def run(job: Job) -> None:
    """Run a simulation of as many actors as there are workers."""
    laps, final = Laps(), {}
    client, server = ClientApp(), ServerApp()
    client.train()(functools.partial(fit, job))

    def evaluate(index: int, arrays: ArrayRecord) -> None:
        laps.start() if index == 0 else laps.lap()
        final.update(arrays=arrays)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        # min_available_nodes: otherwise the first round takes the few that have connected by then
        strategy = FedAvg(
            fraction_train=COHORT / CLIENTS,
            fraction_evaluate=0.0,
            min_train_nodes=COHORT,
            min_available_nodes=CLIENTS,
        )
        begin = ArrayRecord(model(job).state_dict())
        strategy.start(grid, begin, num_rounds=job.rounds + 1, evaluate_fn=evaluate)

    run_simulation(
        server,
        client,
        CLIENTS,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"address": "local", "num_cpus": job.workers, "include_dashboard": False},
        },
    )
    state = final["arrays"].to_torch_state_dict()
    write(job, laps, [state[name].numpy() for name, _ in model(job).named_parameters()])
