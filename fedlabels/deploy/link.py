"""The way from a device to the server: clock, connection, certificate, health."""

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography.x509 import Certificate, load_der_x509_certificate

from fedlabels.deploy.address import Address, require_loopback
from fedlabels.deploy.keys import read_certificate
from fedlabels.errors import DataError, RunError
from fedlabels.requirements import supported

SECONDS = 10.0
"""How long the server may take for each step."""
BEHIND, AHEAD = timedelta(minutes=5), timedelta(seconds=6)
"""How far a device's clock may be from the server's: Flower takes no signature that is older than
305 s, or more than 5 s in the future. The server says its time in whole seconds.
"""
RENEW = timedelta(days=14)
UNKNOWN = "/fedlabels-doctor"
"""A path that no server has."""
_PAUSE = 0.5  # seconds between two attempts


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Parameters
    ----------
    name : str
        What was looked at.
    ok : bool
        Whether the device can take part as it is.
    text : str
        What was found; of a problem also what to do.
    """

    name: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Link:
    """The way to the server.

    Parameters
    ----------
    address : Address
        Of the SuperLink.
    ca : Path or None
        The certificate of its authority; None trusts those that the system trusts.
    insecure : bool
        Without TLS; only on this machine.

    Raises
    ------
    ConfigError
        If it would be unencrypted over a network.
    """

    address: Address
    ca: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.insecure:
            require_loopback(self.address)


def examine_link(link: Link, now: datetime) -> Iterator[Finding]:
    """Try the way to the server, step by step, as far as it goes.

    Parameters
    ----------
    link : Link
        The way.
    now : datetime
        What the clock says, with time zone.

    Returns
    -------
    iterator of Finding
        Clock, connection, handshake, health, and with TLS whether a proxy stands before the server.

    Raises
    ------
    DataError
        If the authority's certificate cannot be read.
    """
    if link.ca is not None:
        ca = link.ca.expanduser()
        yield _valid("clock", f"authority {ca}", read_certificate(ca), now, timedelta(0))
    try:
        plain = socket.create_connection((link.address.host, link.address.port), timeout=SECONDS)
    except OSError as error:
        text = f"no connection to {link.address} ({error}): is the SuperLink running, is the "
        yield Finding("server", False, text + "address right, does a firewall let it through?")
        return
    with plain:
        yield Finding("server", True, f"{link.address} can be reached")
        if link.insecure:
            yield from _health(plain, link.address)
            return
        context = ssl.create_default_context(cafile=link.ca and str(link.ca.expanduser()))
        try:
            secure = context.wrap_socket(plain, server_hostname=link.address.host)
        except ssl.SSLCertVerificationError as error:
            yield Finding("tls", False, _refused(error, link))
            return
        except (OSError, ssl.SSLError) as error:
            text = f"no handshake ({error}): is the SuperLink started with certificates?"
            yield Finding("tls", False, text)
            return
        with secure:
            yield _server_certificate(secure, now)
            yield from _health(secure, link.address)
    yield _only_devices(link.address, context)


def wait(link: Link, seconds: float) -> None:
    """Return when the server is healthy.

    Parameters
    ----------
    link : Link
        The way to it.
    seconds : float
        How long to wait for it to start, >= 0.

    Raises
    ------
    RunError
        If it is not healthy by then, or its certificate is refused.
    """
    until = time.monotonic() + seconds
    while True:
        findings = list(examine_link(link, datetime.now(UTC)))
        if any(finding.name == "health" and finding.ok for finding in findings):
            return
        problem = next(f"{f.name}: {f.text}" for f in findings if not f.ok)
        refused = any(finding.name == "tls" and not finding.ok for finding in findings)
        if refused or time.monotonic() >= until:
            raise RunError(problem)
        time.sleep(_PAUSE)


def _refused(error: ssl.SSLCertVerificationError, link: Link) -> str:
    reason = f"the server's certificate is refused ({error.verify_message.rstrip('.')}): "
    if error.verify_code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
        return reason + "set this device's clock"
    if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
        return reason + "renew it on the server (keys --renew), or set this device's clock"
    if error.verify_code in (62, 64):  # of another host name, of another IP address
        return reason + f"add the host on the server (keys --host {link.address.host})"
    return reason + "give the ca.crt that the server's certificate was made with"


def _server_certificate(secure: ssl.SSLSocket, now: datetime) -> Finding:
    raw = secure.getpeercert(binary_form=True)
    if raw is None:
        raise DataError("the server showed no certificate")
    return _valid("tls", "the server's certificate", load_der_x509_certificate(raw), now, RENEW)


def _valid(
    name: str, what: str, certificate: Certificate, now: datetime, early: timedelta
) -> Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    span = f"{what} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
    if begin <= now <= end - early:
        return Finding(name, True, span)
    today = f"{span}, and this device's clock says {now:%Y-%m-%d}: "
    if now < begin:
        return Finding(name, False, today + "set the clock")
    return Finding(name, False, today + "set the clock, or renew it (keys --renew on the server)")


def _only_devices(address: Address, context: ssl.SSLContext) -> Finding:
    """Ask for a path that nobody serves: the proxy refuses what it does not know (403)."""
    connection = http.client.HTTPSConnection(
        address.host, address.port, timeout=SECONDS, context=context
    )
    try:
        connection.request("GET", UNKNOWN, headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Finding("proxy", False, f"GET {UNKNOWN} failed ({error or type(error).__name__})")
    finally:
        connection.close()
    if status == 403:
        return Finding("proxy", True, "the address refuses what devices do not need")
    text = f"GET {UNKNOWN} says {status}, not 403: the address answers more than devices need; put "
    return Finding("proxy", False, text + "the proxy before the SuperLink (docs/deploy.md, 2)")


def _health(link: socket.socket, address: Address) -> Iterator[Finding]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=SECONDS)
    connection.sock = link
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        reply = connection.getresponse()
        reply.read()
    except (OSError, http.client.HTTPException) as error:
        text = f"GET /health failed ({error or type(error).__name__}): is a SuperLink "
        text += f"({supported('flwr')}) at this address, with or without TLS as here?"
        yield Finding("health", False, text)
        return
    good = reply.status == 200
    text = f"GET /health says {reply.status}"
    doubt = f"{text}: is this a SuperLink ({supported('flwr')})?"
    yield Finding("health", good, text if good else doubt)
    date = reply.getheader("Date")
    if good and date is not None:
        ahead = datetime.now(UTC) - parsedate_to_datetime(date)
        near, seconds = -BEHIND <= ahead <= AHEAD, ahead.total_seconds()
        text = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the server's"
        more = f": set one of the two, at most {BEHIND.seconds} s behind and 5 s ahead are taken"
        yield Finding("clock", near, text if near else text + more)
