"""The report of one run: its outline, and the file ``report.html``."""

from pathlib import Path

from fedlabels.machine.files import write_atomic
from fedlabels.report.blocks import Part, Section, sections_of
from fedlabels.report.page import document, navigation
from fedlabels.report.single.clients import clients, clients_lead
from fedlabels.report.single.cost import cost
from fedlabels.report.single.data import (
    HOLDINGS,
    SUSPICIONS,
    classes,
    classes_lead,
    holdings,
    participation,
    participation_lead,
    suspicious,
)
from fedlabels.report.single.decomposition import decomposition
from fedlabels.report.single.headline import headline, run_title
from fedlabels.report.single.learning import learning, other_metrics, pseudo_labels
from fedlabels.report.single.provenance import reproduce, settings
from fedlabels.report.single.quality import quality
from fedlabels.report.single.source import RunData, read_json, read_run

REPORT = "report.html"
_COURSE = ("status", "started", "finished")  # what a manifest says when a run begins or ends
_OUTLINE = (
    Part("learning", "Learning", "How the global model got better from round to round.", learning),
    Part(
        "quality",
        "Beyond accuracy",
        "Which classes are taken for which, and how sure the global model is.",
        quality,
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
        "Where the loss of the global model comes from.",
        decomposition,
    ),
    Part("classes", "Classes", classes_lead, classes),
    Part("clients", "Who is left behind", clients_lead, clients),
    Part(*SUSPICIONS, "Read the figures with this in mind.", suspicious),
    Part(*HOLDINGS, holdings),
    Part("participation", "Participation", participation_lead, participation),
    Part("cost", "Cost", "What went over the wire, and where the time went.", cost),
    Part("metrics", "Further metrics", "What else the method reported.", other_metrics),
    Part(
        "reproduce",
        "Reproduce",
        "The same command, versions and federation hash give the same numbers on the same kind of"
        " machine, whatever the number of workers.",
        reproduce,
    ),
    Part("settings", "Settings", "Everything in config.yaml.", settings),
)
"""What a report may show, in its order: a section is a line here and a function of the run."""


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
    return sections_of(_OUTLINE, data)
