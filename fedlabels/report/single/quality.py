"""How good the global model is beyond its accuracy: by class and domain, and how sure it is."""

import math
from collections.abc import Sequence

import numpy as np

from fedlabels.report.blocks import Cards, Figure, table
from fedlabels.report.charts import Axis, Heatmap, Line, Lines
from fedlabels.report.markup import Markup, el
from fedlabels.report.numbers import decimal, percent
from fedlabels.report.single.source import Column, RunData

FIGURES = (
    ("test_balanced_accuracy", "balanced accuracy"),
    ("test_f1_macro", "F1, macro"),
    ("test_auc", "AUC"),
)
CALIBRATION = "test_ece"
OTHERS = ("test_precision_macro", "test_f1_weighted")
_DOMAIN = (
    ("samples", "test samples"),
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
    ("f1_macro", "F1, macro"),
    ("auc", "AUC"),
    ("ece", "calibration error"),
)
_MOST_WRITTEN = 12  # classes up to which cells and the table below have room for numbers
_MOST_CONFUSIONS = 12
_HALF = 12  # classes up to which half the width is enough


def quality(data: RunData) -> Cards:
    """Show figures over the rounds, the confusion matrix, and confidence against accuracy."""
    yield _figures(data)
    yield _confusion(data)
    yield _calibration(data)
    yield _domains(data)


def _figures(data: RunData) -> Figure | None:
    known = [(name, label) for name, label in FIGURES if data.rounds.has(name)]
    if not known:
        return None
    rounds = data.rounds.get("round")
    lines = [
        Line(label, tone, rounds, 100 * data.rounds.get(name))
        for tone, (name, label) in enumerate(known, start=1)
    ]
    chart = Lines(Axis("round", "count"), Axis("share", "percent"), lines)
    caption = (
        "On the global test set, every class counting the same: mean recall, mean F1, and how well"
        " the probabilities of a class tell it from the others (AUC; 50 % is chance)."
    )
    return Figure("figures-over-rounds", "Balanced figures", caption, chart)


def _confusion(data: RunData) -> Figure | None:
    counts = data.confusion_matrix
    if counts is None:
        return None
    names = class_titles(data, len(counts))
    held = counts.sum(axis=1, keepdims=True)
    shares = np.where(held > 0, 100 * counts / np.maximum(held, 1), math.nan)
    written = len(names) <= _MOST_WRITTEN
    chart = Heatmap(
        Axis("predicted class", names=names),
        Axis("true class", names=names),
        shares,
        Axis("share of the true class", "percent", low=0.0, high=100.0),
        [[_cell(value) for value in row] for row in shares.tolist()] if written else (),
    )
    title = f"Confusion after round {data.confusion.get('round')[0]:,.0f}"
    caption = (
        "Each row is a true class and adds up to 100 %; what is right is on the diagonal, the"
        " samples of a column besides are taken for its class wrongly."
    )
    below = el("details", el("summary", "Numbers of test samples"), _confusion_table(counts, names))
    return Figure("confusion", title, caption, chart, wide=len(names) > _HALF, below=below)


def _cell(share: float) -> str:
    return f"{share:.0f}" if share >= 0.5 else ""


def _confusion_table(counts: Column, names: Sequence[str]) -> Markup:
    """Write all counts, or the most frequent mistakes where they are too many."""
    if len(names) <= _MOST_WRITTEN:
        rows = [
            [name, *(f"{n:,.0f}" for n in row)]
            for name, row in zip(names, counts.tolist(), strict=True)
        ]
        return table(["true \N{RIGHTWARDS ARROW} predicted", *names], rows)
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order]
    lines = [
        [names[t], names[p], f"{wrong[t, p]:,.0f}", percent(wrong[t, p] / counts[t].sum())]
        for t, p in pairs
        if wrong[t, p]
    ]
    return table(["true class", "taken for", "samples", "of the class"], lines, texts=2)


def _calibration(data: RunData) -> Figure | None:
    samples, sums = (data.calibration.get(name) for name in ("samples", "confidence"))
    filled = samples > 0
    if not filled.any():
        return None
    right = data.calibration.get("right")
    confidence, accuracy = (100 * each[filled] / samples[filled] for each in (sums, right))
    ends = np.array([0.0, 100.0])
    chart = Lines(
        Axis("confidence", "percent", low=0.0, high=100.0),
        Axis("accuracy", "percent", low=0.0, high=100.0),
        [Line("model", 1, confidence, accuracy), Line("calibrated", 8, ends, ends)],
    )
    errors = data.rounds.get(CALIBRATION)
    known = errors[np.isfinite(errors)]
    error = f" Expected calibration error: {percent(float(known[-1]))}." if len(known) else ""
    caption = (
        "Test samples in bins of the probability of the predicted class: below the line of a"
        f" calibrated model it is surer than it may be.{error}"
    )
    return Figure("calibration", "Confidence and accuracy", caption, chart)


def _domains(data: RunData) -> Figure | None:
    if not data.domains:
        return None
    head = ["domain", *(label for _, label in _DOMAIN)]
    rows = [
        [row.get("domain", ""), *(_figure(name, row.get(name, "")) for name, _ in _DOMAIN)]
        for row in data.domains
    ]
    title = f"By domain after round {data.domains[0].get('round', '')}"
    caption = "Each figure over the classes of which the domain has test samples."
    return Figure("figures-by-domain", title, caption, table(head, rows), wide=True)


def _figure(name: str, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return decimal(math.nan)
    return f"{value:,.0f}" if name == "samples" else percent(value)


def classes_table(data: RunData, row: int) -> Figure | None:
    """List recall, precision and F1 of each class; None for a run that has only recall.

    Parameters
    ----------
    data : RunData
        The run.
    row : int
        Of ``test_class.csv``.
    """
    figures = [data.of_classes(name, row) for name in ("recall", "precision", "f1")]
    if not np.isfinite(figures[1]).any():
        return None
    names = class_titles(data, len(figures[0]))
    rows = [
        [name, *(percent(value) for value in values)]
        for name, *values in zip(names, *(each.tolist() for each in figures), strict=True)
    ]
    caption = (
        "Recall: share of a class's test samples that are found; precision: share of right ones"
        " among those taken for it; F1: their harmonic mean."
    )
    listed = table(["class", "recall", "precision", "F1"], rows)
    return Figure("figures-by-class", "Figures by class", caption, listed)


def class_titles(data: RunData, classes: int) -> list[str]:
    """Return the names of the classes, their numbers where the run's names do not fit.

    Parameters
    ----------
    data : RunData
        The run.
    classes : int
        How many there are.
    """
    names = data.class_names
    return names if len(names) == classes else [str(c) for c in range(classes)]
