"""Graphed execution: one client, its steps recorded once and replayed; see `recorders`.

A step reads and writes tensors at fixed places: the carry, the fixed trees, the batch. Before a
scan they are filled with the client's values, before a step with its batch; the host only says
"again". A recording holds for one kind of scan (the same code, constants and shapes) of one lane; a
smaller last batch is recorded for itself.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.batches import Batch, Batches, Fields, built, join
from fedlabels.cohort.clock import each, phase
from fedlabels.cohort.cohort import Carry, Fixed, Step
from fedlabels.cohort.constants import constants
from fedlabels.cohort.context import CONTEXT, primitive
from fedlabels.cohort.looped import LoopedCohort
from fedlabels.cohort.recorders import Lane, Recorder, RecordError, Replay
from fedlabels.cohort.sums import Sums, split_sums
from fedlabels.cohort.tree import frozen, tree_map
from fedlabels.cohort.types import EMPTY, PseudoLabels

KEPT_STEPS = 32
"""Steps whose pseudo-labels are collected on the device before they are copied away."""


class GraphedCohort(LoopedCohort):
    """A cohort of one client whose steps are replayed.

    Parameters
    ----------
    lane : Lane
        Where it runs. It keeps the recordings for the clients after this one.
    **settings
        Those of `LoopedCohort`.
    """

    def __init__(self, *, lane: Lane, **settings: Any) -> None:
        super().__init__(**settings)
        self._lane, self._scans = lane, 0

    def scan(
        self,
        step: Step,
        carry: Carry,
        batches: Batches,
        *,
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
    ) -> tuple[Carry, Sums]:
        """Run a step over all batches; see `Cohort.scan`.

        Raises
        ------
        RecordError
            If the step cannot be recorded.
        """
        self._scans += 1
        fixed, recording, totals = {**own, **shared}, None, None
        with torch.no_grad(), primitive(donate=True):
            for batch in each("gather", batches.alone(tensors=True)):
                if recording is None:
                    recording = self._recording(step, carry, fixed, batch)
                    recording.load(carry, fixed)
                with phase("forward_backward"):
                    recording.run(step, fields_of(batch))
            if recording is not None:
                carry, totals, marks = recording.unload()
                self.pseudo_labels += marks
        return carry, Sums(totals, lambda: self._shapes(step, carry, frozen(fixed), batches))

    def _recording(self, step: Step, carry: Carry, fixed: Any, batch: Any) -> "Recording":
        held = constants(step)
        code = getattr(step, "__code__", type(step))
        # what cannot be compared is the same for all clients of a range, and for them alone
        same = self._lane.epoch if held is None else held
        shapes = signature((carry, fixed)), signature(fields_of(batch), rows=False)
        key = self._scans, code, same, CONTEXT.statistics, shapes
        made: Recording = self._lane.recall(
            key, lambda: Recording(self._lane.recorder, carry, fixed)
        )
        return made


class Places:
    """Tensors that stay where they are; filled by one call a type.

    Parameters
    ----------
    like : sequence of Tensor
        Shapes, types and strides.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        self.tensors = [torch.empty_like(value) for value in like]
        self._groups: dict[torch.dtype, list[int]] = {}
        for place, value in enumerate(like):
            self._groups.setdefault(value.dtype, []).append(place)

    def fill(self, values: Sequence[Tensor]) -> None:
        """Copy values into the places."""
        for group in self._groups.values():
            torch._foreach_copy_([self.tensors[k] for k in group], [values[k] for k in group])


class Frame:
    """A step of one shape of batch.

    Parameters
    ----------
    fields : dict of str to Fields
        A batch of that shape.
    """

    def __init__(self, fields: dict[str, Fields]) -> None:
        values = leaves(fields)
        device = values[0].device
        self._steps = torch.arange(KEPT_STEPS, device=device)
        self._inputs = Places([*values, self._steps[:1]])
        self.fields = rebuilt(fields, self._inputs.tensors)
        self.marks: tuple[PseudoLabels, ...] = ()
        self.replay: Replay | None = None
        self.used = 0

    def load(self, fields: dict[str, Fields]) -> None:
        """Fill in a batch, and where its pseudo-labels go."""
        self._inputs.fill([*leaves(fields), self._steps[self.used : self.used + 1]])
        self.used += 1

    def note(self, marks: Sequence[PseudoLabels], first: bool) -> None:
        """Keep the pseudo-labels of the step."""
        if first:
            self.marks = tree_map(_room, tuple(marks))
        row = self._inputs.tensors[-1]
        for place, value in zip(leaves(self.marks), leaves(tuple(marks)), strict=True):
            place.index_copy_(0, row, value.unsqueeze(0))

    def taken(self) -> list[PseudoLabels]:
        """Return the pseudo-labels of all steps since the last call, joined."""
        used, self.used = self.used, 0
        made = tree_map(lambda kept: kept[:used].flatten(0, 1).clone(), self.marks)
        return list(made) if used else []


def _room(value: Tensor) -> Tensor:
    return value.new_zeros((KEPT_STEPS, *value.shape))


class Recording:
    """What the steps of a kind of scan read and write, and how they are replayed.

    Parameters
    ----------
    recorder : Recorder
    carry, fixed : nested trees
        Of the first client.
    """

    def __init__(self, recorder: Recorder, carry: Carry, fixed: Any) -> None:
        self._recorder, self._pool = recorder, recorder.pool()
        self._state, self._given = Places(leaves(carry)), Places(leaves(fixed))
        self._carry = rebuilt(carry, self._state.tensors)
        self._fixed = rebuilt(fixed, self._given.tensors)
        self._memory = {_memory(place) for place in self._state.tensors}
        self._shape = signature(carry, strides=False)
        self._totals: dict[str, Tensor] = {}
        self._frames: dict[Hashable, Frame] = {}
        self._marks: list[PseudoLabels] = []
        self._steps: list[Step] = []  # a graph reads the tensors of their closures

    def load(self, carry: Carry, fixed: Any) -> None:
        """Begin a client's scan."""
        self._state.fill(leaves(carry))
        self._given.fill(leaves(fixed))
        if self._totals:
            torch._foreach_zero_(list(self._totals.values()))
        for frame in self._frames.values():
            frame.used = 0
        self._marks = []

    def run(self, step: Step, fields: dict[str, Fields]) -> None:
        """Run a step: at first as it is, then recorded."""
        rows = tuple(value["y"].shape[0] for value in fields.values())
        frame = self._frames.get(rows)
        if frame is None:
            frame = self._frames[rows] = Frame(fields)
            frame.load(fields)
            self._body(step, frame, first=True)
        else:
            frame.load(fields)
            self._replay(step, frame)
        if frame.used == KEPT_STEPS:
            self._marks += frame.taken()

    def _replay(self, step: Step, frame: Frame) -> None:
        if frame.replay is None:
            self._steps.append(step)
            frame.replay, ran = self._recorder.record(
                lambda: self._body(step, frame, first=False), self._pool
            )
            if ran:
                return
        frame.replay()

    def _body(self, step: Step, frame: Frame, *, first: bool) -> None:
        batch = join({name: built(value, None) for name, value in frame.fields.items()})
        carry, sums = step(tree_map(_same, self._carry), frozen(self._fixed), batch)
        plain, marks = split_sums(sums)
        self._add(plain, first)
        frame.note(marks, first)
        self._keep(carry)

    def _add(self, sums: Mapping[str, Tensor], first: bool) -> None:
        # numbers are counted as int64, as their sum over all steps would be
        wide = {k: v if v.dim() or v.is_floating_point() else v.long() for k, v in sums.items()}
        new = [name for name in wide if name not in self._totals]
        if new and not first:
            raise RecordError(f"the step makes the sum '{new[0]}' not every time")
        self._totals.update({name: torch.zeros_like(wide[name]) for name in new})
        for name, value in wide.items():
            self._totals[name] += value

    def _keep(self, carry: Carry) -> None:
        """Put the new carry where the old one was."""
        if signature(carry, strides=False) != self._shape:
            raise RecordError("a step must return a carry of the names, shapes and types it got")
        new = zip(self._state.tensors, leaves(carry), strict=True)
        moved = [(place, value) for place, value in new if not _lies_at(value, place)]
        if moved:
            # what lies at another place of the carry could be overwritten before it is read
            values = [v.clone() if _memory(v) in self._memory else v for _, v in moved]
            torch._foreach_copy_([place for place, _ in moved], values)

    def unload(self) -> tuple[Carry, dict[str, Tensor] | None, list[PseudoLabels]]:
        """End a client's scan; return copies of carry and totals, and its pseudo-labels."""
        out = Places(self._state.tensors)
        out.fill(self._state.tensors)
        totals = {name: total.clone() for name, total in self._totals.items()}
        for frame in self._frames.values():
            self._marks += frame.taken()
        return rebuilt(self._carry, out.tensors), totals or None, self._marks


def fields_of(batch: Any) -> dict[str, Fields]:
    """Return the tensors of a batch, or of a dict of batches, by stream."""
    streams = batch if isinstance(batch, Mapping) else {"": batch}
    return {name: _fields(one) for name, one in streams.items()}


def _fields(batch: Batch) -> Fields:
    return {
        "views": dict(batch.views),
        "y": batch.y,
        "index": batch.index,
        "n": batch.n,
        "key": batch.draws.key,
        "columns": dict(batch.columns),
    }


def leaves(tree: Any) -> list[Tensor]:
    """Return the tensors of a tree in order.

    Raises
    ------
    RecordError
        If there is anything else in it.
    """
    found: list[Tensor] = []
    tree_map(found.append, tree)
    for value in found:
        if not isinstance(value, Tensor):
            raise RecordError(f"only tensors can be in a carry or batch, got {type(value)}")
    return found


def rebuilt(tree: Any, values: Sequence[Tensor]) -> Any:
    """Return a tree of the same structure with other tensors."""
    following = iter(values)
    return tree_map(lambda _: next(following), tree)


def _same(value: Tensor) -> Tensor:
    return value


def _memory(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _lies_at(value: Tensor, place: Tensor) -> bool:
    """Say whether a tensor is a place, or the same under another name."""
    same = value.data_ptr() == place.data_ptr() and value.stride() == place.stride()
    return value is place or (same and value.shape == place.shape and value.numel() > 0)


def signature(tree: Any, *, rows: bool = True, strides: bool = True) -> Hashable:
    """Return names, shapes, types and strides of a tree; without ``rows`` no first axes."""

    def one(value: Tensor) -> Hashable:
        shape = tuple(value.shape) if rows else tuple(value.shape[1:])
        return shape, value.dtype, value.stride() if strides and rows else None

    return _signature(tree, one)


def _signature(tree: Any, one: Callable[[Tensor], Hashable]) -> Hashable:
    if isinstance(tree, Mapping):
        return tuple((name, _signature(value, one)) for name, value in tree.items())
    if isinstance(tree, tuple):
        return type(tree), tuple(_signature(value, one) for value in tree)
    if not isinstance(tree, Tensor):
        raise RecordError(f"only tensors can be in a carry or batch, got {type(tree)}")
    return one(tree)
