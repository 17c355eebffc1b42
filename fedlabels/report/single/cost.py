"""What the run cost: bytes by direction, seconds by phase, per round and in total."""

import numpy as np

from fedlabels.report.blocks import Cards, Figure, anchor, table
from fedlabels.report.charts import SOFT, Axis, Bar, Bars, Unit, write
from fedlabels.report.markup import Markup, el
from fedlabels.report.numbers import percent
from fedlabels.report.single.source import RunData
from fedlabels.report.thinning import bucket, bucket_names, bucket_width

_TONES = (1, 2, 3, 4)
_BYTES = (("bytes_down", "down, server to clients"), ("bytes_up", "up, clients to server"))


def cost(data: RunData) -> Cards:
    """Show bytes and seconds."""
    moved = [
        Bar(label, tone, np.nan_to_num(data.rounds.get(name)))
        for (name, label), tone in zip(_BYTES, _TONES, strict=False)
        if data.rounds.has(name)
    ]
    yield _card(
        data,
        "Bytes moved",
        moved,
        "bytes",
        "Sum over the clients of a round, as arrays on the wire, without protocol overhead.",
    )
    yield _card(
        data,
        "Time",
        _phases(data),
        "seconds",
        "Wall-clock time by phase; a tall first bar is start-up, later ones are the pace.",
    )


def _phases(data: RunData) -> list[Bar]:
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
    layers = [Bar(label, tone, v) for (label, v), tone in zip(parts, _TONES, strict=False)]
    return [*layers, Bar("other", SOFT, rest)] if rest.sum() > 0 else layers


def _card(data: RunData, title: str, parts: list[Bar], unit: Unit, caption: str) -> Figure | None:
    if not parts:
        return None
    first, rounds = int(data.rounds.get("round")[0]), len(parts[0].values)
    bars = [Bar(part.label, part.tone, bucket(part.values)) for part in parts]
    chart = Bars(
        Axis("round", "count", bucket_names(first, rounds)), Axis("each round", unit), bars
    )
    more = " Each bar is the mean of neighbors." if bucket_width(rounds) > 1 else ""
    return Figure(anchor(title), title, caption + more, chart, below=_totals(parts, unit))


def _totals(parts: list[Bar], unit: Unit) -> Markup:
    sums = [(part.label, float(part.values.sum())) for part in parts]
    whole = sum(value for _, value in sums)
    rounds = len(parts[0].values)
    rows = [
        (
            label,
            write(value, unit),
            write(value / rounds, unit),
            percent(value / whole) if whole else "",
        )
        for label, value in [*sums, ("all", whole)]
    ]
    return el("div", table(["", "total", "a round", "share"], rows), class_="totals")
