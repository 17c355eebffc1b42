"""What compared methods cost: bytes of an update, seconds of a round, the way to a target."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fedlabels.report.blocks import Figure, Section
from fedlabels.report.charts import Axis, Bars
from fedlabels.report.comparison.cells import Levels
from fedlabels.report.comparison.runs import Run, Values
from fedlabels.report.comparison.view import View, choice, readable, summarized

_WAYS = ("down, to a client", "up, from a client")


def cost(shown: View) -> Section | None:
    """Show bytes, seconds, and rounds and bytes to the target.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where no run says what it cost.
    """
    figures = [*_bytes(shown), *_seconds(shown), *_target(shown)]
    if not figures:
        return None
    lead = "What went over the wire, and how long it took."
    return Section("cost", "Cost", lead, None, figures)


def _bytes(shown: View) -> Iterator[Figure]:
    errors = shown.mean("the error bar")
    made = shown.by_setting(lambda row: _per_update(shown, row))
    if made is not None:
        yield Figure(
            "bytes-per-update",
            "Bytes of a client's update",
            "Down: bytes over clients sampled; up: bytes over clients that answered; of the whole"
            f" run, as arrays on the wire. {errors}",
            made,
        )
    total = shown.by_setting(
        lambda row: _one(shown, row, "whole run", Axis("bytes moved", "bytes", low=0.0), _moved)
    )
    if total is not None:
        yield Figure(
            "bytes-moved",
            "Bytes moved",
            f"Up and down of all clients in the whole run. {errors}",
            total,
        )


def _seconds(shown: View) -> Iterator[Figure]:
    made = shown.by_setting(
        lambda row: _one(shown, row, "a round", Axis("wall-clock time", "seconds", low=0.0), _pace)
    )
    if made is not None:
        yield Figure(
            "seconds-per-round",
            "Time of a round",
            "Mean over a run's rounds, with evaluations and start-up; comparable only where all ran"
            f" on the same kind of machine with nothing beside them. {shown.mean('the error bar')}",
            made,
        )


def _target(shown: View) -> Iterator[Figure]:
    question = shown.found.question
    if question.target is None:
        return
    axis, factor = shown.metric
    what = "at most" if question.lower_is_better else "at least"
    unit = " %" if axis.unit == "percent" else ""
    goal = f"{what} {factor * question.target:.4g}{unit}"
    caption = (
        "Until the first evaluated round that reaches it, median over the runs that did; without a"
        " bar none did, and where some did not the median is too good: see the table."
    )
    parts = (
        ("target-rounds", "Rounds", Axis("rounds", "count", low=0.0), "rounds"),
        ("target-bytes", "Communication", Axis("bytes moved", "bytes", low=0.0), "bytes_moved"),
    )
    for anchor, title, y, field in parts:
        charts = {row: _reached(shown, row, y, goal, field) for row in shown.rows}
        made = choice(charts)
        if made is not None:
            yield Figure(anchor, f"{title} to {readable(question.metric)} {goal}", caption, made)


def _per_update(shown: View, row: Levels) -> Bars | None:
    values = {}
    for name, runs in shown.there(row):
        known = [pair for run in runs if (pair := _update(shown.records[run.label].rounds))]
        if known:
            values[name] = summarized(np.array(known))
    return shown.bars(Axis("direction", names=_WAYS), Axis("bytes", "bytes", low=0.0), values)


def _update(table: Mapping[str, Values]) -> tuple[float, float] | None:
    if any(name not in table for name in ("bytes_down", "bytes_up", "sampled", "ok")):
        return None
    total = {name: float(np.nansum(values)) for name, values in table.items()}
    # empty and rejected clients sent something, too, and failed ones nothing
    answered = total["ok"] + total.get("empty", 0.0) + total.get("rejected", 0.0)
    if not total["sampled"] > 0 or not answered > 0:
        return None
    return total["bytes_down"] / total["sampled"], total["bytes_up"] / answered


def _moved(shown: View, run: Run) -> float:
    return run.total_bytes


def _pace(shown: View, run: Run) -> float:
    seconds = shown.records[run.label].rounds.get("seconds_total")
    return float(np.nanmean(seconds)) if seconds is not None else np.nan


def _one(
    shown: View, row: Levels, place: str, y: Axis, read: Callable[[View, Run], float]
) -> Bars | None:
    """Make one bar a contender from one number a run."""
    values = {}
    for name, runs in shown.there(row):
        known = [value for run in runs if np.isfinite(value := read(shown, run))]
        if known:
            values[name] = summarized(np.array(known)[:, None])
    return shown.bars(Axis(shown.noun, names=[place]), y, values)


def _reached(shown: View, row: Levels, y: Axis, goal: str, field: str) -> Bars | None:
    values: dict[str, tuple[Values, None]] = {}
    for name, _ in shown.there(row):
        reach = shown.found.reach(shown.cells[row, name])
        values[name] = np.array([getattr(reach, field)]), None
    return shown.bars(Axis(shown.noun, names=[goal]), y, values)
