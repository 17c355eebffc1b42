"""How a server is reached: its address, and the file where Flower looks it up."""

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlabels.errors import ConfigError

FILE = "config.toml"
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Address:
    """Where a server is reached.

    Parameters
    ----------
    host : str
        Name, IPv4 or IPv6 address without brackets.
    port : int
        In [1, 65535].
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether it never leaves this machine."""
        address = _ip(self.host)
        return self.host == "localhost" if address is None else address.is_loopback


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT``.

    Parameters
    ----------
    text : str
        Such as ``fl.example.org:8000``, ``10.0.0.1:8000`` or ``[::1]:8000``; no ``https://``.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"an address is HOST:PORT with a port in [1, 65535], got {text!r}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(
            "an address is HOST:PORT without https://, and an IPv6 host is in brackets, got "
            f"{text!r}"
        )
    return Address(check_host(host), int(port))


def check_host(host: str) -> str:
    """Return a host's name or IP address in its usual form.

    Raises
    ------
    ConfigError
        If it is neither, or one that cannot be connected to.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = _ip(bare)
    if address is not None:
        if address.is_unspecified:
            raise ConfigError(f"{host} is where a server listens; give where devices reach it")
        return str(address)
    named = len(bare) <= 253 and all(_LABEL.fullmatch(label) for label in bare.split("."))
    if not named or bare.replace(".", "").isdigit():
        raise ConfigError(f"a host is a name or an IP address, without a port, got {host!r}")
    return bare.lower()


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


def require_loopback(address: Address) -> None:
    """Refuse to send models and updates unencrypted over a network.

    Raises
    ------
    ConfigError
        If the address is not of this machine.
    """
    if not address.loopback:
        raise ConfigError(
            f"--insecure is for trials on one machine (localhost, 127.0.0.1), not for {address}; "
            "make certificates: python -m fedlabels.deploy keys --help"
        )


# ---- Flower's connection file


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
    from fedlabels.deploy.keys import read_certificate

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
