"""``fedlabels datasets``: what there is, and where it lies on this machine."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fedlabels.command.output import answer, details, one_of, table, text
from fedlabels.data.registry import READERS, reader_of
from fedlabels.data.roots import MissingDataError, locate
from fedlabels.errors import FedLabelsError
from fedlabels.settings.docstrings import first_words
from fedlabels.settings.presets import Preset, presets

USAGE = """usage: fedlabels datasets [DATASET ...] [--json]

Which data sets there are, where each was found on this machine ($FEDLABELS_DATA and
/usr/share/datasets are searched), or how to get it. Nothing is read or fetched.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return answer(arguments, USAGE, _facts, _shown)


def _facts(names: Sequence[str]) -> dict[str, Any]:
    known = presets("dataset")
    return {"datasets": [dataset(known[name]) for name in one_of("dataset", known, names)]}


def _shown(facts: Mapping[str, Any]) -> str:
    datasets = facts["datasets"]
    if len(datasets) < len(presets("dataset")):
        return "\n".join(details(entry) for entry in datasets)
    columns = ("name", "samples", "licence", "clients", "domains")
    rows = [[*(text(entry[key]) for key in columns), _place(entry)] for entry in datasets]
    return table((*columns, "where"), rows)


def _place(entry: Mapping[str, Any]) -> str:
    return str(entry["found"]) if entry["found"] else f"not here; to get it: {entry['get']}"


def dataset(preset: Preset) -> dict[str, Any]:
    """Return what is known of a data set.

    Parameters
    ----------
    preset : Preset
        Its file.

    Returns
    -------
    dict
        ``name``, ``what``; ``samples`` (to train + to test), ``licence``, ``clients`` and
        ``domains`` (natural ones), None where the file does not say; ``found``: file or folder, or
        the package that it comes with, None where it is not here; ``get``: what to do then.
    """
    name = str(preset.content.get("name", preset.name))
    facts = {
        key.lower(): preset.facts.get(key) for key in ("Samples", "Licence", "Clients", "Domains")
    }
    found, remedy = _found(name, preset.facts.get("Installed"))
    what = first_words(reader_of(name)) if name in READERS else preset.what
    return {
        "name": preset.name, "what": what, **facts, "found": found, "get": remedy,
        "note": preset.what or None,
    }  # fmt: skip


def _found(name: str, installed: str | None) -> tuple[str | None, str | None]:
    """Return where a data set is, else how to get it."""
    if installed:
        return installed, None
    entries = list(inspect.signature(reader_of(name)).parameters.values())[1:]
    lacking = [entry.name for entry in entries if entry.default is entry.empty]
    if lacking:
        return None, f"give dataset.options.{lacking[0]}=..."
    try:
        return str(locate(reader_of(name))), None
    except MissingDataError as error:
        return None, error.remedy
    except FedLabelsError as error:
        return None, str(error)
