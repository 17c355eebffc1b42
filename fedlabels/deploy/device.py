"""One client on one device: the simulator's worker with a single shard."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedlabels import clients, plugins
from fedlabels.cohort.data import Shard
from fedlabels.deploy.device_data import DeviceData
from fedlabels.deploy.spec import DeviceSpec
from fedlabels.errors import RunError
from fedlabels.federation.federation import Federation
from fedlabels.federation.ragged import Ragged
from fedlabels.machine import allowed_cores
from fedlabels.rounds import wire
from fedlabels.rounds.order import Item, Order
from fedlabels.rounds.terms import finite
from fedlabels.worker.convert import arrays_of
from fedlabels.worker.kept import check_state
from fedlabels.worker.outcome import Outcome
from fedlabels.worker.population import Group, Population
from fedlabels.worker.state import Arrays
from fedlabels.worker.worker import Worker, WorkerSpec

EVALUATION = "device_"
"""Prefix of what a device measures with the model that it received."""


class Device:
    """A client that runs here.

    Parameters
    ----------
    spec : DeviceSpec
        What the server said.
    data : DeviceData
        What this device holds.
    threads : int or None
        torch threads; None takes one a core.
    device : {"auto", "cpu", "cuda"}
        Where it computes.

    Raises
    ------
    ConfigError
        If client, model, views or a plugin are not known here, or a setting is out of range.
    """

    def __init__(
        self, spec: DeviceSpec, data: DeviceData, threads: int | None = None, device: str = "auto"
    ) -> None:
        self._client = data.client_id
        self._tests = len(data.tests)
        model = dict(spec.model)
        name = model.pop("name")
        plugins.require(spec.plugins)
        groups = (Group(clients.build(dict(spec.client)), name, model),)
        # one shard, whatever the client's number is: memory must not grow with it
        federation = Federation(
            labeled=Ragged.from_lists([data.labeled]),
            unlabeled=Ragged.from_lists([data.unlabeled]),
            labels=data.train.y,
            num_classes=spec.num_classes,
            settings={},
            client_labels=data.labels,
            server=np.zeros(0, dtype=np.int64),
            test=Ragged.from_lists([data.tests]),
            groups=np.zeros(1, dtype=np.int64),
        )
        members = np.broadcast_to(np.zeros((), dtype=np.int64), data.client_id + 1)
        self._worker = _Alone(
            WorkerSpec(
                train=data.train,
                test=data.test,
                federation=federation,
                population=Population(groups, members),
                views=spec.views,
                view_options=dict(spec.view_options),
                seed=spec.seed,
                threads=threads or allowed_cores(),
                dtype=spec.precision,
                device=device,
                mods=tuple(spec.mods),
                plugins=dict(spec.plugins),
            )
        )

    def run(
        self, exchange: str, down: wire.Downlink, state: Arrays | None
    ) -> tuple[wire.Uplink, Arrays | None]:
        """Do what the server asks for.

        Parameters
        ----------
        exchange : str
            Such as ``"train"``.
        down : Downlink
            Payloads and settings.
        state : Arrays or None
            What this device remembers, flat.

        Returns
        -------
        Uplink, Arrays or None
            What goes up, and the new state.

        Raises
        ------
        RunError
            If the client's code raised.
        """
        out = self._outcome(exchange, down, state)
        if out.state is not None:
            check_state(out.state)
        terms = {name: _up(name, term, out) for name, term in out.terms.items()}
        # the server rejects what is not finite, and then the state must be the old one
        good = all(finite(term) for term in out.terms.values())
        return wire.Uplink(terms, out.weight(), out.metrics), out.state if good else None

    def evaluate(self, down: wire.Downlink, state: Arrays | None) -> wire.Metrics:
        """Test what was received, with what this device remembers, on its own test samples."""
        if not self._tests:
            return {}
        out = self._outcome("evaluate", down, state)
        return {EVALUATION + name: value for name, value in out.metrics.items()}

    def close(self) -> None:
        """Put back what computing sets for the whole process."""
        self._worker.restore()

    def _outcome(self, exchange: str, down: wire.Downlink, state: Arrays | None) -> Outcome:
        item = Item(0, self._client, down.own, state)
        order = Order(
            exchange, down.round, down.rounds, dict(down.settings), {}, (item,), block_size=1,
            cohort=1,
        )  # fmt: skip
        out = self._worker.alone(order, down.shared)
        problem = out.error or out.problem
        if problem is not None:
            raise RunError(problem)
        return out


class _Alone(Worker):
    """A worker whose only shard is that of whoever is asked for."""

    def shard(self, client_id: int, reveal: bool) -> Shard:
        return replace(super().shard(0, reveal), client_id=client_id)


def _up(name: str, term: Any, out: Outcome) -> wire.UpTerm:
    weight: float | Arrays = 1.0
    if isinstance(term.weight, Mapping):
        weight = arrays_of(term.weight)
    elif term.weight is not None:
        weight = out.weight(name)
    return wire.UpTerm(arrays_of(term.value), weight, term.reduce)
