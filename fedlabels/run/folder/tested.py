"""What the last evaluation leaves beside the tables; each file says which round it is of."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels.errors import writing
from fedlabels.machine.files import replacing, write_atomic
from fedlabels.run.folder.table import csv_text
from fedlabels.worker.classification import BINS, Calibration
from fedlabels.worker.evaluation import Evaluation


class LastTest:
    """Three files of the last evaluation of the global model that a checkpoint knows.

    Parameters
    ----------
    folder : Path
        The run folder.

    Attributes
    ----------
    confusion : Path
        ``confusion.csv``: a row a true class, a column a predicted one, test samples.
    calibration : Path
        ``calibration.csv``: a row a bin of the confidence, see
        :class:`~fedlabels.worker.classification.Calibration`.
    predictions : Path
        ``predictions.npz``: ``round`` and the arrays of
        :class:`~fedlabels.worker.evaluation.Predictions`.
    """

    def __init__(self, folder: Path) -> None:
        self.confusion = folder / "confusion.csv"
        self.calibration = folder / "calibration.csv"
        self.predictions = folder / "predictions.npz"

    def write(self, index: int, evaluation: Evaluation, *, predictions: bool) -> None:
        """Write the files; equal evaluations give equal bytes.

        Parameters
        ----------
        index : int
            The round of the evaluation.
        evaluation : Evaluation
            What an earlier one left is replaced, or removed where this one has no such file.
        predictions : bool
            Whether ``predictions.npz`` is wanted.

        Raises
        ------
        DiskError
            If the disk refuses; the file it refuses is as it was.
        """
        # first: what a resume makes of the others, it says by this one
        write_atomic(self.confusion, csv_text(_confusion(index, evaluation)))
        binned = evaluation.calibration
        if binned is None:
            _remove(self.calibration)
        else:
            write_atomic(self.calibration, csv_text(_calibration(index, binned)))
        if not predictions:
            _remove(self.predictions)
            return
        arrays = evaluation.predictions.arrays()
        with replacing(self.predictions) as file:
            np.savez(file, allow_pickle=False, round=np.int64(index), **arrays)

    def cut_back(self, last: int) -> None:
        """Remove the files if they are of a round after ``last``, or cannot be read."""
        try:
            with self.confusion.open(encoding="utf-8", newline="") as file:
                kept = int(next(csv.DictReader(file))["round"]) <= last
        except (FileNotFoundError, StopIteration, KeyError, TypeError, ValueError):
            kept = False
        if not kept:
            for path in (self.confusion, self.calibration, self.predictions):
                _remove(path)


def _confusion(index: int, evaluation: Evaluation) -> Iterable[Sequence[Any]]:
    counts = evaluation.confusion.tolist()
    yield ["round", "class", *(f"predicted_{c}" for c in range(len(counts)))]
    for c, row in enumerate(counts):
        yield [index, c, *row]


def _calibration(index: int, binned: Calibration) -> Iterable[Sequence[Any]]:
    yield ["round", "above", "up_to", *binned._fields]
    for k, values in enumerate(zip(*(each.tolist() for each in binned), strict=True)):
        yield [index, k / BINS, (k + 1) / BINS, *values]


def _remove(path: Path) -> None:
    with writing(path):
        path.unlink(missing_ok=True)
