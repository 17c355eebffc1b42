"""Where a server is reached: a host and a port."""

import ipaddress
import re
from dataclasses import dataclass

from fedlabels.errors import ConfigError

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


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


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
