"""Keys of a fleet: a certificate authority, the server's certificate, a key for every device.

The server proves itself by a certificate of the fleet's own authority (TLS), a device by an EC key
whose public half is registered with the server. All keys are on the curve P-384. Nothing that
exists is ever overwritten but the server's certificate, when it is renewed.
"""

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedlabels.deploy.address import check_host
from fedlabels.errors import ConfigError, DataError

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
CERTIFICATE, KEY = "server.pem", "server.key"
DEVICES = "devices"
CA_DAYS = 3650
ALWAYS = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# A clock that is a little behind must not refuse a certificate that was made today.
_SLACK = timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey


def make_keys(
    folder: Path,
    *,
    hosts: Sequence[str] = (),
    count: int = 0,
    devices: Sequence[str] = (),
    days: int = 365,
    renew: bool = False,
    now: datetime | None = None,
) -> list[Path]:
    """Make what is missing: authority, server certificate, keys of devices.

    Parameters
    ----------
    folder : Path
        New, empty, or made by this function before; only its owner may enter it.
    hosts : sequence of str
        Names or IP addresses by which devices reach the server; ``localhost``, ``127.0.0.1``
        and ``::1`` are always among them. A host that the certificate lacks renews it.
    count : int
        There will be keys ``device-0`` to ``device-<count - 1>``, >= 0; those that exist are kept.
    devices : sequence of str
        Names of further devices; none may exist.
    days : int
        How long a server certificate that is made now is valid, in [1, 3650]; it never outlives
        its authority, which is valid for ten years from when it was made.
    renew : bool
        Make the server's certificate anew, by the same authority and for the same key.
    now : datetime or None
        When the certificates begin, with time zone; None takes the clock.

    Returns
    -------
    list of Path
        The files that were written; empty when nothing was missing.

    Raises
    ------
    ConfigError
        If a host, a name or a number is out of range, a device exists already, or the folder holds
        other files.
    DataError
        If files of the folder are damaged, or some are there without those that belong to them.
    """
    wanted = [check_host(host) for host in hosts]
    names = _names(folder, count, devices)
    if not 1 <= days <= CA_DAYS:
        raise ConfigError(f"days must be in [1, {CA_DAYS}], got {days}")
    begin = now or datetime.now(UTC)
    _prepare(folder)
    made = _make_authority(folder, begin)
    made += _make_server(folder, wanted, renew, begin, days)
    for name in names:
        made += _make_device(folder / DEVICES / name)
    return made


def check_device(name: str) -> str:
    """Return the name of a device.

    Raises
    ------
    ConfigError
        If it cannot name a file, a folder and a node everywhere.
    """
    if not _NAME.fullmatch(name) or name.endswith(".pub"):
        raise ConfigError(
            f"a device's name is up to 64 letters, digits, '.', '_' and '-', got {name!r}"
        )
    return name


def device_names(folder: Path) -> list[str]:
    """Return the names of the devices that have a key, sorted; numbers by their value."""
    found = [path.stem for path in (folder / DEVICES).glob("*.pub")]
    return sorted(found, key=lambda name: [_numeric(part) for part in re.split(r"(\d+)", name)])


def server_hosts(folder: Path) -> tuple[str, ...]:
    """Return the names and addresses that the server's certificate is valid for.

    Raises
    ------
    DataError
        If there is no certificate, or it is damaged.
    """
    certificate = read_certificate(folder / CERTIFICATE)
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = value.get_values_for_type(x509.IPAddress)
    return (*value.get_values_for_type(x509.DNSName), *map(str, addresses))


def read_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a certificate ({error})") from error


def _names(folder: Path, count: int, devices: Sequence[str]) -> list[str]:
    if count < 0:
        raise ConfigError(f"the number of devices must be >= 0, got {count}")
    for name in map(check_device, devices):
        if (folder / DEVICES / name).exists() or devices.count(name) > 1:
            raise ConfigError(
                f"device {name} exists already in {folder / DEVICES}: keys are never overwritten; "
                "choose another name, or remove its two files first"
            )
    listed = [f"device-{number}" for number in range(count)]
    return [*(n for n in listed if not (folder / DEVICES / n).exists()), *devices]


def _prepare(folder: Path) -> None:
    """Make the folder, for its owner alone; refuse one that is used for something else."""
    if folder.is_dir():
        ours = any((folder / name).exists() for name in (CA_CERTIFICATE, CA_KEY))
        others = {path.name for path in folder.iterdir()} - {DEVICES, ".gitignore"}
        if not ours and others:
            raise ConfigError(f"{folder} holds other files: give a new or an empty folder")
    try:
        for path in (folder, folder / DEVICES):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error}): give another folder") from error
    ignore = folder / ".gitignore"
    if not ignore.exists():
        _write(ignore, b"*\n", private=False)  # no key gets into a repository by accident


def _make_authority(folder: Path, begin: datetime) -> list[Path]:
    certificate, key = folder / CA_CERTIFICATE, folder / CA_KEY
    if certificate.exists():
        return []
    if key.exists():
        raise DataError(f"{key} is there without {certificate}: put it back, or take a new folder")
    private = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedlabels CA")])
    public = private.public_key()
    usage = _usage(key_cert_sign=True, crl_sign=True)
    built = (
        _builder(name, name, public, begin, begin + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA384())
    )
    _write(key, _pem(private), private=True)
    _write(certificate, built.public_bytes(Encoding.PEM), private=False)
    return [key, certificate]


def _make_server(
    folder: Path, hosts: Sequence[str], renew: bool, begin: datetime, days: int
) -> list[Path]:
    certificate, key = folder / CERTIFICATE, folder / KEY
    known = server_hosts(folder) if certificate.exists() else ()
    merged = tuple(dict.fromkeys([*ALWAYS, *known, *hosts]))
    if certificate.exists() and key.exists() and not renew and set(merged) == set(known):
        return []
    authority, signer = _authority(folder)
    made: list[Path] = []
    if key.exists():
        private = _read_key(key)
    else:
        private = ec.generate_private_key(ec.SECP384R1())
        _write(key, _pem(private), private=True)
        made.append(key)
    end = min(begin + timedelta(days=days), authority.not_valid_after_utc)
    if end <= begin:
        raise DataError(
            f"{folder / CA_CERTIFICATE} ended on {authority.not_valid_after_utc:%Y-%m-%d}: make "
            "new keys in a new folder, and give its ca.crt to every device"
        )
    built = _server_certificate(merged, private, authority, begin, end)
    signed = built.sign(signer, hashes.SHA384())
    _replace(certificate, signed.public_bytes(Encoding.PEM))
    return [*made, certificate]


def _server_certificate(
    hosts: Iterable[str],
    private: PrivateKey,
    authority: x509.Certificate,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    public = private.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedlabels server")])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return (
        _builder(name, authority.subject, public, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(h) for h in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer, critical=False)
    )


def _make_device(path: Path) -> list[Path]:
    """Make what ``ssh-keygen -t ecdsa -b 384 -N ""`` makes: Flower reads OpenSSH keys."""
    public = path.with_name(f"{path.name}.pub")
    if public.exists():
        raise DataError(f"{public} is there without its private key: put it back, or remove it")
    private = ec.generate_private_key(ec.SECP384R1())
    text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    _write(path, secret, private=True)
    _write(public, text + f" {path.name}\n".encode(), private=False)
    return [path, public]


def _authority(folder: Path) -> tuple[x509.Certificate, PrivateKey]:
    certificate = read_certificate(folder / CA_CERTIFICATE)
    key = _read_key(folder / CA_KEY)
    if key.public_key() != certificate.public_key():
        raise DataError(f"{folder / CA_KEY} is not the key of {folder / CA_CERTIFICATE}")
    return certificate, key


def _read_key(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DataError(f"{path} cannot be read as a private key ({error})") from error
    if not isinstance(key, PrivateKey):
        raise DataError(f"{path} is no EC key: take a new folder")
    return key


def read_device_key(path: Path) -> PrivateKey:
    """Read the private key of a device.

    Raises
    ------
    DataError
        If it cannot be read, or is not of the kind that Flower wants.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DataError(f"{path} cannot be read as an OpenSSH private key ({error})") from error
    if not isinstance(key, PrivateKey):
        raise DataError(f"{path} is no EC key, the only kind that Flower takes")
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _SLACK)
        .not_valid_after(end)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, *, private: bool) -> None:
    """Write a file that must not exist; the mode is there before the first byte."""
    mode = 0o600 if private else 0o644
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already and is never overwritten") from error
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)


def _replace(path: Path, data: bytes) -> None:
    """Write a public file atomically, over what is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    _write(temporary, data, private=False)
    temporary.replace(path)


def _numeric(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdigit() else (-1, part)
