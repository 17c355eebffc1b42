"""The parts of a comparison's page: what a reader must know, charts, tables, how to repeat it."""

import shlex
from collections.abc import Mapping
from typing import Any

from fedlabels.report.blocks import Figure, Section, facts, table
from fedlabels.report.comparison.cells import METHOD, show
from fedlabels.report.comparison.clients import classes, clients, data
from fedlabels.report.comparison.compare import Comparison
from fedlabels.report.comparison.cost import cost
from fedlabels.report.comparison.html import table_html
from fedlabels.report.comparison.notes import fixed, notes, summary
from fedlabels.report.comparison.overview import overview
from fedlabels.report.comparison.rounds import curves, decomposition, pseudo_labels
from fedlabels.report.comparison.runs import Run
from fedlabels.report.comparison.tables import tables
from fedlabels.report.comparison.view import View, readable, view
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.numbers import count, plural
from fedlabels.report.single.provenance import hide

# Where a run's files lay, and whom it told: nothing that another machine should repeat.
_PLACES = ("dataset.root=", "run_dir=", "resume=", "tracker", "hydra.", "sweep.")
_UNKNOWN = "not known"


def headline(found: Comparison) -> Markup:
    """Make the top of the page.

    Parameters
    ----------
    found : Comparison
        What was found.

    Returns
    -------
    Markup
        A ``header`` element.
    """
    words = el(
        "div",
        el("p", "Comparison", class_="eyebrow"),
        el("h1", title(found)),
        el("p", summary(found), class_="story"),
    )
    return el("header", words, facts(_numbers(found)), class_="top")


def title(found: Comparison) -> str:
    """Return what the page is called.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    return f"Comparison of {plural(len(found.runs), 'run')}"


def sections(found: Comparison) -> list[Section]:
    """Make the parts of the page.

    Parameters
    ----------
    found : Comparison
        What was found; its runs' folders are read again.

    Returns
    -------
    list of Section
        Those that have something to show, in the order of the page.
    """
    shown = view(found)
    made = [
        _notes(found),
        overview(shown),
        curves(shown),
        clients(shown),
        classes(shown),
        pseudo_labels(shown),
        decomposition(shown),
        cost(shown),
        data(shown),
        _tables(found),
        _methods(shown),
        _reproduce(found),
    ]
    return [section for section in made if section]


def _numbers(found: Comparison) -> list[tuple[str, str]]:
    first = found.design.keys[0]
    compared = "methods" if first == METHOD else f"values of {first}"
    pairs = [
        ("runs", count(len(found.runs))),
        (compared, count(len(found.contenders))),
        ("settings", count(len(found.rows))),
        ("seeds", count(len({run.seed for run in found.runs}))),
        ("metric", readable(found.question.metric)),
    ]
    ranks = found.ranking.mean
    if len(ranks) > 1:
        least = min(ranks.values())
        best = ", ".join(show(name) for name, rank in ranks.items() if rank == least)
        pairs.append(("best mean rank", f"{best} ({least:.2f})"))
    return [*pairs, ("runs left out", count(len(found.left_out)))]


def _notes(found: Comparison) -> Section | None:
    said = notes(found)
    left = [(one.label, one.reason) for one in found.left_out]
    if not said and not left:
        return None
    content: list[Content] = []
    if said:
        content.append(el("ul", [el("li", text) for text in said]))
    if left:
        content += [el("h3", "Runs left out"), table(["run", "reason"], left, texts=2)]
    lead = "What limits this comparison."
    return Section("notes", "Read this first", lead, el("div", content, class_="card"))


def _tables(found: Comparison) -> Section:
    figures = [
        Figure(f"table-{one.anchor}", one.title, one.lead, table_html(one), wide=True)
        for one in tables(found)
        if not one.anchor.startswith("pivot")  # the heat maps show them
    ]
    lead = "The numbers behind the charts, for all settings at once."
    return Section("tables", "Tables", lead, None, figures)


def _methods(shown: View) -> Section:
    found = shown.found
    by_method = found.design.keys[0] == METHOD
    figures = [
        Figure(
            f"method-{index}",
            show(name),
            "Those of its settings that are not the same in all runs.",
            table(["setting", "value"], [(k, hide(show(v))) for k, v in own.items()], texts=2),
            method=show(name) if by_method else "",
        )
        for index, (name, own) in enumerate(found.design.methods.items(), start=1)
        if own
    ]
    core = [text.partition("=")[::2] for text in fixed(found, core=True)]
    every = [(key, hide(show(text))) for key, text in found.design.fixed.items()]
    whole = el(
        "details",
        el("summary", f"Show all {plural(len(every), 'setting')} that all runs share"),
        table(["setting", "value"], every, texts=2),
    )
    shared = Figure(
        "held-fixed",
        "Held fixed",
        "What is the same in all runs, so nothing is shown of how the results depend on it.",
        table(["setting", "value"], core, texts=2),
        wide=True,
        below=whole,
    )
    lead = "What the methods are, and what they share."
    return Section("methods", "Settings", lead, None, [*figures, shared])


def _reproduce(found: Comparison) -> Section:
    commands = [(run.label, command) for run in found.runs if (command := _command(run))]
    content: list[Content] = []
    if commands:
        lines = [(label, el("code", command)) for label, command in commands]
        content.append(
            el(
                "details",
                el("summary", f"Show the commands of {plural(len(commands), 'run')}"),
                table(["run", "command"], lines, texts=2),
            )
        )
    if len(commands) < len(found.runs):
        missing = plural(len(found.runs) - len(commands), "run")
        content.append(el("p", f"The manifest of {missing} names no overrides.", class_="note"))
    rows = _environment(found.runs)
    content.append(table(["made with", "value"], rows, texts=2) if rows else None)
    lead = (
        "The same command, versions and federation hash give the same numbers on the same kind of"
        " machine, whatever the number of workers."
    )
    return Section("reproduce", "Reproduce", lead, el("div", content, class_="card"))


def _command(run: Run) -> str:
    """Return the command that repeats a run; empty where its manifest does not say it."""
    given = run.manifest.get("overrides")
    if not isinstance(given, list):
        return ""
    kept = [str(text) for text in given if not str(text).lstrip("+~").startswith(_PLACES)]
    return hide(shlex.join(["python", "run_sim.py", *kept]))


def _environment(runs: list[Run]) -> list[tuple[str, str]]:
    """List versions and hardware with the number of runs where they are not all the same."""
    names: dict[tuple[str, str], None] = {}
    for run in runs:
        for group in ("package", "hardware"):
            names |= dict.fromkeys((group, str(key)) for key in _part(run.manifest, group))
    rows = []
    for group, key in sorted(names, key=lambda name: (name[0] != "package", name[1])):
        found: dict[str, int] = {}
        for run in runs:
            value = _part(run.manifest, group).get(key)
            text = _UNKNOWN if value is None else str(value)
            found[text] = found.get(text, 0) + 1
        several = len(found) > 1
        told = [f"{text} ({plural(n, 'run')})" if several else text for text, n in found.items()]
        rows.append((key, ", ".join(told)))
    return rows


def _part(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = manifest.get(key)
    return value if isinstance(value, Mapping) else {}
