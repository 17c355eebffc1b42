"""Another device without a GPU: torch's "meta", and a watch over what passes between the two.

A meta tensor has a device, a shape and a type, and nothing that could be read: an ``.item()``, an
``int()``, an ``if`` on a tensor or a result whose shape depends on values raises. Some operations
take tensors of both devices in silence, which a GPU would not: the watch refuses those, and notes
every copy from the host for which the host would wait.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedlabels.cohort import LoopedCohort, StackedCohort
from fedlabels.cohort.device import scope

ELSEWHERE = torch.device("meta")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
FROM_PYTHON = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}


class Mixed(AssertionError):
    """Tensors of two devices met."""


class Watch(TorchDispatchMode):
    """Looks at every operation, below autograd and vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.scanning = self.stepping = 0
        self.stacked = False
        self.waits: list[str] = []
        self.in_scan: list[str] = []
        self.in_step: list[str] = []
        self.steps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [v for v in tree_leaves((args, kwargs or {})) if isinstance(v, torch.Tensor)]
        places = {v.device.type for v in given}
        if func in COPIES:
            out = func(*args, **(kwargs or {}))
            if "cpu" in places and out.device.type == ELSEWHERE.type:
                waits = not any(v is True for v in (*args, (kwargs or {}).get("non_blocking")))
                self.note(str(func), waits)
            return out
        if len(places) > 1:
            # a number of the host goes along with the call, as it does on a GPU
            if any(v.dim() for v in given if v.device.type == "cpu"):
                raise Mixed(f"{func} got tensors of {sorted(places)}")
            if not self.stacked:  # vmap makes tensors of numbers
                self.note(str(func), waits=False)
        return func(*args, **(kwargs or {}))

    def note(self, name: str, waits: bool) -> None:
        """Remember a copy from the host."""
        where = f"{name} by {_caller()}"
        if waits:
            self.waits.append(where)
        if waits and self.scanning:
            self.in_scan.append(where)
        if self.stepping:  # a graph would keep the values of the first time
            self.in_step.append(where)


class FromPython(TorchFunctionMode):
    """Notes tensors that are made of Python numbers on the other device."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in FROM_PYTHON and out.device.type == ELSEWHERE.type:
            self.watch.note(func.__name__, waits=True)
        return out


def _caller() -> str:
    ours = [f for f in traceback.extract_stack() if _ours(f.filename)]
    return f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].name}" if ours else "nobody"


def _ours(file: str) -> bool:
    return ("/fedlabels/" in file or "/clients/" in file) and "site-packages" not in file


@contextmanager
def watched() -> Iterator[Watch]:
    """Run a block as a worker on the other device does."""
    watch = Watch()
    with watch, FromPython(watch), scope(ELSEWHERE):
        yield watch


class _Watched:
    watch: Watch
    stacked: bool

    def scan(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def one(carry: Any, fixed: Any, batch: Any) -> tuple[Any, Mapping[str, Any]]:
            self.watch.stepping += 1
            self.watch.steps += 1
            try:
                return step(carry, fixed, batch)
            finally:
                self.watch.stepping -= 1

        self.watch.scanning += 1
        self.watch.stacked = self.stacked
        try:
            return super().scan(one, *args, **kwargs)  # type: ignore[misc]
        finally:
            self.watch.scanning -= 1


class WatchedLooped(_Watched, LoopedCohort):
    """A looped cohort whose steps are known to the watch."""


class WatchedStacked(_Watched, StackedCohort):
    """A stacked cohort whose steps are known to the watch."""
