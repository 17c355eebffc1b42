"""Cells of a sweep as tasks of a Ray cluster; the sweep's folder must be on a shared disk."""

from fedlabels import telemetry

telemetry.disable()  # before Ray is imported

# ruff: noqa: E402
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from fedlabels.errors import RunError
from fedlabels.machine import SHARE
from fedlabels.run.signals import INTERRUPTED
from fedlabels.simulation.pool import worker_environment
from fedlabels.simulation.ray_support import reach, signals_kept
from fedlabels.sweep.cells import Cell
from fedlabels.sweep.runner import GRACE_SECONDS, Progress, error_of, run_cell


def run_there(cells: Sequence[Cell], address: str, cpus: float, progress: Progress) -> int:
    """Run cells on a cluster.

    Parameters
    ----------
    cells : sequence of Cell
        Given to the cluster in this order.
    address : str
        Ray's: ``"auto"``, ``"local"`` or HOST:PORT.
    cpus : float
        CPUs that a cell takes, > 0.
    progress : Progress
        Is told of every end.

    Returns
    -------
    int
        0, or 130 when interrupted: then those that ran have written a checkpoint.

    Raises
    ------
    RunError
        If nobody answers at the address.
    """
    waiting = dict[Any, Cell]()
    try:
        if address != "local":
            reach(address)
        with signals_kept():
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=False,
                # a cell that starts workers of its own starts as many as it has CPUs
                runtime_env={"env_vars": {**worker_environment(), SHARE: str(max(1, int(cpus)))}},
            )
    except Exception as error:
        raise RunError(
            f"Ray could not be joined at sweep.address={address} ({error}): start a cluster there,"
            " or leave sweep.address out to run the cells on this machine"
        ) from error
    try:
        # a fresh process for every cell, as on one machine
        task: Any = ray.remote(num_cpus=cpus, max_calls=1, max_retries=1)(run_cell)
        began = time.monotonic()
        waiting |= {
            task.remote(dict(cell.config), str(cell.folder), dict(cell.facts)): cell
            for cell in cells
        }
        _follow(waiting, progress, began)
    except KeyboardInterrupt:
        for task_id in waiting:  # a cell that runs hears it as Ctrl-C: it writes a checkpoint
            ray.cancel(task_id)
        ray.wait(list(waiting), num_returns=len(waiting), timeout=GRACE_SECONDS)
        return INTERRUPTED
    finally:
        ray.shutdown()
    return 0


def _follow(waiting: dict[Any, Cell], progress: Progress, began: float) -> None:
    """Tell of every end; what has not ended yet stays in `waiting`."""
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        cell, problem = waiting.pop(done), None
        try:
            ray.get(done)
        except RayError as error:
            problem = error_of(cell, str(error).strip().splitlines()[-1])
        progress.ended(cell, time.monotonic() - began, problem)
