"""Flower's component on a device: ``fedlabels.deploy.client_app:app``.

Flower starts a process for every message, so everything is read anew: data, state, model. A round
is one message; the evaluation of the received model is part of it.
"""

from fedlabels import telemetry

telemetry.disable()  # before Flower is imported

# ruff: noqa: E402
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedlabels.cohort.types import EMPTY, Scalar
from fedlabels.errors import FedLabelsError
from fedlabels.rounds import wire

if TYPE_CHECKING:
    from fedlabels.deploy.device import Device
    from fedlabels.deploy.device_data import DeviceData
    from fedlabels.deploy.device_state import DeviceState
    from fedlabels.deploy.spec import DeviceSpec
    from fedlabels.worker.state import Arrays

LOG = logging.getLogger(__name__)


class DeviceApp(ClientApp):
    """Answers every message that a strategy of this toolkit sends, whatever its action is called.

    What goes wrong is answered as a number with its sentence, see `fedlabels.deploy.faults`; the
    text is for this device's own log.
    """

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        from fedlabels.deploy import faults

        try:
            return _answer(message, context)
        except FedLabelsError as error:
            number = faults.number_of(error)
            LOG.error("error %d: %s", number, error)
        except Exception as error:
            number = faults.number_of(error)
            LOG.exception("error %d", number)
        record = ConfigRecord({wire.ERROR: faults.sentence(number)})
        return Message(RecordDict({wire.DEVICE: record}), reply_to=message)


app = DeviceApp()


def _answer(message: Message, context: Context) -> Message:
    task = wire.decode_task(message.content)
    if task.refused:
        LOG.error("the server does not let this device take part: %s", task.refused)
        return Message(RecordDict({wire.DEVICE: ConfigRecord()}), reply_to=message)
    station = Station(task, context)
    try:
        return _answer_at(station, message)
    finally:
        station.close()


def _answer_at(station: "Station", message: Message) -> Message:
    kind, _, action = message.metadata.message_type.partition(".")
    if kind == "query":
        return Message(RecordDict({wire.DEVICE: station.describe()}), reply_to=message)
    if kind == "evaluate":
        return station.evaluate(message)
    reply = station.train(message, action or kind)
    reply.content[wire.DEVICE] = station.record()
    return reply


class Station:
    """A device for the length of one message.

    Parameters
    ----------
    task : wire.Task
        What the server said.
    context : flwr.app.Context
        Who this node is.
    """

    def __init__(self, task: wire.Task, context: Context) -> None:
        from fedlabels import plugins
        from fedlabels.cohort.device import choose_device
        from fedlabels.deploy import device, device_data, device_state, faults, spec
        from fedlabels.deploy.node import (
            check_node,
            device_of,
            plugins_of,
            state_dir_of,
            threads_of,
        )

        self._task, node = task, context.node_config
        with faults.at(faults.METHOD):
            self.spec: DeviceSpec = spec.loads(task.spec)
        with faults.at(faults.NODE, files=faults.DATA):
            check_node(node)
            folder = state_dir_of(node)
            choose_device(device_of(node))  # a GPU that is not there is this device's to mend
            self._data: DeviceData = device_data.read(node, self.spec)
        with faults.at(faults.STATE, files=faults.STATE):
            self._state: DeviceState = device_state.DeviceState(
                folder, self.spec.run, self._data.client_id
            )
        with faults.at(faults.METHOD):
            plugins.activate(plugins_of(node))
            self._device: Device = device.Device(
                self.spec, self._data, threads_of(node), device_of(node)
            )

    def close(self) -> None:
        """Leave the process as it was."""
        self._device.close()

    def describe(self) -> ConfigRecord:
        """Say who this is; data, state folder, client and model are in order."""
        with self._at_the_state():
            return self.record({**self._data.counts(), wire.MARK: self._state.mark()})

    def train(self, message: Message, exchange: str) -> Message:
        """Run one exchange."""
        down = wire.decode_down(message.content)
        state = self._remembered()
        tested: wire.Metrics = {}
        if self._task.evaluate:
            tests = replace(down, shared={**down.shared, **wire.decode_tested(message.content)})
            tested = self._device.evaluate(tests, state)
        up, kept = self._device.run(exchange, down, state)
        content = wire.encode_up(wire.Uplink(up.terms, up.weight, {**up.metrics, **tested}))
        if kept is not None:
            with self._at_the_state():
                self._state.write(down.round, kept, self._task.kept_from)
        return Message(content, reply_to=message)

    def evaluate(self, message: Message) -> Message:
        """Test the received model on this device's own test samples."""
        down = wire.decode_down(message.content)
        metrics = self._device.evaluate(down, self._remembered())
        weight = metrics.get("device_accuracy", (0.0, 0.0))[1]
        content = wire.encode_up(wire.Uplink({}, weight, metrics))
        content[wire.DEVICE] = self.record()
        return Message(content, reply_to=message)

    def _remembered(self) -> "Arrays | None":
        with self._at_the_state():
            return self._state.read(self._task.committed)

    @staticmethod
    def _at_the_state() -> AbstractContextManager[None]:
        """Give what goes wrong with the state folder its number, errors of the file system, too."""
        from fedlabels.deploy import faults

        return faults.at(faults.STATE, files=faults.STATE)

    def record(self, more: Mapping[str, Scalar] = EMPTY) -> ConfigRecord:
        """Return who answers, and that a state had to be set aside; where it is stays here."""
        for note in self._state.notes:
            LOG.warning("%s", note)
        kinds = {wire.NOTE: "; ".join(self._state.kinds)} if self._state.kinds else {}
        return ConfigRecord({wire.CLIENT_ID: self._data.client_id, **more, **kinds})
