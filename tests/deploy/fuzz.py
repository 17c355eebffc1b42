"""Replies of devices, changed at random: the run goes on, and the model is as without the device.

``python -m tests.deploy.fuzz --replies 20000`` prints what became of them, by method.
"""

import argparse
import collections
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedlabels.deploy.server import Devices, settings, undealt
from fedlabels.rounds import wire
from fedlabels.rounds.judge import broken
from fedlabels.run.console import Console
from fedlabels.run.folder import RunFolder
from fedlabels.run.loop import Loop
from fedlabels.run.merged import aggregated
from fedlabels.run.setup import build_world
from fedlabels.strategies.base import ServerStrategy
from tests.deploy.loopback import Loopback, error, nodes_of, write_devices
from tests.end_to_end.harness import REPO

METHODS = {
    "fedavg": "method=fedavg training.steps=2",
    "fedlabel": "method=fedlabel client.variant=flute strategy.variant=flute training.steps=2"
    " training.steps_unlabeled=2 client.threshold=0.2",
    "fedproto": "method=fedproto",
    "fedsa": "method=fedsa",
    "fedld": "method=fedld",
}
COUNTS = {0: (20, 30), 1: (15, 20), 2: (35, 10)}
ROGUE = 101
NUMBERS = (0.0, -1.0, float("nan"), float("inf"), 1.7e308, 1e9, 3.0, 2.0**53)
NAMES = (
    "round", "client_id", "status", "test_accuracy", "weight", "sampled", "num-examples", "=1+1",
    "x" * 300, "a\nb", "", "loss_labeled", "seconds_total", "device_accuracy", "new",
)  # fmt: skip


class Canned(Loopback):
    """Devices that always answer a message of one kind as they did the first time."""

    def __init__(self, nodes: Mapping[int, Mapping[str, Any]]) -> None:
        super().__init__(nodes)
        self.known: dict[tuple[int, str], RecordDict] = {}

    def _reply(self, message: Message) -> Message:
        key = message.metadata.dst_node_id, message.metadata.message_type
        if key not in self.known:
            self.known[key] = super()._reply(message).content
        reply = Message(RecordDict(dict(self.known[key])), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = key[0]
        return reply


class Bench:
    """One method's server and its devices, asked for the first round again and again."""

    def __init__(self, method: str, folder: Path) -> None:
        overrides = (
            f"{METHODS[method]} dataset=digits model=mlp model.hidden=[8] rounds=3"
            f" deploy.connect_seconds=0.2 run_dir={folder / 'run'}"
        )
        config = settings({"overrides": overrides}, REPO / "configs")
        self.flower = Canned(nodes_of(write_devices(folder / "data", COUNTS), folder / "states"))
        world, run = build_world(config, undealt), RunFolder(folder / "run")
        self.place = Devices(config, world, self.flower, None)
        console = Console(log=run.log, every=9)
        loop = Loop(config, world, run, console, place=self.place)
        self.backend = self.place.start(run, 0, None)
        loop._announce()
        self.done = loop._start(self.backend)
        self.strategy: ServerStrategy = world.strategy
        self.grid = self.place.grid(run, self.backend)
        self.grid.needs, self.grid.reduces = self.strategy.needs, self.strategy.reduces

    def round(self) -> tuple[list[str], dict[str, bytes], bool]:
        """Return what became of the devices, the model and state after it, and if it is sound."""
        self.strategy.load_state(self.done.strategy)
        messages = self.strategy.configure("train", 1, self.done.arrays, self.grid)
        replies = self.grid.send_and_receive(messages)
        outcome = aggregated(self.strategy, "train", 1, replies)
        arrays = wire.from_record(outcome.arrays or self.done.arrays)
        kept = self.strategy.state()
        made = {**arrays, **{f"state/{k}": v for k, v in kept.arrays.items()}}
        prints = {name: value.tobytes() for name, value in made.items()}
        prints["values"] = json.dumps(kept.values, sort_keys=True).encode()
        statuses = [row.status for row in self.grid.last[0].rows]
        return statuses, prints, broken(made) is None


def fuzz(method: str, count: int, seed: int, folder: Path) -> dict[str, int]:
    """Send changed replies of one device, and count what became of them."""
    random, found = np.random.default_rng(seed), collections.Counter[str]()
    bench = Bench(method, folder)
    bench.grid.evaluate = False
    honest = bench.round()
    assert honest[0] == ["ok"] * 3

    def trains(message: Message) -> bool:
        asked = message.metadata.message_type.startswith("train")
        return asked and message.metadata.dst_node_id == ROGUE

    def without(message: Message, reply: Message) -> Message:
        return error(message, "gone") if trains(message) else reply

    bench.flower.change = without
    reference = bench.round()

    def changed(message: Message, reply: Message) -> Message:
        if trains(message):
            content = dict(reply.content)
            others = list(bench.flower.known.values())
            for _ in range(random.integers(1, 3)):
                mutate(content, random, others)
            reply.content = RecordDict(content)
        return reply

    bench.flower.change = changed
    for _ in range(count):
        try:
            statuses, prints, sound = bench.round()
        except Exception as problem:
            found["ended"] += 1
            logging.getLogger(__name__).error("%s: %r", method, problem)
            continue
        found[statuses[1]] += 1
        found["others not ok"] += [statuses[0], statuses[2]] != ["ok", "ok"]
        if statuses[1] != "ok":
            found["unequal"] += prints != reference[1]
        found["not sound"] += not sound
    bench.backend.close()
    return dict(found)


def mutate(content: dict[str, Any], random: np.random.Generator, others: Sequence[Any]) -> None:
    """Change one thing of a reply."""
    kind = random.integers(12)
    arrays = [k for k, v in content.items() if isinstance(v, ArrayRecord) and len(v)]
    if kind < 6 and arrays:
        key = str(random.choice(arrays))
        content[key] = _record(content[key], random)
    elif kind == 6:
        values = _entries(content, "metrics", MetricRecord)
        name = str(random.choice([*NAMES, *values, "num-examples"]))
        ending = str(random.choice(["", ".sum", ".count"]))
        value: Any = float(random.choice(NUMBERS))
        values[name if name in values else name + ending] = (
            [value] if random.random() < 0.1 else value
        )
        content["metrics"] = MetricRecord(values)
    elif kind == 7:
        term = str(random.choice(["model", "local", "student", "prototypes", "extra"]))
        notes: dict[str, Any] = {
            f"{term}.reduce": str(random.choice(["sum", "mean", "most"])),
            f"{term}.weight": float(random.choice(NUMBERS)),
        }
        chosen = str(random.choice(list(notes)))
        content["terms"] = ConfigRecord(
            {**_entries(content, "terms", ConfigRecord), chosen: notes[chosen]}
        )
    elif kind == 8 and len(content) > 1:
        del content[str(random.choice(list(content)))]
    elif kind == 9:
        key = str(random.choice([*content, "arrays", "metrics", "terms", "device"]))
        content[key] = random.choice(  # of another type than is due
            np.array([ConfigRecord({"a": "b"}), MetricRecord({"a": 1.0}), ArrayRecord()], object)
        )
    elif kind == 10:
        other = dict(others[random.integers(len(others))])
        key = str(random.choice(list(other)))
        content[f"term.{key}" if random.random() < 0.3 else key] = other[key]
    else:
        shape = tuple(random.integers(0, 4, random.integers(0, 4)))
        name = str(random.choice(["weight.prototypes", "weight.local", "term.extra", "arrays"]))
        made = {k: Array(random.normal(size=shape)) for k in ("vectors", "present", "head.bias")}
        content[name] = ArrayRecord(made)


def _entries(content: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    found = content.get(name)
    return dict(found) if isinstance(found, kind) else {}  # it may have been changed before


def _record(record: ArrayRecord, random: np.random.Generator) -> ArrayRecord:
    made = dict(record)
    name = str(random.choice(list(made)))
    array = made[name]
    kind = random.integers(10)
    data = bytearray(array.data)
    declared = [array.dtype, tuple(array.shape), array.stype]
    if kind == 0:
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] ^= 1 << random.integers(8)
    elif kind == 1:
        data = data[: random.integers(len(data))]
    elif kind == 2:
        data[random.integers(8, 100) : 100] = random.bytes(int(random.integers(1, 60)))
    elif kind == 3:
        declared[0] = str(random.choice(["bogus", "float64", "object", "int8", ">f4"]))
    elif kind == 4:
        declared[1] = (int(random.choice([-(10**12), 2**50, 0, 7])),)
    elif kind == 5:
        value = _values(_readable(array), random)
        buffer = BytesIO()
        np.save(buffer, value)
        data, declared = bytearray(buffer.getvalue()), [str(value.dtype), value.shape, array.stype]
    elif kind == 6:
        del made[name]
        return ArrayRecord(made)
    elif kind == 7:
        made[str(random.choice(["new", "head.bias", "vectors", name + "x"]))] = made.pop(name)
        return ArrayRecord(dict(made))
    elif kind == 8:
        digits = str(random.choice(["1125899906842624", "99999999999999999999", "-3", "2, 2"]))
        data = bytearray(
            bytes(data).replace(b"'shape': (", b"'shape': (" + digits.encode() + b", ")
        )
    else:
        return ArrayRecord(dict(reversed(made.items())))
    made[name] = Array(*declared, bytes(data))
    return ArrayRecord(made)


def _readable(array: Array) -> Any:
    try:
        return array.numpy()
    except Exception:  # it was changed before
        return np.ones(3, np.float32)


def _values(value: Any, random: np.random.Generator) -> Any:
    flat = value.reshape(-1).copy()
    if not flat.size or random.random() < 0.3:
        return random.choice(
            np.array([value.astype("f8"), value.astype("i4"), value[None]], object)
        )
    number = random.choice([np.nan, np.inf, -np.inf, 3e38, -5.0, 1e20])
    flat[: random.integers(1, flat.size + 1)] = number
    return flat.reshape(value.shape)


def main() -> None:
    """Fuzz every method and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    share = -(-given.replies // len(METHODS))
    found = {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            found[method] = fuzz(method, share, given.seed, Path(folder))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
