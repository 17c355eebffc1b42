"""The HTML report of one run: one file, no network, made from the run folder alone."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from fedlabels import __version__
from fedlabels.machine.files import write_atomic
from fedlabels.report.blocks import Section, facts, table
from fedlabels.report.charts import TONES
from fedlabels.report.comparison import page as comparison
from fedlabels.report.comparison.cells import order, short_names, show
from fedlabels.report.comparison.compare import Comparison
from fedlabels.report.holdings import Holdings
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.single.clients import clients
from fedlabels.report.single.cost import cost
from fedlabels.report.single.data import (
    classes,
    holdings,
    holdings_section,
    participation,
    suspicion_section,
    suspicious,
)
from fedlabels.report.single.decomposition import decomposition
from fedlabels.report.single.headline import headline, run_title
from fedlabels.report.single.learning import learning, other_metrics, pseudo_labels
from fedlabels.report.single.provenance import reproduce, settings
from fedlabels.report.single.source import RunData, read_json, read_run

REPORT = "report.html"
_COURSE = ("status", "started", "finished")  # what a manifest says when a run begins or ends
_SCRIPTS = ("echarts/echarts.js", "charts.js")
_THEMES = ("system", "light", "dark")


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder.

    Parameters
    ----------
    folder : Path
        A run folder; the run may still be going. One that ends meanwhile is read once more: what is
        written is never older than its end.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    DataError
        If the folder holds no run, or a file in it is damaged.
    """
    while True:
        data = read_run(folder)
        text = render(data)
        now = read_json(folder / "manifest.json")
        if all(now.get(key) == data.manifest.get(key) for key in _COURSE):
            return write_atomic(folder / REPORT, text)


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
    parts = run_sections(data)
    return document(
        run_title(data),
        "Made from the run folder alone",
        headline(data),
        navigation(parts),
        [section.render() for section in parts],
    )


def run_sections(data: RunData) -> list[Section]:
    """Make the parts of a run's report that have something to say.

    Parameters
    ----------
    data : RunData
        The run.
    """
    made = [
        learning(data),
        pseudo_labels(data),
        decomposition(data),
        classes(data),
        clients(data),
        suspicious(data),
        holdings(data),
        participation(data),
        cost(data),
        other_metrics(data),
        reproduce(data),
        settings(data),
    ]
    return [section for section in made if section]


def render_comparison(found: Comparison) -> str:
    """Make the HTML of a comparison.

    Parameters
    ----------
    found : Comparison
        What was found; its runs' folders are read again.

    Returns
    -------
    str
        A whole document; the same runs give the same text.
    """
    parts = comparison.sections(found)
    return document(
        comparison.title(found),
        "Made from the run folders alone",
        comparison.headline(found),
        navigation(parts),
        filters(found),
        [section.render() for section in parts],
    )


def filters(found: Comparison) -> Markup:
    """Make the switches of what a comparison's page shows.

    Parameters
    ----------
    found : Comparison
        What was found.

    Returns
    -------
    Markup
        A ``form``: a box for every contender, a list of levels for every setting. The first
        setting that has runs is chosen.
    """
    first, *keys = found.design.keys
    names = short_names(found.design.keys)
    boxes = [
        el(
            "label",
            el("input", type="checkbox", name="method", value=show(name), checked=True),
            el("span", show(name)),
            class_=f"tone-{1 + place % TONES}",
        )
        for place, name in enumerate(found.contenders)
    ]
    lists = [
        el(
            "label",
            el("span", names[key], class_="key"),
            el("select", [_level(text, found, place) for text in _levels(found, place)], name=key),
        )
        for place, key in enumerate(keys)
    ]
    return el(
        "form",
        el("fieldset", el("legend", names[first]), boxes),
        el("fieldset", el("legend", "setting"), lists) if lists else None,
        el("button", "Reset", type="reset"),
        id="filters",
        aria_label="What is shown",
    )


def _levels(found: Comparison, place: int) -> list[str]:
    return sorted({row[place] for row in found.rows}, key=order)


def _level(text: str, found: Comparison, place: int) -> Markup:
    return el("option", show(text), value=text, selected=text == found.rows[0][place])


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
        suspicion_section(notes, lead),
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
    shown = [section.render() for section in sections]
    return write_atomic(path, document(title, "Made before any run", head, shown))


def _domains(rows: Sequence[tuple[str, str, str]]) -> list[Section]:
    if not rows:
        return []
    lead = "Samples of one domain look alike; another domain shows the same classes differently."
    return [Section("domains", "Domains", lead, [table(["domain", "samples", "clients"], rows)])]


def document(title: str, made: str, *parts: Content) -> str:
    """Make a whole page.

    Parameters
    ----------
    title : str
        What the browser's tab says.
    made : str
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
    foot = el("footer", el("div", f"{made} by fedlabels {__version__}.", theme, class_="bar"))
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
