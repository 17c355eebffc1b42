"""The HTML report of one run: one file, no network, made from the run folder alone."""

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fedlabels import __version__
from fedlabels.report.blocks import Section, facts, table
from fedlabels.report.cost import cost
from fedlabels.report.data_part import classes, holdings, holdings_section, participation
from fedlabels.report.decomposition import decomposition
from fedlabels.report.headline import headline, run_title
from fedlabels.report.holdings import Holdings
from fedlabels.report.learning import learning, other_metrics, pseudo_labels
from fedlabels.report.markup import Markup, el
from fedlabels.report.provenance import reproduce, settings
from fedlabels.report.source import RunData, read_run

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder.

    Parameters
    ----------
    folder : Path
        A run folder; the run may still be going.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    DataError
        If the folder holds no run, or a file in it is damaged.
    """
    path = folder / REPORT
    temporary = folder / f".tmp-{REPORT}-{os.getpid()}"
    text = render(read_run(folder))
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def render(data: RunData) -> str:
    """Make the report's HTML.

    Parameters
    ----------
    data : RunData
        The run.

    Returns
    -------
    str
        A whole document; the same run gives the same text.
    """
    made = [
        learning(data),
        pseudo_labels(data),
        decomposition(data),
        classes(data),
        holdings(data),
        participation(data),
        cost(data),
        other_metrics(data),
        reproduce(data),
        settings(data),
    ]
    sections = [section for section in made if section]
    links = [el("a", section.title, href=f"#{section.anchor}") for section in sections]
    body = el(
        "body",
        el(
            "main",
            headline(data),
            el("nav", links, aria_label="Parts of the report"),
            [section.render() for section in sections],
        ),
        *_foot("Made from the run folder alone"),
    )
    return _document(run_title(data), body)


def write_preview(
    path: Path,
    title: str,
    subtitle: str,
    held: Holdings,
    class_names: list[str],
    *,
    pairs: Sequence[tuple[str, str]],
    notes: Sequence[str],
    rows: Sequence[tuple[str, str]],
    domains: Sequence[tuple[str, str, str]] = (),
) -> Path:
    """Write the page that shows a federation before anything runs.

    Parameters
    ----------
    path : Path
        The file; replaced if it exists.
    title, subtitle : str
        What is shown, and the settings in one line.
    held : Holdings
        Samples by client and class.
    class_names : list of str
        Names of the classes.
    pairs : sequence of (str, str)
        Numbers with their names.
    notes : sequence of str
        What is odd, a sentence each.
    rows : sequence of (str, str)
        Settings and values.
    domains : sequence of (str, str, str)
        Name, samples and clients of every domain, if there are any.

    Returns
    -------
    Path
        The page.
    """
    lead = "Nothing odd was found." if not notes else "Read this before you run it."
    sections = [
        holdings_section(held, class_names, spread=False),
        Section("odd", "What is suspicious", lead, [el("ul", [el("li", n) for n in notes])]),
        *_domains(domains),
        Section(
            "settings", "Settings", "How it is made.", [table(["setting", "value"], rows, texts=2)]
        ),
    ]
    body = el(
        "body",
        el(
            "main",
            el(
                "header",
                el("p", "Federation", class_="eyebrow"),
                el("h1", title),
                el("p", subtitle, class_="story"),
                facts(pairs),
                class_="top",
            ),
            [section.render() for section in sections],
        ),
        *_foot("Made before any run"),
    )
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        temporary.write_text(_document(title, body), encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _domains(rows: Sequence[tuple[str, str, str]]) -> list[Section]:
    if not rows:
        return []
    lead = "Samples of one domain look alike; another domain shows the same classes differently."
    return [Section("domains", "Domains", lead, [table(["domain", "samples", "clients"], rows)])]


def _document(title: str, body: Markup) -> str:
    return f"<!doctype html>\n{el('html', _head(title), body, lang='en')}\n"


def _foot(made: str) -> tuple[Markup, Markup, Markup]:
    return (
        el("footer", f"{made} by fedlabels {__version__}."),
        el("div", id="tip", role="tooltip", hidden=True),
        el("script", _asset("tips.js")),
    )


def _head(title: str) -> Markup:
    # The page may load nothing, and run no script but its own: whatever a run folder holds.
    script = base64.b64encode(hashlib.sha256(_asset("tips.js").encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · fedlabels"),
        el("style", _asset("style.css")),
    )


def _asset(name: str) -> Markup:
    return Markup(files("fedlabels.report").joinpath(name).read_text(encoding="utf-8"))
