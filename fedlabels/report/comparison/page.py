"""The page of a comparison: its outline, the top, the switches, how to repeat the runs."""

import shlex

from fedlabels.program import RUN
from fedlabels.report.blocks import Cards, Figure, Part, Section, facts, sections_of, table
from fedlabels.report.charts import TONES
from fedlabels.report.comparison.cells import METHOD, show
from fedlabels.report.comparison.clients import classes, clients, data
from fedlabels.report.comparison.compare import Comparison
from fedlabels.report.comparison.cost import cost
from fedlabels.report.comparison.html import table_html
from fedlabels.report.comparison.notes import fixed, notes, summary
from fedlabels.report.comparison.overview import overview, overview_lead
from fedlabels.report.comparison.rounds import curves, decomposition, pseudo_labels
from fedlabels.report.comparison.runs import Run
from fedlabels.report.comparison.tables import tables
from fedlabels.report.comparison.view import View, readable
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.numbers import count, plural
from fedlabels.report.page import document, navigation
from fedlabels.report.single.provenance import hide

# Where a run's files lay, and whom it told: nothing that another machine should repeat.
_PLACES = ("dataset.root=", "run_dir=", "resume=", "tracker", "hydra.", "sweep.")
_UNKNOWN = "not known"


def render_comparison(comparison: Comparison) -> str:
    """Make the HTML of a comparison.

    Parameters
    ----------
    comparison : Comparison
        What was compared; its runs' folders are read again.

    Returns
    -------
    str
        A whole document; the same runs give the same text.
    """
    parts = sections(comparison)
    return document(
        _title(comparison),
        "Made from the run folders alone",
        headline(comparison),
        navigation(parts),
        _filters(comparison),
        [section.render() for section in parts],
    )


def sections(comparison: Comparison) -> list[Section]:
    """Make the parts of the page that have something to show.

    Parameters
    ----------
    comparison : Comparison
        What was compared; its runs' folders are read again.
    """
    return sections_of(_OUTLINE, View.of(comparison))


def headline(comparison: Comparison) -> Markup:
    """Make the top of the page.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    Markup
        A ``header`` element.
    """
    words = el(
        "div",
        el("p", "Comparison", class_="eyebrow"),
        el("h1", _title(comparison)),
        el("p", summary(comparison), class_="story"),
    )
    return el("header", words, facts(_numbers(comparison)), class_="top")


def _title(comparison: Comparison) -> str:
    return f"Comparison of {plural(len(comparison.runs), 'run')}"


def _filters(comparison: Comparison) -> Markup:
    """Make the switches: a box for every contender, a list of levels for every setting."""
    design = comparison.design
    boxes = [
        el(
            "label",
            el("input", type="checkbox", name="method", value=show(name), checked=True),
            el("span", show(name)),
            class_=f"tone-{1 + place % TONES}",
        )
        for place, name in enumerate(comparison.contenders)
    ]
    lists = [
        el(
            "label",
            el("span", design.names[key], class_="key"),
            el(
                "select",
                [
                    # of the first setting that has runs
                    el("option", show(text), value=text, selected=text == comparison.rows[0][place])
                    for text in comparison.levels(place)
                ],
                name=key,
            ),
        )
        for place, key in enumerate(design.settings)
    ]
    return el(
        "form",
        el("fieldset", el("legend", design.noun), boxes),
        el("fieldset", el("legend", "setting"), lists) if lists else None,
        el("button", "Reset", type="reset"),
        id="filters",
        aria_label="What is shown",
    )


def _numbers(comparison: Comparison) -> list[tuple[str, str]]:
    first = comparison.design.compared
    compared = "methods" if first == METHOD else f"values of {first}"
    pairs = [
        ("runs", count(len(comparison.runs))),
        (compared, count(len(comparison.contenders))),
        ("settings", count(len(comparison.rows))),
        ("seeds", count(len({run.seed for run in comparison.runs}))),
        ("metric", readable(comparison.question.metric)),
    ]
    ranks = comparison.ranking.mean
    if len(ranks) > 1:
        least = min(ranks.values())
        best = ", ".join(show(name) for name, rank in ranks.items() if rank == least)
        pairs.append(("best mean rank", f"{best} ({least:.2f})"))
    return [*pairs, ("runs left out", count(len(comparison.left_out)))]


def _notes(view: View) -> Cards:
    limits = notes(view.comparison)
    left = [(one.label, one.reason) for one in view.comparison.left_out]
    content: list[Content] = []
    if limits:
        content.append(el("ul", [el("li", text) for text in limits]))
    if left:
        content += [el("h3", "Runs left out"), table(["run", "reason"], left, texts=2)]
    yield el("div", content, class_="card") if content else None


def _tables(view: View) -> Cards:
    for one in tables(view.comparison):
        if not one.anchor.startswith("pivot"):  # the heat maps show them
            yield Figure(f"table-{one.anchor}", one.title, one.lead, table_html(one), wide=True)


def _methods(view: View) -> Cards:
    comparison = view.comparison
    by_method = comparison.design.compared == METHOD
    for index, (name, own) in enumerate(comparison.design.methods.items(), start=1):
        if own:
            yield Figure(
                f"method-{index}",
                show(name),
                "Those of its settings that are not the same in all runs.",
                table(["setting", "value"], [(k, hide(show(v))) for k, v in own.items()], texts=2),
                method=show(name) if by_method else "",
            )
    core = [text.partition("=")[::2] for text in fixed(comparison, core=True)]
    every = [(key, hide(show(text))) for key, text in comparison.design.fixed.items()]
    yield Figure(
        "held-fixed",
        "Held fixed",
        "What is the same in all runs, so nothing is shown of how the results depend on it.",
        table(["setting", "value"], core, texts=2),
        wide=True,
        below=el(
            "details",
            el("summary", f"Show all {plural(len(every), 'setting')} that all runs share"),
            table(["setting", "value"], every, texts=2),
        ),
    )


def _reproduce(view: View) -> Cards:
    runs = view.comparison.runs
    commands = [(run.label, el("code", command)) for run in runs if (command := _command(run))]
    content: list[Content] = []
    if commands:
        content.append(
            el(
                "details",
                el("summary", f"Show the commands of {plural(len(commands), 'run')}"),
                table(["run", "command"], commands, texts=2),
            )
        )
    if len(commands) < len(runs):
        missing = plural(len(runs) - len(commands), "run")
        content.append(el("p", f"The manifest of {missing} names no overrides.", class_="note"))
    rows = _environment(runs)
    content.append(table(["made with", "value"], rows, texts=2) if rows else None)
    yield el("div", content, class_="card")


def _command(run: Run) -> str:
    """Return the command that repeats a run; empty where its manifest does not say it."""
    overrides = run.manifest.get("overrides")
    if not isinstance(overrides, list):
        return ""
    repeated = [str(text) for text in overrides if not str(text).lstrip("+~").startswith(_PLACES)]
    return hide(shlex.join([*RUN, *repeated]))


def _environment(runs: list[Run]) -> list[tuple[str, str]]:
    """List versions and hardware with the number of runs where they are not all the same."""
    names: dict[tuple[str, str], None] = {}
    for run in runs:
        for group in ("package", "hardware"):
            names |= dict.fromkeys((group, str(key)) for key in run.facts(group))
    rows = []
    for group, key in sorted(names, key=lambda name: (name[0] != "package", name[1])):
        numbers: dict[str, int] = {}
        for run in runs:
            value = run.facts(group).get(key)
            text = _UNKNOWN if value is None else str(value)
            numbers[text] = numbers.get(text, 0) + 1
        several = len(numbers) > 1
        texts = [f"{v} ({plural(n, 'run')})" if several else v for v, n in numbers.items()]
        rows.append((key, ", ".join(texts)))
    return rows


_OUTLINE = (
    Part("notes", "Read this first", "What limits this comparison.", _notes),
    Part("overview", "Overview", overview_lead, overview),
    Part(
        "curves",
        "Learning curves",
        "How the models got better, round by round and byte by byte.",
        curves,
    ),
    Part(
        "clients",
        "Who is left behind",
        "A mean can be high while some clients are not served at all.",
        clients,
    ),
    Part(
        "classes",
        "Classes",
        "Which classes the models know, and which they never learned.",
        classes,
    ),
    Part(
        "pseudo-labels",
        "Pseudo-labels",
        "Labels that the models wrote themselves, scored against the truth.",
        pseudo_labels,
    ),
    Part(
        "decomposition",
        "Loss decomposition",
        "Where the loss of the global models comes from.",
        decomposition,
    ),
    Part("cost", "Cost", "What went over the wire, and how long it took.", cost),
    Part(
        "data",
        "Who holds what",
        "The federations: how samples and labels are spread over the clients.",
        data,
    ),
    Part("tables", "Tables", "The numbers behind the charts, for all settings at once.", _tables),
    Part("methods", "Settings", "What the methods are, and what they share.", _methods),
    Part(
        "reproduce",
        "Reproduce",
        "The same command, versions and federation hash give the same numbers on the same kind of"
        " machine, whatever the number of workers.",
        _reproduce,
    ),
)
"""What the page may show, in its order: a section is a line here and a function of the view."""
