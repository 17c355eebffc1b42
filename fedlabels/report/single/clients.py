"""Who is left behind: how the accuracy is spread over the clients of one run."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlabels.report.blocks import Cards, Figure, table
from fedlabels.report.charts import Axis, Bar, Bars, Line, Lines
from fedlabels.report.client_spread import client_accuracy
from fedlabels.report.holdings import Counts, Holdings
from fedlabels.report.numbers import MISSING, percent, plural
from fedlabels.report.single.source import Column, Columns, RunData

Marks = NDArray[np.bool_]

_BINS = 10  # of ten percentage points
_LOWEST = 8
_LOCAL = (
    ("local_accuracy", "mean of the clients"),
    ("local_accuracy_p10", "10th percentile"),
    ("personal_accuracy", "mean of the clients, own models"),
    ("personal_accuracy_p10", "10th percentile, own models"),
)
_MEASURED = "Measured on test samples of each client's own."
_EXPECTED = (
    "To be expected on test samples with the client's class mix, from the recall by class: it says"
    " whose classes the model knows, not how unusual a client's samples are."
)


@dataclass(frozen=True)
class Spread:
    """Accuracies by client.

    Parameters
    ----------
    clients : ndarray, shape (known clients,)
        Ids.
    accuracy : ndarray, shape (known clients,)
        In [0, 1].
    source : str
        Where they come from, a sentence.
    """

    clients: Counts
    accuracy: Column
    source: str


def clients(data: RunData) -> Cards:
    """Show the accuracy by client."""
    known = spread(data)
    if known is not None:
        yield _histogram(known)
        yield _lowest(known, data.holdings)
    yield _history(data)


def clients_lead(data: RunData) -> str:
    """Say how those are served who are served worst, where that is known."""
    known = spread(data)
    if known is None:
        return "A mean can be high while some clients are not served at all."
    tenth, middle = (percent(float(np.quantile(known.accuracy, q))) for q in (0.1, 0.5))
    return f"Half of the clients have at least {middle}; a tenth have {tenth} or less."


def spread(data: RunData) -> Spread | None:
    """Return each client's accuracy: what was measured, else what its class mix lets expect.

    Parameters
    ----------
    data : RunData
        The run.
    """
    own = data.personal
    if own.has("accuracy") and own.has("client_id"):
        measured = np.isfinite(own.get("accuracy"))
        last = own.get("round") == own.get("round")[measured].max()
        ids = own.get("client_id")[measured & last].astype(np.int64)
        source = _measured(own, last, measured & last)
        return Spread(ids, own.get("accuracy")[measured & last], source)
    recall, held = data.last_recall, data.holdings
    if held is None or recall is None or held.num_classes != len(recall):
        return None
    served = held.total[:, np.isfinite(recall)].sum(axis=1) > 0
    expected = client_accuracy(held.total, recall)
    return Spread(np.flatnonzero(served), expected, _EXPECTED) if len(expected) else None


def _measured(own: Columns, asked: Marks, measured: Marks) -> str:
    """Say over how many clients and test samples, as far as the run wrote it down."""
    if not own.has("samples"):
        return _MEASURED
    tested, failed = int(measured.sum()), int((asked & ~measured).sum())
    samples = own.get("samples")[measured].sum()
    lost = f"; {plural(failed, 'client')} could not be tested" if failed else ""
    return (
        f"{_MEASURED} {plural(tested, 'client')} with {plural(int(samples), 'test sample')} in all"
        f"{lost}."
    )


def _histogram(known: Spread) -> Figure:
    counts, edges = np.histogram(known.accuracy, bins=_BINS, range=(0.0, 1.0))
    names = [f"{100 * low:.0f}–{100 * (low + 1 / _BINS):.0f}" for low in edges[:-1]]
    chart = Bars(
        Axis("accuracy in %", names=names),
        Axis("clients", "count"),
        [Bar("clients", 1, counts.astype(np.float64))],
    )
    caption = (
        f"How many clients have which accuracy; a tail at the left is left behind. {known.source}"
    )
    return Figure("accuracy-of-clients", "Accuracy of the clients", caption, chart)


def _lowest(known: Spread, held: Holdings | None) -> Figure:
    order = np.argsort(known.accuracy, kind="stable")[:_LOWEST]
    rows = []
    for place in order.tolist():
        client = int(known.clients[place])
        counted = held is not None and client < held.num_clients
        samples = f"{held.sizes[client]:,}" if held is not None and counted else MISSING
        labels = f"{held.labels[client]:,}" if held is not None and counted else MISSING
        called = held.client(client) if held is not None and counted else str(client)
        rows.append((called, percent(float(known.accuracy[place])), samples, labels))
    numbers = table(["client", "accuracy", "samples", "labels"], rows)
    caption = "Few labels or rare classes are what they often have in common."
    return Figure("clients-served-worst", "The clients served worst", caption, numbers)


def _history(data: RunData) -> Figure | None:
    rounds = data.rounds.get("round")
    lines = [
        Line(label, tone, rounds, 100 * data.rounds.get(name))
        for tone, (name, label) in enumerate(_LOCAL, start=1)
        if data.rounds.has(name)
    ]
    if not lines:
        return None
    chart = Lines(Axis("round", "count"), Axis("accuracy", "percent"), lines)
    caption = "A gap that grows means that the gains go to clients that were served well before."
    return Figure("clients-over-rounds", "Clients over the rounds", caption, chart)
