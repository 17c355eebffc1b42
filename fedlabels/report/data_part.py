"""Who holds what, who took part, and how well each class is known in the end."""

import math

import numpy as np

from fedlabels.report.bar_chart import (
    Part,
    bar_legend,
    bucket_width,
    class_bars,
    stacked_bars,
)
from fedlabels.report.blocks import Section, facts, figure, grid, table
from fedlabels.report.holdings import Holdings
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.matrix_chart import (
    MOST_CLIENTS,
    full_square,
    matrix_chart,
    needs_width,
    shown_clients,
)
from fedlabels.report.numbers import count, percent, small_percent
from fedlabels.report.source import RunData

_MOST_ERRORS = 12


def holdings(data: RunData) -> Section | None:
    """Show clients x classes with the labeled part visible.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None when the run folder has no federation.
    """
    held = data.holdings
    if held is None or not held.num_clients:
        return None
    return holdings_section(held, data.class_names)


def holdings_section(held: Holdings, class_names: list[str], *, spread: bool = True) -> Section:
    """Show clients x classes of a federation.

    Parameters
    ----------
    held : Holdings
        Samples by client and class, of at least one client.
    class_names : list of str
        Names of the classes.
    spread : bool
        Whether to begin with the numbers.

    Returns
    -------
    Section
        Spread, picture, sizes.
    """
    chosen = shown_clients(held.num_clients)
    chart = matrix_chart(
        held.labeled[chosen], held.total[chosen], client_ids=chosen, class_names=class_names
    )
    some = ""
    if held.total[chosen].max() > full_square(held.total[chosen]):
        some = " The largest fill their cell."
    if len(chosen) < held.num_clients:
        some += f" Shown are {MOST_CLIENTS} of {held.num_clients:,} clients, evenly spaced."
    card = figure(
        "Samples by client and class",
        el("div", chart, class_="scroll"),
        "Each square is one client's samples of one class, its area their number; the strong core"
        f" is the labeled part.{some}",
        legend=bar_legend(_parts(held, np.arange(0))),
        kind="wide" if needs_width(len(chosen)) else "tall",
    )
    return Section(
        "data",
        "Who holds what",
        "The federation: how samples and labels are spread over the clients.",
        [_spread(held) if spread else None, grid(card, _sizes(held), _by_class(held, class_names))],
    )


def participation(data: RunData) -> Section | None:
    """Show who took part and what went wrong.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None before the first round.
    """
    rounds = data.rounds
    if not rounds.has("sampled"):
        return None
    lost = {name: rounds.total(name) for name in ("empty", "failed", "rejected")}
    pairs = [("sampled a round", f"{np.nanmean(rounds.get('sampled')):.3g}")]
    if data.participation.seen:
        whole = f" of {data.holdings.num_clients:,}" if data.holdings else ""
        pairs.append(("took part at least once", f"{data.participation.seen:,}{whole}"))
    pairs += [(name, count(number)) for name, number in lost.items() if not math.isnan(number)]
    anything = any(number > 0 for number in lost.values())
    lead = "No client failed, and no update was rejected."
    if lost["failed"] > 0 or lost["rejected"] > 0:
        lead = "Some clients failed or had their update rejected; the others carried the round."
    return Section(
        "participation",
        "Participation",
        lead,
        [facts(pairs), grid(_losses(data), _errors(data)) if anything else None],
    )


def classes(data: RunData) -> Section | None:
    """Show the recall of each class at the last evaluation.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None when it was not measured.
    """
    names = [name for name in data.recall.values if name.startswith("recall_")]
    known = [i for i in range(len(data.recall)) if any(_finite(data, n, i) for n in names)]
    if not known:
        return None
    last = known[-1]
    recalls = [float(data.recall.get(name)[last]) for name in names]
    held = data.holdings
    counted = held is not None and held.num_classes == len(names)
    labels = held.labeled.sum(axis=0).tolist() if held and counted else []
    notes = [percent(recall) for recall in recalls]
    if labels:
        notes = [f"{note} · {n:,}" for note, n in zip(notes, labels, strict=True)]
    class_names = data.class_names if len(data.class_names) == len(names) else names
    more = " The number behind it counts the labels of that class in the federation."
    card = figure(
        f"Recall by class after round {data.recall.get('round')[last]:,.0f}",
        class_bars(class_names, recalls, notes),
        "Share of a class's test samples that the model finds; a short bar is a class that the"
        f" federation forgot.{more if labels else ''}",
        kind="wide",
    )
    return Section("classes", "Classes", _class_lead(class_names, recalls), grid(card))


def _finite(data: RunData, name: str, row: int) -> bool:
    return bool(np.isfinite(data.recall.get(name)[row]))


def _class_lead(names: list[str], recalls: list[float]) -> str:
    worst, best = int(np.nanargmin(recalls)), int(np.nanargmax(recalls))
    return (
        f"Best known: {names[best]} ({percent(recalls[best])}); least known: {names[worst]}"
        f" ({percent(recalls[worst])})."
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


def _parts(held: Holdings, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Part]:
    labels = held.labels[order].astype(np.float64)
    return [
        Part("labeled", "1", labels),
        Part("unlabeled", "soft", held.sizes[order].astype(np.float64) - labels),
    ]


def _sizes(held: Holdings) -> Markup:
    parts = _parts(held, np.argsort(-held.sizes, kind="stable"))
    many = bucket_width(held.num_clients) > 1
    chart = stacked_bars(
        parts,
        first=1,
        noun="rank",
        x_label="clients, largest first",
        y_label="samples",
        describe="Samples of each client, largest first, with the labeled part.",
        write=lambda value: f"{value:,.4g}",
    )
    caption = "All clients sorted by size: the steeper the fall, the more uneven the shares." + (
        " Each bar is the mean of neighbors." if many else ""
    )
    return figure("Samples of each client", chart, caption, legend=bar_legend(parts))


def _by_class(held: Holdings, names: list[str]) -> Markup:
    labels = held.labeled.sum(axis=0).astype(np.float64)
    rest = held.total.sum(axis=0).astype(np.float64) - labels
    parts = [Part("labeled", "1", labels), Part("unlabeled", "soft", rest)]
    chart = stacked_bars(
        parts,
        first=0,
        noun="class",
        names=names,
        x_label="class, by number",
        y_label="samples",
        describe="Samples of each class over all clients, with the labeled part.",
        write=lambda value: f"{value:,.4g}",
    )
    caption = "All clients together: bars of one height are balanced classes, a slope a long tail."
    return figure("Samples of each class", chart, caption, legend=bar_legend(parts))


def _losses(data: RunData) -> Markup:
    kinds = [("empty", "soft"), ("failed", "2"), ("rejected", "4")]
    parts = [Part(name, tone, data.rounds.get(name)) for name, tone in kinds]
    width = bucket_width(len(data.rounds))
    chart = stacked_bars(
        parts,
        first=int(data.rounds.get("round")[0]),
        noun="round",
        x_label="round",
        y_label="clients per round" if width == 1 else f"clients per {width} rounds",
        add=True,
        describe="Clients of each round whose result was left out, by reason.",
        write=lambda value: f"{value:.3g}",
    )
    caption = (
        "Clients whose result is not in the model: empty had nothing to train on, failed raised an"
        " error, rejected sent numbers that are not finite."
    )
    return figure("Results left out", chart, caption, legend=bar_legend(parts))


def _errors(data: RunData) -> Content:
    lines = data.participation.errors
    if not lines:
        return None
    rows = [
        (status, error or "no message", f"{number:,}", index, client)
        for status, error, number, index, client in lines[:_MOST_ERRORS]
    ]
    shown = table(["status", "error", "times", "first in round", "client"], rows, texts=2)
    rest = len(lines) - len(rows)
    more = f" {rest:,} more kinds are in clients.csv." if rest > 0 else ""
    return figure("Errors", shown, f"The most frequent errors and where each came first.{more}")
