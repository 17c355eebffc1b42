"""Stacked execution: K clients as one, their functions under vmap, batches padded and masked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from fedlabels.cohort.batches import Batch, Batches, Fields, Part, join, padded
from fedlabels.cohort.clock import during, each
from fedlabels.cohort.cohort import Carry, Cohort, Fixed, Loss, Step
from fedlabels.cohort.context import primitive
from fedlabels.cohort.data import Samples
from fedlabels.cohort.device import upload
from fedlabels.cohort.draws import Draws
from fedlabels.cohort.plans import join_plans, split_rows
from fedlabels.cohort.sums import Sums, add_sums, split_sums
from fedlabels.cohort.tree import expand_like, frozen, stack, tree_map
from fedlabels.cohort.types import EMPTY, PseudoLabels, Tree


class StackedCohort(Cohort):
    """A cohort of K clients; per-client values carry a leading axis K."""

    stacked = True

    def _inside(self) -> AbstractContextManager[None]:
        return primitive(donate=False, clients=len(self._shards))

    def start(self, tree: Mapping[str, Tensor]) -> Tree:
        """Return a copy per client, each tensor of shape (K, ...)."""
        return {k: v.expand(len(self._shards), *v.shape).clone() for k, v in tree.items()}

    def init(self, net: str) -> Tree:
        """Return fresh weights per client, each tensor of shape (K, ...)."""
        trees: Tree = stack([self._nets.fresh(net, s.client_id) for s in self._shards])
        return trees

    @during("forward_backward")
    def grad(self, loss: Loss, tree: Tree, wrt: Sequence[str]) -> tuple[Tree, Any, Tree]:
        """Differentiate by ``torch.func``; see `Cohort.grad`."""
        chosen = set(wrt)
        rest = {k: v for k, v in tree.items() if k not in chosen}

        def objective(leaves: Tree) -> tuple[Tensor, tuple[Any, Tree]]:
            local = {**rest, **leaves}
            value, aux = loss(local)
            return value, (aux, {k: v for k, v in local.items() if k not in chosen})

        point = {k: tree[k] for k in wrt}
        grads, (_, (aux, buffers)) = grad_and_value(objective, has_aux=True)(point)
        return grads, aux, {**tree, **buffers}

    def scan(
        self,
        step: Step,
        carry: Carry,
        batches: Batches,
        *,
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
    ) -> tuple[Carry, Sums]:
        """Run a step over all batches of all clients; see `Cohort.scan`."""
        totals = None
        # the plan is known to the host: whether all take part is asked of it, not of the device
        everybody, there = batches.active.all(0).tolist(), upload(batches.active, self._device)
        with torch.no_grad(), self._inside():
            for t, fields in enumerate(each("gather", batches)):
                new, sums = self._run(step, carry, own, shared, fields)
                active = there[:, t]
                if not everybody[t]:
                    new = tree_map(lambda a, b, on=active: _gate(on, a, b), new, carry)
                totals = self._collect(totals, sums, active, fields)
                carry = new
        return carry, Sums(totals, lambda: self._shapes(step, carry, own, shared, batches))

    def _run(
        self, step: Step, carry: Carry, own: Fixed, shared: Fixed, fields: dict[str, Fields]
    ) -> tuple[Carry, Mapping[str, Any]]:
        def one(carry: Carry, own: Fixed, fields: dict[str, Fields]) -> tuple[Carry, Any]:
            batch = join({name: padded(value) for name, value in fields.items()})
            return step(carry, {**own, **frozen(shared)}, batch)

        # copies of the dicts only: a training call replaces entries, the old carry must stay
        out: tuple[Carry, Mapping[str, Any]] = vmap(one)(carry, dict(own), fields)
        return out

    def _collect(
        self,
        totals: dict[str, Tensor] | None,
        sums: Mapping[str, Any],
        active: Tensor,
        fields: dict[str, Fields],
    ) -> dict[str, Tensor]:
        plain, pseudo = split_sums(sums)
        for labels in pseudo:
            self.pseudo_labels.append(self._mask_padding(labels, active, fields))
        gated = {k: _gate(active, v, torch.zeros_like(v)) for k, v in plain.items()}
        return add_sums(totals, gated)

    @staticmethod
    def _mask_padding(
        labels: PseudoLabels, active: Tensor, fields: dict[str, Fields]
    ) -> PseudoLabels:
        """Mark padded rows by index -1; they were never anybody's samples."""
        counts = next(f["n"] for f in fields.values() if f["y"].shape == labels.sample.shape)
        width = torch.arange(labels.sample.shape[1], device=counts.device)
        rows = width[None] < counts[:, None]
        sample = torch.where(rows & active[:, None], labels.sample, -1)
        return labels._replace(sample=sample, keep=labels.keep.bool() & (sample >= 0))

    def _shapes(
        self, step: Step, carry: Carry, own: Fixed, shared: Fixed, batches: Batches
    ) -> dict[str, Tensor]:
        with torch.no_grad(), self._inside():
            return split_sums(self._run(step, carry, own, shared, batches.dummy())[1])[0]

    def map(self, function: Callable[..., Any], *values: Any) -> Any:
        """Apply a function to every client's values."""
        with torch.no_grad(), self._inside():
            return vmap(function)(*values)

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
        """Compute one value a row, padded to the longest client; see `Cohort.predict`."""
        plans = [split_rows(n, size) for n in samples.sizes]
        draws = Draws(self.draws("predict").key)
        batches = Batches({"": Part(samples, join_plans(plans), (view,))}, self._source, draws)

        def one(own: Fixed, fields: Fields) -> Any:
            return function({**own, **frozen(shared)}, padded(fields))

        with torch.no_grad(), self._inside():
            rows = [vmap(one)(dict(own), fields[""]) for fields in each("gather", batches)]
            if not rows:
                blank = vmap(one)(dict(own), batches.dummy()[""])
                return tree_map(lambda leaf: leaf[:, :0], blank)
        joined = tree_map(lambda *parts: torch.cat(parts, dim=1), *rows)
        return tree_map(lambda leaf: leaf[:, : max(samples.sizes)], joined)


def _gate(active: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(expand_like(active, new), new, old)
