"""Any partitioner of the library flwr-datasets, by its class name.

For comparisons, and for the rules that only it has. It is about a hundred times slower than the
partitioners here, and an optional extra: nothing of it is imported before it is asked for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from reprlib import repr as shorten
from typing import Any

import numpy as np

from fedlabels import telemetry
from fedlabels.errors import ConfigError
from fedlabels.federation.partition import PARTITIONS, Partition
from fedlabels.federation.ragged import Indices
from fedlabels.federation.registry import register
from fedlabels.federation.samples import Samples

_INSTALL = 'pip install "flwr-datasets>=0.6,<0.7"'


@register(PARTITIONS, "flower")
@dataclass(frozen=True, kw_only=True)
class Flower(Partition):
    """Deal as a partitioner of flwr-datasets says.

    Parameters
    ----------
    target : str
        Class in ``flwr_datasets.partitioner``, for instance ``"PathologicalPartitioner"``.
    options : dict
        Arguments of its constructor. Those named ``num_partitions``, ``partition_by`` and ``seed``
        are filled in where they lack: the number of clients, ``"label"``, a draw from the run's
        seed.

    Notes
    -----
    It sees a table without content, shuffled by the run's seed as the library's own
    ``FederatedDataset`` does before it partitions: the columns ``label`` and ``index``, and
    ``domain`` and ``owner`` where the data set has them. Their values are numbered 0, 1, ...
    without gaps, in order, since some rules deal 0..n-1 only; samples of unknown class are one more
    label, the last. A rule that deals fewer samples than there are (sizes that it is given) leaves
    the rest to nobody; ``preview`` says how many.
    """

    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.options, Mapping):
            raise ConfigError(f"options must be names and values, got {self.options!r}")
        object.__setattr__(self, "options", dict(self.options))
        try:
            json.dumps(self.options)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"options must be numbers, texts, lists and dicts, got {self.options!r} ({error})"
            ) from error

    def owners(self, samples: Samples, *, clients: int, random: np.random.Generator) -> Indices:
        """Name the owner of every sample; see :class:`Partition`.

        Raises
        ------
        ConfigError
            If the library is not installed, or with the text of whatever error it raises.
        """
        kind = self._kind()
        arguments = self._arguments(kind, clients, random)
        order = random.permutation(len(samples))
        table = _library("datasets").Dataset.from_dict(_columns(samples, order))
        try:
            partitioner = kind(**arguments)
            partitioner.dataset = table
            count = int(partitioner.num_partitions)
            numbers = range(min(count, clients))
            parts = [np.asarray(partitioner.load_partition(k)["index"][:]) for k in numbers]
        # Its errors, and those of the libraries below it, have no common class.
        except Exception as error:
            raise ConfigError(
                f"{self.target}({_text(arguments)}) of flwr-datasets: "
                f"{type(error).__name__}: {error}"
            ) from error
        if count != clients:
            raise ConfigError(
                f"{self.target}({_text(arguments)}) of flwr-datasets makes {count} partitions for "
                f"{clients} clients; set clients={count}, or change its options"
            )
        return self._owners(parts, len(samples))

    def _kind(self) -> Any:
        module = _library("flwr_datasets.partitioner")
        kind = getattr(module, self.target, None)
        if not (isinstance(kind, type) and hasattr(kind, "load_partition")):
            known = [n for n in dir(module) if n.endswith("Partitioner") and n != "Partitioner"]
            raise ConfigError(
                f"flwr-datasets has no partitioner {self.target!r}; it has {', '.join(known)}"
            )
        return kind

    def _arguments(self, kind: Any, clients: int, random: np.random.Generator) -> dict[str, Any]:
        """Fill in what the constructor takes and the options leave out."""
        seed = int(random.integers(2**31))
        defaults = {"num_partitions": clients, "partition_by": "label", "seed": seed}
        taken = signature(kind).parameters
        return {**{k: v for k, v in defaults.items() if k in taken}, **self.options}

    def _owners(self, parts: list[Indices], samples: int) -> Indices:
        index = np.concatenate(parts).astype(np.int64)
        if len(np.unique(index)) < len(index):
            raise ConfigError(
                f"{self.target} of flwr-datasets gives a sample to several clients; a partition "
                "gives it to one at most"
            )
        owners = np.full(samples, -1, dtype=np.int64)
        owners[index] = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return owners


def _library(name: str) -> Any:
    telemetry.disable()  # the library reads it when it is imported
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"partition=flower needs the library flwr-datasets ({error}); install it: {_INSTALL}"
        ) from error


def _columns(samples: Samples, order: Indices) -> dict[str, Indices]:
    known = np.where(samples.labels < 0, samples.num_classes, samples.labels)
    columns = {"label": _dense(known[order]), "index": order}
    for name, values in (("domain", samples.domain), ("owner", samples.owner)):
        if values is not None:
            columns[name] = _dense(values[order])
    return columns


def _dense(values: Indices) -> Indices:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _text(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={shorten(value)}" for name, value in arguments.items())
