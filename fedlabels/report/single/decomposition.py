"""What the loss of the global model is made of, round by round: bars that may hang below zero."""

from collections.abc import Mapping, Sequence

import numpy as np

from fedlabels.report.blocks import Cards, Figure, table
from fedlabels.report.charts import Axis, Bar, Bars
from fedlabels.report.markup import el
from fedlabels.report.numbers import decimal
from fedlabels.report.single.source import Column, RunData

TOTAL = "loss_global"
TERMS = (
    ("loss_local", "local", 1),
    ("loss_shift", "distribution shift", 2),
    ("loss_aggregation", "aggregation", 3),
)
TWO_TERMS = (TERMS[0], ("loss_gap", "shift and aggregation", 4))
COLUMNS = frozenset(
    {TOTAL, "loss_gap", "loss_global_error", *(name for name, _, _ in TERMS)},
)
_MOST_BARS = 60
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


def decomposition(data: RunData) -> Cards:
    """Show the terms of the loss."""
    split = data.rounds.has("loss_shift")
    terms = TERMS if split else TWO_TERMS
    names = [TOTAL, *(name for name, _, _ in terms)]
    known = np.all([np.isfinite(data.rounds.get(name)) for name in names], axis=0)
    if not known.any():
        return
    places = np.flatnonzero(known)
    if len(places) > _MOST_BARS:
        places = places[np.linspace(0, len(places) - 1, _MOST_BARS).round().astype(int)]
    rounds, total = data.rounds.get("round")[places], data.rounds.get(TOTAL)[places]
    bars = [Bar(label, tone, data.rounds.get(name)[places]) for name, label, tone in terms]
    chart = Bars(
        Axis("round", "count", [f"{value:.0f}" for value in rounds]), Axis("cross-entropy", "nats"),
        bars, total=total, total_label="global model",
    )  # fmt: skip
    caption = (_CAPTION if split else _TWO_CAPTION) + _note(data.settings)
    yield Figure("terms-of-the-loss", "Terms of the loss", caption, chart)
    yield _numbers(bars, total, rounds)


def _numbers(bars: Sequence[Bar], total: Column, rounds: Column) -> Figure:
    """Show the terms of the first and the last reported round."""
    ends = [0, len(total) - 1] if len(total) > 1 else [0]
    lines = [*((bar.label, bar.values) for bar in bars), ("global model", total)]
    rows = [[label, *(decimal(float(values[i])) for i in ends)] for label, values in lines]
    head = ["nats", *(f"round {rounds[i]:,.0f}" for i in ends)]
    inner = el("div", table(head, rows), class_="totals")
    caption = "decomposition.csv has every client's part of them."
    return Figure("terms-first-and-last", "First and last", caption, inner)


def _note(settings: Mapping[str, object] | str) -> str:
    """Say on which samples it was measured, where that is not all of them."""
    if isinstance(settings, str):
        return ""
    callbacks = settings.get("callbacks")
    own = callbacks.get("decomposition") if isinstance(callbacks, Mapping) else None
    variant = own.get("variant") if isinstance(own, Mapping) else None
    return {"server": _SERVER, "probe": _PROBE}.get(str(variant), "")
