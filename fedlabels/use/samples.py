"""What a model is asked about: arrays, pictures, or a run's own test split, as raw samples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.images import SUFFIXES, is_image, read_pixels
from fedlabels.data.labels import one_a_sample
from fedlabels.errors import ConfigError, DataError
from fedlabels.models.description import Description, Samples

TEST = "test"
"""Word for the run's own test split."""
_UNKNOWN = -1


class Asked(NamedTuple):
    """Raw samples, with what is known of them.

    Parameters
    ----------
    x : ndarray, shape (N, *shape)
        The samples, of the model's type.
    names : list of str
        File names of pictures; the positions of others.
    y : ndarray of int64, shape (N,), or None
        Classes, -1 where one is not known; None where no class is.
    """

    x: NDArray[Any]
    names: list[str]
    y: NDArray[np.int64] | None


def read_samples(data: str, description: Description, run: Path) -> Asked:
    """Read what a model is asked about.

    Parameters
    ----------
    data : str
        ``test``, a picture, a folder of pictures, a ``.npy`` or a ``.npz`` file.
    description : Description
        Of the model.
    run : Path
        The run folder, whose test split ``test`` is.

    Raises
    ------
    DataError
        If there is nothing, or it does not fit the model.
    """
    if data == TEST:
        return _own_test(run)
    path = Path(data)
    if path.is_dir():
        return _pictures(path, description)
    if not path.is_file():
        raise DataError(
            f"there is no {path}: give a .npz or .npy file, a picture, a folder of pictures, or"
            f" {TEST} for the test split of the run"
        )
    if path.suffix.lower() == ".npy":
        return _arrays(path, {"x": _loaded(path)}, description)
    if path.suffix.lower() == ".npz":
        return _arrays(path, _loaded(path), description)
    if is_image(path):
        x = _pixels(path, description.samples)[None]
        return Asked(x, [path.name], None)
    raise DataError(
        f"{path} is of no known kind: give a .npz or .npy file, or a picture"
        f" ({', '.join(SUFFIXES)})"
    )


def fitted(where: str, x: NDArray[Any], samples: Samples) -> NDArray[Any]:
    """Bring an array into the model's form: batch axis, channel axis and order of axes.

    Parameters
    ----------
    where : str
        What is read, for the message.
    x : ndarray
        Samples, channels first or last, or a single one; grey images may lack their channel axis.
    samples : Samples
        What the model takes.

    Returns
    -------
    ndarray, shape (N, *shape)
        uint8 or float32, as the model takes it.

    Raises
    ------
    DataError
        If shape, type or values do not fit.
    """
    x = _typed(where, x, samples)
    found, wanted = _shaped(x, samples), ", ".join(map(str, samples.shape))
    if found is None:
        raise DataError(
            f"{where} has shape {x.shape}; the model takes samples of shape ({wanted}), so (N, "
            f"{wanted}), or with the channels last"
        )
    if not len(found):
        raise DataError(f"{where} holds no sample")
    return np.ascontiguousarray(found)


def _shaped(x: NDArray[Any], samples: Samples) -> NDArray[Any] | None:
    """Return the one reading of an array that fits; where two do, the order the run was told."""
    shape = samples.shape
    first, last = shape, (*shape[1:], shape[0])
    orders = [False, True]
    if samples.layout in ("channels_last", "time_channels"):
        orders.reverse()
    for moved in orders:
        wanted = last if moved else first
        for batch in (x, x[None]):
            if batch.shape[1:] == wanted:
                return np.moveaxis(batch, -1, 1) if moved else batch
    if len(shape) == 3 and shape[0] == 1:
        for batch in (x, x[None]):
            if batch.shape[1:] == shape[1:]:
                return batch[:, None]
    return None


def _typed(where: str, x: NDArray[Any], samples: Samples) -> NDArray[Any]:
    if samples.pixels:
        if x.dtype != np.uint8:
            raise DataError(
                f"{where} is {x.dtype}, and the model takes pixels from 0 to 255 as uint8: store "
                "x.astype('uint8'), or (255 * x).round().astype('uint8') if they are from 0 to 1"
            )
        return x
    if x.dtype.kind != "f":
        raise DataError(
            f"{where} is {x.dtype}, and the model takes numbers as float32, as they were in its "
            "data set: store x.astype('float32')"
        )
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise DataError(f"{where} holds nan or inf: clean the samples first")
    return x


# ---- arrays


def _loaded(path: Path) -> Any:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return {key: found[key] for key in found.files}
    # A damaged archive has no common class of error: zip, zlib, an unknown compression, a password.
    except Exception as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} holds objects, such as series of unequal lengths: give samples of the "
                "model's shape in one array, or test for the run's own test split"
            ) from error
        raise DataError(f"{path} cannot be read ({error}): repair it") from error


def _arrays(path: Path, arrays: dict[str, NDArray[Any]], description: Description) -> Asked:
    ending = next((end for end in ("_test", "") if f"x{end}" in arrays), None)
    if ending is None:
        raise DataError(
            f"{path} must hold x, or x_test, with the samples; it holds "
            f"{', '.join(arrays) or 'nothing'}"
        )
    x = fitted(f"{path}: x{ending}", arrays[f"x{ending}"], description.samples)
    y = None
    # clean: where y is what people said, it is what is true
    key = next((k for k in (f"clean{ending}", f"y{ending}") if k in arrays), None)
    if key is not None:
        y = _classes(f"{path}: {key}", arrays[key], len(x), description.class_names)
    return Asked(x, [str(k) for k in range(len(x))], y)


def _classes(
    where: str, y: NDArray[Any], count: int, class_names: Sequence[str]
) -> NDArray[np.int64]:
    y = one_a_sample(where, y)
    if len(y) != count:
        raise DataError(f"{where} has {len(y)} labels for {count} samples; store one a sample")
    if not (y.min() >= _UNKNOWN and y.max() < len(class_names)):
        raise DataError(
            f"{where}: the model has classes 0 to {len(class_names) - 1} (-1: not known), got "
            f"{y.min()} to {y.max()}"
        )
    return y


# ---- pictures


def _pictures(folder: Path, description: Description) -> Asked:
    """Read all pictures below a folder; a folder named as a class says theirs."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path))
    if not paths:
        raise DataError(f"{folder} holds no picture ({', '.join(SUFFIXES)})")
    number = {name: k for k, name in enumerate(description.class_names)}
    x = np.stack([_pixels(path, description.samples) for path in paths])
    y = np.array([_class_of(path, folder, number) for path in paths], dtype=np.int64)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Asked(x, names, y if (y != _UNKNOWN).any() else None)


def _class_of(path: Path, folder: Path, number: dict[str, int]) -> int:
    above = path.relative_to(folder).parent.parts
    return next((number[name] for name in reversed(above) if name in number), _UNKNOWN)


def _pixels(path: Path, samples: Samples) -> NDArray[np.uint8]:
    """Read a picture as the model takes it."""
    shape = samples.shape
    if not samples.pixels or len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(
            f"{path} is a picture, and the model takes {samples.dtype} samples of shape {shape}: "
            "give them as a .npz or .npy file"
        )
    size = samples.size if isinstance(samples.size, int) else None
    pixels = read_pixels(path, reader="predict", where=str(path), size=size)
    if shape[0] == 1:
        if (pixels != pixels[:1]).any():
            raise DataError(
                f"{path} is in colour, and the model takes grey pictures: convert it to grey"
            )
        pixels = pixels[:1]
    if pixels.shape != shape:
        raise DataError(
            f"{path} has {pixels.shape[2]} x {pixels.shape[1]} pixels, and the model takes "
            f"{shape[2]} x {shape[1]}: scale it to that"
        )
    return pixels


# ---- the run's own test split


def _own_test(run: Path) -> Asked:
    """Read the test split of a run, with its shift if it has one; that needs its data."""
    file = run / "config.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{TEST} is the test split of a run, and {run} holds none (no config.yaml there): give"
            " the run's folder as RUN, or the samples as DATA"
        )
    try:
        import yaml

        from fedlabels.run.data import dealt_data
    except ImportError as error:
        raise ConfigError(
            f"{TEST} reads the data of a run as the run did, which needs {error.name}: pip install"
            " 'fedlabels[sim]'"
        ) from error
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    if config["deploy"]["data"]:
        raise ConfigError(f"{run} held no data (deploy.data): give samples in place of {TEST}")
    source = dealt_data(config).source
    test, saved = source.test, _content(run)
    if saved not in (None, source.content):
        raise DataError(
            f"the data of {run} have another content than when it ran (SHA-256 {saved[:12]} then, "
            f"{source.content[:12]} now): restore them, or give samples in place of {TEST}"
        )
    names = [str(k) for k in range(len(test))]
    return Asked(test.x, names, test.y if (test.y != _UNKNOWN).any() else None)


def _content(run: Path) -> str | None:
    """Return the hash of the data that a run says it read; None where it does not say."""
    try:
        manifest = json.loads((run / "manifest.json").read_bytes())
        return str(manifest["content"]["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
