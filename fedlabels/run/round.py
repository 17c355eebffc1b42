"""One round of a run: planned, exchanged, evaluated, measured and recorded, in this order."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord

from fedlabels.cohort.clock import phase, whole
from fedlabels.cohort.types import EMPTY
from fedlabels.rounds import wire
from fedlabels.rounds.grid import RoundGrid
from fedlabels.rounds.job import Arrays, ClientRow, EachTerm
from fedlabels.run.agreement import check_messages
from fedlabels.run.callbacks import Callback, Measure, MeasuredRound
from fedlabels.run.console import Console
from fedlabels.run.early_stop import EarlyStop
from fedlabels.run.failures import check_failures
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.records import client_records, round_record, tested_by, write_round
from fedlabels.run.merged import aggregated
from fedlabels.run.notes import lost_tests
from fedlabels.run.personal import personal_answers, personal_scores
from fedlabels.run.place import Place, RoundPlan, usable
from fedlabels.run.world import World
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.strategies.base import MODEL_REFUSED
from fedlabels.worker.evaluation import Evaluation


@dataclass(frozen=True)
class FinishedRound:
    """A round whose rows are in the tables.

    Parameters
    ----------
    index : int
        The round, from 1.
    arrays : ArrayRecord
        The global model after it.
    record : mapping
        Its row of ``rounds.csv``.
    clients : sequence of ClientRow
        What its clients did.
    lost : bool
        Whether it came to nothing: no usable reply, or a new model that was refused.
    evaluation : Evaluation or None
        Of the global model after it, where it was tested.
    """

    index: int
    arrays: ArrayRecord
    record: Mapping[str, Any]
    clients: Sequence[ClientRow]
    lost: bool
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class Update:
    """What the exchanges of a round have given.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model after them.
    clients : sequence of ClientRow
        What the clients did.
    metrics : mapping of str to float
        Of the strategy.
    weight : float
        Of the updates that count.
    models : EachTerm or None
        The models w_i of the clients that count, where they are measured and there are some.
    """

    arrays: ArrayRecord
    clients: Sequence[ClientRow] = ()
    metrics: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    weight: float = 0.0
    models: EachTerm | None = None


@dataclass(frozen=True)
class Scores:
    """What was tested of a round's models.

    Parameters
    ----------
    figures : mapping of str to float
        For its row, by column.
    evaluation : Evaluation or None
        Of the global model, where it was tested.
    personal : sequence of mapping
        Rows of the clients that tested models of their own.
    """

    figures: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    evaluation: Evaluation | None = None
    personal: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Rounds:
    """The rounds of a run: what they have in common, as `Loop` has it.

    ``backend`` tests on the server, ``grid`` is who answers messages.
    """

    config: Mapping[str, Any]
    world: World
    place: Place
    folder: RunFolder
    console: Console
    callbacks: Sequence[Callback]
    early_stop: EarlyStop
    backend: SimulationBackend
    grid: RoundGrid

    def run(self, index: int, arrays: ArrayRecord, resumable: int) -> FinishedRound:
        """Run the round ``index``, from 1, with the global model before it, and write its rows.

        A resume may go back to the round ``resumable``.

        Raises
        ------
        RunError
            If too many clients failed.
        """
        began = time.perf_counter()
        plan = self._plan(index, resumable)
        update = self._exchange(plan, arrays)
        trained = time.perf_counter()
        scores = self._evaluate(plan, update.arrays)
        seconds = {
            "seconds_train": trained - began,
            "seconds_evaluate": time.perf_counter() - trained,
        }
        measured = self._measure(plan, update)
        seconds["seconds_total"] = time.perf_counter() - began
        record = self._record(plan, update, scores, {**seconds, **measured})
        refused = bool(update.metrics.get(MODEL_REFUSED))
        lost = refused or not usable(update.clients, self.world.strategy.needs)
        return FinishedRound(index, update.arrays, record, update.clients, lost, scores.evaluation)

    def _plan(self, index: int, resumable: int) -> RoundPlan:
        """Settle what the round tests and measures, and tell the place."""
        rounds, strategy = self.config["rounds"], self.world.strategy
        able = [callback for callback in self.callbacks if isinstance(callback, Measure)]
        measures = [measure for measure in able if measure.wants(index, rounds)]
        self.grid.keep = (wire.MODEL,) if measures else ()
        evaluates = index % self.config["evaluate_every"] == 0 or index == rounds
        tested = strategy.shared("evaluate", index - 1) if evaluates else EMPTY
        plan = RoundPlan(index, evaluates, resumable, tested, measures)
        self.place.begin(plan)
        return plan

    def _exchange(self, plan: RoundPlan, arrays: ArrayRecord) -> Update:
        """Send, receive and aggregate, once for every exchange of the strategy."""
        strategy, grid, update = self.world.strategy, self.grid, Update(arrays)
        for exchange in strategy.exchanges(plan.index):
            with phase("configure"):
                messages = list(strategy.configure(exchange, plan.index, update.arrays, grid))
            check_messages(messages, self.world.client, self.config["deploy"]["mods"])
            replies = grid.send_and_receive(messages)
            clients = [client for result in grid.last for client in result.rows]
            check_failures(self.place, self.folder, plan.index, exchange, clients)
            with phase("aggregate"):
                outcome = aggregated(strategy, exchange, plan.index, replies)
            update = Update(
                update.arrays if outcome.arrays is None else outcome.arrays,
                [*update.clients, *clients],
                {**update.metrics, **outcome.metrics},
                outcome.weight or update.weight,
                grid.kept.get(wire.MODEL, update.models),
            )
        return update

    def _evaluate(self, plan: RoundPlan, arrays: ArrayRecord) -> Scores:
        """Test what the round has made, where it is one that evaluates."""
        if not plan.evaluates:
            return Scores()
        with whole("evaluate"):
            scores = self._test(plan.index, wire.from_record(arrays))
            self.early_stop.see(plan.index, scores.figures)
            last = plan.index == self.config["rounds"] or self.early_stop.reason() is not None
            if not (self.place.asks_at_the_end and last):
                return scores
            return replace(scores, figures={**scores.figures, **self._last_figures(plan, arrays)})

    def _test(self, index: int, arrays: Arrays) -> Scores:
        """Test the global model, and every client's own where that is asked for."""
        figures, evaluation, world = dict[str, float](), None, self.world
        if world.tests_model:
            evaluation = self.backend.evaluate(arrays)
            figures = {"test_loss": evaluation.loss, "test_accuracy": evaluation.accuracy}
            figures |= evaluation.parts
        if not self.place.evaluates_clients():
            return Scores(figures, evaluation)
        answers = personal_answers(self.config, world, self.backend, index, arrays)
        check_failures(self.place, self.folder, index, "evaluate", answers)
        own, personal = personal_scores(answers, world.source.test, world.federation.test)
        if names := world.federation.names:
            personal = [{**row, "name": names[row["client_id"]]} for row in personal]
        self.console.note(*lost_tests(index, personal))
        return Scores(figures | own, evaluation, personal)

    def _last_figures(self, plan: RoundPlan, arrays: ArrayRecord) -> dict[str, float]:
        """Let the clients of the last round test what came of it, in an exchange of its own."""
        strategy, grid = self.world.strategy, self.grid
        messages = strategy.configure("evaluate", plan.index, arrays, grid)
        outcome = strategy.aggregate("evaluate", plan.index, grid.send_and_receive(messages))
        devices = tested_by(client for result in grid.last for client in result.rows)
        figures = outcome.metrics | devices
        return {f"final_{name}": value for name, value in figures.items()}

    def _measure(self, plan: RoundPlan, update: Update) -> dict[str, float]:
        """Let callbacks make further figures of the round."""
        figures = dict[str, float]()
        for measure in plan.measures:
            arrays, rounds = wire.from_record(update.arrays), self.config["rounds"]
            private = self.world.client.private(self.world.layout)
            figures |= measure.measure(
                MeasuredRound(plan.index, rounds, arrays, update.models, private, self.backend)
            )
        return figures

    def _record(
        self, plan: RoundPlan, update: Update, scores: Scores, measured: Mapping[str, float]
    ) -> dict[str, Any]:
        """Write the round's rows; return that of ``rounds.csv``."""
        record = round_record(plan.index, update.clients, update.weight, update.metrics)
        record |= {**scores.figures, **measured}
        with phase("write"):
            clients = client_records(
                plan.index, update.clients, self.place.held, self.world.federation.names
            )
            write_round(self.folder, record, clients, scores.evaluation, scores.personal)
        return record
