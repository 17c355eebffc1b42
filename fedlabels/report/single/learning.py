"""What was learned: accuracy and loss over the rounds, pseudo-labels, every further metric."""

from collections.abc import Sequence

from fedlabels.report.blocks import Cards, Figure, anchor
from fedlabels.report.charts import Axis, Line, Lines, Unit
from fedlabels.report.markup import el
from fedlabels.report.single.decomposition import COLUMNS
from fedlabels.report.single.quality import CALIBRATION, FIGURES, OTHERS
from fedlabels.report.single.source import RunData

ELSEWHERE = frozenset(
    {
        *("round", "sampled", "ok", "empty", "failed", "rejected", "weight"),
        *("test_loss", "test_accuracy", CALIBRATION, *OTHERS, *(name for name, _ in FIGURES)),
        *("local_accuracy", "local_accuracy_p10", "personal_accuracy", "personal_accuracy_p10"),
    }
)
QUALITY = (
    ("pseudo_accuracy", "selected"),
    ("pseudo_accuracy_local", "local model"),
    ("pseudo_accuracy_global", "global model"),
)
SHARES = (
    ("pass_rate", "pass rate"),
    ("local_share", "local share"),
    ("agreement", "agreement"),
)
LOSSES = (
    ("test_loss", "test"),
    ("loss_labeled", "training, labeled"),
    ("loss_unlabeled", "training, unlabeled"),
)

Columns = Sequence[tuple[str, str]]


def learning(data: RunData) -> Cards:
    """Show test accuracy and the losses, as far as they were measured."""
    accuracy = _card(
        data,
        "Test accuracy",
        [("test_accuracy", "test accuracy")],
        "Share of the global test set that the model classifies correctly; higher is better.",
    )
    losses = _card(
        data,
        "Loss",
        LOSSES,
        "On the global test set, and on the samples that the clients trained on; a test loss"
        " that rises while the others fall means overfitting.",
    )
    if accuracy is None and losses is None:
        yield el("p", "Nothing was measured yet.", class_="note")
    yield accuracy
    yield losses


def pseudo_labels(data: RunData) -> Cards:
    """Show how good the pseudo-labels were."""
    yield _card(
        data,
        "Accuracy of the pseudo-labels",
        QUALITY,
        "Share of the pseudo-labels used for training that are right; the hidden truth is"
        " known in simulation only, and no client sees it.",
    )
    yield _card(
        data,
        "How they were chosen",
        SHARES,
        "Pass rate: samples that pass the threshold; local share: those labeled by the local"
        " model; agreement: both models say the same. A high pass rate with a low accuracy"
        " means a threshold that is too low.",
    )


def other_metrics(data: RunData) -> Cards:
    """Show every metric that no other section shows."""
    known = {*ELSEWHERE, *COLUMNS, *(name for name, _ in (*QUALITY, *SHARES, *LOSSES))}
    caption = "Mean over the clients of a round, weighted as the method says."
    for name in data.rounds.names:
        if name not in known and not name.startswith(("bytes", "seconds")):
            yield _card(data, name, [(name, name)], caption)


def _card(data: RunData, title: str, columns: Columns, caption: str) -> Figure | None:
    known = [(name, label) for name, label in columns if data.rounds.has(name)]
    if not known:
        return None
    shares = all(_is_share(name) for name, _ in known)
    unit = _unit(known, shares)
    factor = 100.0 if shares else 1.0
    rounds = data.rounds.get("round")
    tones = {name: tone for tone, (name, _) in enumerate(columns, start=1)}
    lines = [
        Line(label, tones[name], rounds, factor * data.rounds.get(name)) for name, label in known
    ]
    ends = (0.0, 100.0) if columns is SHARES else (None, None)
    name = {"percent": "share", "nats": "cross-entropy"}.get(unit, title)
    chart = Lines(Axis("round", "count"), Axis(name, unit, low=ends[0], high=ends[1]), lines)
    return Figure(anchor(title), title, caption, chart)


def _unit(known: Columns, shares: bool) -> Unit:
    if shares:
        return "percent"
    return "nats" if any("loss" in name for name, _ in known) else "number"


def _is_share(name: str) -> bool:
    return "accuracy" in name or name in {key for key, _ in SHARES}
