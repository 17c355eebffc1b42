"""Looks a device over before it joins: software, data, state, clock and the way to the server.

Nothing is changed, no state is set aside, nothing is sent but a request for the server's health and
one for a path that does not exist.
"""

import importlib
import importlib.metadata
import json
import platform
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlabels import plugins
from fedlabels.deploy.link import Finding, Link, examine_link
from fedlabels.deploy.node import (
    check_node,
    client_id_of,
    data_root_of,
    device_of,
    plugins_of,
    state_dir_of,
    threads_of,
)
from fedlabels.deploy.spec import DeviceSpec
from fedlabels.errors import ConfigError, FedLabelsError
from fedlabels.requirements import required, supported

if TYPE_CHECKING:
    from fedlabels.deploy.device_data import DeviceData

PREVIEW = "preview"
"""Name of the run in a specification that was made before the run."""
FREE_BYTES = 1 << 30
"""What should be free: some states, Flower's copy of the code, and messages in flight."""
_PAIR = re.compile(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)")


def parse_node_config(text: str) -> dict[str, Any]:
    """Read a node configuration as ``flower-supernode --node-config`` does.

    Parameters
    ----------
    text : str
        Pairs such as ``client-id=0 data-dir="/data"``, or the path of a ``.toml`` file.

    Raises
    ------
    ConfigError
        If it is damaged.
    """
    try:
        if text.endswith(".toml"):
            return tomllib.loads(Path(text).expanduser().read_text("utf-8"))
        # Flower drops what is no pair without a word
        rest = _PAIR.sub("", text).split()
        if rest:
            raise ConfigError(f"the node configuration has {rest[0]!r}, which is no key=value")
        pairs: list[tuple[str, str]] = _PAIR.findall(text)
        return tomllib.loads("\n".join(f"{key} = {value}" for key, value in pairs))
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the node configuration cannot be read ({error}): write client-id=0 data-dir="
            '"/folder", text in double quotes'
        ) from error


def examine(
    node: Mapping[str, Any],
    *,
    spec: DeviceSpec | None = None,
    flower: str | None = None,
    link: Link | None = None,
    key: Path | None = None,
    now: datetime | None = None,
) -> Iterator[Finding]:
    """Check a device, one finding after the other as they are made.

    Parameters
    ----------
    node : mapping
        The node configuration.
    spec : DeviceSpec or None
        What the server will say; without it data are counted but not held against the model.
    flower : str or None
        The server's version of Flower; None where it did not say.
    link : Link or None
        The way to the server; None does not look.
    key : Path or None
        The device's private key; None does not look.
    now : datetime or None
        With time zone; None takes the clock.

    Returns
    -------
    iterator of Finding
        Problems are findings, too; nothing is raised. One mistake is one of them: what depends on
        it is not looked at.
    """
    yield from _guarded("python", _python)
    yield from _guarded("packages", _packages)
    yield from _guarded("versions", lambda: _versions(flower))
    yield from _guarded("torch", lambda: _torch(node))
    if (yield from _all_well("node-config", lambda: _node(node))):
        if (yield from _all_well("state-dir", lambda: _disk(node))):
            yield from _guarded("state", lambda: _state(node, spec))
        if (yield from _all_well("plugins", lambda: _plugins(node))):
            yield from _guarded("data", lambda: _data(node, spec))
    if key is not None:
        yield from _guarded("key", lambda: _key(key))
    if link is not None:
        moment = now or datetime.now(UTC)
        yield from _guarded("server", lambda: examine_link(link, moment))


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except FedLabelsError as error:
        yield Finding(name, False, str(error))
    except ImportError as error:
        yield Finding(name, False, f"{error}: install it, see packages above")
    except Exception as error:  # a check that breaks is a finding, and the others go on
        yield Finding(name, False, f"{type(error).__name__}: {error}")


def _all_well(name: str, check: Callable[[], Iterator[Finding]]) -> Generator[Finding, None, bool]:
    """Yield the findings of a check, and return whether none of them is a problem."""
    found = list(_guarded(name, check))
    yield from found
    return all(finding.ok for finding in found)


# ---- software


def _python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet  # comes with Flower

    wanted, _ = required()
    version = platform.python_version()
    good = SpecifierSet(wanted).contains(version, prereleases=True)
    text = f"{version} (supported: {wanted})"
    yield Finding("python", good, text if good else f"{text}: make the environment with another")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in required()[1]:
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        range_ = str(needed.specifier)
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(needed.name, False, f'not installed: pip install "{needed}"')
            continue
        if needed.specifier.contains(version, prereleases=True):
            yield Finding(needed.name, True, f"{version} (supported: {range_})")
        else:
            text = f'{version}, supported: {range_}; pip install "{needed}"'
            yield Finding(needed.name, False, text)


def _versions(server: str | None) -> Iterator[Finding]:
    """Hold the server's Flower against this device's; any two that are supported fit."""
    from packaging.requirements import Requirement
    from packaging.version import InvalidVersion

    supported_here = Requirement(supported("flwr")).specifier
    here = importlib.metadata.version("flwr")
    if server is None:
        text = f"Flower {here} here, the server's is not known: give --spec, which says it"
        yield Finding("versions", True, text)
        return
    text = f"Flower {server} on the server, {here} here"
    try:
        good = supported_here.contains(server, prereleases=True)
    except InvalidVersion:
        good = False
    if good:
        yield Finding("versions", True, f"{text}: they fit (supported: {supported_here})")
    else:
        need = f'pip install "{supported("flwr")}" on the server and make the specification anew'
        yield Finding("versions", False, f"{text}: the server's is not supported; {need}")


def _torch(node: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a wrong build fails in many ways, among them OSError
        text = f"cannot be imported ({error}): install the build for this processor"
        yield Finding("torch", False, text)
        return
    gpu = bool(torch.cuda.is_available())
    if node.get("device") == "cuda" and not gpu:
        text = "device=cuda, but torch finds no GPU: install driver and build, or leave device out"
        yield Finding("torch", False, text)
    else:
        yield Finding("torch", True, f"can be imported, computes on {'GPU' if gpu else 'CPU'}")


# ---- data and state


def _node(node: Mapping[str, Any]) -> Iterator[Finding]:
    yield Finding("node-config", True, f"this device is client {check_node(node)}")


def _disk(node: Mapping[str, Any]) -> Iterator[Finding]:
    folder = state_dir_of(node).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        text = f"{existing} cannot be written ({error}): give a folder that this user may write to"
        yield Finding("state-dir", False, text)
        return
    free = shutil.disk_usage(existing).free
    text = f"{folder} can be written, {free / 1e9:.1f} GB free"
    if free < FREE_BYTES:
        text += f": free at least {FREE_BYTES / 1e9:.1f} GB"
    yield Finding("state-dir", free >= FREE_BYTES, text)


def _state(node: Mapping[str, Any], spec: DeviceSpec | None) -> Iterator[Finding]:
    from fedlabels.deploy.device_state import FORMAT, OWNER, foreign, states

    folder, client_id = state_dir_of(node).absolute(), client_id_of(node)
    stranger = foreign(folder)
    if stranger is not None:
        text = f"{folder} holds {stranger.name}, which is no device's state: give an empty folder"
        yield Finding("state", False, text)
        return
    files = states(folder)
    if not files and not (folder / OWNER).exists():
        yield Finding("state", True, "none yet: the device starts as a new one")
        return
    owner = _owner(folder / OWNER)
    aside = "it would be set aside and the device start as a new one; "
    problem = ""
    if owner is None or owner.get("format") != FORMAT:
        problem = f"of unknown origin, {OWNER} is missing or damaged: {aside}put {OWNER} back"
    elif owner.get("client_id") != client_id:
        problem = (
            f"of client {owner.get('client_id')}, but this device is client {client_id}: {aside}"
            "correct client-id or state-dir"
        )
    elif spec is not None and spec.run not in (PREVIEW, owner.get("run")):
        problem = (
            f"of run {owner.get('run')}, but the server runs {spec.run}: {aside}"
            "give every run a state-dir of its own if it is still needed"
        )
    if owner is None or problem:
        yield Finding("state", False, problem)
        return
    kept_files = [path for path in files if path.parent.name == str(client_id)]
    damaged = [path for path in kept_files[-1:] if not _loads(path)]
    if damaged:
        text = f"{damaged[0]} is damaged: {aside}put a copy back if there is one"
        yield Finding("state", False, text)
    else:
        last = f"after round {int(kept_files[-1].stem)}" if kept_files else "no round yet"
        yield Finding("state", True, f"of run {owner.get('run')}, client {client_id}, {last}")


def _owner(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _loads(path: Path) -> bool:
    from safetensors.numpy import load_file

    from fedlabels.deploy.device_state import unsealed

    try:
        unsealed(load_file(path))
    except Exception:  # damage has many faces; what is wrong is said by the caller
        return False
    return True


def _data(node: Mapping[str, Any], spec: DeviceSpec | None) -> Iterator[Finding]:
    from fedlabels.deploy import device_data

    if spec is None:
        yield _found(node)
        return
    data = device_data.read(node, spec)
    yield _holdings(**data.counts(), more="as the model wants them")
    yield from _guarded("method", lambda: _method(node, spec, data))


def _method(node: Mapping[str, Any], spec: DeviceSpec, data: "DeviceData") -> Iterator[Finding]:
    from fedlabels.deploy.device import Device

    Device(spec, data, threads_of(node), device_of(node)).close()
    text = f"client {spec.client['name']} and model {spec.model['name']} are known here"
    yield Finding("method", True, text)


def _plugins(node: Mapping[str, Any]) -> Iterator[Finding]:
    plugins.activate(plugins_of(node))
    for name in plugins.active():
        text = f"{name} {plugins.digest(name)} in {plugins.folder_of(name)}"
        yield Finding("plugin", True, text)


def _found(node: Mapping[str, Any]) -> Finding:
    """Count what is there, as far as it can be told without the server."""
    from fedlabels.deploy.device_data import kind_of, test_folder

    if "partition-id" in node:
        data_root_of(node)
        text = "a partition of a known data set; give --spec to deal and read it"
        return Finding("data", True, text)
    folder = Path(str(node["data-dir"])).expanduser()
    if not folder.is_dir():
        text = f"data-dir {folder} is no folder: mount or make it, or correct the path"
        return Finding("data", False, text)
    kind = kind_of(node, folder)
    count = _count_images if kind == "image_folder" else _count_arrays
    labeled, unlabeled = count(folder, "train", kind)
    tests = test_folder(folder) if kind == "image_folder" else "test"
    test, _ = count(folder, tests, kind)  # nobody is scored on those without a label
    more = f"{kind} in {folder}; give --spec to hold them against the model"
    return _holdings(labeled, unlabeled, test, more=more)


def _count_images(folder: Path, split: str, kind: str) -> tuple[int, int]:
    from fedlabels.data.image_folder import listing

    below = folder / split
    images = listing(below, domains=False) if below.is_dir() else []
    unlabeled = sum(image.label is None for image in images)
    return len(images) - unlabeled, unlabeled


def _count_arrays(folder: Path, split: str, kind: str) -> tuple[int, int]:
    from fedlabels.data.npz import read_split
    from fedlabels.deploy.device_data import ordered

    if not (folder / f"{split}.npz").is_file():
        return 0, 0
    found = read_split(folder, split, ordered(kind))
    labeled = int((found.y >= 0).sum())
    return labeled, len(found.y) - labeled


def _holdings(labeled: int, unlabeled: int, test: int, more: str) -> Finding:
    counts = f"{labeled} labeled, {unlabeled} unlabeled, {test} test samples"
    if labeled + unlabeled == 0:
        text = f"{counts}: there is nothing to train on; put data into train ({more})"
        return Finding("data", False, text)
    return Finding("data", True, f"{counts} ({more})")


def _key(path: Path) -> Iterator[Finding]:
    from fedlabels.deploy.keys import read_device_key

    path = path.expanduser()
    read_device_key(path)
    if path.stat().st_mode & 0o077:
        yield Finding("key", False, f"others may read {path}: chmod 600 {path}")
    else:
        yield Finding("key", True, f"{path} is an EC key, for its owner alone")
