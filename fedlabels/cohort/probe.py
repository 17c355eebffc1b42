"""Timed probes: which of several ways is the faster one here, and how many clients fit.

Only for a GPU, where the answer depends on shapes, chip and libraries; on a CPU it is known.
"""

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

LOG = logging.getLogger(__name__)
REPEATS = 5
CPU_STACK = 16  # clients of a stack where nothing is measured
FIRST_STACK = 4  # clients of the first stack on a GPU, from which the next ones are sized
SHARE = 0.8  # of the free memory that a stack may take

OutOfMemory = torch.cuda.OutOfMemoryError


def seconds(
    function: Callable[[], Any],
    device: torch.device,
    *,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median time of a call, in seconds, after one that warms up.

    Parameters
    ----------
    function : callable
        Its work on the device is waited for.
    repeats : int
        Timed calls, >= 1.
    clock : callable
        Returns seconds.
    """
    times = []
    for _ in range(repeats + 1):
        begin = clock()
        function()
        wait(device)
        times.append(clock() - begin)
    return statistics.median(times[1:])


def fastest(ways: Mapping[str, Callable[[], float]], what: str) -> str:
    """Return the way that takes least, by its own measurement; logs all of them.

    Parameters
    ----------
    ways : mapping of str to callable
        Each returns its seconds. One that runs out of memory or cannot do it at all is left out.
    what : str
        What is chosen, for the log.

    Raises
    ------
    Exception
        Of the last way, if none works.
    """
    found: dict[str, float] = {}
    problem: Exception | None = None
    for name, measure in ways.items():
        try:
            found[name] = measure()
        except Exception as error:
            problem = error
            LOG.info("%s: %s does not work here: %s", what, name, error)
    if not found:
        assert problem is not None  # there is at least one way
        raise problem
    best = min(found, key=lambda name: found[name])
    shown = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in found.items())
    LOG.info("%s: %s (%s)", what, best, shown)
    return best


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Memory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Return the bytes that can be had."""
        ...

    def start(self) -> None:
        """Begin to measure."""
        ...

    def taken(self) -> int:
        """Return the most bytes that were held at once since `start`, beyond those held then."""
        ...

    def release(self) -> None:
        """Give back what is cached."""
        ...


class CudaMemory:
    """What torch's allocator knows of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def free(self) -> int:
        """Return free memory, with what torch holds and does not use."""
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(torch.cuda.mem_get_info(self._device)[0] + idle)

    def start(self) -> None:
        """Begin to measure."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def taken(self) -> int:
        """Return the peak since `start`."""
        return int(torch.cuda.max_memory_allocated(self._device) - self._before)

    def release(self) -> None:
        """Give cached blocks back to the driver."""
        torch.cuda.empty_cache()


class StackSize:
    """How many clients make a stack.

    Parameters
    ----------
    given : int or None
        Fixed number; None measures it, where there is a memory to measure.
    memory : Memory or None
        None on a CPU.

    Attributes
    ----------
    clients : int
        The number for the next stack.
    """

    def __init__(self, given: int | None, memory: Memory | None) -> None:
        self._memory = memory
        # in the first stack layers try their ways, which takes memory that later ones do not
        self._open = 2 if given is None and memory is not None else 0
        start = FIRST_STACK if self._open else CPU_STACK
        self.clients = start if given is None else given

    def watch(self) -> None:
        """Measure the stack that follows, unless the number is known."""
        if self._open and self._memory is not None:
            self._memory.start()

    def learn(self, clients: int) -> None:
        """Take the number from what the second stack, of so many clients, has needed.

        A stack of one is too little to tell what a further client costs.
        """
        if not self._open or self._memory is None or clients < 2:
            return
        self._open -= 1
        if self._open:
            return
        each = max(1, -(-self._memory.taken() // clients))
        self.clients = max(1, int(SHARE * self._memory.free()) // each)
        LOG.info("stacks of up to %d clients, %.1f MiB each", self.clients, each / 2**20)

    def halve(self, failed: int) -> None:
        """Go on with half of a number that did not fit into memory."""
        self._open = 0
        self.clients = max(1, failed // 2)
        if self._memory is not None:
            self._memory.release()
        LOG.warning(
            "a stack of %d clients does not fit into memory; going on with %d", failed, self.clients
        )
