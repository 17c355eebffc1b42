"""What is asked of one client's terms: their size, whether they are finite, their weight."""

import math
import sys
from collections.abc import Mapping, Sequence

import torch

from fedlabels.cohort.types import Term

LARGEST = 1e18
"""Largest magnitude of an entry: float32 holds the squares of such numbers, of larger ones not."""
_SMALL = 1 << 14


def size(term: Term) -> int:
    """Return the bytes of a term."""
    return sum(v.numel() * v.element_size() for v in term.value.values())


def misfit(term: Term, like: Mapping[str, torch.Size], whole: bool) -> str | None:
    """Say what is wrong with the names or shapes of a term; None when it fits.

    Parameters
    ----------
    term : Term
        One client's term.
    like : mapping of str to torch.Size
        Shapes by name that it is compared with.
    whole : bool
        Whether all names must be there, or a part of them may.
    """
    return unlike({name: value.shape for name, value in term.value.items()}, like, whole)


def unlike(
    shapes: Mapping[str, torch.Size], like: Mapping[str, torch.Size], whole: bool
) -> str | None:
    """Say how names and shapes differ; see `misfit`."""
    for name, shape in shapes.items():
        if name not in like:
            return f"tensor '{name}' is not known; expected are: {', '.join(like)}"
        if shape != like[name]:
            got, wanted = tuple(shape), tuple(like[name])
            return f"tensor '{name}' has shape {got}, expected is {wanted}"
    missing = sorted(set(like) - set(shapes)) if whole else []
    return f"tensors are missing: {', '.join(missing)}" if missing else None


def finite(term: Term) -> bool:
    """Say whether all weights are finite and no value is beyond `LARGEST`."""
    weights = term.weight.values() if isinstance(term.weight, dict) else [term.weight]
    given = [w for w in weights if isinstance(w, torch.Tensor)]
    return all_finite([*term.value.values()], LARGEST) and all_finite(given)


def all_finite(values: Sequence[torch.Tensor], largest: float = sys.float_info.max) -> bool:
    """Check by the sum of squares, one pass without a mask of the size of the model.

    Parameters
    ----------
    values : sequence of Tensor
        Those of whole numbers are not looked at.
    largest : float
        Largest magnitude of an entry, > 0.
    """
    parts = [v if v.is_floating_point() else None for v in values]
    small = [v.flatten() for v in parts if v is not None and v.numel() <= _SMALL]
    large = [v for v in parts if v is not None and v.numel() > _SMALL]
    # one question for all small ones: asking costs more than adding them up
    joined = {kind: [v for v in small if v.dtype == kind] for kind in {v.dtype for v in small}}
    return all(_finite(v, largest) for v in (*map(torch.cat, joined.values()), *large))


def lowest(values: Sequence[torch.Tensor]) -> float:
    """Return the smallest entry of all; 0.0 without any."""
    nonempty = [v for v in values if v.numel()]
    if len(nonempty) == 1 and nonempty[0].numel() == 1:
        return float(nonempty[0])
    parts = [v.amin().double() for v in nonempty]
    return float(torch.stack(parts).amin()) if parts else 0.0


def readings(term: Term) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what is asked of every term as scalars of its device, not waited for.

    Returns
    -------
    Tensor, Tensor, Tensor, shape ()
        Bool: what `finite` says; the largest and the smallest weight, float64.
    """
    weights = list(term.weight.values()) if isinstance(term.weight, dict) else [term.weight]
    given = [w.double() for w in weights if w is not None and w.numel()]
    values = [v for v in term.value.values() if v.is_floating_point() and v.numel()]
    like = next(iter([*given, *term.value.values()]), torch.zeros(()))
    if given:
        weight = torch.stack([w.amax() for w in given]).amax()
        least = torch.stack([w.amin() for w in given]).amin()
    else:
        weight = like.new_full((), float(term.weight is None), dtype=torch.float64)
        least = weight
    # the largest magnitude is not finite if any entry is not, and nothing is squared
    norms = torch._foreach_norm([*values, *given], float("inf")) if values or given else [weight]
    good = [norm.float() <= LARGEST for norm in norms[: len(values)]]
    good += [norm.isfinite() for norm in norms[len(values) :]]
    return torch.stack(good).all(), weight, least


def _finite(value: torch.Tensor, largest: float) -> bool:
    # in memory order, so that tensors laid out channels last are read as they lie
    flat = value.as_strided((value.numel(),), (1,)) if _dense(value) else value.flatten()
    square = float(torch.dot(flat, flat))
    if math.isfinite(square) and square <= largest * largest:
        return True
    # squares of large finite numbers overflow: only then is every entry looked at
    return float(value.abs().amax()) <= largest


def _dense(value: torch.Tensor) -> bool:
    """Say whether the entries fill one piece of memory, in whatever order."""
    return value.is_contiguous() or (
        value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    )


def weight_of(terms: Mapping[str, Term]) -> float:
    """Return the number of examples: the model's weight, else the largest of any term."""
    chosen = [terms["model"]] if "model" in terms else list(terms.values())
    weights = []
    for term in chosen:
        if term.weight is None:
            weights.append(1.0)
        elif isinstance(term.weight, dict):
            weights.append(
                max((float(w.max()) for w in term.weight.values() if w.numel()), default=0.0)
            )
        else:
            weights.append(float(term.weight))
    return max(weights, default=0.0)
