"""What a device holds: its own folder of data, or its partition of a known data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import ArrayDataset
from fedlabels.data.image_folder import decode, listing
from fedlabels.data.npz import Values, plain_samples, read_split
from fedlabels.data.timeseries_npz import series
from fedlabels.deploy.spec import LARGEST, DeviceSpec
from fedlabels.errors import ConfigError, DataError

KINDS = ("npz", "timeseries_npz", "image_folder")
KEYS = (
    "client-id", "data-dir", "data-kind", "partition-id", "num-partitions", "data-root",
    "state-dir", "threads", "device",
)  # fmt: skip
PACKAGED = "packaged"
"""A ``data-root`` that stands for data sets which ship in Python packages and need no folder."""
_IN_PACKAGES = ("digits",)
_NETWORK = ("huggingface",)
_TESTS = ("test", "val", "valid", "validation")  # as the server looks for test images
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class DeviceData:
    """One device's samples.

    Parameters
    ----------
    client_id : int
        Which client of the federation it is, >= 0.
    train, test : ArrayDataset
        Its samples; in ``train`` a label of -1 marks an unlabeled one. Either may be empty.
    labeled, unlabeled : integer arrays
        Positions in ``train``, ascending.
    labels : integer array
        Labels of the labeled ones, as the device sees them.
    tests : integer array
        Positions in ``test`` of the samples of known class.
    """

    client_id: int
    train: ArrayDataset
    test: ArrayDataset
    labeled: Indices
    unlabeled: Indices
    labels: Indices
    tests: Indices

    def counts(self) -> dict[str, int]:
        """Return how many samples of each kind there are; of the data this is all that is told."""
        return {
            "labeled": len(self.labeled),
            "unlabeled": len(self.unlabeled),
            "test": len(self.tests),
        }


def client_id_of(node: Mapping[str, Any]) -> int:
    """Return which client a device is.

    Parameters
    ----------
    node : mapping
        Flower's node configuration.

    Raises
    ------
    ConfigError
        If it does not say, or says it twice.
    """
    unknown = sorted(set(map(str, node)) - set(KEYS))
    if unknown:
        raise ConfigError(
            f"the node configuration has an unknown key {unknown[0]!r}; known are {', '.join(KEYS)}"
        )
    given = [key for key in ("client-id", "partition-id") if key in node]
    if len(given) != 1:
        raise ConfigError(
            "the node configuration must have either client-id (and data-dir) or partition-id, got "
            f"{', '.join(sorted(map(str, node))) or 'nothing'}"
        )
    value = node[given[0]]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ConfigError(
            f"{given[0]} must be a whole number >= 0 and <= {LARGEST}, got {value!r}: number the "
            "devices from 0"
        )
    return value


def read(node: Mapping[str, Any], spec: DeviceSpec) -> DeviceData:
    """Read a device's data, from where the device says and never over the network.

    Parameters
    ----------
    node : mapping
        Flower's node configuration: ``client-id`` and ``data-dir`` (with ``data-kind`` where the
        folder leaves a doubt), or ``partition-id`` and ``data-root``.
    spec : DeviceSpec
        What the samples must be like.

    Raises
    ------
    ConfigError
        If the configuration is incomplete.
    DataError
        If files are missing or damaged, or do not fit the model.
    """
    client_id = client_id_of(node)
    if "partition-id" in node:
        return _partition(client_id, node, spec)
    if "data-dir" not in node:
        raise ConfigError("client-id needs data-dir, the folder with this device's data")
    folder = Path(str(node["data-dir"])).expanduser()
    if not folder.is_dir():
        raise DataError(f"data-dir {folder} is no folder: mount or make it, or correct the path")
    kind = str(node.get("data-kind", _kind(folder)))
    if kind not in KINDS:
        raise ConfigError(f"data-kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "image_folder":
        train, test = (_images(folder, split, spec) for split in ("train", test_folder(folder)))
    else:
        convert = ordered(kind)
        train, test = (_arrays(folder, split, convert) for split in ("train", "test"))
    if train is None:
        raise DataError(
            f"data-dir {folder} has no training data: give it train.npz with x and y (-1 where the "
            "label is not known), or folders train/<class>/ with images"
        )
    mine, tests = _dataset(folder, train, spec), _dataset(folder, test, spec)
    labeled, unlabeled = np.flatnonzero(mine.y >= 0), np.flatnonzero(mine.y < 0)
    known = np.flatnonzero(tests.y >= 0)  # nobody is scored on a class that nobody knows
    return DeviceData(client_id, mine, tests, labeled, unlabeled, mine.y[labeled], known)


def ordered(kind: str) -> Callable[[str, NDArray[Any]], Values]:
    """Return what checks a device's arrays: channels first, as the federation's shape says."""
    if kind == "timeseries_npz":
        return partial(series, layout="channels_time")
    return partial(plain_samples, layout="channels_first")


def test_folder(folder: Path) -> str:
    """Return the name of the folder with a device's test images."""
    return next((name for name in _TESTS if (folder / name).is_dir()), _TESTS[0])


def _kind(folder: Path) -> str:
    return "npz" if (folder / "train.npz").is_file() else "image_folder"


def _arrays(
    folder: Path, split: str, convert: Callable[[str, NDArray[Any]], Values]
) -> tuple[NDArray[Any], Indices] | None:
    if not (folder / f"{split}.npz").is_file():
        return None
    found = read_split(folder, split, convert)
    return found.x, found.y


def _images(folder: Path, split: str, spec: DeviceSpec) -> tuple[NDArray[Any], Indices] | None:
    below = folder / split
    if not below.is_dir():
        return None
    images = listing(below, domains=False)
    if not images:
        return None
    if len(spec.shape) != 3:
        raise DataError(
            f"data-dir {folder} holds images, but the federation's samples are features of shape "
            f"{spec.shape}: give train.npz with x of that shape"
        )
    number = {name: place for place, name in enumerate(spec.class_names)}
    for image in images:
        if image.label is not None and image.label not in number:
            raise DataError(
                f"{image.path}: class {image.label!r} is not known to the federation, whose classes"
                f" are {', '.join(spec.class_names)}; rename the folder, or move its images to "
                "unlabeled"
            )
    labels = [-1 if image.label is None else number[image.label] for image in images]
    x = decode(images, spec.shape[-1] if spec.shape[-1] == spec.shape[-2] else None)
    if spec.shape[0] == 1:  # the federation sees grey: ITU-R 601, as Pillow does
        weights = np.array([299, 587, 114], dtype=np.float64).reshape(1, 3, 1, 1) / 1000
        x = np.rint((x * weights).sum(1, keepdims=True)).astype(np.uint8)
    return x, np.array(labels, dtype=np.int64)


def _dataset(
    folder: Path, part: tuple[NDArray[Any], Indices] | None, spec: DeviceSpec
) -> ArrayDataset:
    kind = np.uint8 if spec.pixels else np.float32
    if part is None:
        part = np.zeros((0, *spec.shape), dtype=kind), np.zeros(0, dtype=np.int64)
    x, y = part
    if x.shape[1:] != spec.shape or x.dtype != kind:
        last = x.shape[-1:] + x.shape[1:-1] == spec.shape
        told = "store np.moveaxis(x, -1, 1), channels first" if last else "convert them"
        raise DataError(
            f"data-dir {folder}: the federation's samples are {np.dtype(kind)} of shape "
            f"{spec.shape}, these are {x.dtype} of shape {x.shape[1:]}; {told}"
        )
    return ArrayDataset(
        folder.name or "device", x, y, spec.num_classes, spec.class_names, spec.mean, spec.std
    )


def _own_dataset(node: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return which data set to read: its name and options from the server, its place from here.

    Raises
    ------
    ConfigError
        If this device does not say where, or the data would come over the network.
    """
    name = told["name"]
    if "data-root" not in node:
        raise ConfigError(
            "partition-id needs data-root, the folder on this device that holds the data set "
            f"(data-root={PACKAGED!r} for {', '.join(_IN_PACKAGES)}, which needs none): the "
            "server does not choose what is read here"
        )
    fetched = [key for key, value in told["options"].items() if key == "download" and value]
    if name in _NETWORK or fetched:
        raise ConfigError(
            f"the server deals {name}{' with download=true' if fetched else ''}, which comes over "
            "the network: devices read only what they have; put it into a folder and let the "
            "server deal that (dataset=npz or image_folder)"
        )
    if name in _IN_PACKAGES:
        return {**told, "root": None}
    root = Path(str(node["data-root"])).expanduser()
    if not root.exists():
        raise ConfigError(f"data-root {root} does not exist: mount it, or correct the path")
    return {**told, "root": str(root)}


def _partition(client_id: int, node: Mapping[str, Any], spec: DeviceSpec) -> DeviceData:
    """Deal a known data set as the simulator does, and keep one partition."""
    from fedlabels.run.data import build_data

    if spec.federation is None:
        raise ConfigError(
            "partition-id needs a server that deals a known data set (deploy.partitions=true); "
            "give client-id and data-dir instead"
        )
    settings = dict(spec.federation)
    settings["dataset"] = _own_dataset(node, settings["dataset"])
    source, federation = build_data(settings)
    if spec.federation_hash not in (None, federation.hash):
        raise DataError(
            f"this device deals a federation with the hash {federation.hash[:12]}, the server one "
            f"with {spec.federation_hash[:12]}: their shares would overlap; give both the same "
            "files (data-root) and the same version of the toolkit"
        )
    if client_id >= len(federation):
        raise ConfigError(
            f"partition-id {client_id} does not exist: the data set is dealt to {len(federation)} "
            "clients, 0 and up"
        )
    unlabeled = federation.unlabeled[client_id]
    y = source.train.y.copy()
    y[unlabeled] = -1  # a device does not know them
    return DeviceData(
        client_id,
        replace(source.train, y=y),
        source.test,
        federation.labeled[client_id],
        unlabeled,
        federation.given_to(client_id),
        federation.test[client_id],
    )
