"""What the run cost: bytes by direction, seconds by phase, per round and in total."""

from collections.abc import Callable

import numpy as np

from fedlabels.report.bar_chart import Part, bar_legend, bucket_width, stacked_bars
from fedlabels.report.blocks import Section, figure, grid, table
from fedlabels.report.markup import Markup, el
from fedlabels.report.numbers import duration, percent, size, size_unit
from fedlabels.report.source import RunData

_TONES = ("1", "2", "3", "4")
_BYTES = (("bytes_down", "down, server to clients"), ("bytes_up", "up, clients to server"))


def cost(data: RunData) -> Section | None:
    """Show bytes and seconds.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None before the first round.
    """
    moved = [
        Part(label, tone, np.nan_to_num(data.rounds.get(name)))
        for (name, label), tone in zip(_BYTES, _TONES, strict=False)
        if data.rounds.has(name)
    ]
    phases = _phases(data)
    cards = []
    if moved:
        cards.append(_bytes_card(data, moved))
    if phases:
        cards.append(_seconds_card(data, phases))
    if not cards:
        return None
    return Section(
        "cost",
        "Cost",
        "What went over the wire, and where the time went.",
        grid(*cards),
    )


def _phases(data: RunData) -> list[Part]:
    names = [n for n in data.rounds.names if n.startswith("seconds_") and n != "seconds_total"]
    parts = [
        (n.removeprefix("seconds_").replace("_", " "), np.nan_to_num(data.rounds.get(n)))
        for n in names
    ]
    total = np.nan_to_num(data.rounds.get("seconds_total"))
    named = np.sum([values for _, values in parts], axis=0) if parts else np.zeros_like(total)
    rest = np.maximum(total - named, 0.0)
    if len(parts) >= len(_TONES):  # the smaller phases share the last color
        parts.sort(key=lambda part: -float(part[1].sum()))
        rest = rest + np.sum([values for _, values in parts[len(_TONES) :]], axis=0)
        parts = parts[: len(_TONES)]
    layers = [Part(label, tone, v) for (label, v), tone in zip(parts, _TONES, strict=False)]
    return [*layers, Part("other", "soft", rest)] if rest.sum() > 0 else layers


def _bytes_card(data: RunData, parts: list[Part]) -> Markup:
    unit, name = size_unit(_highest(parts))
    chart = stacked_bars(
        parts,
        first=int(data.rounds.get("round")[0]),
        noun="round",
        x_label="round",
        y_label=f"{name} per round",
        describe="Bytes moved in each round, by direction.",
        write=size,
        unit=unit,
    )
    caption = "Sum over the clients of a round, as arrays on the wire, without protocol overhead."
    return figure(
        "Bytes moved",
        [chart, _totals(parts, size)],
        caption + _means(parts),
        legend=bar_legend(parts),
    )


def _seconds_card(data: RunData, parts: list[Part]) -> Markup:
    minutes = _highest(parts) > 300
    chart = stacked_bars(
        parts,
        first=int(data.rounds.get("round")[0]),
        noun="round",
        x_label="round",
        y_label=f"{'minutes' if minutes else 'seconds'} per round",
        describe="Wall-clock time of each round, by phase.",
        write=duration,
        unit=60.0 if minutes else 1.0,
    )
    caption = "Wall-clock time by phase; a tall first bar is start-up, later ones are the pace."
    return figure(
        "Time",
        [chart, _totals(parts, duration)],
        caption + _means(parts),
        legend=bar_legend(parts),
    )


def _highest(parts: list[Part]) -> float:
    return float(np.sum([part.values for part in parts], axis=0).max())


def _means(parts: list[Part]) -> str:
    return " Each bar is the mean of neighbors." if bucket_width(len(parts[0].values)) > 1 else ""


def _totals(parts: list[Part], write: Callable[[float], str]) -> Markup:
    sums = [(part.label, float(part.values.sum())) for part in parts]
    whole = sum(value for _, value in sums)
    rounds = len(parts[0].values)
    rows = [
        (label, write(value), write(value / rounds), percent(value / whole) if whole else "")
        for label, value in [*sums, ("all", whole)]
    ]
    return el("div", table(["", "total", "a round", "share"], rows), class_="totals")
