"""The only file that touches private names of Flower; written for flwr 1.41 and 1.42.

Flower's internals move with every release. Whatever is gone is reported here, at import, with the
version that works.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedlabels.errors import ConfigError
from fedlabels.requirements import supported

ADAPTIVE_CLIPPING = (
    "Flower (1.41, 1.42) moves the clipping norm away from the quantile that is asked for: its"
    " _geometric_update (flwr/serverapp/strategy/dp_adaptive_clipping.py) gets the share of updates"
    " that were clipped, where the method (Andrew et al., NeurIPS 2021, arXiv 1905.03871) has the"
    " share of those that were not"
)
"""Why adaptive clipping is refused."""


def _unsupported(error: BaseException) -> NoReturn:
    raise ConfigError(
        f"flwr {version('flwr')} does not have what the toolkit needs ({error});"
        f" install {supported('flwr')!r}"
    ) from error


try:
    from flwr.app import Array, ArrayRecord, Error, Message
    from flwr.client.mod.utils import make_ffn
    from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SType
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

    _STYPE = str(SType.NUMPY)
    _RAISED = int(ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
    for _name in ("task_id", "run_id", "node_id"):
        getattr(type(TaskIdentity), _name)
except (ImportError, AttributeError) as error:  # pragma: no cover - other versions
    _unsupported(error)

__all__ = [
    "LazyArray",
    "Run",
    "WideArray",
    "error_reply",
    "identify",
    "lazy_record",
    "peek",
    "pulled_ids",
    "quiet",
    "set_message_id",
    "with_mods",
]

Handler = Callable[..., Any]
"""Of a message and a context, or a mod, which also gets the next one."""


def identify(run_id: int = 1) -> None:
    """Give this process the identity that Flower wants before it builds a message.

    Inside a Flower task the identity is set already and stays as it is.

    Parameters
    ----------
    run_id : int
        Run that messages belong to, > 0.
    """
    for name, value in (("task_id", 1), ("run_id", run_id), ("node_id", SUPERLINK_NODE_ID)):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, value)


def set_message_id(message: Message, message_id: str) -> None:
    """Name a message, as the SuperLink would do; replies copy the name."""
    message.metadata.__dict__["_message_id"] = message_id
    if message.metadata.message_id != message_id:  # pragma: no cover - other versions
        _unsupported(AttributeError("Metadata._message_id"))


def pulled_ids(
    reply_to_message_ids: Iterable[str] | None, message_ids: Iterable[str] | None
) -> list[str] | None:
    """Return the messages whose replies a grid is asked for, in the words of any Flower.

    Parameters
    ----------
    reply_to_message_ids, message_ids : iterable of str or None
        At most one: the name since 1.43, which may be left out for all replies, and that until
        1.42, which stays as a keyword.

    Raises
    ------
    TypeError
        If both are given.
    """
    if reply_to_message_ids is not None and message_ids is not None:
        raise TypeError("give reply_to_message_ids or message_ids, not both")
    ids = message_ids if reply_to_message_ids is None else reply_to_message_ids
    return None if ids is None else list(ids)


def error_reply(message: Message, reason: str) -> Message:
    """Answer a message with an error, as a ClientApp that raised does.

    Parameters
    ----------
    message : flwr.app.Message
        What is answered.
    reason : str
        The error as text.
    """
    return Message(Error(_RAISED, reason), reply_to=message)


def quiet() -> None:
    """Keep Flower's log to warnings, and print each of them once.

    Flower prints through its own handler, and would print again through a handler of the root
    logger such as Hydra's.
    """
    logger = logging.getLogger("flwr")
    logger.setLevel(logging.WARNING)
    logger.propagate = False


@contextmanager
def quieted() -> Iterator[None]:
    """Be `quiet` inside the block: Flower's log belongs to the caller's program."""
    logger = logging.getLogger("flwr")
    level, propagate = logger.level, logger.propagate
    quiet()
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate


class LazyArray(Array):
    """An array that makes its bytes only when somebody asks for them.

    Parameters
    ----------
    value : ndarray
        Often a view of one client's row in a stacked array. Never written to.
    """

    _value: NDArray[Any]

    def __init__(self, value: NDArray[Any]) -> None:
        # Past Array.__setattr__ and its generated __init__, which both want the bytes.
        self.__dict__.update(
            dtype=str(value.dtype), shape=tuple(value.shape), stype=_STYPE, _value=value
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes, made anew each time."""
        buffer = BytesIO()
        np.save(buffer, self._value, allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """Return a copy that may be written to, as ``Array.numpy`` does.

        Some strategies compute in place on what they get (QFedAvg does), so a view would let them
        damage what others read, and a read-only one would make them fail.
        """
        return self._value.copy()

    def view(self) -> NDArray[Any]:
        """Return the array itself, read only and without a copy."""
        view = self._value.view()
        view.flags.writeable = False
        return view

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        return Array, (self.dtype, self.shape, self.stype, self.data)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LazyArray":
        return self  # nobody writes to it


class WideArray(LazyArray):
    """An array shown in float64 with at least one axis; computed at every look, never kept.

    Parameters
    ----------
    value : ndarray
        Floating point, any shape.
    less : ndarray or None
        Shown is the difference from this one, of the same shape.
    """

    def __init__(self, value: NDArray[Any], less: NDArray[Any] | None = None) -> None:
        super().__init__(value)
        shape = tuple(value.shape) or (1,)
        self.__dict__.update(dtype="float64", shape=shape, _less=less)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes, made anew each time."""
        buffer = BytesIO()
        np.save(buffer, self.numpy(), allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """Return a new array, which may be written to."""
        wide = self._value.astype(np.float64).reshape(self.shape)
        less: NDArray[Any] | None = self.__dict__["_less"]
        return wide if less is None else wide - less.reshape(self.shape)

    def view(self) -> NDArray[Any]:
        """Return a new array."""
        return self.numpy()


def lazy_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Wrap named arrays without copying them.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Not to be changed while the record lives.
    """
    record = ArrayRecord()
    for name, value in arrays.items():
        # Item by item: the constructor would copy every array's bytes.
        record[name] = LazyArray(np.asarray(value))
    return record


def peek(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Read a record without copying lazy arrays; the result must not be written to."""
    return {k: v.view() if isinstance(v, LazyArray) else v.numpy() for k, v in record.items()}


def with_mods(handler: Handler, mods: Sequence[Handler]) -> Handler:
    """Put Flower's mods around a handler of messages, the first one outermost."""
    wrapped: Handler = make_ffn(handler, list(mods))
    return wrapped
