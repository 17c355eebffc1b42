"""What a run writes of its model: all that it takes to build and to feed it, without the data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedlabels.cohort.types import EMPTY, DataSpec
from fedlabels.errors import DataError
from fedlabels.machine.files import json_bytes

FILE = "model.json"
"""Name of the file with a description, in a run folder."""
HEADER = "fedlabels"
"""Key of the same text in the header of a safetensors file; its only one."""
FORMAT = 1
_AXES = {1: ("features",), 2: ("channels", "time"), 3: ("channels", "height", "width")}


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Parameters
    ----------
    name : str
        A key of `fedlabels.models.MODELS`.
    settings : mapping
        Its settings.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Samples:
    """What raw samples look like, and how they are normalized.

    Parameters
    ----------
    shape : tuple of int
        Of one sample, channels first.
    pixels : bool
        Whether samples are uint8, 0 to 255; otherwise float32.
    mean, std : tuple of float
        One number a channel: of pixels scaled to [0, 1], or of float samples as they are.
    range : tuple of float, or None
        Least and greatest value of the training samples; None where the run held none.
    layout : str or None
        What the run was told of the order of axes in its files (``dataset.options.layout``).
    size : int or None
        Side in pixels to which the run scaled its pictures (``dataset.options.size``).
    """

    shape: tuple[int, ...]
    pixels: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float] | None = None
    layout: str | None = None
    size: int | None = None

    @property
    def dtype(self) -> str:
        """Type of raw samples, as numpy and torch call it."""
        return "uint8" if self.pixels else "float32"


@dataclass(frozen=True)
class Description:
    """A model of a run.

    Parameters
    ----------
    architectures : tuple of Architecture
        One a group of clients; the first one is the global model's.
    samples : Samples
        What goes in.
    class_names : tuple of str
        What comes out: one name a class.
    client, strategy : str
        The method.
    round : int
        After which the weights are.
    sha256 : str
        Of the tensors, see :func:`~fedlabels.machine.tensors.tensors_sha256`.
    has_model : bool
        Whether the tensors are a model; if not, every client has one of its own.
    private : tuple of str
        Tensors of the model that every client has of its own.
    precision : {"float32", "float64", "bfloat16"}
        Of the computation.
    version : str
        Of the package.
    """

    architectures: tuple[Architecture, ...]
    samples: Samples
    class_names: tuple[str, ...]
    client: str
    strategy: str
    round: int
    sha256: str
    has_model: bool
    private: tuple[str, ...]
    precision: str
    version: str

    @property
    def spec(self) -> DataSpec:
        """Shape of a sample and number of classes."""
        return DataSpec(self.samples.shape, len(self.class_names))

    def dumps(self) -> str:
        """Return it as JSON: equal descriptions give equal texts."""
        samples = self.samples
        shape = samples.shape
        axes = _AXES.get(len(shape)) or ("channels", *(f"axis {k}" for k in range(1, len(shape))))
        values = {
            "format": FORMAT,
            "version": self.version,
            "method": {"client": self.client, "strategy": self.strategy},
            "round": self.round,
            "sha256": self.sha256,
            "global_model": self.has_model,
            "private_tensors": list(self.private),
            "architectures": [
                {"name": one.name, "settings": dict(one.settings)} for one in self.architectures
            ],
            "precision": self.precision,
            "sample": {
                "shape": list(shape),
                "axes": list(axes),
                "dtype": samples.dtype,
                "mean": list(samples.mean),
                "std": list(samples.std),
                "range": None if samples.range is None else list(samples.range),
                "layout": samples.layout,
                "size": samples.size,
            },
            "num_classes": len(self.class_names),
            "class_names": list(self.class_names),
        }
        return json_bytes(values).decode()


def loads(text: str, where: str) -> Description:
    """Read what `Description.dumps` wrote.

    Parameters
    ----------
    text : str
        The JSON text.
    where : str
        Where it comes from, for the message.

    Raises
    ------
    DataError
        If it is damaged, or a later version wrote it.
    """
    try:
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise DataError(
                f"{where} has format {values['format']}, this version reads {FORMAT}: use fedlabels"
                f" {values['version']}"
            )
        sample = values["sample"]
        return Description(
            architectures=tuple(
                Architecture(str(one["name"]), dict(one["settings"]))
                for one in values["architectures"]
            ),
            samples=Samples(
                shape=tuple(map(int, sample["shape"])),
                pixels=sample["dtype"] == "uint8",
                mean=tuple(map(float, sample["mean"])),
                std=tuple(map(float, sample["std"])),
                range=None if sample["range"] is None else (*map(float, sample["range"]),),  # type: ignore[arg-type]
                layout=sample["layout"],
                size=sample["size"],
            ),
            class_names=tuple(map(str, values["class_names"])),
            client=str(values["method"]["client"]),
            strategy=str(values["method"]["strategy"]),
            round=int(values["round"]),
            sha256=str(values["sha256"]),
            has_model=bool(values["global_model"]),
            private=tuple(map(str, values["private_tensors"])),
            precision=str(values["precision"]),
            version=str(values["version"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where} is damaged ({error}): restore it") from error
