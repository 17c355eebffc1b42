"""The commands of server, operator and devices, ready to paste."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from fedlabels.deploy import keys
from fedlabels.deploy.address import Address, require_loopback
from fedlabels.deploy.connection import check_name
from fedlabels.errors import ConfigError
from fedlabels.telemetry import OFF

LOCAL_PORT = 9094
"""Of a SuperNode's own interface; on one machine the next ones follow."""
_NUMBERED = re.compile(r"device-(\d+)")


def numbered(devices: list[str]) -> dict[str, int]:
    """Return the client that each device is.

    Parameters
    ----------
    devices : list of str
        ``NAME=CLIENT_ID``, or ``device-K`` alone, which is client K.

    Raises
    ------
    ConfigError
        If a name says no number or is none, or a name or number comes twice.
    """
    found: dict[str, int] = {}
    for given in devices:
        name, _, number = given.partition("=")
        match = _NUMBERED.fullmatch(name)
        number = number or (match[1] if match else "")
        if not name or not number.isascii() or not number.isdigit():
            raise ConfigError(
                f"say which client {name or given!r} is, for ever: --device {name or 'NAME'}=0"
            )
        keys.check_device(name)
        if name in found or int(number) in found.values():
            raise ConfigError(f"{given!r}: every device has one name and one client_id of its own")
        found[name] = int(number)
    return found


def commands(
    address: Address,
    devices: Mapping[str, int],
    *,
    folder: Path | None,
    connection: str = "fedlabels",
) -> str:
    """Write the commands of server, operator and devices, each block for a shell of its own.

    Parameters
    ----------
    address : Address
        Where devices reach the server.
    devices : mapping of str to int
        Name -> client_id.
    folder : Path or None
        The keys; None is without TLS and authentication, only on this machine.
    connection : str
        Name of the connection.

    Raises
    ------
    ConfigError
        If keys are missing, the server's certificate is not for this address, or it would be
        unencrypted over a network.
    """
    check_name(connection)
    if folder is None:
        require_loopback(address)
    else:
        folder = folder.expanduser().absolute()
        _check_keys(folder, address, devices)
    blocks = [_server(address, folder)]
    if folder is not None:
        blocks.append(_proxy(address, folder))
    blocks.append(_operator(address, devices, folder, connection))
    for place, (name, client_id) in enumerate(devices.items()):
        blocks.append(_device(address, name, client_id, folder, LOCAL_PORT + place))
    blocks.append(_run(connection, len(devices)))
    return "# Each block is for a shell of its own.\n\n" + "\n".join(blocks)


def _check_keys(folder: Path, address: Address, devices: Mapping[str, int]) -> None:
    needed = [folder / n for n in (keys.CA_CERTIFICATE, keys.CERTIFICATE, keys.KEY)]
    needed += [folder / keys.DEVICES / name for name in devices]
    missing = [path for path in needed if not path.is_file()]
    again = f"python -m fedlabels.deploy keys --out {shlex.quote(str(folder))}"
    if missing:
        raise ConfigError(f"{missing[0]} is missing; make it: {again} --help")
    if address.host not in keys.server_hosts(folder):
        raise ConfigError(
            f"{folder / keys.CERTIFICATE} is not valid for {address.host}; add it: {again} --host "
            f"{address.host}"
        )


def _behind(address: Address) -> Address:
    """Return where the SuperLink listens, if devices reach a proxy at an address."""
    return Address("127.0.0.1", address.port + 1 if address.port < 65535 else address.port - 1)


def _server(address: Address, folder: Path | None) -> str:
    behind = address if folder is None else _behind(address)
    options = [
        f"--host {behind.host} --port {behind.port}",
        *(_tls(folder) if folder else ["--insecure"]),
        "--disable-runtime-dependency-installation",
        '--database "$FLWR_HOME/superlink.db"',
    ]
    note = "Whoever reaches its port may start runs: it is open to this machine alone."
    head = f"# Server, {behind}. {note}"
    return _block(head, _environment("server"), _command("flower-superlink", options))


def _proxy(address: Address, folder: Path) -> str:
    options = [
        f"--keys {shlex.quote(str(folder))}",
        f"--listen {address.port} --superlink {_behind(address)}",
        '--out "$FLWR_HOME/nginx.conf"',
    ]
    head = f"# Proxy on the server, {address}: devices reach it, and what they need passes."
    nginx = 'nginx -e stderr -c "$FLWR_HOME/nginx.conf"'
    write = _command("python -m fedlabels.deploy proxy", options)
    return _block(head, _environment("proxy"), write, nginx)


def _tls(folder: Path) -> list[str]:
    ca, certificate, key = (
        shlex.quote(str(folder / n)) for n in (keys.CA_CERTIFICATE, keys.CERTIFICATE, keys.KEY)
    )
    return [
        f"--ssl-ca-certfile {ca}",
        f"--ssl-certfile {certificate}",
        f"--ssl-keyfile {key}",
        "--enable-supernode-auth",
    ]


def _operator(
    address: Address, devices: Mapping[str, int], folder: Path | None, connection: str
) -> str:
    ca = f"--ca {shlex.quote(str(folder / 'ca.crt'))}" if folder else "--insecure"
    where = address if folder is None else _behind(address)
    lines = [
        f"python -m fedlabels.deploy connection --name {connection} --address {where} {ca}",
    ]
    if folder is not None:
        for name in devices:
            public = shlex.quote(str(folder / keys.DEVICES / f"{name}.pub"))
            lines.append(f"flwr supernode register {public} {connection} --name {name}")
    registers = ", and which devices may join" if folder else ""
    return _block(f"# Operator on the server, once: the connection{registers}.", _off(), *lines)


def _device(address: Address, name: str, client_id: int, folder: Path | None, port: int) -> str:
    home = f"~/fedlabels/{name}"
    node = f'client-id={client_id} data-dir="{home}/data" state-dir="{home}/state"'
    head = f"# Device {name}, with its data in {home}/data."
    trust = ["--insecure"]
    check = "--insecure"
    if folder is not None:
        ca, key = folder / keys.CA_CERTIFICATE, folder / keys.DEVICES / name
        places = [shlex.quote(str(ca)), shlex.quote(str(key))]
        if not address.loopback:
            head += f"\n# Copy {ca} and {key} into {home} first, nothing else."
            places = [f"{home}/ca.crt", f"{home}/{name}"]
        trust = [f"--root-certificates {places[0]}", f"--auth-supernode-private-key {places[1]}"]
        check = f"--ca {places[0]} --key {places[1]}"
    doctor = _command(
        "python -m fedlabels.deploy doctor",
        [f"--superlink {address} {check}", f"--node-config {shlex.quote(node)}"],
    )
    options = [
        f"--superlink {address}",
        *trust,
        f"--host 127.0.0.1 --port {port}",
        f"--node-config {shlex.quote(node)}",
    ]
    return _block(head, _environment(name), doctor, _command("flower-supernode", options))


def _run(connection: str, count: int) -> str:
    overrides = f"method=fixmatch dataset=digits per_round={count}"
    line = _command(
        f"flwr run . {connection}",
        [f"--run-config 'num-rounds=10 overrides=\"{overrides}\"'", "--stream"],
    )
    head = "# Operator on the server, in a checkout of the toolkit; settings as for run_sim.py."
    return _block(head, _off(), line)


def _environment(name: str) -> str:
    # a folder of its own: processes on one machine unpack the app side by side
    home = f'export FLWR_HOME="$HOME/fedlabels/{name}/flwr"; mkdir -p "$FLWR_HOME"'
    return f"{_off()}\n{home}"


def _off() -> str:
    pairs = [f"{key}={value}" for key, value in OFF.items() if key.startswith("FLWR_")]
    return "umask 077\nexport " + " ".join(pairs)  # what is written is its owner's alone


def _command(program: str, options: list[str]) -> str:
    return " \\\n  ".join([program, *options])


def _block(*lines: str) -> str:
    return "\n".join(lines) + "\n"
