"""A cohort: the clients of one round, and the primitives that their code is written with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlabels.cohort.batches import Batch, Batches, Part
from fedlabels.cohort.clock import during
from fedlabels.cohort.data import Samples, Shard, Source, gather_samples, keep_rows
from fedlabels.cohort.device import CPU, upload
from fedlabels.cohort.draws import Draws, folded, key_of, purpose_key
from fedlabels.cohort.net import Net, View, build_seeded
from fedlabels.cohort.optimizers import Optimizer
from fedlabels.cohort.plans import Rows, join_plans, plan_epochs, plan_part, plan_steps
from fedlabels.cohort.sums import Sums
from fedlabels.cohort.tree import tree_map
from fedlabels.cohort.types import EMPTY, DataSpec, PseudoLabels, Tree
from fedlabels.cohort.watch import Watch

Carry = dict[str, Any]
Fixed = Mapping[str, Tree]
Step = Callable[[Carry, Any, Any], tuple[Carry, Mapping[str, Any]]]
Loss = Callable[[Tree], tuple[Tensor, Any]]
Factory = Callable[[], dict[str, nn.Module]]


class Nets:
    """The nets of a method, built once a worker.

    Parameters
    ----------
    factory : callable
        Makes fresh modules by name.
    seed : int
        The run's seed; the initial weights depend on nothing else.
    dtype : torch.dtype
        Floating-point type of the weights.
    low : torch.dtype or None
        Type of products and convolutions, if another one; see `Net`.
    device : torch.device
        Where the weights are, and with them all that cohorts of these nets compute. They are
        drawn on the CPU: the same on every device.
    """

    def __init__(
        self,
        factory: Factory,
        seed: int,
        dtype: torch.dtype = torch.float32,
        low: torch.dtype | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._factory, self._seed, self.dtype, self.device = factory, seed, dtype, device
        self._nets = {name: Net(name, module, low) for name, module in self._build(seed).items()}
        self._watch = Watch(net.init for net in self._nets.values())

    def _build(self, seed: int) -> dict[str, nn.Module]:
        modules = build_seeded(self._factory, seed)
        return {name: module.to(self.device, self.dtype) for name, module in modules.items()}

    def __getitem__(self, name: str) -> Net:
        if name not in self._nets:
            raise KeyError(f"no net '{name}'; this client builds: {', '.join(self._nets)}")
        return self._nets[name]

    def written(self) -> str | None:
        """Name a tensor of the initial weights that was written to; None without any."""
        return self._watch.written()

    def restore(self) -> None:
        """Draw the initial weights anew, as they were."""
        for name, module in self._build(self._seed).items():
            init = self._nets[name].init
            init.clear()
            init.update(Net(name, module).init)
        self._watch = Watch(net.init for net in self._nets.values())

    def fresh(self, name: str, client_id: int) -> Tree:
        """Return new weights for one client."""
        seed = purpose_key(f"init\x1f{self._seed}\x1f{name}\x1f{client_id}")
        return Net(name, self._build(seed)[name]).init


class Cohort(ABC):
    """K clients trained together; use `LoopedCohort` or `StackedCohort`.

    Parameters
    ----------
    spec : DataSpec
        Shape of a sample and number of classes.
    nets : Nets
        Skeletons by name.
    source : Source
        The resident data.
    shards : sequence of Shard, length K
        Who holds what.
    seed : int
        The run's seed.
    round_index : int
        Round, part of every draw.
    state : mapping of str to Tree
        What the clients kept from earlier rounds; empty for a client never seen.
    """

    stacked: bool

    def __init__(
        self,
        *,
        spec: DataSpec,
        nets: Nets,
        source: Source,
        shards: Sequence[Shard],
        seed: int,
        round_index: int,
        state: Mapping[str, Tree] = EMPTY,
    ) -> None:
        self.spec, self.state = spec, state
        self.pseudo_labels: list[PseudoLabels] = []
        self._nets, self._source, self._shards = nets, source, list(shards)
        self._device = nets.device
        self._seed, self._round = seed, round_index

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._shards)

    # ---- data

    @during("gather")
    def samples(self, part: str) -> Samples:
        """Return a part of the clients' shards: labeled, unlabeled, all or test."""
        return gather_samples(self._shards, part, self.stacked, self._device)

    @during("gather")
    def subset(self, samples: Samples, keep: Tensor, **columns: Tensor) -> Samples:
        """Keep some rows and attach values to them; costs one synchronization with the host.

        Parameters
        ----------
        samples : Samples
            Rows to choose from.
        keep : Tensor of bool, one value a row
            As ``predict`` returns it.
        **columns : Tensor, one value a row
            Further columns, reached as ``batch.columns[name]``; ``y`` replaces the labels.
        """
        return keep_rows(samples, keep, columns)

    def made(self, count: Tensor, **columns: Tensor) -> Samples:
        """Return samples that the clients made themselves.

        Parameters
        ----------
        count : Tensor of int64
            Rows of each client: the first ones of every column.
        **columns : Tensor, one value a row
            ``x`` and ``y`` are the batch's; others are reached as ``batch.columns[name]``.
        """
        sizes = tuple(count.reshape(-1).tolist())
        given = {k: v if self.stacked else v.unsqueeze(0) for k, v in columns.items()}
        zero = torch.zeros(given["x"].shape[:2], dtype=torch.int64, device=count.device)
        y = given.pop("y", zero - 1)
        return Samples("made", sizes, zero, y.to(torch.int64), self.stacked, given)

    @during("gather")
    def batches(
        self,
        samples: Samples | Mapping[str, Samples],
        *,
        size: int | Mapping[str, int],
        steps: int | None = None,
        epochs: float | None = None,
        views: Sequence[str] | Mapping[str, Sequence[str]] = ("weak",),
        min_rows: int = 1,
        purpose: str = "train",
    ) -> Batches:
        """Plan the batches of a scan.

        Parameters
        ----------
        samples : Samples, or dict of str to Samples
            A dict gives a dict of batches in every step; it needs ``steps``.
        size : int, or dict of str to int
            Rows of a batch; a smaller shard gives smaller batches.
        steps, epochs : int, float
            Exactly one of them. ``steps`` draws each batch by a fresh shuffle without
            replacement; ``epochs`` goes through the samples, the last batch may be smaller. A
            part of an epoch goes on in the next round, see :func:`plan_part`.
        views : sequence of str, or dict of such
            ``"plain"``, ``"weak"``, ``"strong"``; ``batch.x`` is the first.
        min_rows : int
            Batches with fewer rows are left out when planned (2 for losses that need pairs).
        purpose : str
            Part of the random numbers: two scans of one round need two purposes.

        Raises
        ------
        ValueError
            If not exactly one of steps and epochs is given, or a number is < 1.
        """
        if (steps is None) == (epochs is None):
            raise ValueError(f"give exactly one of steps={steps} and epochs={epochs}")
        named = dict(samples) if isinstance(samples, Mapping) else {"": samples}
        if "" not in named and steps is None:
            raise ValueError("several streams of batches need steps=..., got epochs")
        sizes = dict(size) if isinstance(size, Mapping) else dict.fromkeys(named, size)
        seen = dict(views) if isinstance(views, Mapping) else dict.fromkeys(named, views)
        parts = {}
        whole = epochs is None or float(epochs).is_integer()
        drawn = self._keys(f"plan/{purpose}") if whole else self._keys(f"parts/{purpose}", 0)
        for stream, (name, rows) in enumerate(named.items()):
            keys = [folded(key, stream) for key in drawn]
            plans = [
                self._plan(key, n, sizes[name], steps, epochs, min_rows)
                for key, n in zip(keys, rows.sizes, strict=True)
            ]
            plan = join_plans(plans, None if "" in named else steps)
            parts[name] = Part(rows, plan, tuple(seen[name]))
        return Batches(parts, self._source, self.draws(f"batch/{purpose}"))

    def _plan(
        self, key: int, n: int, size: int, steps: int | None, epochs: float | None, min_rows: int
    ) -> Rows:
        if size < 1 or (steps or 0) < 0 or (epochs or 0) < 0:
            raise ValueError(
                f"size must be >= 1 and steps, epochs >= 0, got {size}, {steps}, {epochs}"
            )
        if steps is not None:
            plan = plan_steps(key, n, size, steps)
        else:
            epochs = epochs or 0
            if not float(epochs).is_integer():
                return plan_part(key, n, size, epochs, self._round, min_rows)
            plan = plan_epochs(key, n, size, int(epochs))
        return [batch for batch in plan if len(batch) >= min_rows]

    def _keys(self, purpose: str, round_index: int | None = None) -> list[int]:
        number = self._round if round_index is None else round_index
        return [key_of(self._seed, purpose, number, s.client_id) for s in self._shards]

    def draws(self, purpose: str) -> Draws:
        """Return each client's random numbers for a purpose; inside a step use ``batch.draws``."""
        keys = self._keys(purpose)
        if not self.stacked:
            return Draws(keys[0], self._device)
        return Draws(upload(torch.tensor(keys, device=CPU), self._device))

    # ---- nets

    def net(self, name: str) -> Net:
        """Return a net by the name under which the client builds it."""
        return self._nets[name]

    @abstractmethod
    def start(self, tree: Mapping[str, Tensor]) -> Tree:
        """Return a copy per client of a shared tree."""

    @abstractmethod
    def init(self, net: str) -> Tree:
        """Return fresh weights per client."""

    # ---- execution

    @abstractmethod
    def grad(self, loss: Loss, tree: Tree, wrt: Sequence[str]) -> tuple[Tree, Any, Tree]:
        """Differentiate; call it inside a step.

        Parameters
        ----------
        loss : callable
            ``loss(tree) -> (scalar, aux)``.
        tree : Tree
            Where to differentiate; not changed.
        wrt : sequence of str
            Names to differentiate with respect to.

        Returns
        -------
        gradients : Tree
            0 for tensors that the loss does not use.
        aux
            What the loss returned beside the scalar, without gradient.
        tree : Tree
            The tree with the buffers that training calls replaced (BatchNorm statistics).
        """

    @abstractmethod
    def scan(
        self,
        step: Step,
        carry: Carry,
        batches: Batches,
        *,
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
    ) -> tuple[Carry, Sums]:
        """Run a step over all batches.

        Parameters
        ----------
        step : callable
            ``step(carry, fixed, batch) -> (carry, sums)``, one client's tensors. ``fixed`` holds
            ``own`` and ``shared`` by name. A `PseudoLabels` among the sums is scored outside.
        carry : dict of trees
            Everything that changes from step to step; consumed, keep no alias. A client that has
            no batch left keeps all of it.
        batches : Batches
            From ``batches``.
        own, shared : mapping of str to Tree
            Values per client, and values that are the same for all.

        Returns
        -------
        carry, sums
            ``sums`` are totals over the steps, float64 (integers stay int64).
        """

    @abstractmethod
    def map(self, function: Callable[..., Any], *values: Any) -> Any:
        """Apply a function to per-client values."""

    @abstractmethod
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
        """Compute one value (or tuple of values) a row, without gradient, in large batches.

        Parameters
        ----------
        function : callable
            ``function(fixed, batch) -> rows``, shape (batch, ...).
        samples : Samples
            Rows, in order.
        view : str
            View through which they are seen.
        """

    def sgd(
        self,
        tree: Tree,
        loss: Callable[[View, Any, Any], tuple[Tensor, Mapping[str, Any]]],
        batches: Batches,
        optimizer: Optimizer,
        *,
        net: str = "model",
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
    ) -> tuple[Tree, Sums]:
        """Train one net in the usual way.

        Parameters
        ----------
        tree : Tree
            Weights per client; consumed.
        loss : callable
            ``loss(view, batch, fixed) -> (scalar, sums)``; ``view`` is the net in training mode
            at the running weights (``view.tree``).
        batches : Batches
            From ``batches``; for a dict of streams the first one's rows reach the layers.
        optimizer : Optimizer
            Made anew: its state starts at 0.
        net : str
            Which net.
        """
        tree, (sums,) = self.sgd_in_parts(
            tree, loss, [batches], optimizer, net=net, own=own, shared=shared
        )
        return tree, sums

    def sgd_in_parts(
        self,
        tree: Tree,
        loss: Callable[[View, Any, Any], tuple[Tensor, Mapping[str, Any]]],
        parts: Iterable[Batches],
        optimizer: Optimizer,
        *,
        net: str = "model",
        own: Fixed = EMPTY,
        shared: Fixed = EMPTY,
    ) -> tuple[Tree, list[Sums]]:
        """Train as `sgd` does, and tell apart what several plans of batches add up to.

        The optimizer's state goes on from one plan to the next; the parameters are those of `sgd`.
        """
        module = self.net(net)

        def step(carry: Carry, fixed: Any, batch: Any) -> tuple[Carry, Mapping[str, Any]]:
            rows = next(iter(batch.values())) if isinstance(batch, dict) else batch

            def objective(weights: Tree) -> tuple[Tensor, Any]:
                return loss(module.at(weights, train=True, batch=rows), batch, fixed)

            grads, sums, moved = self.grad(objective, carry["tree"], module.parameters)
            moved, state = optimizer.step(moved, grads, carry["optimizer"])
            return {"tree": moved, "optimizer": state}, sums

        state = self.map(lambda weights: optimizer.init(weights, module.parameters), tree)
        carry: Carry = {"tree": tree, "optimizer": state}
        found = []
        for batches in parts:
            carry, sums = self.scan(step, carry, batches, own=own, shared=shared)
            found.append(sums)
        return carry["tree"], found


def detached(value: Any) -> Any:
    """Cut values from the autograd graph."""
    return tree_map(lambda leaf: leaf.detach(), value)
