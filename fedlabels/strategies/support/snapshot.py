"""Snapshots of a stock strategy: what changed since it was made, as arrays and JSON."""

import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedlabels.errors import CheckpointError
from fedlabels.rounds import wire

Arrays = dict[str, NDArray[Any]]
Marks = dict[str, object]
_KIND = "kind"


class _OpaqueError(TypeError):
    """A value has no form in a snapshot."""


def marks(strategy: Strategy, path: str = "") -> Marks:
    """Note what a strategy looks like where it cannot be stored; call it when it is new.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        A strategy, possibly around others.
    path : str
        Prefix of the names.

    Returns
    -------
    dict
        Attribute -> fingerprint, for attributes such as functions and accountants.
    """
    fingerprints: Marks = {}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            fingerprints.update(marks(value, f"{path}{name}."))
        elif not _storable(value):
            fingerprints[path + name] = _fingerprint(value)
    return fingerprints


def take(strategy: Strategy, new: Marks, arrays: Arrays, path: str = "") -> dict[str, Any]:
    """Store the attributes of a strategy.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        The strategy.
    new : dict
        Its :func:`marks` when it was new.
    arrays : dict of str to ndarray
        Gets the arrays.
    path : str
        Prefix of the names.

    Returns
    -------
    dict
        JSON values that refer to the arrays.

    Raises
    ------
    CheckpointError
        If an attribute that cannot be stored has changed.
    """
    values: dict[str, Any] = {_KIND: "strategy", "class": type(strategy).__name__, "items": {}}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            values["items"][name] = take(value, new, arrays, f"{path}{name}.")
            continue
        packed: Arrays = {}
        try:
            values["items"][name] = _pack(value, path + name, packed)
        except _OpaqueError as error:
            if _same(new.get(path + name), _fingerprint(value)):
                continue
            raise CheckpointError(
                f"strategy {type(strategy).__name__} cannot be resumed: its attribute"
                f" {path + name!r} ({error}) changed and has no stored form; run without"
                " checkpoints or use another strategy"
            ) from error
        arrays.update(packed)
    return values


def restore(strategy: Strategy, values: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Put stored attributes back into a strategy that was made with the same settings.

    Raises
    ------
    CheckpointError
        If the values are those of another strategy.
    """
    if values.get("class") != type(strategy).__name__:
        raise CheckpointError(
            f"the state belongs to strategy {values.get('class')!r}, not"
            f" {type(strategy).__name__!r}: resume with the settings of the run"
        )
    for name, value in values["items"].items():
        if isinstance(value, dict) and value[_KIND] == "strategy":
            restore(getattr(strategy, name), value, arrays)
        else:
            setattr(strategy, name, _unpack(value, arrays))


def _pack(value: Any, path: str, arrays: Arrays) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _pack_array(value, path, arrays)
    if isinstance(value, float) and not math.isfinite(value):
        return {_KIND: "float", "value": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, ArrayRecord):
        held = wire.from_record(value)
        return {_KIND: "record", "items": _pack_items(held, path, arrays)}
    if type(value) is dict:
        return {_KIND: "dict", "items": _pack_items(value, path, arrays)}
    if type(value) in (list, tuple):
        items = [_pack(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
        return {_KIND: type(value).__name__, "items": items}
    raise _OpaqueError(type(value).__name__)


def _pack_array(value: NDArray[Any] | np.generic, path: str, arrays: Arrays) -> dict[str, str]:
    if value.dtype.kind not in "biuf":
        raise _OpaqueError(str(value.dtype))
    arrays[path] = np.array(value)
    return {_KIND: "array" if isinstance(value, np.ndarray) else "scalar", "key": path}


def _pack_items(items: Mapping[Any, Any], path: str, arrays: Arrays) -> list[list[Any]]:
    for key in items:
        if type(key) not in (int, str):
            raise _OpaqueError(f"key of type {type(key).__name__}")
    # Numbered, so that no key can make two paths equal.
    return [
        [key, _pack(value, f"{path}/{i}", arrays)] for i, (key, value) in enumerate(items.items())
    ]


def _unpack(value: Any, arrays: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value[_KIND]
    if kind in ("array", "scalar"):
        stored = np.array(arrays[value["key"]])
        return stored if kind == "array" else stored[()]
    if kind == "float":
        return float(value["value"])
    if kind in ("list", "tuple"):
        items = [_unpack(item, arrays) for item in value["items"]]
        return items if kind == "list" else tuple(items)
    pairs = {key: _unpack(item, arrays) for key, item in value["items"]}
    return wire.to_record(pairs) if kind == "record" else pairs


def _storable(value: object) -> bool:
    try:
        _pack(value, "", {})
    except _OpaqueError:
        return False
    return True


def _fingerprint(value: object) -> object:
    """Tell later whether a value changed: its pickle, else (functions, classes) itself."""
    if callable(value):
        return value
    try:
        return pickle.dumps(value)
    except Exception:  # any error of a foreign object's own pickling means the same
        return None


def _same(old: object, new: object) -> bool:
    return old is not None and new is not None and (old is new or old == new)
