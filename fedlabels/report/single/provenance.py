"""Where the run came from: how to repeat it, its versions and hashes, all its settings."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from fedlabels.report.blocks import Cards
from fedlabels.report.markup import Content, Markup, el
from fedlabels.report.single.source import RunData

_TOLD_ABOVE = frozenset({"command", "name", "status", "class_names", "notes"})
# What stands before the last @ of an address: a name, a password, a token. A password may hold @
# and slashes; without one nothing after the first slash is meant.
_LOGIN = re.compile(r"(?<=://)(?:([^/\s:@\"']*):[^\s\"']*|[^/\s@\"']+(?:@[^/\s@\"']+)*)@")
_WORDS = (
    r"[\w.-]*(?:token|passwo?r?d|passphrase|pwd|secret|signature|credentials?|auth|authorization"
    r"|api[_-]?key|sess(?:ion)?[_-]?id|cookie)"
)
_SCHEME = r"(?:bearer|basic|digest|negotiate|token)\s+"  # of a header; it stays
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s,;&"'}]+)"""
# In an address any parameter whose name ends in key or sig is one, too.
_PARAMETER = re.compile(rf"([?&;#](?:{_WORDS}[\w.-]*|[\w.-]*key|sig)=)[^&;#\s\"']+", re.IGNORECASE)
_SETTING = re.compile(
    rf"((?:^|[\s\"'+,;{{])-{{0,2}}{_WORDS}[\"']?\s*[=:]\s*(?:[\"']?{_SCHEME})?)"
    rf"(?!//){_VALUE}",
    re.IGNORECASE,
)
# What a shell needs quotes for goes on to the end of them.
_QUOTED = re.compile(rf"(([\"'])-{{0,2}}{_WORDS}=(?!//))(?:(?!\2).)+", re.IGNORECASE)
# --password VALUE, but not a switch that another option follows.
_OPTION = re.compile(rf"((?:^|[\s\"'])--?{_WORDS}\s+)(?!-){_VALUE}", re.IGNORECASE)
_SECRET = re.compile(rf"(?:^|[._])(?:{_WORDS})$", re.IGNORECASE)


def reproduce(data: RunData) -> Cards:
    """Say how to get the same numbers again: the command, then the manifest."""
    command = data.manifest.get("command")
    text = shlex.join(map(str, command)) if isinstance(command, list) else command
    start: Content = el("p", "The manifest names no command.", class_="note")
    if text:
        start = el("pre", el("code", hide(str(text))), title="click to select", tabindex=0)
    rows = [
        el("tr", el("th", key, scope="row"), el("td", el("code", value)))
        for key, value in _lines(data.manifest, "")
        if key.split(".", 1)[0] not in _TOLD_ABOVE
    ]
    listed = el("div", el("table", el("tbody", rows)), class_="scroll") if rows else None
    yield el("div", start, listed, class_="card")


def settings(data: RunData) -> Cards:
    """List every setting of the run, in a table that opens on demand."""
    if isinstance(data.settings, str):
        yield el("p", data.settings, class_="note")
        return
    plain = {k: v for k, v in data.settings.items() if not isinstance(v, Mapping)}
    groups: list[tuple[str, Mapping[str, Any]]] = [("run", plain)] if plain else []
    groups += [(str(k), v) for k, v in data.settings.items() if isinstance(v, Mapping)]
    number = sum(len(list(_lines(values, ""))) for _, values in groups)
    inner = el("table", [_group(name, values) for name, values in groups])
    yield el(
        "details",
        el("summary", f"Show all {number} settings"),
        el("div", inner, class_="scroll"),
        class_="card",
    )


def _group(name: str, values: Mapping[str, Any]) -> Markup:
    head = el("tr", el("th", name, colspan=2, scope="rowgroup", class_="group"))
    rows = [
        el("tr", el("th", key, scope="row"), el("td", el("code", value)))
        for key, value in _lines(values, "")
    ]
    return el("tbody", head, rows)


def _lines(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{prefix}{key}.")
        else:
            secret = value is not None and _SECRET.search(str(key))
            yield f"{prefix}{key}", "***" if secret else hide(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def hide(text: str) -> str:
    """Hide passwords, tokens and keys: reports are passed on.

    Parameters
    ----------
    text : str
        Any text, such as a command or an address.

    Examples
    --------
    >>> hide("https://me:p@ss@host/x?token=abc&run=1 tracker.api_key=abc")
    'https://me:***@host/x?token=***&run=1 tracker.api_key=***'
    """
    text = _LOGIN.sub(lambda m: "***@" if m[1] is None else f"{m[1]}:***@", text)
    for pattern in (_PARAMETER, _QUOTED, _SETTING, _OPTION):
        text = pattern.sub(r"\1***", text)
    return text
