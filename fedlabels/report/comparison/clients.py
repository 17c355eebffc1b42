"""Whom compared methods leave behind: accuracy by client, recall by class, and who holds what."""

from collections.abc import Iterable

import numpy as np

from fedlabels.report.blocks import Cards
from fedlabels.report.charts import Axis, Box, Boxes, Heatmap, Squares
from fedlabels.report.comparison.cells import Levels, show
from fedlabels.report.comparison.folders import Record
from fedlabels.report.comparison.format import seed_text
from fedlabels.report.comparison.runs import Run, Values
from fedlabels.report.comparison.view import View, known_mean
from fedlabels.report.holdings import Holdings
from fedlabels.report.single.data import holdings_squares

_MOST_TEXTS = 20  # classes up to which a heat map writes its values
_MOST_SQUARES = 100_000  # in all settings' pictures together
_MEASURED = "measured on each client's own test samples"
_EXPECTED = "expected accuracy on test samples with the client's class mix"


def clients(view: View) -> Cards:
    """Show how the accuracy is spread over the clients."""
    source = _source(view)
    missing = view.without(lambda record: _accuracy(record) is not None)
    yield view.figure(
        "client-spread",
        "Accuracy by client",
        f"{source} Boxes: quartiles and median over the clients of all seeds; the lines end at"
        f" the worst and the best one.{missing}",
        lambda row: _boxes(view, row),
    )
    ends = Axis("client", names=("10th percentile", "worst client"))
    accuracy = Axis("accuracy of a client", "percent", low=0.0)
    yield view.figure(
        "client-lowest",
        "The clients served worst",
        f"{source} The 10th percentile is more stable than the single worst client."
        f" {view.mean('the error bar')}{missing}",
        lambda row: view.mean_bars(row, ends, accuracy, _lowest),
    )


def classes(view: View) -> Cards:
    """Show how well each class is known in the end."""
    caption = (
        "Share of a class's test samples that the model finds at the last evaluation, mean over"
        f" the seeds; a low column is a class that is hard for all, a single low cell one that this"
        f" {view.noun} forgot."
    )
    caption += view.without(lambda record: record.recall is not None)
    yield view.figure(
        "recall-by-class", "Recall by class", caption, lambda row: _recalls(view, row), wide=True
    )


def data(view: View) -> Cards:
    """Show clients x classes of the first seed of the baseline."""
    drawn = {row: one for row in view.rows if (one := _first(view, row))}
    whole = sum(held.num_classes for _, held in drawn.values())
    most = max(1, _MOST_SQUARES // max(1, whole))
    seeds = sorted({run.seed for run, _ in drawn.values()})
    seed = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seed_text(seeds)}"
    yield view.figure(
        "samples-by-client",
        f"Samples by client and class, {seed}",
        "Each square is one client's samples of one class, its area their number; the strong core"
        f" is the labeled part. Shown is the first seed of {show(view.comparison.baseline)}, or of"
        " another where its folder does not say it; of many clients an evenly spaced part.",
        lambda row: _squares(*drawn[row], most) if row in drawn else None,
        wide=True,
    )


def _accuracy(record: Record) -> Values | None:
    """Return each client's accuracy: what was measured, else what its class mix lets expect."""
    accuracy = record.own if record.own is not None else record.expected()
    return accuracy if accuracy is not None and len(accuracy) else None


def _source(view: View) -> str:
    """Say where the numbers come from, and for whom, where that is not the same for all."""
    contenders: dict[str, list[str]] = {_MEASURED: [], _EXPECTED: []}
    for (_, name), cell in view.cells.items():
        for run in cell.runs.values():
            record = view.records[run.label]
            if _accuracy(record) is not None:
                contenders[_EXPECTED if record.own is None else _MEASURED].append(show(name))
    sources = {source: list(dict.fromkeys(names)) for source, names in contenders.items() if names}
    if len(sources) == 1:
        (source,) = sources
        return f"{source[:1].upper()}{source[1:]}."
    parts = [f"{source} for {', '.join(names)}" for source, names in sources.items()]
    return f"Not the same for all: {'; '.join(parts)}."


def _boxes(view: View, row: Levels) -> Boxes | None:
    boxes = []
    for name, values in view.readings(row, _accuracy).items():
        ends = np.quantile(100.0 * np.concatenate(values), [0.0, 0.25, 0.5, 0.75, 1.0])
        low, lower, middle, upper, high = ends.tolist()
        spread = (low, lower, middle, upper, high)
        boxes.append(Box(show(name), view.tone(name), spread, method=show(name)))
    y = Axis("accuracy of a client", "percent", low=0.0, high=100.0)
    return Boxes(y, boxes) if boxes else None


def _lowest(record: Record) -> list[float] | None:
    accuracy = _accuracy(record)
    if accuracy is None:
        return None
    return [100.0 * float(np.quantile(accuracy, 0.1)), 100.0 * float(accuracy.min())]


def _recalls(view: View, row: Levels) -> Heatmap | None:
    readings = view.readings(row, lambda record: record.recall)
    # runs whose data sets have other classes have no common mean
    readings = {name: v for name, v in readings.items() if len({len(one) for one in v}) == 1}
    if not readings:
        return None
    number = max(len(recalls[0]) for recalls in readings.values())
    records = [record for name in readings for record in view.records_at(row)[name]]
    recalls = {name: v for name, v in readings.items() if len(v[0]) == number}
    values = np.stack([100.0 * known_mean(np.stack(one), axis=0) for one in recalls.values()])
    texts = [[f"{v:.1f}" if np.isfinite(v) else "" for v in line] for line in values.tolist()]
    return Heatmap(
        Axis("class", names=_class_names((record.run for record in records), number)),
        Axis(view.noun, names=[show(name) for name in recalls]),
        values,
        Axis("recall", "percent", low=0.0, high=100.0),
        texts if number <= _MOST_TEXTS else (),
    )


def _class_names(runs: Iterable[Run], number: int) -> list[str]:
    for run in runs:
        names = run.manifest.get("class_names")
        if isinstance(names, list) and len(names) == number:
            return [str(name) for name in names]
    return [str(index) for index in range(number)]


def _first(view: View, row: Levels) -> tuple[Run, Holdings] | None:
    """Return the first run that says who holds what, of the baseline if it has one."""
    base = view.comparison.baseline
    for _, records in sorted(view.records_at(row).items(), key=lambda pair: pair[0] != base):
        for record in records:
            if record.held is not None and record.held.num_clients:
                return record.run, record.held
    return None


def _squares(run: Run, held: Holdings, most: int) -> Squares:
    whole = holdings_squares(held, _class_names([run], held.num_classes))
    step = -(-len(whole.clients) // most)
    return Squares(
        whole.labeled[::step], whole.total[::step], whole.clients[::step], whole.classes, whole.full
    )
