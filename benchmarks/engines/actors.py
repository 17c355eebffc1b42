"""Bare Ray: how long until a Ray has started and actors have imported torch and answered."""

import importlib
import logging

import ray

from engines.work import Job, Laps, initial, write


@ray.remote(num_cpus=1)
class Actor:
    """Imports torch and does nothing else."""

    def answer(self) -> str:
        """Return the version of torch."""
        return str(importlib.import_module("torch").__version__)


def run(job: Job) -> None:
    """Start, ask all, wait; this stands for the first round."""
    laps = Laps()
    ray.init(
        address="local",
        num_cpus=job.workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    actors = [Actor.remote() for _ in range(job.workers)]
    ray.get([actor.answer.remote() for actor in actors])
    laps.lap()
    write(job, laps, initial(job))
