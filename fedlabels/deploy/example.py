"""Folders of data for a first try: handwritten digits that ship with scikit-learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedlabels.data.registry import load
from fedlabels.errors import ConfigError

SAMPLES = 200
"""Training samples of a device, labeled or not."""
TESTS = 50
"""Test samples of a device."""


def write_example(folder: Path, labels: Sequence[int]) -> list[Path]:
    """Write the data of some devices.

    Parameters
    ----------
    folder : Path
        Gets ``device-0``, ``device-1`` and so on, which must not exist.
    labels : sequence of int
        Labeled samples of each device, in 0..200; the rest of its 200 has no label.

    Returns
    -------
    list of Path
        The folders.

    Raises
    ------
    ConfigError
        If a number is out of range, there are too many devices, or a folder exists.
    """
    source = load("digits")
    most = min(len(source.train) // SAMPLES, len(source.test) // TESTS)
    if not 0 < len(labels) <= most:
        raise ConfigError(f"the digits are enough for 1 to {most} devices, got {len(labels)}")
    if not all(0 <= count <= SAMPLES for count in labels):
        raise ConfigError(f"labels must be in 0..{SAMPLES}, got {list(labels)}")
    folders = [folder / f"device-{number}" for number in range(len(labels))]
    for path in folders:
        if path.exists():
            raise ConfigError(f"{path} exists already: nothing was written, give another folder")
    for number, (path, count) in enumerate(zip(folders, labels, strict=True)):
        path.mkdir(parents=True)
        rows = slice(number * SAMPLES, (number + 1) * SAMPLES)
        y = source.train.y[rows].copy()
        y[count:] = -1
        np.savez(path / "train.npz", x=source.train.x[rows], y=y)
        rows = slice(number * TESTS, (number + 1) * TESTS)
        np.savez(path / "test.npz", x=source.test.x[rows], y=source.test.y[rows])
    return folders
