"""Whom compared methods leave behind: accuracy by client, recall by class, and who holds what."""

from collections.abc import Sequence

import numpy as np

from fedlabels.report.blocks import Figure, Section
from fedlabels.report.charts import Axis, Bars, Box, Boxes, Heatmap, Squares
from fedlabels.report.comparison.cells import Levels, show
from fedlabels.report.comparison.folders import Record
from fedlabels.report.comparison.format import seed_text
from fedlabels.report.comparison.runs import Run, Values
from fedlabels.report.comparison.view import View, known_mean, summarized
from fedlabels.report.single.data import holdings_squares

_ENDS = ("10th percentile", "worst client")
_MOST_TEXTS = 20  # classes up to which a heat map writes its values
_MOST_SQUARES = 100_000  # in all settings' pictures together
_MEASURED = "measured on each client's own test samples"
_EXPECTED = "expected accuracy on test samples with the client's class mix"


def clients(shown: View) -> Section | None:
    """Show how the accuracy is spread over the clients.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where no run says anything of its clients.
    """
    known = {label: _accuracy(record) for label, record in shown.records.items()}
    spread = shown.by_setting(lambda row: _boxes(shown, row, known))
    if spread is None:
        return None
    ends = shown.by_setting(lambda row: _lowest(shown, row, known))
    assert ends is not None
    source = _source(shown, known)
    missing = shown.without(lambda record: _accuracy(record) is not None)
    figures = [
        Figure(
            "client-spread",
            "Accuracy by client",
            f"{source} Boxes: quartiles and median over the clients of all seeds; the lines end at"
            f" the worst and the best one.{missing}",
            spread,
        ),
        Figure(
            "client-lowest",
            "The clients served worst",
            f"{source} The 10th percentile is more stable than the single worst client."
            f" {shown.mean('the error bar')}{missing}",
            ends,
        ),
    ]
    lead = "A mean can be high while some clients are not served at all."
    return Section("clients", "Who is left behind", lead, None, figures)


def classes(shown: View) -> Section | None:
    """Show how well each class is known in the end.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where it was not measured.
    """
    made = shown.by_setting(lambda row: _recalls(shown, row))
    if made is None:
        return None
    caption = (
        "Share of a class's test samples that the model finds at the last evaluation, mean over"
        f" the seeds; a low column is a class that is hard for all, a single low cell one that this"
        f" {shown.noun} forgot."
    )
    caption += shown.without(lambda record: record.recall is not None)
    figure = Figure("recall-by-class", "Recall by class", caption, made, wide=True)
    lead = "Which classes the models know, and which they never learned."
    return Section("classes", "Classes", lead, None, [figure])


def data(shown: View) -> Section | None:
    """Show clients x classes of the first seed of the baseline.

    Parameters
    ----------
    shown : View
        The comparison.

    Returns
    -------
    Section or None
        None where no folder says it.
    """
    drawn = {row: run for row in shown.rows if (run := _first(shown, row))}
    clients = max(1, _MOST_SQUARES // max(1, sum(_classes(shown, r) for r in drawn.values())))

    def make(row: Levels) -> Squares | None:
        return _squares(shown, drawn[row], clients) if row in drawn else None

    made = shown.by_setting(make)
    if made is None:
        return None
    seeds = sorted({run.seed for run in drawn.values()})
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seed_text(seeds)}"
    caption = (
        "Each square is one client's samples of one class, its area their number; the strong core"
        f" is the labeled part. Shown is the first seed of {show(shown.found.baseline)}, or of"
        " another where its folder does not say it; of many clients an evenly spaced part."
    )
    title = f"Samples by client and class, {named}"
    figure = Figure("samples-by-client", title, caption, made, wide=True)
    lead = "The federations: how samples and labels are spread over the clients."
    return Section("data", "Who holds what", lead, None, [figure])


def _accuracy(record: Record) -> Values | None:
    """Return each client's accuracy: what was measured, else what its class mix lets expect."""
    found = record.own if record.own is not None else record.expected()
    return found if found is not None and len(found) else None


def _source(shown: View, known: dict[str, Values | None]) -> str:
    """Say where the numbers come from, and for whom, where that is not the same for all."""
    by: dict[str, list[str]] = {_MEASURED: [], _EXPECTED: []}
    for (_, name), cell in shown.cells.items():
        for run in cell.runs.values():
            if known[run.label] is not None:
                measured = shown.records[run.label].own is not None
                by[_MEASURED if measured else _EXPECTED].append(show(name))
    told = {what: list(dict.fromkeys(names)) for what, names in by.items() if names}
    if len(told) == 1:
        (what,) = told
        return f"{what[:1].upper()}{what[1:]}."
    parts = [f"{what} for {', '.join(names)}" for what, names in told.items()]
    return f"Not the same for all: {'; '.join(parts)}."


def _boxes(shown: View, row: Levels, known: dict[str, Values | None]) -> Boxes | None:
    boxes = []
    for name, runs in shown.there(row):
        values = [one for run in runs if (one := known[run.label]) is not None]
        if values:
            ends = np.quantile(100.0 * np.concatenate(values), [0.0, 0.25, 0.5, 0.75, 1.0])
            low, lower, middle, upper, high = ends.tolist()
            spread = (low, lower, middle, upper, high)
            boxes.append(Box(show(name), shown.tone(name), spread, method=show(name)))
    y = Axis("accuracy of a client", "percent", low=0.0, high=100.0)
    return Boxes(y, boxes) if boxes else None


def _lowest(shown: View, row: Levels, known: dict[str, Values | None]) -> Bars | None:
    found = {}
    for name, runs in shown.there(row):
        values = [one for run in runs if (one := known[run.label]) is not None]
        if values:
            ends = [[np.quantile(one, 0.1), one.min()] for one in values]
            found[name] = summarized(100.0 * np.array(ends))
    y = Axis("accuracy of a client", "percent", low=0.0)
    return shown.bars(Axis("client", names=_ENDS), y, found)


def _recalls(shown: View, row: Levels) -> Heatmap | None:
    found: dict[str, list[Values]] = {}
    runs_there: list[Run] = []
    for name, runs in shown.there(row):
        known = [r for run in runs if (r := shown.records[run.label].recall) is not None]
        # runs whose data sets have other classes have no common mean
        if known and len({len(one) for one in known}) == 1:
            found[name] = known
            runs_there += runs
    if not found:
        return None
    number = max(len(known[0]) for known in found.values())
    found = {name: known for name, known in found.items() if len(known[0]) == number}
    values = np.stack([100.0 * known_mean(np.stack(known), axis=0) for known in found.values()])
    written = [[f"{v:.1f}" if np.isfinite(v) else "" for v in line] for line in values.tolist()]
    return Heatmap(
        Axis("class", names=_class_names(runs_there, number)),
        Axis(shown.noun, names=[show(name) for name in found]),
        values,
        Axis("recall", "percent", low=0.0, high=100.0),
        written if number <= _MOST_TEXTS else (),
    )


def _class_names(runs: Sequence[Run], number: int) -> list[str]:
    for run in runs:
        names = run.manifest.get("class_names")
        if isinstance(names, list) and len(names) == number:
            return [str(name) for name in names]
    return [str(index) for index in range(number)]


def _first(shown: View, row: Levels) -> Run | None:
    """Return the first run that says who holds what, of the baseline if it has one."""
    base = shown.found.baseline
    for _, runs in sorted(shown.there(row), key=lambda pair: pair[0] != base):
        for run in runs:
            held = shown.records[run.label].held
            if held is not None and held.num_clients:
                return run
    return None


def _classes(shown: View, run: Run) -> int:
    held = shown.records[run.label].held
    return held.num_classes if held is not None else 0


def _squares(shown: View, run: Run, clients: int) -> Squares:
    held = shown.records[run.label].held
    assert held is not None
    whole = holdings_squares(held, _class_names([run], held.num_classes))
    step = -(-len(whole.clients) // clients)
    return Squares(
        whole.labeled[::step], whole.total[::step], whole.clients[::step], whole.classes, whole.full
    )
