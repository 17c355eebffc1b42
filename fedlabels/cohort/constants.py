"""What a function's closure holds, as a value that can be compared.

A recorded step keeps the numbers that its closure held (a learning rate, say). It may be replayed
for another round only if that round's step holds the same ones.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from fedlabels.cohort.cohort import Cohort
from fedlabels.cohort.net import Net

_PLAIN = (str, bytes, bool, int, type(None), torch.dtype, torch.device, torch.Size)
_THE_SAME = (Net, nn.Module, type, ModuleType, BuiltinFunctionType)


class _Unknown(Exception):
    """Something that cannot be compared."""


def constants(function: Callable[..., Any]) -> Hashable | None:
    """Return what a function computes with, besides its arguments.

    Returns
    -------
    hashable or None
        Two functions of equal values compute the same. None where something is held that cannot be
        compared, such as a tensor. A cohort counts as equal to every other of its kind: what it
        holds of one client must not be read in a step.
    """
    try:
        return _value(function, [])
    except _Unknown:
        return None


def _value(held: Any, above: list[int]) -> Hashable:
    if id(held) in above:  # a function that calls itself
        return "above", above.index(id(held))
    inside = [*above, id(held)]
    if isinstance(held, float | complex):
        return type(held), repr(held)  # tells 0.0 from -0.0
    if isinstance(held, _PLAIN):
        return type(held), held
    if isinstance(held, Cohort):
        return type(held)
    if isinstance(held, _THE_SAME):
        return held
    if isinstance(held, list | tuple):
        return type(held), tuple(_value(v, inside) for v in held)
    if isinstance(held, Mapping):
        return "mapping", tuple((k, _value(v, inside)) for k, v in held.items())
    if isinstance(held, set | frozenset):
        return "set", frozenset(_value(v, inside) for v in held)
    return _compound(held, inside)


def _compound(held: Any, above: list[int]) -> Hashable:
    if isinstance(held, MethodType):
        return held.__func__.__code__, _value(held.__self__, above)
    if isinstance(held, functools.partial):
        return "partial", _value((held.func, held.args, held.keywords), above)
    if isinstance(held, FunctionType):
        cells = tuple(_cell(cell, above) for cell in held.__closure__ or ())
        given = held.__defaults__ or (), held.__kwdefaults__ or {}
        return held.__code__, cells, _value(given, above)
    if dataclasses.is_dataclass(held) and not isinstance(held, type):
        names = [field.name for field in dataclasses.fields(held)]
        return type(held), tuple(_value(getattr(held, name), above) for name in names)
    raise _Unknown


def _cell(cell: Any, above: list[int]) -> Hashable:
    try:
        return _value(cell.cell_contents, above)
    except ValueError:  # a variable that has no value yet
        return "empty"
