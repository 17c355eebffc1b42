"""Readers tell how far they are to whoever listens, and to nobody else."""

from pathlib import Path

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.progress import counted, told
from fedlabels.data.windows import Cutter
from fedlabels.errors import DataError

Told = list[tuple[str, int, int]]


def test_pictures_are_counted_one_by_one(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / label / "0.png")
    heard: Told = []
    with told(lambda *what: heard.append(what)):
        load("image_folder", root=str(tmp_path))
    assert heard == [("images", done, 4) for done in range(5)]
    load("image_folder", root=str(tmp_path))
    assert len(heard) == 5


def test_series_are_counted_and_long_passes_tell_of_a_part() -> None:
    heard: Told = []
    with told(lambda *what: heard.append(what)):
        cut = Cutter("ts", window=2).cut("here", [np.zeros((1, 4), np.float32)] * 1000)
    assert len(cut.x) == 2000
    assert heard[0] == ("series", 0, 1000)
    assert heard[-1] == ("series", 1000, 1000)
    assert len(heard) == 201


def test_what_goes_wrong_ends_the_telling() -> None:
    heard: Told = []

    def damaged() -> None:
        with told(lambda *what: heard.append(what)):
            for _ in counted([1, 2], "files"):
                raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        damaged()
    assert heard == [("files", 0, 2)]
    assert list(counted([1, 2], "files")) == [1, 2]
    assert heard == [("files", 0, 2)]
