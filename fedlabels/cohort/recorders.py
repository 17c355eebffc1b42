"""Recording work once to replay it: as a CUDA graph, and for tests as a tape of operations.

What is recorded reads and writes tensors that stay where they are. Python runs once: numbers,
branches and addresses of that one time are replayed ever after. Both recorders are alike in that.
"""

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from fedlabels.errors import ConfigError

Body = Callable[[], None]
Replay = Callable[[], Any]


class RecordError(RuntimeError):
    """Work that cannot be recorded: it asks for a value, or does not do the same each time."""


class Recorder(Protocol):
    """Records a body."""

    def pool(self) -> Any:
        """Return memory that recordings which never run at the same time can share."""
        ...

    def record(self, body: Body, pool: Any) -> tuple[Replay, bool]:
        """Record a body that was run before.

        Parameters
        ----------
        body : callable
            Changes tensors in place; what it allocates is lost.
        pool
            From `pool`.

        Returns
        -------
        replay, ran
            What does it again, and whether recording has done it already.

        Raises
        ------
        RecordError
            If the body cannot be recorded. What it changed is lost then.
        """
        ...


class GraphRecorder:
    """CUDA graphs, on the current stream, which must not be the default one."""

    def pool(self) -> Any:
        """Return a new pool of device memory."""
        return torch.cuda.graph_pool_handle()

    def record(self, body: Body, pool: Any) -> tuple[Replay, bool]:
        """Capture a body; see `Recorder`. Nothing runs while it is captured."""
        graph = torch.cuda.CUDAGraph()
        collects = gc.isenabled()
        gc.disable()  # what the collector frees in between may end the capture
        try:
            # other threads may go on as they like: only this one's mistakes count
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                body()
            finally:
                graph.capture_end()
        except Exception as error:
            raise RecordError(f"{type(error).__name__}: {error}") from error
        finally:
            if collects:
                gc.enable()
        return graph.replay, False


class TapeRecorder:
    """A list of tensor operations, on any device: what a test replays on a CPU.

    Below autograd, so that backward passes are on it, too. Like a capture it refuses whatever asks
    for a value, makes a tensor whose shape depends on values, or draws from torch's generators.
    """

    def pool(self) -> None:
        """Return nothing: there is no memory to share."""

    def record(self, body: Body, pool: Any) -> tuple[Replay, bool]:
        """Write down what a body does while it runs; see `Recorder`."""
        tape = _Tape()
        try:
            with tape:
                body()
        except Exception as error:
            raise RecordError(f"{type(error).__name__}: {error}") from error
        return tape.finished(), True


def _by_number(func: Any, args: Any) -> bool:
    """Say whether it picks by positions: torch marks that like picking by a mask."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return not any(v is not None and v.dtype in (torch.bool, torch.uint8) for v in args[1])


class _Slot(int):
    """Stands for a tensor that was made while recording."""


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    _REFUSED = (
        torch.Tag.data_dependent_output,
        torch.Tag.dynamic_output_shape,
        torch.Tag.nondeterministic_seeded,
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, list[Any], Any, list[_Slot | None]]] = []
        self._slots: dict[int, _Slot] = {}
        self._made: list[Any] = []  # alive while recording: a name is a tensor's address in Python

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(tag in func.tags for tag in self._REFUSED) and not _by_number(func, args):
            raise RecordError(f"{func} asks the device for a value, or draws from its generator")
        values, shape = tree_flatten((args, kwargs or {}))
        given = [self._slots.get(id(v), v) for v in values]
        out = func(*args, **(kwargs or {}))
        self._made.append(out)
        self._calls.append((func, given, shape, [self._slot(v) for v in tree_leaves(out)]))
        return out

    def _slot(self, value: Any) -> _Slot | None:
        if not isinstance(value, Tensor):
            return None
        return self._slots.setdefault(id(value), _Slot(len(self._slots)))

    def finished(self) -> Replay:
        """Return what does everything again."""
        self._made, self._slots = [], {}
        calls = self._calls

        def replay() -> None:
            made: dict[int | None, Any] = {}
            with torch.no_grad():
                for func, given, shape, slots in calls:
                    values = [made[v] if type(v) is _Slot else v for v in given]
                    args, kwargs = tree_unflatten(values, shape)
                    out = func(*args, **kwargs)
                    made.update(zip(slots, tree_leaves(out), strict=True))

        return replay


class Lane:
    """A queue of a device and what was recorded on it.

    Parameters
    ----------
    recorder : Recorder
    stream : torch.cuda.Stream or None
        None on a CPU, where a lane is no queue.
    """

    def __init__(self, recorder: Recorder, stream: Any = None) -> None:
        self.recorder, self._stream = recorder, stream
        self._kept: dict[Hashable, Any] = {}
        self._used: set[Hashable] = set()
        self.epoch = 0

    def begin(self) -> None:
        """Begin a range of clients; recordings that the last one did not use are dropped."""
        if self._used.issuperset(self._kept):
            self._used = set()
        else:
            self._drop({key: value for key, value in self._kept.items() if key in self._used})
        self.epoch += 1

    def recall(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what is kept under a key, made anew if nothing is."""
        self._used.add(key)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forget(self) -> None:
        """Drop all recordings."""
        self._drop({})

    def _drop(self, kept: dict[Hashable, Any]) -> None:
        if self._stream is not None:
            self._stream.synchronize()  # a graph must not go while it runs
        self._kept, self._used = kept, set()

    def follow(self) -> None:
        """Let the lane wait for the current stream; the host goes on."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))

    def join(self) -> None:
        """Let the current stream wait for the lane; the host goes on."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Put what runs inside into the lane."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield


def make_lanes(device: torch.device, count: int) -> list[Lane]:
    """Make lanes of a GPU.

    Raises
    ------
    ConfigError
        If the device has no graphs.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"execution=graphed records CUDA graphs, which device '{device}' does not have; use "
            "execution=auto, looped or stacked"
        )
    streams = [torch.cuda.Stream(device) for _ in range(count)]  # type: ignore[no-untyped-call]
    return [Lane(GraphRecorder(), stream) for stream in streams]
