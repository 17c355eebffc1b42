"""What compared methods cost: bytes of an update, seconds of a round, the way to a target."""

import numpy as np

from fedlabels.report.blocks import Cards
from fedlabels.report.charts import Axis, Bars
from fedlabels.report.comparison.cells import Levels
from fedlabels.report.comparison.folders import Record
from fedlabels.report.comparison.runs import Values
from fedlabels.report.comparison.view import View, readable

_BYTES = Axis("bytes moved", "bytes", low=0.0)


def cost(view: View) -> Cards:
    """Show bytes, seconds, and rounds and bytes to the target."""
    errors = view.mean("the error bar")
    directions = Axis("direction", names=("down, to a client", "up, from a client"))
    update, seconds = Axis("bytes", "bytes", low=0.0), Axis("wall-clock time", "seconds", low=0.0)
    whole, each = Axis(view.noun, names=["whole run"]), Axis(view.noun, names=["a round"])
    yield view.figure(
        "bytes-per-update",
        "Bytes of a client's update",
        "Down: bytes over clients sampled; up: bytes over clients that answered; of the whole"
        f" run, as arrays on the wire. {errors}",
        lambda row: view.mean_bars(row, directions, update, _update),
    )
    yield view.figure(
        "bytes-moved",
        "Bytes moved",
        f"Up and down of all clients in the whole run. {errors}",
        lambda row: view.mean_bars(row, whole, _BYTES, lambda one: _known(one.run.total_bytes)),
    )
    yield view.figure(
        "seconds-per-round",
        "Time of a round",
        "Mean over a run's rounds, with evaluations and start-up; comparable only where all ran"
        f" on the same kind of machine with nothing beside them. {errors}",
        lambda row: view.mean_bars(row, each, seconds, _pace),
    )
    yield from _target(view)


def _target(view: View) -> Cards:
    question = view.comparison.question
    if question.target is None:
        return
    axis, factor = view.metric
    limit = "at most" if question.lower_is_better else "at least"
    unit = " %" if axis.unit == "percent" else ""
    goal = f"{limit} {factor * question.target:.4g}{unit}"
    caption = (
        "Until the first evaluated round that reaches it, median over the runs that did; without a"
        " bar none did, and where some did not the median is too good: see the table."
    )

    def reached(row: Levels, y: Axis, field: str) -> Bars | None:
        medians: dict[str, tuple[Values, None]] = {}
        for name in view.records_at(row):
            reach = view.comparison.reach(view.cells[row, name])
            medians[name] = np.array([getattr(reach, field)]), None
        return view.bars(Axis(view.noun, names=[goal]), y, medians)

    metric, rounds = readable(question.metric), Axis("rounds", "count", low=0.0)
    yield view.figure(
        "target-rounds",
        f"Rounds to {metric} {goal}",
        caption,
        lambda row: reached(row, rounds, "rounds"),
    )
    yield view.figure(
        "target-bytes",
        f"Communication to {metric} {goal}",
        caption,
        lambda row: reached(row, _BYTES, "bytes_moved"),
    )


def _known(value: float) -> list[float] | None:
    return [value] if np.isfinite(value) else None


def _update(record: Record) -> tuple[float, float] | None:
    table = record.rounds
    if any(name not in table for name in ("bytes_down", "bytes_up", "sampled", "ok")):
        return None
    total = {name: float(np.nansum(values)) for name, values in table.items()}
    # empty and rejected clients sent something, too, and failed ones nothing
    answered = total["ok"] + total.get("empty", 0.0) + total.get("rejected", 0.0)
    if not total["sampled"] > 0 or not answered > 0:
        return None
    return total["bytes_down"] / total["sampled"], total["bytes_up"] / answered


def _pace(record: Record) -> list[float] | None:
    seconds = record.rounds.get("seconds_total")
    return None if seconds is None else _known(float(np.nanmean(seconds)))
