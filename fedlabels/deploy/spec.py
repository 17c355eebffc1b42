"""What the server tells its devices: one JSON string, sent with every task.

A device builds its client, model and views from it by name, out of its own registries: the string
names no code, no file and no address. Which folder is read is said on the device alone; where the
server deals a known data set, the string has its name and how it is dealt, and the device's own
`data-root` is where it is looked for.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedlabels.errors import ConfigError
from fedlabels.worker.mods import MODS

FORMAT = 1
LARGEST = 2**31 - 1
"""Largest client_id: one that every table, file name and spreadsheet holds as it is."""
PRECISIONS = ("float32", "float64", "bfloat16")


@dataclass(frozen=True)
class DeviceSpec:
    """All that a device must know beside its data.

    Parameters
    ----------
    run : str
        Name of the run, which a device's state belongs to.
    seed : int
        The run's seed, >= 0.
    client, model : mapping
        Settings, with ``name``.
    shape : tuple of int
        Shape of one sample.
    class_names : tuple of str
        At least two; a device's classes are numbered by them.
    mean, std : tuple of float
        Normalization, one number a channel, of pixels scaled to [0, 1] or of features.
    pixels : bool
        Whether samples are uint8.
    views : str
        Preset of the weak and strong views.
    view_options : mapping
        What differs from it.
    precision : {"float32", "float64", "bfloat16"}
        Of the computation.
    federation : mapping or None
        Settings by which a known data set is dealt, for devices that hold a partition of it.
    federation_hash : str or None
        Hash of what comes of it at the server; None where the server has no data to deal.
    mods : tuple of str
        Flower mods around the training, outermost first; keys of `worker.mods.MODS`.
    plugins : mapping of str to str
        Packages that hold the client, with their hashes; see `fedlabels.plugins`.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    run: str
    seed: int
    client: Mapping[str, Any]
    model: Mapping[str, Any]
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: bool
    views: str = "none"
    view_options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    federation: Mapping[str, Any] | None = None
    federation_hash: str | None = None
    mods: tuple[str, ...] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = {
            "run": isinstance(self.run, str) and self.run.isalnum(),
            "seed": _whole(self.seed, 0),
            "client": _named(self.client),
            "model": _named(self.model),
            "shape": bool(self.shape) and all(_whole(size, 1) for size in self.shape),
            "class_names": len(self.class_names) >= 2
            and all(isinstance(name, str) for name in self.class_names),
            "mean": _numbers(self.mean) and (len(self.mean),) == self.shape[:1],
            "std": _numbers(self.std) and (len(self.std),) == self.shape[:1] and min(self.std) > 0,
            "pixels": isinstance(self.pixels, bool),
            "views": isinstance(self.views, str),
            "view_options": isinstance(self.view_options, Mapping),
            "precision": self.precision in PRECISIONS,
            "federation": self.federation is None or isinstance(self.federation, Mapping),
            "federation_hash": self.federation_hash is None
            or isinstance(self.federation_hash, str),
            "plugins": isinstance(self.plugins, Mapping)
            and all(isinstance(text, str) for pair in self.plugins.items() for text in pair),
            "mods": all(isinstance(mod, str) and mod in MODS for mod in self.mods),
        }
        wrong = [name for name, good in checks.items() if not good]
        if wrong:
            raise ConfigError(
                f"what the server sent is not usable: {wrong[0]} is {getattr(self, wrong[0])!r}"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def dumps(self) -> str:
        """Return it as JSON, the same string for the same values."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), default=dict)


def loads(text: str) -> DeviceSpec:
    """Read what `DeviceSpec.dumps` wrote.

    Raises
    ------
    ConfigError
        If it is damaged, or of another version of the toolkit.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"what the server sent is no JSON: {error}") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ConfigError(
            f"the server speaks another version than this device (format {FORMAT}): install the "
            "same version of the toolkit on both"
        )
    known = {entry.name for entry in dataclasses.fields(DeviceSpec)}
    if set(values) != known:
        raise ConfigError(
            f"what the server sent has other fields: {sorted(set(values) ^ known)}; install the "
            "same version of the toolkit on both"
        )
    for name in ("shape", "class_names", "mean", "std", "mods"):
        if not isinstance(values[name], list):
            raise ConfigError(f"what the server sent is not usable: {name} is {values[name]!r}")
        values[name] = tuple(values[name])
    return DeviceSpec(**values)


def dumps_preview(spec: DeviceSpec, flower: str) -> str:
    """Return what the command doctor reads: a specification, and the server's Flower.

    Parameters
    ----------
    spec : DeviceSpec
        What devices will be told.
    flower : str
        The version of Flower on the server.
    """
    return json.dumps({"flwr": flower, "spec": json.loads(spec.dumps())}, sort_keys=True) + "\n"


def loads_preview(text: str) -> tuple[DeviceSpec, str]:
    """Read what `dumps_preview` wrote.

    Raises
    ------
    ConfigError
        If it is damaged, or of another version of the toolkit.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"it is no JSON: {error}") from error
    if not isinstance(values, dict) or set(values) != {"flwr", "spec"}:
        raise ConfigError("it does not say the server's Flower: this version of the toolkit does")
    if not isinstance(values["flwr"], str):
        raise ConfigError(f"the server's Flower is {values['flwr']!r}")
    return loads(json.dumps(values["spec"])), values["flwr"]


def _whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _named(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str)


def _numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)
