"""The top of the report: what was run, how it ended, and the numbers that one looks for first."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedlabels.report.blocks import drawn, facts
from fedlabels.report.charts import Axis, Line, Lines
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.numbers import (
    MISSING,
    count,
    duration,
    percent,
    plural,
    size,
    small_percent,
)
from fedlabels.report.single.source import RunData

UNNAMED = "run"
STATUSES = ("running", "finished", "stopped", "failed")


def headline(data: RunData) -> Markup:
    """Make the top of the page.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Markup
        A ``header`` element.
    """
    status = str(data.manifest.get("status", ""))
    pill = el("span", status, class_=f"pill {status}") if status in STATUSES else None
    method = str(data.manifest.get("method", "") or "")
    words = el(
        "div",
        el("p", "Federated run ", pill, class_="eyebrow"),
        el("h1", run_title(data)),
        el("p", _story(data, method), class_="story"),
    )
    return el(
        "header", el("div", words, _result(data), class_="hero"), _numbers(data), class_="top"
    )


def run_title(data: RunData) -> str:
    """Return the run's name, else its method, else its folder.

    Parameters
    ----------
    data : RunData
        The run.
    """
    name, method = data.manifest.get("name"), data.manifest.get("method")
    if name == UNNAMED:  # what a run is called that nobody gave a name
        name = None
    return str(name or method or data.path.resolve().name)


def best_round(data: RunData) -> tuple[float, float]:
    """Find the best test accuracy.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    tuple of float
        Accuracy in [0, 1] and its round; NaN when nothing was evaluated.
    """
    if not data.rounds.has("test_accuracy"):
        return math.nan, math.nan
    best = int(np.nanargmax(data.rounds.get("test_accuracy")))
    return float(data.rounds.get("test_accuracy")[best]), float(data.rounds.get("round")[best])


def seconds_total(data: RunData) -> float:
    """Return how long the run took, NaN when that is not known.

    Parameters
    ----------
    data : RunData
        The run.
    """
    known = data.manifest.get("seconds")
    if isinstance(known, (int, float)) and not isinstance(known, bool):
        return float(known)
    return data.rounds.total("seconds_total")


def _last(data: RunData) -> float:
    accuracy = data.rounds.get("test_accuracy")
    known = accuracy[np.isfinite(accuracy)]
    return float(known[-1]) if len(known) else math.nan


def _story(data: RunData, method: str) -> str:
    done = plural(len(data.rounds), "round")
    start = f"{method} ran for {done}" if method else f"The run did {done}"
    if data.holdings:
        labels, samples = int(data.holdings.labels.sum()), int(data.holdings.sizes.sum())
        share = small_percent(labels / samples if samples else math.nan)
        start += f" on {plural(data.holdings.num_clients, 'client')} that hold"
        start += f" {plural(samples, 'sample')}, {labels:,} of them labeled ({share})"
    start += _stopped_early(data)
    if math.isnan(_last(data)):
        return start + ". The model was not evaluated."
    best, where = best_round(data)
    return f"{start}. Best test accuracy: {percent(best)}, in round {where:,.0f}."


def _stopped_early(data: RunData) -> str:
    stopped = data.manifest.get("stopped_early")
    if not isinstance(stopped, Mapping):
        return ""
    planned = data.settings.get("rounds") if isinstance(data.settings, Mapping) else None
    of = f" of {planned:,} planned rounds" if isinstance(planned, int) else ""
    return f". It stopped early, after round {stopped.get('round')}{of}: {stopped.get('reason')}"


def _result(data: RunData) -> Markup:
    accuracy = data.rounds.get("test_accuracy")
    known = accuracy[np.isfinite(accuracy)]
    if not len(known):
        done = el("p", count(len(data.rounds)), class_="big")
        return el("div", done, el("p", "rounds done, none evaluated", class_="label"))
    line = _sparkline(data) if len(known) > 1 else None
    number = el("p", percent(float(known[-1])), class_="big")
    name = el("p", "test accuracy after the last evaluation", class_="label")
    return el("div", number, name, line)


def _sparkline(data: RunData) -> Markup:
    """Draw the accuracy without axes, for beside the number."""
    line = Line(
        "test accuracy", 1, data.rounds.get("round"), 100 * data.rounds.get("test_accuracy")
    )
    chart = Lines(Axis("round", "count"), Axis("test accuracy", "percent"), [line])
    return drawn(chart, "chart spark")


def _numbers(data: RunData) -> Content:
    rounds, held, manifest = data.rounds, data.holdings, data.manifest
    moved = np.array([rounds.total("bytes_down"), rounds.total("bytes_up")])
    labels, samples = (held.labels.sum(), held.sizes.sum()) if held else (math.nan, math.nan)
    share = f" ({small_percent(labels / samples)})" if samples and not math.isnan(samples) else ""
    best, where = best_round(data)
    pairs = [
        ("best accuracy", percent(best) + _suffix(where, " in round ")),
        ("rounds", count(len(rounds))),
        ("clients", count(held.num_clients) if held else MISSING),
        ("labels", count(float(labels)) + share),
        ("bytes moved", size(math.nan if np.isnan(moved).all() else float(np.nansum(moved)))),
        ("time", duration(seconds_total(data))),
        ("parameters", _shown(manifest, "num_parameters")),
        ("seed", _shown(manifest, "seed")),
    ]
    return facts(pairs)


def _suffix(value: float, text: str) -> str:
    return "" if math.isnan(value) else f"{text}{value:,.0f}"


def _shown(manifest: Mapping[str, Any], key: str) -> str:
    value = manifest.get(key)
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)
