"""The file where Flower looks up how a server is reached."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlabels.deploy.address import Address, require_loopback
from fedlabels.deploy.keys import read_certificate
from fedlabels.errors import ConfigError
from fedlabels.machine.files import replacing

FILE = "config.toml"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def check_name(name: str) -> str:
    """Return the name of a connection.

    Raises
    ------
    ConfigError
        If Flower could not find it.
    """
    if not _BARE.fullmatch(name) or name == "default":
        raise ConfigError(
            f"a connection's name has letters, digits, '_' and '-', and is not 'default', "
            f"got {name!r}"
        )
    return name


def write_connection(
    name: str,
    address: Address,
    *,
    ca: Path | None = None,
    insecure: bool = False,
    home: Path | None = None,
) -> Path:
    """Add a connection to Flower's configuration, or replace the one of that name.

    Everything else in the file stays as it is. A new file has the connection as its default.

    Parameters
    ----------
    name : str
        For ``flwr run APP NAME``; letters, digits, ``_`` and ``-``.
    address : Address
        Of the SuperLink.
    ca : Path or None
        The certificate of the authority; None trusts those that the system trusts.
    insecure : bool
        Without TLS; only on this machine.
    home : Path or None
        Flower's folder; None takes ``$FLWR_HOME`` or ``~/.flwr``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the file cannot be read or written.
    """
    check_name(name)
    entry: dict[str, Any] = {"address": str(address)}
    if insecure:
        if ca is not None:
            raise ConfigError("give either --ca or --insecure")
        require_loopback(address)
        entry["insecure"] = True
    elif ca is not None:
        entry["root-certificates"] = str(_certificate(ca))
    path = ((home or flower_home()) / FILE).expanduser()
    try:
        path = path.resolve()  # a link stays a link
        before = path.read_text("utf-8") if path.exists() else f'[superlink]\ndefault = "{name}"\n'
        _put(path, _changed(path, before, name, entry))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be changed ({error})") from error
    return path


def flower_home() -> Path:
    """Return Flower's folder, ``$FLWR_HOME`` or ``~/.flwr``."""
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")


def _certificate(ca: Path) -> Path:
    path = ca.expanduser().absolute()  # Flower wants an absolute path
    read_certificate(path)
    return path


def _changed(path: Path, before: str, name: str, entry: Mapping[str, Any]) -> str:
    try:
        values = tomllib.loads(before)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML ({error}): correct it or move it away") from error
    links = values.setdefault("superlink", {})
    if not isinstance(links, dict):
        raise ConfigError(f"{path}: superlink must be a table: correct it or move it away")
    links[name] = dict(entry)
    # strings of JSON are strings of TOML, too
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    kept = _without(before, name).rstrip("\n")
    text = "\n".join([*([kept, ""] if kept else []), f"[superlink.{name}]", *lines]) + "\n"
    try:
        if tomllib.loads(text) == values:
            return text
    except tomllib.TOMLDecodeError:
        pass
    import tomli_w  # comes with Flower

    return tomli_w.dumps(values)  # an unusual notation: values are kept, comments are not


def _without(text: str, name: str) -> str:
    """Leave out a connection's table and those below it; comments elsewhere stay."""
    key = rf"""superlink\s*\.\s*(?:{name}|"{name}"|'{name}')"""
    start = re.compile(rf"\s*\[\s*{key}\s*(?:\.[^\]]*)?\]\s*(?:#.*)?")
    kept: list[str] = []
    comments: list[str] = []  # above the next table, whose they may be
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = start.fullmatch(line) is not None
            kept += comments
            comments = []
        if not inside:
            kept.append(line)
        elif not line.strip() or line.lstrip().startswith("#"):
            comments.append(line)
        else:
            comments = []
    return "\n".join([*kept, *comments])


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())
        if path.exists():
            os.chmod(file.name, path.stat().st_mode & 0o777)
