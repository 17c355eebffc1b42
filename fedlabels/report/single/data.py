"""Who holds what, who took part, and how well each class is known in the end."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fedlabels.report.blocks import Cards, Figure, facts, table
from fedlabels.report.charts import SOFT, Axis, Bar, Bars, Heatmap, Squares
from fedlabels.report.holdings import Holdings
from fedlabels.report.markup import Markup, el
from fedlabels.report.numbers import count, percent, small_percent
from fedlabels.report.single.quality import classes_table
from fedlabels.report.single.source import Column, RunData
from fedlabels.report.thinning import (
    MOST_CLIENTS,
    bucket,
    bucket_names,
    bucket_width,
    full_square,
    shown_clients,
)

HOLDINGS = (
    "data",
    "Who holds what",
    "The federation: how samples and labels are spread over the clients.",
)
SUSPICIONS = ("odd", "What is suspicious")
_FEW = 14  # clients up to which half the width is enough
_MOST_ROUNDS = 40  # columns of the recall over the rounds
_MOST_ERRORS = 12


def holdings(data: RunData) -> Cards:
    """Show clients x classes with the labeled part visible, of a federation that the run has."""
    held = data.holdings
    if held is not None and held.num_clients:
        yield _spread(held)
        yield from holdings_figures(held, data.class_names)


def holdings_figures(held: Holdings, class_names: list[str]) -> Iterator[Figure]:
    """Show clients x classes of a federation: the picture, sizes of clients and of classes.

    Parameters
    ----------
    held : Holdings
        Samples by client and class, of at least one client.
    class_names : list of str
        Names of the classes.
    """
    yield _squares(held, class_names)
    yield _sizes(held)
    yield _by_class(held, class_names)
    if held.names:
        yield _names(held)


def holdings_squares(held: Holdings, class_names: list[str]) -> Squares:
    """Return the picture of clients x classes.

    Parameters
    ----------
    held : Holdings
        Samples by client and class, of at least one client.
    class_names : list of str
        Names of the classes.
    """
    drawn = shown_clients(held.num_clients)
    total = held.total[drawn]
    names = [held.names[c] if held.names else str(c) for c in drawn.tolist()]
    return Squares(held.labeled[drawn], total, names, class_names, full_square(total))


def _squares(held: Holdings, class_names: list[str]) -> Figure:
    chart = holdings_squares(held, class_names)
    some = " The largest fill their cell." if chart.total.max() > chart.full else ""
    if len(chart.clients) < held.num_clients:
        some += f" Shown are {MOST_CLIENTS} of {held.num_clients:,} clients, evenly spaced."
    caption = (
        "Each square is one client's samples of one class, its area their number; the strong core"
        f" is the labeled part.{some}"
    )
    title = "Samples by client and class"
    return Figure("samples-by-client", title, caption, chart, wide=len(chart.clients) > _FEW)


def suspicious(data: RunData) -> Cards:
    """Show what is odd about the data, as the run said when it began."""
    notes = data.manifest.get("notes")
    if isinstance(notes, list) and notes:
        yield suspicions([str(note) for note in notes])


def suspicions(notes: Sequence[str]) -> Markup:
    """List what is odd about a federation.

    Parameters
    ----------
    notes : sequence of str
        A sentence each.
    """
    return el("ul", [el("li", note) for note in notes])


def participation(data: RunData) -> Cards:
    """Show who took part and what went wrong."""
    rounds = data.rounds
    if not rounds.has("sampled"):
        return
    lost = _lost(data)
    pairs = [("sampled a round", f"{np.nanmean(rounds.get('sampled')):.3g}")]
    if data.participation.seen:
        whole = f" of {data.holdings.num_clients:,}" if data.holdings else ""
        pairs.append(("took part at least once", f"{data.participation.seen:,}{whole}"))
    pairs += [(name, count(number)) for name, number in lost.items() if not math.isnan(number)]
    yield facts(pairs)
    if any(number > 0 for number in lost.values()):
        yield _losses(data)
        yield _errors(data)


def participation_lead(data: RunData) -> str:
    """Say whether a client failed."""
    lost = _lost(data)
    if lost["failed"] > 0 or lost["rejected"] > 0:
        return "Some clients failed or had their update rejected; the others carried the round."
    return "No client failed, and no update was rejected."


def _lost(data: RunData) -> dict[str, float]:
    return {name: data.rounds.total(name) for name in ("empty", "failed", "rejected")}


def classes(data: RunData) -> Cards:
    """Show the recall of each class at the last evaluation."""
    known = data.recall_rows
    if known:
        yield _recalls(data, known[-1])
        yield classes_table(data, known[-1])
    if len(known) > 1:
        yield _recall_history(data, known)


def classes_lead(data: RunData) -> str:
    """Say which classes are known best and least at the last evaluation."""
    names, recalls = _recall_classes(data), data.recalls(data.recall_rows[-1]).tolist()
    worst, best = int(np.nanargmin(recalls)), int(np.nanargmax(recalls))
    return (
        f"Best known: {names[best]} ({percent(recalls[best])}); least known: {names[worst]}"
        f" ({percent(recalls[worst])})."
    )


def _recall_classes(data: RunData) -> list[str]:
    names = data.recall_names
    return data.class_names if len(data.class_names) == len(names) else names


def _recalls(data: RunData, last: int) -> Figure:
    names, held = _recall_classes(data), data.holdings
    counted = held is not None and held.num_classes == len(names)
    labels = held.labeled.sum(axis=0).tolist() if held and counted else []
    titles = [f"{n} · {k:,}" for n, k in zip(names, labels, strict=True)] if labels else names
    more = " The number behind a name counts the labels of that class in the federation."
    chart = Bars(
        Axis("class", names=titles),
        Axis("recall", "percent", low=0.0, high=100.0),
        [Bar("recall", 1, 100 * data.recalls(last))],
    )
    caption = (
        "Share of a class's test samples that the model finds; a short bar is a class that the"
        f" federation forgot.{more if labels else ''}"
    )
    title = f"Recall by class after round {data.recall.get('round')[last]:,.0f}"
    return Figure("recall-by-class", title, caption, chart, wide=len(names) > 20)


def _recall_history(data: RunData, known: list[int]) -> Figure:
    names = _recall_classes(data)
    places = np.linspace(0, len(known) - 1, min(len(known), _MOST_ROUNDS)).round().astype(int)
    rows = np.array(known)[places]
    values = [100 * data.recall.get(name)[rows] for name in data.recall_names]
    rounds = [f"{value:.0f}" for value in data.recall.get("round")[rows]]
    chart = Heatmap(
        Axis("round", "count", rounds),
        Axis("class", names=names),
        np.array(values),
        Axis("recall", "percent", low=0.0, high=100.0),
    )
    caption = (
        "A row that fades is a class that was known and is lost again; rows that stay faint were"
        " never learned."
    )
    return Figure(
        "recall-over-rounds",
        "Recall by class over the rounds",
        caption,
        chart,
        wide=len(names) > 20,
    )


def _spread(held: Holdings) -> Markup:
    sizes, labels = held.sizes, held.labels
    spread = f"{sizes.min():,} / {np.median(sizes):,.0f} / {sizes.max():,}"
    without = int((labels == 0).sum())
    known = f"{labels.min():,} / {np.median(labels):,.0f} / {labels.max():,}"
    share = small_percent(labels.sum() / sizes.sum() if sizes.sum() else math.nan)
    effective = held.effective_classes()
    unknown = int(held.unknown.sum())
    return facts(
        [
            ("samples a client, min / median / max", spread),
            ("labels a client, min / median / max", known),
            ("labeled share", share),
            ("clients without labels", f"{without:,}"),
            ("effective classes a client, median", f"{effective:.1f} of {held.num_classes}"),
            *([("samples of unknown class", f"{unknown:,}")] if unknown else []),
        ]
    )


def _bars(labels: Column, rest: Column) -> list[Bar]:
    return [Bar("labeled", 1, labels), Bar("unlabeled", SOFT, rest)]


def _sizes(held: Holdings) -> Figure:
    order = np.argsort(-held.sizes, kind="stable")
    labels = held.labels[order].astype(np.float64)
    rest = held.sizes[order].astype(np.float64) - labels
    chart = Bars(
        Axis("rank, largest first", "count", bucket_names(1, held.num_clients)),
        Axis("samples", "count"),
        _bars(bucket(labels), bucket(rest)),
    )
    caption = "All clients sorted by size: the steeper the fall, the more uneven the shares." + (
        " Each bar is the mean of neighbors." if bucket_width(held.num_clients) > 1 else ""
    )
    return Figure("samples-of-clients", "Samples of each client", caption, chart)


def _names(held: Holdings) -> Figure:
    rows = [
        (str(client), held.names[client], f"{held.sizes[client]:,}", f"{held.labels[client]:,}")
        for client in shown_clients(held.num_clients).tolist()
    ]
    caption = "What the data set or the file calls the clients; every table has their numbers."
    numbers = table(["client", "name", "samples", "labels"], rows, texts=2)
    return Figure("names-of-clients", "Names of the clients", caption, numbers)


def _by_class(held: Holdings, names: list[str]) -> Figure:
    labels = held.labeled.sum(axis=0).astype(np.float64)
    rest = held.total.sum(axis=0).astype(np.float64) - labels
    chart = Bars(Axis("class", names=names), Axis("samples", "count"), _bars(labels, rest))
    caption = "All clients together: bars of one height are balanced classes, a slope a long tail."
    return Figure("samples-of-classes", "Samples of each class", caption, chart)


def _losses(data: RunData) -> Figure:
    kinds = [("empty", SOFT), ("failed", 2), ("rejected", 4)]
    rounds, width = len(data.rounds), bucket_width(len(data.rounds))
    bars = [Bar(name, tone, bucket(data.rounds.get(name), add=True)) for name, tone in kinds]
    chart = Bars(
        Axis("round", "count", bucket_names(int(data.rounds.get("round")[0]), rounds)),
        Axis("clients per round" if width == 1 else f"clients per {width} rounds", "count"),
        bars,
    )
    caption = (
        "Clients whose result is not in the model: empty had nothing to train on, failed raised an"
        " error, rejected sent numbers that are not finite."
    )
    return Figure("results-left-out", "Results left out", caption, chart)


def _errors(data: RunData) -> Figure | None:
    lines = data.participation.errors
    if not lines:
        return None
    rows = [
        (status, error or "no message", f"{number:,}", index, client)
        for status, error, number, index, client in lines[:_MOST_ERRORS]
    ]
    errors = table(["status", "error", "times", "first in round", "client"], rows, texts=2)
    rest = len(lines) - len(rows)
    more = f" {rest:,} more kinds are in clients.csv." if rest > 0 else ""
    caption = f"The most frequent errors and where each came first.{more}"
    return Figure("errors", "Errors", caption, errors)
