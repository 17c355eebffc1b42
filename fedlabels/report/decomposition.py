"""What the loss of the global model is made of, round by round: bars that may hang below zero."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedlabels.report.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    frame,
    nice_range,
    tick_label,
)
from fedlabels.report.bar_chart import Part, bar_legend
from fedlabels.report.blocks import Section, figure, grid, table
from fedlabels.report.markup import Markup, el, html
from fedlabels.report.numbers import decimal
from fedlabels.report.source import Column, RunData

TOTAL = "loss_global"
TERMS = (
    ("loss_local", "local", "1"),
    ("loss_shift", "distribution shift", "2"),
    ("loss_aggregation", "aggregation", "3"),
)
TWO_TERMS = (TERMS[0], ("loss_gap", "shift and aggregation", "4"))
COLUMNS = frozenset(
    {TOTAL, "loss_gap", "loss_global_error", *(name for name, _, _ in TERMS)},
)
_MOST_BARS = 60
_MOST_LABELS = 10
_CAPTION = (
    "Local: what every client's own model still loses on its own samples; distribution shift: what"
    " it loses more on everyone's; aggregation: what the new global model loses more (or, below"
    " zero, less) than the clients' models do. The bars add up to the loss of the global"
    " model, the line across them."
)
_TWO_CAPTION = (
    "Local: what every client's own model still loses on its own samples; the rest up to the loss"
    " of the global model, the line across, is distribution shift and aggregation together."
)
_SERVER = (
    " Distribution shift and aggregation were measured on a part of the TEST set that stands for"
    " samples of the server: do not choose settings by this figure."
)
_PROBE = " Measured on a fixed part of each client's samples."


def decomposition(data: RunData) -> Section | None:
    """Show the terms of the loss.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None where the loss was not decomposed.
    """
    split = data.rounds.has("loss_shift")
    terms = TERMS if split else TWO_TERMS
    names = [TOTAL, *(name for name, _, _ in terms)]
    known = np.all([np.isfinite(data.rounds.get(name)) for name in names], axis=0)
    if not known.any():
        return None
    places = np.flatnonzero(known)
    if len(places) > _MOST_BARS:
        places = places[np.linspace(0, len(places) - 1, _MOST_BARS).round().astype(int)]
    rounds, total = data.rounds.get("round")[places], data.rounds.get(TOTAL)[places]
    parts = [Part(label, tone, data.rounds.get(name)[places]) for name, label, tone in terms]
    chart = signed_bars(parts, total, rounds)
    caption = (_CAPTION if split else _TWO_CAPTION) + _note(data.settings)
    card = figure("Terms of the loss", chart, caption, legend=bar_legend(parts))
    lead = "Where the loss of the global model comes from."
    return Section(
        "decomposition", "Loss decomposition", lead, grid(card, _numbers(parts, total, rounds))
    )


def _numbers(parts: Sequence[Part], total: Column, rounds: Column) -> Markup:
    """Show the terms of the first and the last reported round."""
    ends = [0, len(total) - 1] if len(total) > 1 else [0]
    lines = [*((part.label, part.values) for part in parts), ("global model", total)]
    rows = [[label, *(decimal(float(values[i])) for i in ends)] for label, values in lines]
    head = ["nats", *(f"round {rounds[i]:,.0f}" for i in ends)]
    inner = el("div", table(head, rows), class_="totals")
    return figure("First and last", inner, "decomposition.csv has every client's part of them.")


def signed_bars(parts: Sequence[Part], total: Column, rounds: Column) -> Markup:
    """Draw stacked bars of both signs: positive parts upwards from zero, negative ones downwards.

    Parameters
    ----------
    parts : sequence of Part
        Layers, of any sign, all of the same length >= 1.
    total : ndarray, shape (bars,)
        Their sums, drawn as marks.
    rounds : ndarray, shape (bars,)
        Rounds of the bars, ascending.

    Returns
    -------
    Markup
        An ``svg`` element.
    """
    values = np.stack([part.values for part in parts])
    tops, floors = np.maximum(values, 0).sum(0), np.minimum(values, 0).sum(0)
    y = Scale(*nice_range([0.0, *tops.tolist(), *floors.tolist()]), HEIGHT - BOTTOM, TOP)
    x = Scale(-0.5, len(total) - 0.5, LEFT, WIDTH - RIGHT)
    bars = [
        _bar(parts, i, float(total[i]), f"round {rounds[i]:,.0f}", x, y) for i in range(len(total))
    ]
    every = -(-len(total) // _MOST_LABELS)
    marks = [tick_label(f"{rounds[i]:.0f}", x(i)) for i in range(0, len(total), every)]
    zero = el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(0.0), y2=y(0.0), class_="base")
    last = "; ".join(f"{part.label} {decimal(float(part.values[-1]))}" for part in parts)
    return frame(
        [zero, bars],
        x_ticks=html(marks),
        y=y,
        x_label="round",
        y_label="cross-entropy, nats",
        describe=f"Terms of the loss by round; in the last one {last}.",
    )


def _bar(parts: Sequence[Part], index: int, total: float, named: str, x: Scale, y: Scale) -> Markup:
    start, end = x(index - 0.5), x(index + 0.5)
    gap = 0.25 * (end - start)
    above = below = 0.0
    boxes = []
    for part in parts:
        value = float(part.values[index])
        ground = above if value >= 0 else below
        low, high = sorted((ground, ground + value))
        above, below = (high, below) if value >= 0 else (above, low)
        boxes.append(
            el(
                "rect",
                x=start + gap / 2,
                y=y(high),
                width=end - start - gap,
                height=y(low) - y(high),
                class_=f"fill-{part.tone}",
            )
        )
    mark = el(
        "line", x1=start + gap / 4, x2=end - gap / 4, y1=y(total), y2=y(total), class_="total"
    )
    lines = [named, *(f"{part.label}: {decimal(float(part.values[index]))}" for part in parts)]
    lines.append(f"global model: {decimal(total)}")
    area = el("rect", x=start, y=TOP, width=end - start, height=HEIGHT - BOTTOM - TOP)
    return html([boxes, mark, el("g", el("title", "\n".join(lines)), area, class_="band")])


def _note(settings: Mapping[str, object] | str) -> str:
    """Say on which samples it was measured, where that is not all of them."""
    if isinstance(settings, str):
        return ""
    callbacks = settings.get("callbacks")
    chosen = callbacks.get("decomposition") if isinstance(callbacks, Mapping) else None
    variant = chosen.get("variant") if isinstance(chosen, Mapping) else None
    return {"server": _SERVER, "probe": _PROBE}.get(str(variant), "")
