"""A device's node configuration: what ``flower-supernode --node-config`` says of it.

Each key is checked here, by the device itself and by the doctor, before any file is looked at; a
key that would not be read is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlabels.deploy.spec import LARGEST
from fedlabels.errors import ConfigError

KINDS = ("npz", "timeseries_npz", "image_folder")
DEVICES = ("auto", "cpu", "cuda")
PACKAGED = "packaged"
"""A ``data-root`` that stands for data sets which ship in Python packages and need no folder."""
KEYS = (
    "client-id", "data-dir", "data-kind", "partition-id", "num-partitions", "data-root",
    "state-dir", "threads", "device", "plugins",
)  # fmt: skip
_DATA = {"client-id": ("data-dir", "data-kind"), "partition-id": ("data-root", "num-partitions")}


def check_node(node: Mapping[str, Any]) -> int:
    """Check all that is said beside `state_dir_of`, and return which client the device is.

    Parameters
    ----------
    node : mapping
        Flower's node configuration: ``client-id`` and ``data-dir`` (with ``data-kind`` where the
        folder leaves a doubt), or ``partition-id`` and ``data-root``.

    Raises
    ------
    ConfigError
        If a key is missing, unknown or not read beside the others, or a value is out of range.
    """
    client_id = client_id_of(node)
    threads_of(node)
    device_of(node)
    plugins_of(node)
    return client_id


def client_id_of(node: Mapping[str, Any]) -> int:
    """Check the keys that say which client a device is and where its data are; return the client.

    Raises
    ------
    ConfigError
        If they do not say, or say it twice.
    """
    unknown = sorted(set(map(str, node)) - set(KEYS))
    if unknown:
        raise ConfigError(
            f"the node configuration has an unknown key {unknown[0]!r}; known are {', '.join(KEYS)}"
        )
    given = [key for key in _DATA if key in node]
    if len(given) != 1:
        raise ConfigError(
            "the node configuration must have either client-id (and data-dir) or partition-id, got "
            f"{', '.join(sorted(map(str, node))) or 'nothing'}"
        )
    value = node[given[0]]
    if not _whole(value) or not 0 <= value <= LARGEST:
        raise ConfigError(
            f"{given[0]} must be a whole number >= 0 and <= {LARGEST}, got {value!r}: number the "
            "devices from 0"
        )
    _check_data(node, given[0])
    return int(value)


def _check_data(node: Mapping[str, Any], numbered: str) -> None:
    (folder, more), others = _DATA[numbered], {*_DATA["client-id"], *_DATA["partition-id"]}
    unread = sorted((others - {folder, more}) & set(node))
    if unread:
        raise ConfigError(
            f"{unread[0]} is not read beside {numbered}, which has {folder} and {more}: leave it "
            "out"
        )
    if folder in node:
        _folder(node, folder)
    elif numbered == "client-id":
        raise ConfigError("client-id needs data-dir, the folder with this device's data")
    _one_of(node, "data-kind", KINDS)
    count = node.get("num-partitions", LARGEST + 1)
    if not _whole(count) or not node[numbered] < count:
        raise ConfigError(
            f"num-partitions must be a whole number above partition-id, got {count!r} for "
            f"{node[numbered]}"
        )


def data_root_of(node: Mapping[str, Any]) -> Path | None:
    """Return where a device has known data sets; None for those that ship in packages."""
    if "data-root" not in node:
        raise ConfigError(
            "partition-id needs data-root, the folder on this device that holds the data set "
            f"(data-root={PACKAGED!r} for one that ships in a package): the server does not choose "
            "what is read here"
        )
    if node["data-root"] == PACKAGED:
        return None
    root = _folder(node, "data-root")
    if not root.exists():
        raise ConfigError(f"data-root {root} does not exist: mount it, or correct the path")
    return root


def state_dir_of(node: Mapping[str, Any]) -> Path:
    """Return the folder of what a device remembers."""
    if "state-dir" not in node:
        raise ConfigError("the node configuration lacks state-dir, a folder that outlives restarts")
    return _folder(node, "state-dir")


def threads_of(node: Mapping[str, Any]) -> int | None:
    """Return how many threads the node configuration allows; None where it does not say."""
    given = node.get("threads")
    if given is None or (_whole(given) and given >= 1):
        return given
    raise ConfigError(f"threads must be a whole number >= 1, got {given!r}")


def device_of(node: Mapping[str, Any]) -> str:
    """Return where a device computes."""
    return _one_of(node, "device", DEVICES) or DEVICES[0]


def plugins_of(node: Mapping[str, Any]) -> list[str]:
    """Return the packages whose clients may run here, beside those installed as plugins."""
    given = node.get("plugins", "")
    if not isinstance(given, str):
        raise ConfigError(
            f"plugins must be names of packages in double quotes, with commas, got {given!r}"
        )
    return [name.strip() for name in given.split(",") if name.strip()]


def _one_of(node: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str | None:
    value = node.get(key)
    if key in node and value not in allowed:
        raise ConfigError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def _folder(node: Mapping[str, Any], key: str) -> Path:
    value = node[key]
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{key} must be the path of a folder, in double quotes, got {value!r}")
    return Path(value).expanduser()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
