"""What the steps of a scan add up to."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.types import PseudoLabels


class Sums(Mapping[str, Tensor]):
    """Totals of what the steps of a scan returned; a total that no step made reads 0.

    Parameters
    ----------
    totals : dict of str to Tensor or None
        None when no step ran at all.
    shapes : callable
        Runs the step on a blank batch to learn what it would have returned.
    """

    def __init__(
        self, totals: dict[str, Tensor] | None, shapes: Callable[[], dict[str, Tensor]]
    ) -> None:
        self._totals, self._shapes = totals, shapes

    def _get(self) -> dict[str, Tensor]:
        if self._totals is None:
            self._totals = {k: torch.zeros_like(v) for k, v in self._shapes().items()}
        return self._totals

    def __getitem__(self, name: str) -> Tensor:
        return self._get()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._get())

    def __len__(self) -> int:
        return len(self._get())


class Totals:
    """Adds up what the steps of a scan return.

    Parameters
    ----------
    pseudo_labels : list of PseudoLabels
        Where pseudo-labels go: they are scored outside, and no total.
    """

    def __init__(self, pseudo_labels: list[PseudoLabels]) -> None:
        self._pseudo = pseudo_labels
        self._scalars: dict[str, list[Tensor]] = {}
        self._others: dict[str, Tensor] = {}

    def add(self, sums: Mapping[str, Any]) -> None:
        """Add one step's sums; scalars are only collected, which costs nothing a step."""
        for name, value in sums.items():
            if isinstance(value, PseudoLabels):
                self._pseudo.append(value)
            elif value.dim() == 0:
                self._scalars.setdefault(name, []).append(value)
            else:
                wide = widened(value)
                seen = name in self._others
                self._others[name] = self._others[name] + wide if seen else wide

    def get(self) -> dict[str, Tensor] | None:
        """Return the totals: float64, integers int64; None when no step had any."""
        ready = {k: widened(torch.stack(v)).sum() for k, v in self._scalars.items()}
        return {**ready, **self._others} or None


def widened(value: Tensor) -> Tensor:
    """Return floating-point numbers as float64."""
    return value.double() if value.is_floating_point() else value


def split_sums(sums: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[PseudoLabels]]:
    """Separate totals from pseudo-labels; floating-point totals become float64."""
    pseudo = [v for v in sums.values() if isinstance(v, PseudoLabels)]
    return {k: widened(v) for k, v in sums.items() if not isinstance(v, PseudoLabels)}, pseudo


def add_sums(totals: dict[str, Tensor] | None, sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add one step's sums to the totals."""
    return sums if totals is None else {k: totals[k] + v for k, v in sums.items()}
