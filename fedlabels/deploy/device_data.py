"""What a device holds: its own folder of data, or its partition of a known data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import ArrayDataset
from fedlabels.data.image_folder import listing
from fedlabels.data.images import decode
from fedlabels.data.npz import Values, plain_samples, read_split
from fedlabels.data.timeseries_npz import series
from fedlabels.deploy.node import PACKAGED, client_id_of, data_root_of
from fedlabels.deploy.spec import DeviceSpec
from fedlabels.errors import ConfigError, DataError

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


def read(node: Mapping[str, Any], spec: DeviceSpec) -> DeviceData:
    """Read a device's data, from where the device says and never over the network.

    Parameters
    ----------
    node : mapping
        Flower's node configuration, as `client_id_of` wants it.
    spec : DeviceSpec
        What the samples must be like.

    Raises
    ------
    ConfigError
        If the configuration is incomplete or wrong.
    DataError
        If files are missing or damaged, or do not fit the model.
    """
    client_id = client_id_of(node)
    if "partition-id" in node:
        return _partition(client_id, node, spec)
    folder = Path(str(node["data-dir"])).expanduser()
    if not folder.is_dir():
        raise DataError(f"data-dir {folder} is no folder: mount or make it, or correct the path")
    kind = kind_of(node, folder)
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


def kind_of(node: Mapping[str, Any], folder: Path) -> str:
    """Return of which kind a device's data are: as it says, or as the folder looks."""
    looks = "npz" if (folder / "train.npz").is_file() else "image_folder"
    return str(node.get("data-kind", looks))


def _arrays(
    folder: Path, split: str, convert: Callable[[str, NDArray[Any]], Values]
) -> tuple[NDArray[Any], Indices] | None:
    if not (folder / f"{split}.npz").is_file():
        return None
    found = read_split(folder, split, convert)
    return found.x, found.y if found.given is None else found.given


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
        remedy = "store np.moveaxis(x, -1, 1), channels first" if last else "convert them"
        raise DataError(
            f"data-dir {folder}: the federation's samples are {np.dtype(kind)} of shape "
            f"{spec.shape}, these are {x.dtype} of shape {x.shape[1:]}; {remedy}"
        )
    return ArrayDataset(
        folder.name or "device", x, y, spec.num_classes, spec.class_names, spec.mean, spec.std
    )


def check_dealt(dataset: Mapping[str, Any]) -> None:
    """Check that devices can read a data set that a server deals: none comes over the network.

    Parameters
    ----------
    dataset : mapping
        Settings of the data set, with ``name`` and ``options``.

    Raises
    ------
    ConfigError
        If it would.
    """
    fetched = [key for key, value in dataset["options"].items() if key == "download" and value]
    if dataset["name"] in _NETWORK or fetched:
        raise ConfigError(
            f"the server deals {dataset['name']}{' with download=true' if fetched else ''}, which "
            "comes over the network: devices read only what they have; put it into a folder and "
            "let the server deal that (dataset=npz or image_folder)"
        )


def check_files(settings: Mapping[str, Any]) -> None:
    """Refuse a partition or labels that stand in a file: a device reads none that a server names.

    Parameters
    ----------
    settings : mapping
        What a server deals by, with ``partition`` and ``labels``.

    Raises
    ------
    ConfigError
        If there is one.
    """
    for group in ("partition", "labels"):
        if settings.get(group, {}).get("file") is not None:
            raise ConfigError(
                f"{group}={settings[group]['name']} deals by a file, which devices do not have and "
                "do not read; give each device its samples as its own (data-dir), or deal by a rule"
            )


def _own_dataset(node: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return which data set to read: its name and options from the server, its place from here.

    Raises
    ------
    ConfigError
        If it is not where this device says, or would come over the network.
    """
    check_dealt(dataset)
    name = dataset["name"]
    root = data_root_of(node)
    if name in _IN_PACKAGES:
        return {**dataset, "root": None}
    if root is None:
        raise ConfigError(
            f"data-root {PACKAGED!r} does not exist for {name}, which the server deals, but for "
            f"{', '.join(_IN_PACKAGES)} alone: give the folder that holds it"
        )
    return {**dataset, "root": str(root)}


def _partition(client_id: int, node: Mapping[str, Any], spec: DeviceSpec) -> DeviceData:
    """Deal a known data set as the simulator does, and keep one partition."""
    from fedlabels.run.data import build_data

    if spec.federation is None:
        raise ConfigError(
            "partition-id needs a server that deals a known data set (deploy.partitions=true); "
            "give client-id and data-dir instead"
        )
    settings = dict(spec.federation)
    check_files(settings)
    settings["dataset"] = _own_dataset(node, settings["dataset"])
    source, federation = build_data(settings)
    if spec.federation_hash not in (None, federation.hash):
        raise DataError(
            f"this device deals a federation with the hash {federation.hash[:12]}, the server one "
            f"with {spec.federation_hash[:12]}: their shares would overlap; give both the same "
            "files (data-root) and the same version of the toolkit"
        )
    count = node.get("num-partitions", len(federation))
    if count != len(federation):
        raise ConfigError(
            f"num-partitions is {count}, but the data set is dealt to {len(federation)} clients: "
            "correct it, or leave it out"
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
        replace(source.train, y=y, given=None),
        source.test,
        federation.labeled[client_id],
        unlabeled,
        federation.labels_of(client_id),
        federation.test[client_id],
    )
