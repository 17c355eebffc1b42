"""A new model is taken only if it is one: of numbers that can be computed with."""

import logging
from collections.abc import Iterable
from dataclasses import replace

from flwr.app import ArrayRecord, Message

from fedlabels.rounds.flower_compat import peek
from fedlabels.rounds.judge import broken, infinite
from fedlabels.strategies.base import MODEL_KEPT, MODEL_REFUSED, Outcome, ServerStrategy, State

LOG = logging.getLogger(__name__)


def aggregated(
    strategy: ServerStrategy, exchange: str, round_index: int, replies: Iterable[Message]
) -> Outcome:
    """Let a strategy aggregate, and refuse what it makes of the replies if that is broken.

    The strategy's memory is then as it was before: a momentum that is not finite would spoil all
    models after it.

    Parameters
    ----------
    strategy : ServerStrategy
        Bound to its run.
    exchange : str
        Name of the exchange.
    round_index : int
        Round, from 1.
    replies : iterable of flwr.app.Message
        What came back.

    Returns
    -------
    Outcome
        The strategy's; or no arrays, with the metrics ``model_kept`` and ``model_refused``.
    """
    before = strategy.state()
    outcome = strategy.aggregate(exchange, round_index, replies)
    problem = _problem(strategy, outcome.arrays)
    if problem is None:
        return outcome
    LOG.error("round %d: the new model is refused, the old one kept: %s", round_index, problem)
    strategy.load_state(before)
    metrics = {**outcome.metrics, MODEL_KEPT: 1.0, MODEL_REFUSED: 1.0}
    return replace(outcome, arrays=None, metrics=metrics)


def _problem(strategy: ServerStrategy, arrays: ArrayRecord | None) -> str | None:
    layout = strategy.server.layout
    floored = layout.floored if layout is not None and strategy.has_model else frozenset[str]()
    problem = None if arrays is None else broken(peek(arrays), floored)
    if problem is not None:
        return problem
    kept: State = strategy.state()
    bad = infinite(kept.arrays)
    return None if bad is None else f"what the strategy keeps: tensor '{bad}' is not finite"
