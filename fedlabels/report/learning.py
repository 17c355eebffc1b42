"""What was learned: accuracy and loss over the rounds, pseudo-labels, every further metric."""

from collections.abc import Callable, Sequence

from fedlabels.report.blocks import Section, figure, grid
from fedlabels.report.decomposition import COLUMNS
from fedlabels.report.line_chart import Series, legend, line_chart
from fedlabels.report.markup import Markup, el
from fedlabels.report.numbers import decimal, percent
from fedlabels.report.source import RunData

ELSEWHERE = frozenset(
    {
        *("round", "sampled", "ok", "empty", "failed", "rejected", "weight"),
        *("test_loss", "test_accuracy"),
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


def learning(data: RunData) -> Section:
    """Show the learning curves.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section
        Test accuracy and the losses, as far as they were measured.
    """
    cards = [
        _card(
            data,
            "Test accuracy",
            [("test_accuracy", "test accuracy")],
            "Share of the global test set that the model classifies correctly; higher is better.",
        ),
        _card(
            data,
            "Loss",
            LOSSES,
            "On the global test set, and on the samples that the clients trained on; a test loss"
            " that rises while the others fall means overfitting.",
        ),
    ]
    shown = [card for card in cards if card]
    nothing = el("p", "Nothing was measured yet.", class_="note")
    return Section(
        "learning",
        "Learning",
        "How the global model got better from round to round.",
        grid(*shown) if shown else nothing,
    )


def pseudo_labels(data: RunData) -> Section | None:
    """Show how good the pseudo-labels were.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None when the method writes no pseudo-labels.
    """
    cards = [
        _card(
            data,
            "Accuracy of the pseudo-labels",
            QUALITY,
            "Share of the pseudo-labels used for training that are right; the hidden truth is"
            " known in simulation only, and no client sees it.",
        ),
        _card(
            data,
            "How they were chosen",
            SHARES,
            "Pass rate: samples that pass the threshold; local share: those labeled by the local"
            " model; agreement: both models say the same. A high pass rate with a low accuracy"
            " means a threshold that is too low.",
        ),
    ]
    shown = [card for card in cards if card]
    if not shown:
        return None
    return Section(
        "pseudo-labels",
        "Pseudo-labels",
        "Labels that the models wrote themselves, scored against the truth.",
        grid(*shown),
    )


def other_metrics(data: RunData) -> Section | None:
    """Show every metric that no other section shows.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    Section or None
        None when there is none.
    """
    known = {*ELSEWHERE, *COLUMNS, *(name for name, _ in (*QUALITY, *SHARES, *LOSSES))}
    names = [
        name
        for name in data.rounds.names
        if name not in known and not name.startswith(("bytes", "seconds"))
    ]
    if not names:
        return None
    caption = "Mean over the clients of a round, weighted as the method says."
    cards = [_card(data, name, [(name, name)], caption) for name in names]
    return Section(
        "metrics",
        "Further metrics",
        "What else the method reported.",
        grid(*cards),
    )


def _card(data: RunData, title: str, columns: Columns, caption: str) -> Markup | None:
    known = [(name, label) for name, label in columns if data.rounds.has(name)]
    if not known:
        return None
    shares = all(_is_share(name) for name, _ in known)
    factor = 100.0 if shares else 1.0
    rounds = data.rounds.get("round")
    tones = {name: tone for tone, (name, _) in enumerate(columns, start=1)}
    series = [
        Series(label, tones[name], rounds, factor * data.rounds.get(name)) for name, label in known
    ]
    write = _write_percent if shares else decimal
    chart = line_chart(
        series,
        y_label=_axis_name(title, known, shares),
        describe=_describe(title, series, write),
        write=write,
        y_range=(0.0, 100.0) if columns is SHARES else None,
    )
    return figure(title, chart, caption, legend=legend(series, write))


def _axis_name(title: str, known: Columns, shares: bool) -> str:
    if shares:
        return "percent"
    return "cross-entropy, nats" if any("loss" in name for name, _ in known) else title


def _describe(title: str, series: Sequence[Series], write: Callable[[float], str]) -> str:
    ends = []
    for one in series:
        _, y = one.points()
        ends.append(f"{one.label} from {write(float(y[0]))} to {write(float(y[-1]))}")
    return f"{title} over the rounds: {'; '.join(ends)}."


def _is_share(name: str) -> bool:
    return "accuracy" in name or name in {key for key, _ in SHARES}


def _write_percent(value: float) -> str:
    return percent(value / 100)
