"""Simulated clients behind a Flower grid: jobs, backends, and the grid itself.

The grid is imported when it is first asked for, so that workers, which only run jobs, do without
Flower.
"""

from typing import TYPE_CHECKING, Any

from fedlabels import telemetry

telemetry.disable()  # before Flower or Ray are imported

# ruff: noqa: E402
from fedlabels.simulation.job import (
    Arrays,
    Backend,
    ClientRow,
    EachTerm,
    Job,
    JobResult,
    SumTerm,
    Task,
    num_bytes,
)
from fedlabels.simulation.replies import Replies

if TYPE_CHECKING:
    from fedlabels.simulation.grid import CohortGrid

__all__ = [
    "Arrays",
    "Backend",
    "ClientRow",
    "CohortGrid",
    "EachTerm",
    "Job",
    "JobResult",
    "Replies",
    "SumTerm",
    "Task",
    "num_bytes",
]


def __getattr__(name: str) -> Any:
    if name == "CohortGrid":
        from fedlabels.simulation.grid import CohortGrid

        return CohortGrid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
