"""The agreed form of messages: the only place that knows the keys of Flower's records.

Down: ``arrays`` (the model), ``config`` (round, rounds and settings), ``shared.<name>`` and
``own.<name>``. Up: ``arrays`` (term ``model``), ``metrics`` (``num-examples``, and every metric as
``.sum`` and ``.count``), ``term.<name>``; where a term other than the model has a weight that is
not 1, or is a sum, ``terms`` holds ``<name>.weight`` and ``<name>.reduce``, and ``weight.<name>``
weights per entry.

Real devices get one record more, ``device``, with what they must know of the run, and answer with
one of that name: who they are, and what went wrong. ``tested.<name>`` are payloads that only the
test of the received model needs, which is part of the same message.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported: it reads the environment then

# ruff: noqa: E402
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedlabels.cohort.types import EMPTY, Reduce, Scalar
from fedlabels.errors import WireError, one_line

Arrays = dict[str, NDArray[Any]]
Metrics = Mapping[str, tuple[float, float]]

MODEL = "model"
ARRAYS, CONFIG, METRICS, TERMS = "arrays", "config", "metrics", "terms"
DEVICE, CLIENT_ID, NOTE, ERROR, MARK = "device", "client-id", "note", "error", "mark"
SHARED, OWN, TERM, WEIGHT, TESTED = "shared.", "own.", "term.", "weight.", "tested."
ROUND, ROUNDS, NUM_EXAMPLES = "server-round", "rounds", "num-examples"
_SUM, _COUNT, _WEIGHT_OF, _REDUCE_OF = ".sum", ".count", ".weight", ".reduce"


@dataclass(frozen=True)
class Downlink:
    """What the server sends to one client.

    Parameters
    ----------
    round : int
        Round index, from 1.
    rounds : int
        Rounds planned; 0 when the sender does not know.
    shared : mapping of str to Arrays
        ``"model"`` and further payloads for all.
    own : mapping of str to Arrays
        Payloads of this client alone.
    settings : mapping of str to Scalar
        Scalars sent along.
    """

    round: int
    rounds: int
    shared: Mapping[str, Arrays]
    own: Mapping[str, Arrays] = field(default_factory=lambda: EMPTY)
    settings: Mapping[str, Scalar] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class UpTerm:
    """One term of one client.

    Parameters
    ----------
    value : Arrays
        Named arrays.
    weight : float or Arrays
        A number, or numbers that broadcast to the entries of each tensor. For ``"model"`` it must
        be a number: the uplink's ``weight``.
    reduce : {"mean", "sum"}
        How the server reduces it over clients.
    """

    value: Arrays
    weight: float | Arrays = 1.0
    reduce: Reduce = "mean"


@dataclass(frozen=True)
class Uplink:
    """What one client sends back.

    Parameters
    ----------
    terms : mapping of str to UpTerm
        Empty when the client has nothing to add.
    weight : float
        Number of examples, >= 0.
    metrics : mapping of str to (float, float)
        Name -> (sum, count).
    """

    terms: Mapping[str, UpTerm]
    weight: float
    metrics: Metrics = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True)
class Task:
    """What a device must know beside the message of the strategy.

    Parameters
    ----------
    spec : str
        The run, as `fedlabels.deploy.spec.DeviceSpec.dumps` writes it.
    committed : int
        Last round whose state counts.
    kept_from : int
        Oldest round that the server may go back to.
    evaluate : bool
        Whether the received model is tested on the device's own test samples first.
    refused : str
        Why the device cannot take part; then nothing is asked of it.
    """

    spec: str
    committed: int
    kept_from: int
    evaluate: bool
    refused: str = ""


@dataclass(frozen=True)
class Remark:
    """What a device says beside its reply.

    Parameters
    ----------
    client_id : int or None
        Which client it is.
    note, error : str
        For the server's log; with an error there is no reply. Of `fedlabels.errors.one_line`.
    mark : str
        A number that the device keeps in its state folder, as text; it is known again by it.
    counts : dict of str to int
        Samples by kind, where it was asked who it is.
    """

    client_id: int | None = None
    note: str = ""
    error: str = ""
    mark: str = ""
    counts: Mapping[str, int] = field(default_factory=lambda: EMPTY)


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Turn named arrays into a record.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Booleans, integers, float16, float32 or float64.

    Returns
    -------
    flwr.app.ArrayRecord
        Copies, as bytes.

    Raises
    ------
    WireError
        If a dtype cannot be sent; bfloat16 is one of them: send float32.
    """
    for name, value in arrays.items():
        _check_dtype(name, value)
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def from_record(record: ArrayRecord) -> Arrays:
    """Turn a record into named arrays, which are copies and may be written to.

    Raises
    ------
    WireError
        If an array is damaged, pickled, or of another library's format.
    """
    arrays: Arrays = {}
    for name, array in record.items():
        try:
            arrays[name] = array.numpy()
        except Exception as error:  # numpy's parser of headers lists no better
            raise WireError(f"array {name!r} cannot be read: {error}") from error
        _check_dtype(name, arrays[name])
    return arrays


def config_record(round_index: int, rounds: int, settings: Mapping[str, Scalar]) -> ConfigRecord:
    """Make the config of a downlink.

    Raises
    ------
    WireError
        If a setting is no scalar, or takes the name of a round key.
    """
    taken = {ROUND, ROUNDS} & set(settings)
    if taken:
        raise WireError(f"setting {min(taken)!r} is set by the round itself: rename it")
    for key, value in settings.items():
        if not isinstance(value, bool | int | float | str):
            raise WireError(
                f"setting {key!r} must be a bool, int, float or str, got {type(value).__name__}"
            )
    return ConfigRecord({ROUND: round_index, ROUNDS: rounds, **settings})


def encode_down(message: Downlink) -> RecordDict:
    """Make the content of a message to one client.

    Raises
    ------
    WireError
        If an array or a setting cannot be sent.
    """
    config = config_record(message.round, message.rounds, message.settings)
    content = RecordDict({CONFIG: config})
    for name, arrays in message.shared.items():
        content[shared_key(name)] = to_record(arrays)
    for name, arrays in message.own.items():
        content[OWN + name] = to_record(arrays)
    return content


def decode_down(
    content: RecordDict, *, read: Callable[[ArrayRecord], Arrays] = from_record
) -> Downlink:
    """Read the content of a message to one client.

    Parameters
    ----------
    content : flwr.app.RecordDict
        Content as :func:`encode_down` makes it, or a stock strategy.
    read : callable
        Turns a record into arrays; a caller with many messages passes one that remembers.

    Returns
    -------
    Downlink
        The parts.

    Raises
    ------
    WireError
        If there is no config, or something in it is no scalar.
    """
    config = content.get(CONFIG)
    if not isinstance(config, ConfigRecord):
        raise WireError(f"message has no config record {CONFIG!r}, got {sorted(content)}")
    settings = {key: _scalar(key, value) for key, value in config.items()}
    round_index, rounds = settings.pop(ROUND, None), settings.pop(ROUNDS, 0)
    if not isinstance(round_index, int) or not isinstance(rounds, int):
        raise WireError(f"config must hold integers {ROUND!r} and {ROUNDS!r}, got {dict(config)}")
    shared: dict[str, Arrays] = {}
    for key, record in content.array_records.items():
        if key == ARRAYS or key.startswith(SHARED):
            shared[MODEL if key == ARRAYS else key.removeprefix(SHARED)] = read(record)
    return Downlink(round_index, rounds, shared, decode_own(content, read=read), settings)


def decode_own(
    content: RecordDict, *, read: Callable[[ArrayRecord], Arrays] = from_record
) -> dict[str, Arrays]:
    """Read the payloads that only this client gets; the parameters of :func:`decode_down`."""
    if not any(key.startswith(OWN) for key in content):
        return {}
    return {
        key.removeprefix(OWN): read(record)
        for key, record in content.array_records.items()
        if key.startswith(OWN)
    }


def shared_key(name: str) -> str:
    """Return the record key of a shared payload."""
    return ARRAYS if name == MODEL else SHARED + name


def shared_identity(content: RecordDict) -> tuple[tuple[str, int], ...]:
    """Tell which records a message shares with others: keys and identities, without its own ones.

    Messages with equal tuples get the same model, payloads and settings. Only the identity counts:
    nothing is decoded or compared.
    """
    return tuple(sorted((k, id(v)) for k, v in content.items() if not k.startswith(OWN)))


def encode_task(task: Task) -> ConfigRecord:
    """Make the record of a message to a device that no strategy knows of."""
    return ConfigRecord(
        {
            "spec": task.spec,
            "committed": task.committed,
            "kept-from": task.kept_from,
            "evaluate": task.evaluate,
            **({"refused": task.refused} if task.refused else {}),
        }
    )


def decode_task(content: RecordDict) -> Task:
    """Read what `encode_task` made.

    Raises
    ------
    WireError
        If the sender is no server of this toolkit.
    """
    record = content.get(DEVICE)
    if not isinstance(record, ConfigRecord):
        raise WireError(f"message has no record {DEVICE!r}: the server is not one of this toolkit")
    spec, evaluate = record.get("spec"), record.get("evaluate")
    rounds = [record.get(key) for key in ("committed", "kept-from")]
    whole = [v for v in rounds if isinstance(v, int) and not isinstance(v, bool)]
    if not isinstance(spec, str) or not isinstance(evaluate, bool) or len(whole) < len(rounds):
        raise WireError(f"record {DEVICE!r} is not as agreed: {sorted(record)}")
    return Task(spec, whole[0], whole[1], evaluate, str(record.get("refused", "")))


def decode_tested(content: RecordDict) -> dict[str, Arrays]:
    """Read the payloads that only the test of the received model needs."""
    return {
        key.removeprefix(TESTED): from_record(record)
        for key, record in content.array_records.items()
        if key.startswith(TESTED)
    }


def decode_remark(content: RecordDict) -> Remark:
    """Read what a device says beside its reply; nothing it says can raise."""
    record = content.get(DEVICE)
    if not isinstance(record, ConfigRecord):
        return Remark(error="the reply is not of a device of this toolkit")
    values = dict(record)
    note, error, mark = (one_line(str(values.pop(key, ""))) for key in (NOTE, ERROR, MARK))
    client_id = values.pop(CLIENT_ID, None)
    known = isinstance(client_id, int) and not isinstance(client_id, bool) and client_id >= 0
    counts = {
        key: value
        for key, value in values.items()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0
    }
    checked_id = client_id if known and isinstance(client_id, int) else None
    return Remark(checked_id, note, error, mark, counts)


def decode_round(content: RecordDict) -> int:
    """Read the round of a message to a client; 0 where it says none."""
    config = content.get(CONFIG)
    found = config.get(ROUND, 0) if isinstance(config, ConfigRecord) else 0
    return found if isinstance(found, int) else 0


def encode_up(
    result: Uplink, *, write: Callable[[Mapping[str, NDArray[Any]]], ArrayRecord] = to_record
) -> RecordDict:
    """Make the content of a reply.

    Parameters
    ----------
    result : Uplink
        What the client returns.
    write : callable
        Turns the arrays of a term into a record.

    Returns
    -------
    flwr.app.RecordDict
        Stock strategies find their one array record and one metric record in it, if the model is
        the only term.

    Raises
    ------
    WireError
        If an array, a weight or a metric cannot be sent.
    """
    content = RecordDict({METRICS: _metric_record(result)})
    notes: dict[str, Scalar] = {}
    for name, term in result.terms.items():
        content[ARRAYS if name == MODEL else TERM + name] = write(term.value)
        if name != MODEL and isinstance(term.weight, Mapping):
            content[WEIGHT + name] = to_record(term.weight)
        elif name != MODEL and term.weight != 1.0:
            notes[name + _WEIGHT_OF] = _number(name, term.weight)
        if term.reduce != "mean":
            notes[name + _REDUCE_OF] = term.reduce
    if notes:
        content[TERMS] = ConfigRecord({**notes})
    return content


def decode_up(
    content: RecordDict,
    *,
    read: Callable[[ArrayRecord], Arrays] = from_record,
    wanted: Callable[[str], bool] = lambda name: True,
    read_as: Callable[[str, ArrayRecord], Arrays] | None = None,
) -> Uplink:
    """Read the content of a reply.

    Parameters
    ----------
    content : flwr.app.RecordDict
        Content as :func:`encode_up` makes it.
    read : callable
        Turns a record into arrays.
    wanted, read_as : callable
        Whether a term is read at all, and what reads it: it is told the term's name.

    Returns
    -------
    Uplink
        Nothing of it is checked against a model here.

    Raises
    ------
    WireError
        If the metric record or the number of examples is missing or not finite and >= 0.
    """
    metrics = content.get(METRICS)
    if not isinstance(metrics, MetricRecord) or NUM_EXAMPLES not in metrics:
        raise WireError(f"reply has no {NUM_EXAMPLES!r} in a metric record {METRICS!r}")
    weight = _number(NUM_EXAMPLES, metrics[NUM_EXAMPLES])
    notes = content.get(TERMS, ConfigRecord())
    if not isinstance(notes, ConfigRecord):
        raise WireError(f"record {TERMS!r} must be a config record, got {type(notes).__name__}")
    terms: dict[str, UpTerm] = {}
    for key, record in content.array_records.items():
        name = MODEL if key == ARRAYS else key.removeprefix(TERM)
        if (key == ARRAYS or key.startswith(TERM)) and wanted(name):
            value = read(record) if read_as is None else read_as(name, record)
            by_entry = content.get(WEIGHT + name)
            given = read(by_entry) if isinstance(by_entry, ArrayRecord) else None
            terms[name] = _term(name, value, weight, notes, given)
    return Uplink(terms, weight, _metrics(metrics))


def _term(
    name: str, value: Arrays, num_examples: float, notes: ConfigRecord, weights: Arrays | None
) -> UpTerm:
    reduce = notes.get(name + _REDUCE_OF, "mean")
    if reduce not in ("mean", "sum"):
        raise WireError(f"term {name!r} must be reduced by mean or sum, got {reduce!r}")
    kind: Reduce = "sum" if reduce == "sum" else "mean"
    if name == MODEL:
        return UpTerm(value, num_examples, kind)
    if weights is not None:
        return UpTerm(value, weights, kind)
    return UpTerm(value, _number(name, notes.get(name + _WEIGHT_OF, 1.0)), kind)


def _metric_record(result: Uplink) -> MetricRecord:
    values = {NUM_EXAMPLES: _number(NUM_EXAMPLES, result.weight)}
    for name, (total, count) in result.metrics.items():
        values[name + _SUM], values[name + _COUNT] = float(total), float(count)
    return MetricRecord({**values})


def _metrics(record: MetricRecord) -> dict[str, tuple[float, float]]:
    """Pair sums with counts; a plain number, as other clients send it, counts once."""
    metrics: dict[str, tuple[float, float]] = {}
    for key, value in record.items():
        if key == NUM_EXAMPLES or isinstance(value, list):
            continue
        name = key.removesuffix(_SUM)
        if name != key and name + _COUNT in record:
            count = record[name + _COUNT]
            metrics[name] = (float(value), 1.0 if isinstance(count, list) else float(count))
        elif not (key.endswith(_COUNT) and key.removesuffix(_COUNT) + _SUM in record):
            metrics[key] = (float(value), 1.0)
    return metrics


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise WireError(f"weight {name!r} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise WireError(f"weight {name!r} must be finite and >= 0, got {number}")
    return number


def _scalar(key: str, value: object) -> Scalar:
    if not isinstance(value, bool | int | float | str):
        raise WireError(f"setting {key!r} must be a scalar, got {type(value).__name__}")
    return value


def _check_dtype(name: str, value: NDArray[Any]) -> None:
    # bfloat16 has no numpy type of its own: its kind is "V"; objects would need pickle.
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise WireError(
            f"array {name!r} has dtype {value.dtype}, which cannot be sent: convert it to float32"
        )
