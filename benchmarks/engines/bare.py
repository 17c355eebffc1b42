"""The bare loop: processes of one thread, weights in shared memory, SGD in place, nothing else.

Variants: ``bare`` (fp32), ``bare-channels_last``, ``bare-bf16`` (channels_last and autocast).
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, multiprocessing

from engines.work import COHORT, Data, Job, Laps, cohort, model, train, write


def run(job: Job) -> None:
    """Train in ``job.workers`` processes; the parent adds their sums up."""
    laps = Laps()
    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")
    weights = [p.detach().clone().share_memory_() for p in model(job).parameters()]
    sums = [[torch.zeros_like(w).share_memory_() for w in weights] for _ in range(job.workers)]
    barrier = context.Barrier(job.workers + 1)
    workers = [
        context.Process(target=_work, args=(job, rank, weights, sums[rank], barrier), daemon=True)
        for rank in range(job.workers)
    ]
    for worker in workers:
        worker.start()
    laps.start()
    for _ in range(job.rounds + 1):
        barrier.wait()
        barrier.wait()
        _average(weights, sums)
        laps.lap()
    for worker in workers:
        worker.join()
    write(job, laps, [w.numpy() for w in weights])


def _average(weights: list[Tensor], sums: list[list[Tensor]]) -> None:
    for weight, *parts in zip(weights, *sums, strict=True):
        torch.sum(torch.stack(parts), 0, out=weight)
        weight.div_(COHORT)


def _work(job: Job, rank: int, weights: list[Tensor], total: list[Tensor], barrier: Any) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data, net = Data(job), model(job)
    last = job.engine in ("bare-channels_last", "bare-bf16")
    form = torch.channels_last if last else torch.contiguous_format
    net = net.to(memory_format=form)
    parameters = list(net.parameters())
    # autocast would keep its copies of weights that change in place below
    cast = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
    low = job.engine == "bare-bf16"
    for index in range(job.rounds + 1):
        barrier.wait()
        with torch.no_grad():
            torch._foreach_zero_(total)
        for client in cohort(job, index)[rank :: job.workers]:
            with torch.no_grad():
                torch._foreach_copy_(parameters, weights)
            if job.work.trains:
                x, y = data.client(client)
                with cast if low else contextlib.nullcontext():
                    train(net, parameters, x.contiguous(memory_format=form), y)
            with torch.no_grad():
                torch._foreach_add_(total, parameters)
        barrier.wait()
