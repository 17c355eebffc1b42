"""What is known of every tensor of a model: shape, role, module type.

Server rules and private parts decide by this table, never by substrings of names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Role = Literal["parameter", "buffer", "counter"]

_FLOORED = ("running_var", "num_batches_tracked")  # what torch calls them in every such layer


@dataclass(frozen=True)
class Entry:
    """One tensor of a model.

    Parameters
    ----------
    name : str
        State-dict name.
    shape : tuple of int
        Shape.
    dtype : torch.dtype
        Type.
    role : {"parameter", "buffer", "counter"}
        Trainable; floating-point buffer (averaged); integer buffer (the server's is kept).
    module_type : str
        Class name of the module that owns it, such as ``"BatchNorm"``.
    unit_axis : int or None
        Axis along which output units are counted; None for scalars.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    role: Role
    module_type: str
    unit_axis: int | None


class Layout(Mapping[str, Entry]):
    """Entries by state-dict name, in the model's order.

    Parameters
    ----------
    module : torch.nn.Module
        The model to describe.

    Attributes
    ----------
    head : frozenset of str
        Tensors of the last layer, the module's ``head``; empty where there is none.
    floored : frozenset of str
        Buffers that are never negative: running variances, and counters of batches.
    """

    def __init__(self, module: nn.Module) -> None:
        self._entries: dict[str, Entry] = {}
        parameters = dict(module.named_parameters())
        owners = {prefix: type(m).__name__ for prefix, m in module.named_modules()}
        for name, value in module.state_dict(keep_vars=True).items():
            owner = owners[name.rpartition(".")[0]]
            role: Role = "counter"
            if name in parameters:
                role = "parameter"
            elif value.is_floating_point():
                role = "buffer"
            axis = 0 if value.dim() else None
            self._entries[name] = Entry(name, tuple(value.shape), value.dtype, role, owner, axis)
        head = getattr(module, "head", None)
        inside = head.state_dict() if isinstance(head, nn.Module) else ()
        self.head = frozenset(f"head.{name}" for name in inside)
        buffers = self._entries.keys() - parameters.keys()
        self.floored = frozenset(n for n in buffers if n.rpartition(".")[2] in _FLOORED)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def names(self, *, role: Role | None = None, module_type: str | None = None) -> frozenset[str]:
        """Return the names with a role, a module type, or both."""
        return frozenset(
            e.name
            for e in self._entries.values()
            if role in (None, e.role) and module_type in (None, e.module_type)
        )
