"""Published sets of images in the layouts of torchvision: found, fetched and checked alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.hub import HubSet, fetch
from fedlabels.data.options import flag
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import DataError

OR_DOWNLOAD = "or set dataset.options.download=true (pip install datasets pillow)"
_ENOUGH = 1000  # images whose mean says which set they are of
_OFF = 0.02  # published sets of one format are further apart: 0.13 MNIST, 0.19 KMNIST, 0.29 Fashion

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, C, H, W) and labels (N,) of a split."""


@dataclass(frozen=True)
class Published:
    """What is known of a published set, and where its files are looked for.

    Parameters
    ----------
    name : str
        Name of the data set.
    folders : tuple of str
        Folder names below a root, for instance ``"FashionMNIST/raw"``.
    files : tuple of str
        Files that a folder must have.
    remedy : str
        The one thing to do where no folder has them.
    hub : HubSet
        Where it is on the hub.
    mean, std : tuple of float
        Constants of the training images, of pixels scaled to [0, 1].
    class_names : tuple of str
        One name a class; none where the files, or the column of the hub, say them.
    endings : tuple of str
        What may follow the name of a file, in the order in which it is tried.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    remedy: str
    hub: HubSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    endings: tuple[str, ...] = ("",)

    def path(self, folder: Path, file: str) -> Path | None:
        """Return where a folder has a file; None if it has none of its endings."""
        return find_first((folder / f"{file}{end}" for end in self.endings), Path.is_file)

    def read(
        self,
        roots: Roots,
        read: Callable[[Path], tuple[Part, Part, tuple[str, ...]]],
        *,
        download: object,
    ) -> DataSource:
        """Read the set from the first folder that has its files, or fetch it.

        Parameters
        ----------
        roots : Roots
            Where to search.
        read : callable
            Reads a folder: training split, test split and names of the classes.
        download : object
            The option of that name: whether to fetch the set where no folder has it.

        Returns
        -------
        DataSource
            Training and test split.

        Raises
        ------
        ConfigError
            If ``download`` is neither true nor false.
        DataError
            If the files are missing, damaged or those of another set.
        """
        fetches = flag(self.name, "download", download)
        tried = candidates(roots, self.folders)
        folder = find_first(tried, lambda path: all(self.path(path, file) for file in self.files))
        if folder is not None:
            train, test, names = read(folder)
            check_content(self.name, folder, train[0], self.mean)
            return pair(self.name, train, test, class_names=names, mean=self.mean, std=self.std)
        if not fetches:
            raise missing(self.name, tried, self.remedy)
        return fetch(
            self.name, self.hub, class_names=self.class_names or None, mean=self.mean, std=self.std
        )


def check_content(
    name: str, place: Path, images: NDArray[np.uint8], mean: tuple[float, ...]
) -> None:
    """Check that images are those whose constants are going to be used.

    Parameters
    ----------
    name : str
        The published data set.
    place : Path
        Where the images come from, for the message.
    images : ndarray of uint8, shape (N, C, H, W)
        Training images; fewer than 1,000 tell too little and pass.
    mean : tuple of float
        The set's constants, of pixels scaled to [0, 1].

    Raises
    ------
    DataError
        If the mean of a channel is off by more than 0.02.
    """
    if len(images) < _ENOUGH:
        return
    sample = images[:: len(images) // _ENOUGH]
    measured = sample.mean(axis=(0, 2, 3), dtype=np.float64) / 255
    if len(measured) == len(mean) and np.abs(measured - mean).max() <= _OFF:
        return
    shown, due = (", ".join(f"{value:.3f}" for value in values) for values in (measured, mean))
    raise DataError(
        f"dataset={name}: the images in {place} have a mean of {shown}, those of {name} {due}: "
        "it is another set. Choose its name, or store its arrays for dataset=npz, which takes the "
        "constants from the data"
    )
