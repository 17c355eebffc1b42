"""From a run folder or a file of weights to a module that takes raw samples."""

import os
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from fedlabels.cohort.net import build_seeded
from fedlabels.errors import ConfigError, DataError
from fedlabels.machine.tensors import Arrays, read_tensors, tensors_sha256
from fedlabels.models import Classifier, build
from fedlabels.models.description import FILE, HEADER, Description, Samples, loads
from fedlabels.worker.state import unflatten

WEIGHTS, STATES = "model.safetensors", "state"
_LOW = {"bfloat16": torch.bfloat16}


class Stored(NamedTuple):
    """What a file of weights holds.

    Parameters
    ----------
    path : Path
        The file.
    arrays : dict of str to ndarray
        Its tensors.
    description : Description
        Of the model.
    """

    path: Path
    arrays: Arrays
    description: Description


class RunModel(nn.Module):
    """A run's network with its normalization: it takes raw samples and returns logits.

    Parameters
    ----------
    net : Classifier
        The network, whose type is that of the computation.
    description : Description
        What the run wrote of it.
    origin : str
        Whose weights these are, in words.

    Attributes
    ----------
    class_names : tuple of str
        One name a class, in the order of the logits.
    shape : tuple of int
        Of one sample, channels first.
    dtype : torch.dtype
        Of raw samples: ``torch.uint8`` (pixels 0 to 255) or ``torch.float32``.
    """

    def __init__(self, net: Classifier, description: Description, origin: str = "") -> None:
        super().__init__()
        samples = description.samples
        self.net, self.description, self.origin = net, description, origin
        self.class_names, self.shape = description.class_names, samples.shape
        self.dtype = torch.uint8 if samples.pixels else torch.float32
        self.low = _LOW.get(description.precision)
        scale, shift = _constants(samples, net.head.weight.dtype)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Classify raw samples.

        Parameters
        ----------
        x : Tensor, shape (batch, *shape)
            Raw samples, of type ``dtype``.

        Returns
        -------
        Tensor, shape (batch, classes)
            Logits; their softmax are probabilities.

        Raises
        ------
        DataError
            If shape or type are others.
        """
        if tuple(x.shape[1:]) != self.shape or x.dtype != self.dtype:
            raise DataError(
                f"the model takes raw samples of shape (batch, {', '.join(map(str, self.shape))}) "
                f"and type {self.description.samples.dtype}, got {tuple(x.shape)} "
                f"{str(x.dtype).removeprefix('torch.')}"
            )
        x = self.normalized(x)
        if self.low is None:
            logits: Tensor = self.net(x)
            return logits
        with torch.autocast(x.device.type, self.low):
            logits = self.net(x)
        return logits.to(x.dtype)

    def normalized(self, x: Tensor) -> Tensor:
        """Return samples as the network was trained on them, in its type; as the run does it."""
        scale, shift = cast(Tensor, self.scale), cast(Tensor, self.shift)
        x = x.to(scale.dtype)
        if self.description.samples.pixels:
            x = x / 255
        return torch.addcmul(shift, x, scale)


def _constants(samples: Samples, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (-1,) + (1,) * (len(samples.shape) - 1)
    mean = torch.tensor(samples.mean, dtype=dtype).view(shape)
    std = torch.tensor(samples.std, dtype=dtype).view(shape)
    return 1 / std, -mean / std


def load_model(source: str | os.PathLike[str], client: int | None = None) -> RunModel:
    """Load the model of a run, or one client's own model.

    It needs neither the data nor what simulations need (Hydra, Ray).

    Parameters
    ----------
    source : str or path
        A run folder, for its newest model, or a file ``model.safetensors`` of one or of a
        checkpoint, wherever it lies: it needs nothing beside it.
    client : int or None
        Whose own model; None is the global one. Where the clients of a run keep some tensors only
        (FedBN's batch normalization), the rest is the global model's.

    Returns
    -------
    RunModel
        A `torch.nn.Module` in evaluation mode, on the CPU: raw samples, shape (batch, *shape), to
        logits, shape (batch, classes).

    Raises
    ------
    DataError
        If there is no model, or it is damaged.
    ConfigError
        If the run has no global model and no client is named, or the client keeps none of its own.
    """
    stored = read_stored(Path(source))
    description = stored.description
    if client is not None:
        return _own(stored, client)
    if not description.has_model:
        raise ConfigError(
            f"{stored.path} holds no model: clients of {description.client} have models of their "
            "own; name a client, whose model it shall be (client=K); those that have one: "
            f"{_listed(_keepers(stored.path.parent))}"
        )
    net = _filled(_net(description, 0), stored, stored.arrays)
    return RunModel(net, description, f"the global model after round {description.round}")


def read_stored(source: Path) -> Stored:
    """Read a file of weights, or that of a run folder, with its description.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    """
    path = source / WEIGHTS if source.is_dir() else source
    arrays, header = read_tensors(path)
    if HEADER in header:
        description = loads(header[HEADER], f"the header of {path}")
    elif (beside := path.with_name(FILE)).is_file():
        description = loads(beside.read_text(encoding="utf-8"), str(beside))
    else:
        raise DataError(
            f"{path} says nothing of its model, and there is no {FILE} beside it: a version of "
            "fedlabels that did not write it made the run, or another program the file"
        )
    if tensors_sha256(arrays) != description.sha256:
        raise DataError(
            f"the tensors of {path} are not those that its description is of (SHA-256): restore "
            f"the file, or the {FILE} beside it"
        )
    return Stored(path, arrays, description)


def _net(description: Description, group: int) -> Classifier:
    """Build a group's network; global random numbers stay as they are."""
    chosen = description.architectures[group]
    settings = dict(chosen.settings)
    built = build_seeded(lambda: {"net": build(chosen.name, description.spec, **settings)}, 0)
    return cast(Classifier, built["net"])


def _filled(net: Classifier, stored: Stored, arrays: Arrays) -> Classifier:
    """Put weights into a network, whose type becomes theirs."""
    tensors = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    kinds = (value.dtype for value in tensors.values() if value.is_floating_point())
    try:
        net.to(next(kinds, torch.float32)).load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(
            f"{stored.path} does not fit its architecture ({' '.join(str(error).split())}): the "
            f"model's code was another, that of fedlabels {stored.description.version}"
        ) from error
    return net


# ---- a client's own model


def _own(stored: Stored, client: int) -> RunModel:
    """Return a client's own model."""
    description, folder = stored.description, stored.path.parent
    if description.has_model and not description.private:
        raise ConfigError(
            f"client={client}: clients of {description.client} keep no model of their own; leave "
            "client out for the global model"
        )
    keepers = _keepers(folder)
    if client not in keepers:
        rest = "leave client out for the global model, which it uses as it is"
        if not description.has_model:
            rest = f"those that have one: {_listed(keepers)}"
        raise ConfigError(
            f"{folder / STATES} holds nothing of client={client}, which keeps something once it "
            f"was drawn; {rest}"
        )
    trees, index = _state(folder / STATES / str(client), description.round)
    net = _net(description, _group(description, folder, client))
    due = set(description.private) or set(net.state_dict())
    for arrays in trees.values():
        if due <= set(arrays):
            own = {name: arrays[name] for name in due}
            origin = f"client {client}'s own model after round {index}"
            weights = {**stored.arrays, **own} if description.has_model else own
            return RunModel(_filled(net, stored, weights), description, origin)
    raise DataError(
        f"{folder / STATES / str(client)} holds no model: what this client keeps is "
        f"{', '.join(trees) or 'nothing'}"
    )


def _keepers(folder: Path) -> list[int]:
    """Return the clients that keep something in a run folder."""
    found = (path.parent.name for path in (folder / STATES).glob("*/*.safetensors"))
    return sorted({int(name) for name in found if name.isdecimal()})


def _state(folder: Path, last: int) -> tuple[dict[str, Arrays], int]:
    """Return the newest state of a client up to a round, and the round that left it."""
    rounds = sorted(int(path.stem) for path in folder.glob("*.safetensors"))
    past = [index for index in rounds if index <= last]
    if not past:
        raise DataError(
            f"{folder} holds nothing up to round {last}, after which the run's model is"
        )
    arrays, _ = read_tensors(folder / f"{past[-1]:08d}.safetensors")
    return unflatten(arrays), past[-1]


def _group(description: Description, folder: Path, client: int) -> int:
    """Return whose architecture a client has."""
    if len(description.architectures) == 1:
        return 0
    file = folder / "federation.npz"
    try:
        with np.load(file, allow_pickle=False) as archive:
            return int(archive["groups"][client])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{file} does not say which model client {client} has ({error})") from error


def _listed(clients: list[int]) -> str:
    if not clients:
        return "none"
    return ", ".join(map(str, clients[:10])) + (", ..." if len(clients) > 10 else "")
