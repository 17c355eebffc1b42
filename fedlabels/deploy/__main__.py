"""``python -m fedlabels.deploy COMMAND``: keys, connections, commands, and a look at a device."""

import argparse
import importlib.metadata
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fedlabels import telemetry
from fedlabels.deploy.address import parse_address
from fedlabels.deploy.connection import write_connection
from fedlabels.errors import ConfigError, FedLabelsError

if TYPE_CHECKING:
    from fedlabels.deploy.spec import DeviceSpec

SERVER_PACKAGES = ("hydra", "omegaconf", "sklearn", "ray", "yaml", "rich", "PIL")
_COUNT = "device-0 to device-(N-1)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str or None
        None takes those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 where something is wrong, or 130 after Ctrl-C.
    """
    telemetry.disable()  # before a command imports Flower
    given = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        return command(given)
    except (FedLabelsError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130


# ---- commands


def _keys(given: argparse.Namespace) -> int:
    from fedlabels.deploy import keys

    made = keys.make_keys(
        given.out,
        hosts=given.host,
        count=given.devices or 0,
        devices=given.device,
        days=given.days,
        renew=given.renew,
    )
    for path in made:
        _say(f"made {path}")
    if not made:
        _say("nothing was missing")
    hosts = keys.server_hosts(given.out)
    names = keys.device_names(given.out)
    _say(f"the server's certificate is valid for {', '.join(hosts)}")
    _say(f"devices: {', '.join(names) or 'none yet'}")
    _say("ca.key and the devices' private keys are secret: a device gets its own and ca.crt only")
    return 0


def _connection(given: argparse.Namespace) -> int:
    address = parse_address(given.address)
    path = write_connection(given.name, address, ca=given.ca, insecure=given.insecure)
    _say(f"{path} has connection {given.name} to {address}: flwr run . {given.name}")
    return 0


def _commands(given: argparse.Namespace) -> int:
    from fedlabels.deploy import commands, keys

    devices = list(given.device) + [f"device-{k}" for k in range(given.devices or 0)]
    if not devices and not given.insecure:
        devices = keys.device_names(given.out)
    if not devices:
        raise ConfigError("say which devices: --devices N, or --device NAME=CLIENT_ID")
    folder = None if given.insecure else given.out
    address = parse_address(given.address)
    numbers = commands.numbered(devices)
    sys.stdout.write(commands.commands(address, numbers, folder=folder, connection=given.name))
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from fedlabels.deploy import doctor, link

    device_spec, flower = (None, None) if given.spec is None else _read_spec(given.spec)
    way = None
    if given.superlink is not None:
        way = link.Link(parse_address(given.superlink), given.ca, given.insecure)
    elif given.ca is not None or given.insecure:
        raise ConfigError("--ca and --insecure say how to reach --superlink, which is missing")
    node = doctor.parse_node_config(given.node_config)
    problems = 0
    found = doctor.examine(node, spec=device_spec, flower=flower, link=way, key=given.key)
    for finding in found:
        problems += not finding.ok
        _say(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.name}: {finding.text}")
        sys.stdout.flush()
    _say("all is well" if not problems else f"{problems} to solve")
    return 1 if problems else 0


def _read_spec(file: Path) -> "tuple[DeviceSpec, str]":
    from fedlabels.deploy import spec

    try:
        return spec.loads_preview(file.read_text("utf-8"))
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--spec {file} cannot be used ({error}): make it anew on the server, with the command "
            "spec"
        ) from error


def _wait(given: argparse.Namespace) -> int:
    from fedlabels.deploy import link

    way = link.Link(parse_address(given.superlink), given.ca, given.insecure)
    link.wait(way, given.seconds)
    _say(f"{way.address} is healthy")
    return 0


def _example(given: argparse.Namespace) -> int:
    from fedlabels.deploy.example import write_example

    for path in write_example(given.out, given.labels):
        _say(f"made {path}")
    return 0


def _spec(given: argparse.Namespace) -> int:
    try:
        from fedlabels.deploy.server import Devices, settings, undealt
        from fedlabels.run.setup import build_world
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in SERVER_PACKAGES:
            raise
        raise ConfigError(
            f"spec needs the server's packages, {error.name} is missing: pip install "
            '"fedlabels[sim]"; devices do not need it'
        ) from error
    from fedlabels.deploy.doctor import PREVIEW
    from fedlabels.deploy.spec import dumps_preview
    from fedlabels.rounds.flower_compat import quiet

    quiet()
    config = settings({"overrides": shlex.join(given.overrides)})
    world = build_world(config, undealt)
    nobody = cast(Any, None)  # no device is asked
    told = Devices(config, world, nobody, None).spec(PREVIEW)
    text = dumps_preview(told, importlib.metadata.version("flwr"))
    if given.out is None:
        sys.stdout.write(text)
    else:
        given.out.write_text(text, "utf-8")
        _say(f"wrote {given.out}: python -m fedlabels.deploy doctor --spec {given.out} ...")
    return 0


def _adopt(given: argparse.Namespace) -> int:
    from fedlabels.deploy.device_state import adopt

    copied = adopt(given.run_folder, given.client_id, given.state_dir)
    _say(f"client {given.client_id} goes on from {copied}; the server resumes {given.run_folder}")
    return 0


def _proxy(given: argparse.Namespace) -> int:
    from fedlabels.deploy.proxy import write_proxy

    alone = given.listen.isdecimal()
    address = parse_address(f"localhost:{given.listen}" if alone else given.listen)
    listen = address.port if alone else address
    path = write_proxy(given.out, listen, parse_address(given.superlink), given.keys)
    _say(f"wrote {path}: nginx -e stderr -c {path}")
    return 0


def _free(given: argparse.Namespace) -> int:
    from fedlabels.deploy.bindings import order_free

    key = order_free(given.run_folder, given.client_id)
    _say(f"client {given.client_id} no longer belongs to the device with key {key}; the server")
    _say("frees it at its next round, or when the run is resumed")
    return 0


# ---- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fedlabels.deploy",
        description="Clients on real devices: what is needed around Flower's own commands.",
        epilog="COMMAND --help says more. Start with keys, connection and commands; doctor and "
        "adopt are for devices.",
    )
    found = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_keys(found)
    _add_connection(found)
    _add_commands(found)
    _add_proxy(found)
    _add_wait(found)
    _add_doctor(found)
    _add_example(found)
    _add_spec(found)
    _add_adopt(found)
    _add_free(found)
    return parser


def _add(
    found: Any, name: str, command: Callable[[argparse.Namespace], int], brief: str, more: str = ""
) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = found.add_parser(
        name, help=brief, description=f"{brief[0].upper()}{brief[1:]}. {more}".strip()
    )
    added.set_defaults(command=command)
    return added


def _add_keys(found: Any) -> None:
    parser = _add(
        found,
        "keys",
        _keys,
        "make the keys of server and devices",
        "The folder gets ca.crt, ca.key, server.pem, server.key, and devices/NAME with NAME.pub. "
        "Run it again with the same folder for further devices or hosts: what exists is kept, only "
        "the server's certificate is made anew where a host is added.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the keys")
    parser.add_argument(
        "--host",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME_OR_IP",
        help="by which devices reach the server; localhost is always among them",
    )
    _add_devices(
        parser, "NAME", "a further device, which must not exist yet", f"{_COUNT}, where missing"
    )
    parser.add_argument(
        "--days", type=int, default=365, help="validity of the server's certificate (365)"
    )
    parser.add_argument(
        "--renew", action="store_true", help="make the server's certificate anew, for the same key"
    )


def _add_connection(found: Any) -> None:
    parser = _add(
        found,
        "connection",
        _connection,
        "tell Flower where the server is, for flwr run and flwr supernode",
        "Adds or replaces [superlink.NAME] in $FLWR_HOME/config.toml (~/.flwr), and leaves the "
        "rest of the file as it is.",
    )
    parser.add_argument("--name", default="fedlabels", help="of the connection (fedlabels)")
    parser.add_argument("--address", required=True, metavar="HOST:PORT", help="of the SuperLink")
    _add_trust(parser)


def _add_commands(found: Any) -> None:
    parser = _add(
        found,
        "commands",
        _commands,
        "print the commands of docs/deploy.md for your server and devices",
        "SuperLink, proxy, registration of the devices, each device and a run: a block for each "
        "shell, ready to paste. Nothing is started and no file is written; the keys are there "
        "already (command keys). Devices reach the proxy at HOST:PORT, and the SuperLink listens "
        "behind it, at 127.0.0.1 and the port after; with --insecure there is no proxy.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("certs"), help="folder of the keys, which is read (certs)"
    )
    parser.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="where devices reach the server"
    )
    _add_devices(
        parser,
        "NAME=CLIENT_ID",
        "a device, and which client it is; device-K is client K. Without --device and --devices: "
        "those that have a key",
    )
    parser.add_argument("--name", default="fedlabels", help="of the connection (fedlabels)")
    parser.add_argument(
        "--insecure", action="store_true", help="without keys; only for a trial on one machine"
    )


def _add_proxy(found: Any) -> None:
    parser = _add(
        found,
        "proxy",
        _proxy,
        "write the configuration of nginx that passes what devices need",
        "On the server: devices reach nginx, and nginx the SuperLink, which listens on 127.0.0.1.",
    )
    parser.add_argument("--keys", type=Path, default=Path("certs"), help="folder of keys (certs)")
    parser.add_argument(
        "--listen", required=True, metavar="PORT", help="that devices know, or HOST:PORT"
    )
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="127.0.0.1:PORT")
    parser.add_argument("--out", type=Path, required=True, help="the file")


def _add_wait(found: Any) -> None:
    parser = _add(found, "wait", _wait, "wait until the server is healthy")
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long at most (60)")
    _add_trust(parser)


def _add_example(found: Any) -> None:
    parser = _add(
        found,
        "example",
        _example,
        "write data folders of devices to try a fleet with",
        "Handwritten digits, dealt in equal shares to device-0 and so on.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the devices' folders")
    parser.add_argument(
        "--labels",
        type=int,
        nargs="+",
        required=True,
        metavar="N",
        help="labeled samples of each device; there are as many devices as numbers",
    )


def _add_doctor(found: Any) -> None:
    parser = _add(
        found,
        "doctor",
        _doctor,
        "look a device over before it joins",
        "One line for each check; the exit status is 1 where there is a problem. Nothing is "
        "changed. Run it as the user that the device runs as.",
    )
    parser.add_argument(
        "--node-config",
        required=True,
        metavar="PAIRS",
        help='as for flower-supernode: \'client-id=0 data-dir="..." state-dir="..."\'',
    )
    parser.add_argument(
        "--spec", type=Path, metavar="FILE", help="of the command spec: data are read in full"
    )
    parser.add_argument("--superlink", metavar="HOST:PORT", help="the server, to try the way there")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the device's private key")
    _add_trust(parser)


def _add_spec(found: Any) -> None:
    parser = _add(
        found,
        "spec",
        _spec,
        "write what devices will be told, for doctor --spec",
        "On the server: it needs the packages of fedlabels[sim].",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="as for run_sim.py: client=fixmatch ..."
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON (standard output)")


def _add_adopt(found: Any) -> None:
    parser = _add(
        found,
        "adopt",
        _adopt,
        "carry what a simulated client remembers to its device",
        "The deployed server then resumes the run folder.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="of the simulation")
    parser.add_argument("--client-id", type=int, required=True, help="which client the device is")
    parser.add_argument("--state-dir", type=Path, required=True, help="the device's, without state")


def _add_free(found: Any) -> None:
    parser = _add(
        found,
        "free",
        _free,
        "let another device be a client whose device is lost",
        "On the server. Not needed where the new device brings the state folder of the old one.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="of the server")
    parser.add_argument("--client-id", type=int, required=True, help="the client")


def _add_devices(
    parser: argparse.ArgumentParser, metavar: str, help_: str, count: str = _COUNT
) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--devices", type=int, metavar="N", help=count)
    which.add_argument(
        "--device", nargs="+", action="extend", default=[], metavar=metavar, help=help_
    )


def _add_trust(parser: argparse.ArgumentParser) -> None:
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--ca", type=Path, metavar="FILE", help="ca.crt; without it the system's authorities count"
    )
    trust.add_argument(
        "--insecure", action="store_true", help="without TLS; only to this machine (localhost)"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
