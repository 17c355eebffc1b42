"""Where a new run's model begins, if not at fresh weights: at a run's model, or at a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels.cohort import Layout
from fedlabels.errors import ConfigError, DataError
from fedlabels.machine.files import write_atomic
from fedlabels.machine.tensors import read_tensors, tensor_bytes, tensors_sha256
from fedlabels.rounds.job import Arrays
from fedlabels.run.folder.checkpoint import MODEL, Checkpoint
from fedlabels.run.world import Start, World

KEPT = "start.safetensors"
"""The run's own copy of what it began from: a resume does not need the place it came from."""
_SHOWN = 4


def file_of(given: str) -> Path:
    """Return the file of weights that ``model.start`` names: itself, or that of a run folder."""
    path = Path(given).expanduser()
    return path / MODEL if path.is_dir() else path


def weights_sha256(given: str) -> str:
    """Return the hash of the tensors that ``model.start`` names.

    Raises
    ------
    DataError
        If they cannot be read.
    """
    return tensors_sha256(_read(file_of(given), given))


def _read(path: Path, given: str) -> Arrays:
    try:
        return read_tensors(path)[0]
    except DataError as error:
        raise DataError(f"model.start={given}: {error}") from error


def start_of(
    config: Mapping[str, Any], world: World, folder: Path, checkpoint: Checkpoint | None
) -> Start | None:
    """Read what a run begins from.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Whose model it is to fit.
    folder : Path
        The run folder.
    checkpoint : Checkpoint or None
        Where the run goes on from.

    Returns
    -------
    Start or None
        None where ``model.start`` is not set.

    Raises
    ------
    ConfigError
        If nothing of it fits the model, or clients have several architectures.
    DataError
        If it cannot be read.
    """
    given = config["model"].get("start")
    if given is None:
        return None
    if config["architectures"]["models"]:
        raise ConfigError(
            "model.start begins one architecture: empty architectures.models, or leave it out"
        )
    same = checkpoint is None or checkpoint.manifest["config"].get("model.start") == given
    kept = folder / KEPT
    resumed = config.get("resume") is not None
    path = kept if resumed and same and kept.is_file() else file_of(given)
    arrays = _read(path, given)
    fitting, notes = fitted(arrays, world.layout, given, str(config["model"]["name"]))
    return Start(fitting, tensors_sha256(arrays), notes, arrays)


def fitted(
    arrays: Arrays, layout: Layout, given: str, model: str
) -> tuple[Arrays, tuple[str, ...]]:
    """Choose the tensors that a model takes over, and say which ones are new or left.

    Parameters
    ----------
    arrays : dict of str to ndarray
        What was read.
    layout : Layout
        Of the model.
    given, model : str
        Where they come from, and the model's name, for messages.

    Raises
    ------
    ConfigError
        If no tensor below the head has name and shape of one of the model's.
    DataError
        If one that has is of another kind of numbers, or not finite.
    """
    fitting = {
        name: value
        for name, value in arrays.items()
        if name in layout and layout[name].shape == value.shape
    }
    if fitting.keys() <= layout.head:  # a bias of as many classes is no model
        raise ConfigError(
            f"model.start={given} has nothing below the head that fits model={model}: it holds "
            f"{_listed({k: v.shape for k, v in arrays.items()}) or 'nothing'}; the model has "
            f"{_listed({k: layout[k].shape for k in layout})}. Choose the model that it is of; a "
            "run whose clients have models of their own leaves none to begin from"
        )
    for name, value in fitting.items():
        if (value.dtype.kind == "f") != layout[name].dtype.is_floating_point:
            raise DataError(
                f"model.start={given}: {name} is of {value.dtype}, and the model's of "
                f"{layout[name].dtype}; store numbers of that kind"
            )
        if not np.isfinite(value).all():
            raise DataError(
                f"model.start={given}: {name} has entries that are not finite; give a model from "
                "before they came about"
            )
    fresh = {name: layout[name].shape for name in layout if name not in fitting}
    left = {name: value.shape for name, value in arrays.items() if name not in layout}
    notes = []
    if fresh:
        notes.append(
            f"model.start: {len(fresh)} of {len(layout)} tensors begin anew, since it has none of "
            f"their names and shapes: {_listed(fresh)}"
        )
    if left:
        notes.append(
            f"model.start: {len(left)} of its tensors are no part of the model: {_listed(left)}"
        )
    return fitting, tuple(notes)


def keep(start: Start | None, folder: Path) -> None:
    """Write the run's own copy of what it began from, once."""
    if start is not None and not (folder / KEPT).exists():
        write_atomic(folder / KEPT, tensor_bytes(start.read))


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    names = [f"{name} {tuple(shape)}" for name, shape in shapes.items()]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
