"""``fedlabels predict RUN DATA``: what a run's model says of samples, as a table."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.machine.files import json_bytes, replacing, write_atomic
from fedlabels.use.ending import explained
from fedlabels.use.load import RunModel, load_model
from fedlabels.use.samples import Asked, read_samples

BATCH = 500  # as a run tests its model: the last bits are the same
FORMATS = (".csv", ".json", ".npz")


class Prediction(NamedTuple):
    """What a model says of samples.

    Parameters
    ----------
    classes : ndarray of int64, shape (N,)
        The most likely class.
    probabilities : ndarray of float32, shape (N, classes)
        Softmax of the logits.
    """

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def logits_of(model: RunModel, x: NDArray[Any]) -> NDArray[Any]:
    """Return the logits of raw samples, batch by batch.

    Parameters
    ----------
    model : RunModel
        On any device.
    x : ndarray, shape (N, *shape)
        Raw samples.

    Returns
    -------
    ndarray, shape (N, classes)
        In the type of the model's computation.
    """
    device = model.net.head.weight.device
    found = []
    with torch.no_grad():
        for start in range(0, len(x), BATCH):
            part = np.array(x[start : start + BATCH])  # a copy: torch warns of read-only arrays
            found.append(model(torch.from_numpy(part).to(device)).cpu())
    logits: NDArray[Any] = torch.cat(found).numpy()
    return logits


def predict(model: RunModel, x: NDArray[Any]) -> Prediction:
    """Classify raw samples, batch by batch; see `logits_of`."""
    logits = logits_of(model, x)
    probabilities = torch.from_numpy(logits).softmax(1).numpy().astype(np.float32)
    return Prediction(logits.argmax(1), probabilities)


def predict_main(arguments: Sequence[str]) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``predict``.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error that was explained.
    """
    options = _parser().parse_args(arguments)
    return explained(lambda: _predict(options))


def _predict(options: argparse.Namespace) -> None:
    out: Path | None = options.out
    if out is not None and out.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out={out} must end in {', '.join(FORMATS)}")
    model = load_model(options.run, client=options.client)
    folder = options.run if options.run.is_dir() else options.run.parent
    asked = read_samples(options.data, model.description, folder)
    prediction = predict(model, asked.x)
    table = Table(model, asked, prediction, None if options.labels else prediction.probabilities)
    if out is None:
        sys.stdout.write(table.csv())
    else:
        table.write(out)
    lines = [f"{len(asked.x)} samples, {model.origin}", *accuracy_lines(asked, prediction)]
    # beside a table that may be piped on
    (sys.stderr if out is None else sys.stdout).write("\n".join(lines) + "\n")


def accuracy_lines(asked: Asked, prediction: Prediction) -> list[str]:
    """Say how many samples of known class are right; nothing where no class is known."""
    if asked.y is None or not (known := asked.y >= 0).any():
        return []
    right = int((prediction.classes == asked.y)[known].sum())
    count = int(known.sum())
    return [f"accuracy: {100 * right / count:.2f} % ({right} of {count} samples of known class)"]


class Table(NamedTuple):
    """Predictions beside what is known of the samples.

    Parameters
    ----------
    model : RunModel
        Whose class names they are.
    asked : Asked
        The samples.
    prediction : Prediction
        Of the samples.
    probabilities : ndarray of float32, shape (N, classes), or None
        Those of the prediction, or None to leave them out.
    """

    model: RunModel
    asked: Asked
    prediction: Prediction
    probabilities: NDArray[np.float32] | None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a sample: which one, class, name of the class, label, probabilities."""
        names = self.model.class_names
        rows: list[dict[str, Any]] = []
        for k, (sample, found) in enumerate(
            zip(self.asked.names, self.prediction.classes.tolist(), strict=True)
        ):
            row = {"sample": sample, "class": found, "class_name": names[found]}
            if self.asked.y is not None:
                row["label"] = int(self.asked.y[k])
            if self.probabilities is not None:
                values = self.probabilities[k].tolist()
                row |= {f"probability_{c}": value for c, value in enumerate(values)}
            rows.append(row)
        return rows

    def csv(self) -> str:
        """Return the rows as CSV, with a header line."""
        rows, text = self.rows(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write the rows as the file's ending says; atomic.

        Raises
        ------
        DiskError
            If it cannot be written.
        """
        ending = path.suffix.lower()
        if ending == ".csv":
            write_atomic(path, self.csv())
        elif ending == ".json":
            about = {"model": self.model.origin, "class_names": list(self.model.class_names)}
            write_atomic(path, json_bytes({**about, "predictions": self.rows()}))
        else:
            arrays: dict[str, NDArray[Any]] = {
                "sample": np.array(self.asked.names),
                "class": self.prediction.classes,
                "class_names": np.array(self.model.class_names),
            }
            if self.asked.y is not None:
                arrays["label"] = self.asked.y
            if self.probabilities is not None:
                arrays["probabilities"] = self.probabilities
            with replacing(path) as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedlabels predict",
        description="Classify samples by a run's model; where their classes are known, say how many"
        " are right.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder, or a model.safetensors"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a .npz file with x or x_test, a .npy file, a picture, a folder of pictures; or test,"
        " the run's own test split",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"{', '.join(FORMATS)}; a table here otherwise"
    )
    parser.add_argument("--labels", action="store_true", help="classes alone, no probabilities")
    parser.add_argument("--client", type=int, metavar="K", help="the own model of a client")
    return parser
