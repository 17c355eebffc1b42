"""``fedlabels export RUN --format ...``: a run's model as a file for other programs."""

import argparse
import copy
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedlabels.errors import ConfigError, RunError
from fedlabels.machine.files import write_atomic
from fedlabels.models.description import HEADER
from fedlabels.use.ending import explained
from fedlabels.use.load import RunModel, load_model
from fedlabels.use.predict import BATCH, logits_of
from fedlabels.use.samples import TEST, read_samples

INPUT, OUTPUT = "x", "logits"
TOLERANCE = 1e-4
"""Largest difference of a logit that passes, times the largest logit where that is above 1."""

Logits = Callable[[NDArray[Any]], NDArray[Any]]


class Exported(NamedTuple):
    """A model in another form.

    Parameters
    ----------
    content : bytes
        The whole file.
    logits : callable
        Raw samples, shape (N, *shape), to logits, computed by what the file holds.
    """

    content: bytes
    logits: Logits


class Difference(NamedTuple):
    """How far an export is from the model.

    Parameters
    ----------
    samples : int
        Compared.
    largest : float
        Difference of a logit.
    scale : float
        Largest logit in magnitude.
    classes : int
        Samples whose class is another.
    """

    samples: int
    largest: float
    scale: float
    classes: int

    @property
    def allowed(self) -> float:
        """Largest difference that passes."""
        return TOLERANCE * max(1.0, self.scale)


def to_onnx(model: RunModel) -> Exported:
    """Export to ONNX: input ``x``, output ``logits``, any size of a batch.

    The description of the model is among the file's metadata, under ``fedlabels``.

    Raises
    ------
    ConfigError
        If a library that it takes is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch exports by it
    except ImportError as error:
        raise ConfigError(
            f"--format=onnx needs {error.name}: pip install 'fedlabels[export]', or take"
            " --format=torch-export"
        ) from error
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    with _quiet():
        program = torch.onnx.export(
            model, (_example(model),), dynamo=True, verbose=False, dynamic_shapes=batch,
            input_names=[INPUT], output_names=[OUTPUT],
        )  # fmt: skip
    assert program is not None  # as with dynamo=True
    proto = program.model_proto
    proto.metadata_props.add(key=HEADER, value=model.description.dumps())
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return Exported(content, lambda x: session.run([OUTPUT], {INPUT: x})[0])


def to_torch(model: RunModel) -> Exported:
    """Export by ``torch.export``: a program that needs torch alone, any size of a batch.

    The description of the model is among the extra files, as ``fedlabels``.
    """
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    content = io.BytesIO()
    with _quiet():
        program = torch.export.export(model, (_example(model),), dynamic_shapes=batch)
        about = {HEADER: model.description.dumps()}
        torch.export.save(program, content, extra_files=about)
        content.seek(0)
        loaded = torch.export.load(content).module()

    def logits(x: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            found: NDArray[Any] = loaded(torch.from_numpy(x)).numpy()
        return found

    return Exported(content.getvalue(), logits)


FORMATS: dict[str, tuple[str, Callable[[RunModel], Exported]]] = {
    "onnx": (".onnx", to_onnx),
    "torch-export": (".pt2", to_torch),
}
"""Name -> ending of the file, and what makes it."""


def checked(model: RunModel, exported: Exported, x: NDArray[Any]) -> Difference:
    """Compare an export with the model that it was made of.

    Parameters
    ----------
    model : RunModel
        The model, in float32.
    exported : Exported
        The export.
    x : ndarray, shape (N, *shape)
        Raw samples.

    Raises
    ------
    RunError
        If a logit differs by more than `TOLERANCE` allows.
    """
    x = np.array(x)  # torch warns of arrays that cannot be written to
    blocks = [x[start : start + BATCH] for start in range(0, len(x), BATCH)]
    found = np.concatenate([exported.logits(block) for block in blocks])
    due = logits_of(model, x)
    single = exported.logits(x[:1])  # a batch of another size
    largest = max(float(np.abs(found - due).max()), float(np.abs(single - due[:1]).max()))
    classes = int((found.argmax(1) != due.argmax(1)).sum())
    difference = Difference(len(x), largest, float(np.abs(due).max()), classes)
    if not largest <= difference.allowed:  # nan, too
        raise RunError(
            f"the exported model differs from torch by {largest:.2g} in a logit, more than "
            f"{difference.allowed:.2g}, and in the class of {classes} of {len(x)} samples: no file"
            " was written"
        )
    return difference


def plain(model: RunModel) -> RunModel:
    """Return a copy that computes in float32, whatever the run's precision was."""
    twin = copy.deepcopy(model).float()
    twin.low = None
    return twin


def export_main(arguments: Sequence[str]) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``export``.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error that was explained.
    """
    options = _parser().parse_args(arguments)
    return explained(lambda: _export(options))


def _export(options: argparse.Namespace) -> None:
    ending, export = FORMATS[options.format]
    folder = options.run if options.run.is_dir() else options.run.parent
    own = "" if options.client is None else f"-client-{options.client}"
    out: Path = options.out or folder / f"model{own}{ending}"
    if out.suffix.lower() != ending:
        raise ConfigError(f"--out={out} must end in {ending} with --format={options.format}")
    loaded = load_model(options.run, client=options.client)
    asked = read_samples(options.data, loaded.description, folder)
    model = plain(loaded)
    exported = export(model)
    difference = checked(model, exported, asked.x)
    write_atomic(out, exported.content)
    sample = ", ".join(map(str, model.shape))
    precision = model.description.precision
    lines = [
        f"{loaded.origin}: {INPUT}, {model.description.samples.dtype} of shape (batch, {sample}),"
        f" to {OUTPUT}, float32 of shape (batch, {len(model.class_names)})",
        f"checked on {difference.samples} samples: largest difference {difference.largest:.2g} of"
        f" logits up to {difference.scale:.3g}, {difference.classes} other classes",
        *([f"it computes in float32, the run in {precision}"] if precision != "float32" else []),
        f"exported: {out}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _example(model: RunModel) -> torch.Tensor:
    """Return a batch that shows shape and type; of two, since torch takes one for a constant."""
    return torch.zeros(2, *model.shape, dtype=model.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from talking of other libraries, and of its own old habits."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedlabels export",
        description="Write a run's model, raw samples to logits, as a file for other programs. It"
        " is compared with torch first, and not written where it differs.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder, or a model.safetensors"
    )
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="model.onnx or model.pt2 in the run folder otherwise",
    )
    parser.add_argument("--client", type=int, metavar="K", help="the own model of a client")
    parser.add_argument(
        "--data",
        default=TEST,
        metavar="DATA",
        help="samples to compare on, as of fedlabels predict; the run's own test split otherwise",
    )
    return parser
