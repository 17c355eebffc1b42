"""Values of golden files: decoding JSON into arrays, comparing outputs with expected ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

NON_FINITE = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
EMPTY_KEYS = {"dtype", "shape", "data"}


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed distance ``atol + rtol * |expected|`` of floating point values."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Difference:
    """One output that is wrong: its key, what is wrong, and the largest difference if numeric."""

    key: str
    reason: str
    largest: float | None = None

    def __str__(self) -> str:
        number = "" if self.largest is None else f", largest difference {self.largest:.3g}"
        return f"{self.key}: {self.reason}{number}"


def decode(value: Any) -> Any:
    """Turn a JSON value into arrays, lists of arrays, scalars and dictionaries.

    Lists become arrays when their parts have one shape and one kind of content (integers, numbers,
    booleans or text); otherwise they stay lists. ``"nan"``, ``"inf"`` and ``"-inf"`` are numbers.
    """
    if isinstance(value, dict):
        if value.keys() == EMPTY_KEYS:
            return np.array(value["data"], dtype=value["dtype"]).reshape(value["shape"])
        return {str(key): decode(part) for key, part in value.items()}
    if isinstance(value, list):
        return _as_array([decode(part) for part in value])
    if isinstance(value, str):
        return NON_FINITE.get(value, value)
    return value


def normalize(value: Any) -> Any:
    """Bring what an adapter returns into the form of decoded values."""
    if isinstance(value, Tensor):
        return normalize(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return value if value.ndim else value.item()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): normalize(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return _as_array([normalize(part) for part in value])
    return value


def compare(key: str, got: Any, expected: Any, tolerance: Tolerance) -> Difference | None:
    """Compare one decoded output with one normalized result; None when they match."""
    if isinstance(expected, dict):
        return _compare_mappings(key, got, expected, tolerance)
    if isinstance(expected, np.ndarray) or _is_number(expected):
        if not (isinstance(got, np.ndarray | list) or _is_number(got)):
            return Difference(key, f"expected numbers or text, got {got!r}")
        if isinstance(got, list):
            return Difference(key, "expected one array, got parts of different shapes")
        return _compare_arrays(key, np.asarray(got), np.asarray(expected), tolerance)
    if isinstance(expected, list):
        return _compare_lists(key, got, expected, tolerance)
    if type(got) is not type(expected) or got != expected:
        return Difference(key, f"expected {expected!r}, got {got!r}")
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    """Name the content: ``i`` integers, ``f`` numbers, ``b`` booleans, ``U`` text, ``O`` other."""
    kind = np.asarray(value).dtype.kind if not isinstance(value, dict | list) else "O"
    return "i" if kind == "u" else kind


def _as_array(parts: list[Any]) -> Any:
    kinds = {_kind(part) for part in parts}
    shapes = {np.shape(part) if _kind(part) != "O" else None for part in parts}
    if not parts or len(shapes) > 1 or None in shapes or len(kinds - {"i"}) > 1:
        return parts
    if kinds not in ({"i"}, {"f"}, {"i", "f"}, {"b"}, {"U"}):
        return parts
    return np.array(parts)


def _compare_mappings(
    key: str, got: Any, expected: dict[str, Any], tolerance: Tolerance
) -> Difference | None:
    if not isinstance(got, dict):
        return Difference(key, f"expected a dictionary, got {type(got).__name__}")
    if got.keys() != expected.keys():
        return Difference(key, f"expected the keys {sorted(expected)}, got {sorted(got)}")
    found = (compare(f"{key}.{k}", got[k], part, tolerance) for k, part in expected.items())
    return next((difference for difference in found if difference), None)


def _compare_lists(
    key: str, got: Any, expected: list[Any], tolerance: Tolerance
) -> Difference | None:
    if not isinstance(got, list | np.ndarray):
        return Difference(key, f"expected a list, got {type(got).__name__}")
    if len(got) != len(expected):
        return Difference(key, f"expected {len(expected)} parts, got {len(got)}")
    pairs = enumerate(zip(got, expected, strict=True))
    found = (compare(f"{key}[{i}]", normalize(g), e, tolerance) for i, (g, e) in pairs)
    return next((difference for difference in found if difference), None)


def _compare_arrays(
    key: str, got: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance
) -> Difference | None:
    if got.shape != expected.shape:
        return Difference(key, f"expected shape {expected.shape}, got {got.shape}")
    kinds = {_kind(got), _kind(expected)}
    if kinds <= {"i", "f"} and "f" in kinds:
        return _compare_floats(key, got.astype(float), expected.astype(float), tolerance)
    if len(kinds) > 1 and expected.size:
        return Difference(key, f"expected {expected.dtype} values, got {got.dtype}")
    if np.array_equal(got, expected):
        return None
    largest = float(np.abs(got - expected).max()) if kinds == {"i"} else None
    return Difference(key, f"{int((got != expected).sum())} entries differ", largest)


def _compare_floats(
    key: str, got: NDArray[np.float64], expected: NDArray[np.float64], tolerance: Tolerance
) -> Difference | None:
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))  # also infinities of one sign
    with np.errstate(invalid="ignore"):
        distance = np.abs(got - expected)
        allowed = tolerance.atol + tolerance.rtol * np.abs(expected)
        close = np.isfinite(got) & np.isfinite(expected) & (distance <= allowed)
    if (same | close).all():
        return None
    wrong = np.where(np.isnan(distance), np.inf, distance)[~(same | close)]
    return Difference(key, f"{wrong.size} values differ", float(wrong.max()))
