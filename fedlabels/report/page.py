"""A page: one file that loads nothing; and the page of a federation before anything runs."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from fedlabels import __version__
from fedlabels.machine.files import write_atomic
from fedlabels.report.blocks import Section, facts, table
from fedlabels.report.holdings import Holdings
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.single.data import HOLDINGS, SUSPICIONS, holdings_figures, suspicions

_SCRIPTS = ("echarts/echarts.js", "charts.js")
_THEMES = ("system", "light", "dark")


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
        Section(*HOLDINGS, figures=list(holdings_figures(held, class_names))),
        Section(*SUSPICIONS, lead, suspicions(notes)),
        *_domains(domains),
        Section(
            "settings", "Settings", "How it is made.", [table(["setting", "value"], rows, texts=2)]
        ),
    ]
    head = el(
        "header",
        el("p", "Federation", class_="eyebrow"),
        el("h1", title),
        el("p", subtitle, class_="story"),
        facts(pairs),
        class_="top",
    )
    parts = [section.render() for section in sections]
    return write_atomic(path, document(title, "Made before any run", head, parts))


def _domains(rows: Sequence[tuple[str, str, str]]) -> list[Section]:
    if not rows:
        return []
    lead = "Samples of one domain look alike; another domain shows the same classes differently."
    return [Section("domains", "Domains", lead, [table(["domain", "samples", "clients"], rows)])]


def document(title: str, origin: str, *parts: Content) -> str:
    """Make a whole page.

    Parameters
    ----------
    title : str
        What the browser's tab says.
    origin : str
        What it was made from, for the footer.
    *parts : Content
        What is on it.

    Returns
    -------
    str
        One file that loads nothing; the same parts give the same text.
    """
    theme = el(
        "label",
        "Theme",
        el("select", [el("option", name, value=name) for name in _THEMES], id="theme"),
        class_="theme",
    )
    foot = el("footer", el("div", f"{origin} by fedlabels {__version__}.", theme, class_="bar"))
    scripts = [el("script", _asset(name)) for name in _SCRIPTS]
    body = el("body", el("main", parts), foot, scripts)
    return f"<!doctype html>\n{el('html', _head(title), body, lang='en')}\n"


def navigation(sections: Sequence[Section]) -> Markup:
    """List the parts of a page with links.

    Parameters
    ----------
    sections : sequence of Section
        The parts.
    """
    links = [el("a", section.title, href=f"#{section.anchor}") for section in sections]
    return el("nav", links, aria_label="Parts of the report")


def _head(title: str) -> Markup:
    # The page may load nothing, and run no script but its own: whatever a run folder holds.
    # Pictures from data: are how it turns a chart into a PNG.
    hashes = " ".join(f"'sha256-{_hash(name)}'" for name in _SCRIPTS)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes}"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · fedlabels"),
        el("style", _asset("style.css")),
    )


def _hash(name: str) -> str:
    return base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()


@cache
def _asset(name: str) -> Markup:
    return Markup(files("fedlabels.report").joinpath("assets", name).read_text(encoding="utf-8"))
