"""Looped execution: one client, unpadded batches, plain modules and autograd. The reference."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort.batches import Batch, Batches, Part
from fedlabels.cohort.clock import during, each
from fedlabels.cohort.cohort import Carry, Cohort, Fixed, Loss, Step, detached
from fedlabels.cohort.context import primitive
from fedlabels.cohort.data import Samples
from fedlabels.cohort.plans import join_plans, split_rows
from fedlabels.cohort.sums import Sums, Totals, split_sums
from fedlabels.cohort.tree import clone, frozen, tree_map
from fedlabels.cohort.types import EMPTY, PseudoLabels, Tree


class LoopedCohort(Cohort):
    """A cohort of exactly one client; per-client values have no leading axis.

    Raises
    ------
    ValueError
        If more than one shard is given.
    """

    stacked = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if len(self._shards) != 1:
            raise ValueError(f"a looped cohort holds one client, got {len(self._shards)} shards")
        self._leaves: dict[str, tuple[Tensor, Tensor]] = {}

    def start(self, tree: Mapping[str, Tensor]) -> Tree:
        """Return a copy of the shared tree."""
        return {k: v.clone() for k, v in tree.items()}

    def init(self, net: str) -> Tree:
        """Return fresh weights of this client."""
        return self._nets.fresh(net, self._shards[0].client_id)

    @during("forward_backward")
    def grad(self, loss: Loss, tree: Tree, wrt: Sequence[str]) -> tuple[Tree, Any, Tree]:
        """Differentiate by ``autograd.grad``; see `Cohort.grad`."""
        leaves = {k: self._leaf(k, tree[k]) for k in wrt}
        local = {**tree, **leaves}
        with torch.enable_grad():
            value, aux = loss(local)
            grads = torch.autograd.grad(
                value, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        after = {k: tree[k] if k in leaves else v.detach() for k, v in local.items()}
        return dict(zip(leaves, grads, strict=True)), detached(aux), after

    def _leaf(self, name: str, value: Tensor) -> Tensor:
        """Return the tensor as a leaf; optimizers work in place, so it mostly was one before."""
        known = self._leaves.get(name)
        if known is None or known[0] is not value:
            known = self._leaves[name] = value, value.detach().requires_grad_()
        return known[1]

    def scan(
        self,
        step: Step,
        carry: Carry,
        batches: Batches,
        *,
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
    ) -> tuple[Carry, Sums]:
        """Run a step over all batches; see `Cohort.scan`."""
        fixed, totals = frozen({**own, **shared}), Totals(self.pseudo_labels)
        with torch.no_grad(), primitive(donate=True):
            for batch in each("gather", batches.alone()):
                carry, sums = step(carry, fixed, batch)
                totals.add(sums)
        return carry, Sums(totals.get(), lambda: self._shapes(step, carry, fixed, batches))

    def _shapes(
        self, step: Step, carry: Carry, fixed: Fixed, batches: Batches
    ) -> dict[str, Tensor]:
        batch = batches.blank()
        with torch.no_grad(), primitive(donate=True):
            return split_sums(step(clone(carry), fixed, batch)[1])[0]

    def map(self, function: Callable[..., Any], *values: Any) -> Any:
        """Apply a function to this client's values."""
        with torch.no_grad(), primitive(donate=False):
            return function(*values)

    def predict(
        self,
        function: Callable[[Any, Batch], Any],
        samples: Samples,
        *,
        view: str = "plain",
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
        size: int = 1024,
    ) -> Any:
        """Compute one value a row; see `Cohort.predict`."""
        plan = join_plans([split_rows(samples.sizes[0], size)])
        draws = self.draws("predict")
        batches = Batches({"": Part(samples, plan, (view,))}, self._source, draws)
        fixed = frozen({**own, **shared})
        with torch.no_grad(), primitive(donate=False):
            rows = [function(fixed, batch) for batch in each("gather", batches.alone())]
            if not rows:
                return tree_map(lambda leaf: leaf[:0], function(fixed, batches.blank()))
        return tree_map(lambda *parts: torch.cat(parts), *rows)


class ScriptedCohort(LoopedCohort):
    """One client whose batches are given: how golden local rounds are replayed.

    Parameters
    ----------
    script : mapping of str to sequence of mapping
        For every part the batches in order, each with the tensors ``y`` (optional, -1), and one
        or more views (``plain``, ``weak``, ``strong``) of shape (batch, ...). When more steps are
        asked for than given, the script starts again.

    Attributes
    ----------
    trace : list of dict
        The sums of every step, in order.
    """

    def __init__(
        self, *, script: Mapping[str, Sequence[Mapping[str, Tensor]]], **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._script = script
        self.trace: list[dict[str, Tensor]] = []

    def samples(self, part: str) -> Samples:
        """Return as many rows as the script's batches of a part have (largest batch).

        Unless it is scripted itself, ``"all"`` has the rows of ``"labeled"`` and ``"unlabeled"``.
        """
        both = part == "all" and part not in self._script
        count = sum(self._widest(p) for p in (("labeled", "unlabeled") if both else (part,)))
        zero = torch.zeros(1, count, dtype=torch.int64)
        return Samples(part, (count,), zero, zero - 1, False)

    def _widest(self, part: str) -> int:
        return max((_rows(batch) for batch in self._script.get(part, ())), default=0)

    def batches(self, samples: Any, **settings: Any) -> Any:
        """Return the scripted batches, or dicts of them; only ``steps`` is honoured."""
        steps = settings.get("steps")
        if not isinstance(samples, Mapping):
            return self._replay(samples.part, steps)
        streams = {name: self._replay(rows.part, steps) for name, rows in samples.items()}
        if not any(streams.values()):
            raise ValueError(f"the script has no batch for any of {', '.join(streams)}")
        none = self._batch({"plain": self._source.blank().unsqueeze(0)[:0]}, 0)
        return [
            {name: stream[t] if stream else none for name, stream in streams.items()}
            for t in range(max(map(len, streams.values())))
        ]

    def _replay(self, part: str, steps: int | None) -> list[Batch]:
        script = [b for b in self._script.get(part, ()) if _rows(b)]
        count = len(script) if steps is None else steps
        return [self._batch(script[t % len(script)], t) for t in range(count)] if script else []

    def _batch(self, values: Mapping[str, Tensor], step: int) -> Batch:
        views = {k: v for k, v in values.items() if k not in ("y", "index")}
        first = next(iter(views.values()))
        views = {**dict.fromkeys(("plain", "weak", "strong"), first), **views}
        blank = torch.full((len(first),), -1, dtype=torch.int64)
        draws = self.draws("script").fold(step)
        count = torch.tensor(len(first))
        return Batch(
            first, values.get("y", blank), values.get("index", blank), count, draws, None, views
        )

    def scan(
        self, step: Step, carry: Carry, batches: Any, *, own: Fixed = EMPTY, shared: Fixed = EMPTY
    ) -> tuple[Carry, Sums]:
        """Run a step over the scripted batches and record each step's sums."""
        fixed, totals = frozen({**own, **shared}), Totals(self.pseudo_labels)
        with torch.no_grad(), primitive(donate=True):
            for batch in batches:
                carry, sums = step(carry, fixed, batch)
                self.trace.append(split_sums(sums)[0])
                totals.add(sums)
        return carry, Sums(totals.get(), lambda: self._blank_sums(step, carry, fixed))

    def _blank_sums(self, step: Step, carry: Carry, fixed: Fixed) -> dict[str, Tensor]:
        blank = self._source.blank().unsqueeze(0)
        batch = self._batch({"plain": blank, "y": torch.zeros(1, dtype=torch.int64)}, 0)
        with torch.no_grad(), primitive(donate=True):
            return split_sums(step(clone(carry), fixed, batch)[1])[0]


def _rows(batch: Mapping[str, Tensor]) -> int:
    return len(next(v for k, v in batch.items() if k not in ("y", "index")))


__all__ = ["LoopedCohort", "PseudoLabels", "ScriptedCohort"]
