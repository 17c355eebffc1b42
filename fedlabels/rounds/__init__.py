"""What goes down and up in a round: jobs, terms, messages, and how replies are judged and added.

Nothing here trains. What needs Flower (`wire`, `stranger`, `flower_compat`, `grid`) is imported by
those who speak it, so that workers do without.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
from fedlabels.rounds.job import (
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
from fedlabels.rounds.replies import Replies

__all__ = [
    "Arrays",
    "Backend",
    "ClientRow",
    "EachTerm",
    "Job",
    "JobResult",
    "Replies",
    "SumTerm",
    "Task",
    "num_bytes",
]
