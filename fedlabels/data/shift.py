"""Feature shift: synthetic domains made of one image data set, and shifts of single clients.

Results carry the preset's name ("SFS-4 on CIFAR-10"): such shifts are low-level (colour, noise,
texture, geometry) and no substitute for data sets with domains of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedlabels.data import shift_ops as ops
from fedlabels.data.dataset import ArrayDataset, DataSource
from fedlabels.errors import ConfigError
from fedlabels.seeds import generator

Images = NDArray[np.float64]
Transform = Callable[[Images, Images], Images]  # images and stored noise, both (n, H, W, C)

_CHUNK = 512  # images rendered at once; also the unit of stored noise, so never change it


def _plain(x: Images, _eps: Images) -> Images:
    return x


TRANSFORMS: dict[str, Transform] = {
    "clean": _plain,
    "warm_lowcontrast": lambda x, _: ops.gain(ops.contrast(x, 0.4), ops.WARM),
    "negative_noise": lambda x, eps: ops.noise(ops.invert(x), 0.08, eps),
    "edge": lambda x, _: ops.edge(x),
    "gray_blur": lambda x, _: ops.gray(ops.blur(x, 1.0)),
    "rot90": lambda x, _: ops.rot90(x, 1),
    "rot180": lambda x, _: ops.rot90(x, 2),
    "rot270": lambda x, _: ops.rot90(x, 3),
}
DOMAINS: dict[str, tuple[str, ...]] = {
    "sfs4": ("clean", "warm_lowcontrast", "negative_noise", "edge"),
    "sfs6": ("clean", "warm_lowcontrast", "negative_noise", "edge", "gray_blur", "rot90"),
    "rot4": ("clean", "rot90", "rot180", "rot270"),
}
"""Preset -> its domains. Rotations by 180 degrees confuse digits (6 and 9)."""

Preset = Literal["none", "sfs4", "sfs6", "rot4", "noise", "corruptions"]
PRESETS = ("none", *DOMAINS, "noise", "corruptions")


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What is done to the images of a domain or of a client.

    Parameters
    ----------
    preset : str
        ``none``. Domains: ``sfs4``, ``sfs6`` (colour, contrast, noise, edges, blur, a turn),
        ``rot4`` (quarter turns, as in IFCA, arXiv 2006.04088). Shifts of single clients: ``noise``
        (graded, NIID-Bench), ``corruptions`` (one random corruption each).
    sigma_max : float
        Noise of the last client under ``noise``, a standard deviation of values in [0, 1], >= 0.
    share : float
        Share of clients that are corrupted under ``corruptions``, in [0, 1].
    """

    preset: Preset = "none"
    sigma_max: float = 0.1
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(
                f"shift.preset must be one of {', '.join(PRESETS)}, got '{self.preset}'"
            )
        if not 0 <= self.sigma_max < 1e3:
            raise ConfigError(f"shift.sigma_max must be >= 0, got {self.sigma_max!r}")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"shift.share must be in [0, 1], got {self.share!r}")


def shift_domains(
    source: DataSource, shift: Shift, seed: int, *, rendered: bool = True
) -> DataSource:
    """Deal the training images to synthetic domains and render each in its own.

    Parameters
    ----------
    source : DataSource
        Images, uint8.
    shift : Shift
        A preset of domains; any other leaves the data alone.
    seed : int
        The run's seed: chooses the domain of each image and its noise, nothing else.
    rendered : bool
        False names the domains and leaves the pixels clean: quick, for a look at who holds what.

    Returns
    -------
    DataSource
        Training images in one domain each, with equal class histograms in all domains up to one
        image a class. The test images are there once per domain, in the same order, so that
        accuracies of domains are paired. Grey images get three channels where colours change.
        Normalization constants stay those of the clean images, for all domains.

    Raises
    ------
    ConfigError
        If the data are not images, or have domains already.
    """
    if shift.preset not in DOMAINS:
        return source
    _check_images(source, shift)
    if source.train.domain is not None:
        raise ConfigError(
            f"data set {source.train.name!r} has domains of its own: {source.train.domain_names}; "
            "set shift.preset=none"
        )
    names = DOMAINS[shift.preset]
    if shift.preset != "rot4":
        source = DataSource(_colored(source.train), _colored(source.test))
    train, test = source.train, source.test
    domain = deal_domains(train, len(names), generator(seed, "shift_domain"))
    fixed = {"domain_names": names, "name": f"{train.name}-{shift.preset}"}
    tests: list[NDArray[Any]] = []
    pixels, everything = train.x.copy(), np.arange(len(test))
    for number, name in enumerate(names):
        transform = TRANSFORMS[name]
        if not rendered or name == "clean":
            tests.append(test.x)
            continue
        inside = np.flatnonzero(domain == number)
        pixels[inside] = render(train.x, inside, transform, seed, "train")
        tests.append(render(test.x, everything, transform, seed, "test"))
    return DataSource(
        replace(train, x=pixels, domain=domain, **fixed),  # type: ignore[arg-type]
        replace(
            test,
            x=np.concatenate(tests),
            y=np.tile(test.y, len(names)),
            domain=np.repeat(np.arange(len(names)), len(test)),
            owner=None if test.owner is None else np.tile(test.owner, len(names)),
            **fixed,  # type: ignore[arg-type]
        ),
    )


def deal_domains(
    dataset: ArrayDataset, domains: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Give every image a domain so that all domains have the same class histogram.

    Parameters
    ----------
    dataset : ArrayDataset
        N images; those of unknown class are dealt as one more class.
    domains : int
        Number of domains D.
    random : numpy.random.Generator
        Shuffles each class.

    Returns
    -------
    ndarray of int64, shape (N,)
        Domain of every image.
    """
    shuffled = random.permutation(len(dataset))
    order = np.argsort(dataset.y[shuffled], kind="stable")
    classes = np.split(
        shuffled[order], np.cumsum(np.bincount(dataset.y + 1, minlength=dataset.num_classes + 1))
    )
    known = classes[1 : dataset.num_classes + 1]
    return domains_of_classes([*known, classes[0]], domains)


def domains_of_classes(classes: Sequence[NDArray[np.int64]], domains: int) -> NDArray[np.int64]:
    """Give the j-th image of class c to domain ``(j + c) mod domains``.

    Parameters
    ----------
    classes : sequence of ndarray of int64
        Shuffled image ids of every class; together 0..N-1.
    domains : int
        Number of domains.

    Returns
    -------
    ndarray of int64, shape (N,)
        Domain of every image.
    """
    domain = np.empty(sum(len(members) for members in classes), dtype=np.int64)
    for c, members in enumerate(classes):
        domain[members] = (np.arange(len(members)) + c) % domains
    return domain


def shift_clients(
    source: DataSource, shift: Shift, owner: NDArray[np.int64], clients: int, seed: int
) -> DataSource:
    """Render each client's training images with a shift of its own; the test set stays clean.

    Parameters
    ----------
    source : DataSource
        Images, uint8.
    shift : Shift
        A preset of clients; any other leaves the data alone.
    owner : ndarray of int64, shape (N,)
        Client of every training image; -1 for nobody.
    clients : int
        Number of clients.
    seed : int
        The run's seed.

    Raises
    ------
    ConfigError
        If the data are not images.
    """
    if shift.preset not in ("noise", "corruptions"):
        return source
    _check_images(source, shift)
    transforms = _client_transforms(shift, clients, seed)
    pixels = source.train.x.copy()
    for client, transform in enumerate(transforms):
        inside = np.flatnonzero(owner == client)
        if transform is not None and len(inside):
            pixels[inside] = render(source.train.x, inside, transform, seed, "train")
    train = replace(source.train, x=pixels, name=f"{source.train.name}-{shift.preset}")
    return DataSource(train, replace(source.test, name=train.name))


def _client_transforms(shift: Shift, clients: int, seed: int) -> list[Transform | None]:
    if shift.preset == "noise":
        return [_noisy(float(s)) for s in ops.noise_levels(clients, shift.sigma_max)]
    random = generator(seed, "shift_clients")
    shifted = random.permutation(clients)[: int(shift.share * clients + 0.5)]
    kinds = random.integers(len(ops.SEVERITIES), size=clients)
    grades = random.integers(5, size=clients)
    transforms: list[Transform | None] = [None] * clients
    for client in shifted:
        kind = sorted(ops.SEVERITIES)[kinds[client]]
        transforms[client] = _corruption(kind, ops.SEVERITIES[kind][grades[client]])
    return transforms


def _noisy(sigma: float) -> Transform:
    return lambda x, eps: ops.noise(x, sigma, eps)


def _corruption(kind: str, amount: float) -> Transform:
    if kind == "noise":
        return _noisy(amount)
    if kind == "blur":
        return lambda x, _: ops.blur(x, amount)
    return lambda x, _: ops.contrast(x, amount)


def render(
    x: NDArray[Any],
    index: NDArray[np.int64],
    transform: Transform,
    seed: int,
    split: str,
) -> NDArray[np.uint8]:
    """Render images of a split; the noise of an image depends on seed, split and its index only.

    Parameters
    ----------
    x : ndarray of uint8, shape (N, C, H, W)
        All images of the split.
    index : ndarray of int64, shape (n,)
        Which of them, ascending.
    transform : callable
        Maps images in [0, 1], channels last, and standard normal numbers to images.
    seed : int
        The run's seed.
    split : str
        Names the split's noise.

    Returns
    -------
    ndarray of uint8, shape (n, C, H, W)
        Rounded pixels.
    """
    out = np.empty((len(index), *x.shape[1:]), dtype=np.uint8)
    ends = np.searchsorted(index, np.arange(0, len(x) + _CHUNK, _CHUNK))
    for chunk, (start, stop) in enumerate(pairwise(ends)):
        if start == stop:
            continue
        inside = index[start:stop]
        images = x[inside].transpose(0, 2, 3, 1) / 255.0
        stored = generator(seed, "shift_noise", split, chunk).standard_normal(
            (_CHUNK, *images.shape[1:]), dtype=np.float32
        )
        eps = stored[inside - chunk * _CHUNK].astype(np.float64)
        changed = transform(images, eps)
        out[start:stop] = np.rint(changed * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return out


def _check_images(source: DataSource, shift: Shift) -> None:
    train = source.train
    if train.x.dtype != np.uint8:
        raise ConfigError(
            f"shift.preset={shift.preset} is for images (uint8); data set {train.name!r} holds "
            f"{train.x.dtype}: set shift.preset=none"
        )


def _colored(dataset: ArrayDataset) -> ArrayDataset:
    if dataset.x.shape[1] == 3:
        return dataset
    if dataset.x.shape[1] != 1:
        raise ConfigError(f"images need 1 or 3 channels to be shifted, got {dataset.x.shape[1]}")
    x: NDArray[Any] = np.repeat(dataset.x, 3, axis=1)
    return replace(dataset, x=x, mean=dataset.mean * 3, std=dataset.std * 3)
