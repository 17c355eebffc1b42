"""Which rows make which batch: the plan of a round, drawn at once from the counter hash."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.cohort.draws import folded, shuffles

Rows = list[NDArray[np.int64]]
"""The rows of each step of one client; a step without rows is left out."""


@dataclass(frozen=True)
class Plan:
    """Rows of every step for K clients.

    Parameters
    ----------
    rows : list of Rows, length K
        Positions among the client's samples, step by step.
    steps : int
        Steps of the longest plan, or more.
    """

    rows: list[Rows]
    steps: int

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """Positions (K, steps, size), 0 where padded, and real rows of each batch (K, steps)."""
        width = max((len(b) for plan in self.rows for b in plan), default=0)
        position = np.zeros((len(self.rows), self.steps, width), dtype=np.int64)
        counts = np.zeros((len(self.rows), self.steps), dtype=np.int64)
        for k, plan in enumerate(self.rows):
            for t, batch in enumerate(plan):
                position[k, t, : len(batch)] = batch
                counts[k, t] = len(batch)
        return torch.from_numpy(position), torch.from_numpy(counts)


def plan_steps(key: int, n: int, size: int, steps: int) -> Rows:
    """Plan ``steps`` batches of min(size, n) rows, each without replacement by a fresh shuffle."""
    if n == 0 or steps == 0:
        return []
    return list(shuffles(key, steps, n)[:, : min(size, n)])


def plan_epochs(key: int, n: int, size: int, epochs: int) -> Rows:
    """Plan whole epochs: a shuffle each, cut into batches; the last one may be smaller."""
    if n == 0 or epochs == 0:
        return []
    orders = shuffles(key, epochs, n)
    return [order[start : start + size] for order in orders for start in range(0, n, size)]


def plan_part(
    key: int, n: int, size: int, epochs: float, round_index: int, min_rows: int = 1
) -> Rows:
    """Plan a part of an epoch, or some epochs and a part, that begins where the last round ended.

    Parameters
    ----------
    key : int
        The client's, the same in every round.
    n, size : int
        The client's samples, and rows of a batch.
    epochs : float
        Epochs a round, > 0.
    round_index : int
        Round, from 1.
    min_rows : int
        Batches with fewer rows are no part of an epoch.

    Notes
    -----
    Epochs, shuffled each, lie one after the other; a round takes the next ``ceil(epochs * batches
    of an epoch)`` batches, whether the client took part in the rounds before or not. So the plan
    follows from the round alone, and what lies in a round without the client is not made up for.
    """
    starts = [start for start in range(0, n, size) if min(size, n - start) >= min_rows]
    if not starts:
        return []
    # 0.1 of 30 batches are 3, whatever floats say
    steps = max(math.ceil(epochs * len(starts) - 1e-9), 1)
    first = (round_index - 1) * steps
    order, rows = np.zeros(0, dtype=np.int64), []
    for place in range(first, first + steps):
        epoch, batch = divmod(place, len(starts))
        if not batch or place == first:
            order = shuffles(folded(key, epoch), 1, n)[0]
        rows.append(order[starts[batch] : starts[batch] + size])
    return rows


def split_rows(n: int, size: int) -> Rows:
    """Cut rows 0 .. n - 1, in order, into batches of at most ``size``."""
    rows = np.arange(n)
    return [rows[start : start + size] for start in range(0, n, size)]


def join_plans(plans: list[Rows], steps: int | None = None) -> Plan:
    """Join the plans of K clients."""
    return Plan(plans, max(map(len, plans), default=0) if steps is None else steps)
