"""Single replies of a device that no run may stumble over, each with what is said of it."""

import csv
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedlabels.errors import RunError, WireError
from fedlabels.rounds import wire
from fedlabels.rounds.stranger import from_stranger
from tests.deploy.fuzz import ROGUE, Bench
from tests.deploy.loopback import Loopback, error, nodes_of, write_devices
from tests.deploy.test_fleet import run, spoil, with_model

Content = dict[str, Any]
Change = Callable[[Content], None]


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    made = {name: Bench(name, tmp_path_factory.mktemp(name)) for name in ("fedavg", "fedproto")}
    made["fedlabel"] = Bench("fedlabel", tmp_path_factory.mktemp("fedlabel"))
    for bench in made.values():
        bench.round()  # the honest replies
    yield made
    for bench in reversed(made.values()):  # the first knows how the process was
        bench.backend.close()


def arrays(key: str, change: Callable[[str, Array], Array | None]) -> Change:
    def changed(content: Content) -> None:
        made = {k: change(k, v) for k, v in content[key].items()}
        content[key] = ArrayRecord({k: v for k, v in made.items() if v is not None})

    return changed


def one(change: Callable[[Array], Array | None]) -> Change:
    return arrays("arrays", lambda k, v: change(v) if k == "head.bias" else v)


def with_bytes(array: Array, data: bytes) -> Array:
    return Array(array.dtype, tuple(array.shape), array.stype, data)


def longer(array: Array, shape: str) -> Array:
    return with_bytes(array, array.data.replace(b"(10,)", shape.encode()))


def metric(name: str, value: float, count: float = 1.0) -> Change:
    def changed(content: Content) -> None:
        values = {**content["metrics"], f"{name}.sum": value, f"{name}.count": count}
        content["metrics"] = MetricRecord(values)

    return changed


def claim(count: float) -> Change:
    def changed(content: Content) -> None:
        content["metrics"] = MetricRecord({**content["metrics"], "num-examples": count})

    return changed


def note(**values: Any) -> Change:
    def changed(content: Content) -> None:
        named = {name.replace("_", "."): value for name, value in values.items()}
        content["terms"] = ConfigRecord({**(content.get("terms") or {}), **named})

    return changed


def everywhere(value: float) -> Change:
    return arrays("arrays", lambda _, v: Array(np.full_like(v.numpy(), value)))


def weights(change: Callable[[dict[str, Any]], None]) -> Change:
    def changed(content: Content) -> None:
        made = {k: v.numpy() for k, v in content["weight.prototypes"].items()}
        change(made)
        content["weight.prototypes"] = ArrayRecord({k: Array(v) for k, v in made.items()})

    return changed


REJECTED: dict[str, tuple[str, Change, str]] = {
    "dtype": ("fedavg", one(lambda v: Array("bogus", tuple(v.shape), v.stype, v.data)), "not what"),
    "vast": ("fedavg", one(lambda v: longer(v, "(1125899906842624,)")), "head.bias"),
    "beyond": ("fedavg", one(lambda v: longer(v, "(99999999999999999999,)")), "no header"),
    "zip": ("fedavg", one(lambda v: with_bytes(v, b"PK\x03\x04" + v.data)), "no header"),
    "cut": ("fedavg", one(lambda v: with_bytes(v, v.data[:40])), "no header"),
    "short": ("fedavg", one(lambda v: with_bytes(v, v.data[:-1])), "is cut"),
    "missing": ("fedavg", one(lambda v: None), "other tensors than are due"),
    "declared": (
        "fedavg",
        one(lambda v: Array(v.dtype, (-(10**12),), v.stype, v.data)),
        "not what",
    ),
    "tested": ("fedavg", metric("device_samples", 7.0), "name of a column"),
    "metric": ("fedavg", metric("round", 77.0), "name of a column"),
    "accuracy": ("fedavg", metric("test_accuracy", 1e9), "name of a column"),
    "sum": ("fedavg", metric("loss_labeled", float("nan")), "must be finite"),
    "count": ("fedavg", metric("loss_labeled", 1.0, -5.0), ">= 0"),
    "vast sum": ("fedavg", metric("loss_labeled", 1e300, 1e9), "its mean may be at most 1e+18"),
    "vast count": ("fedavg", metric("loss_labeled", 1.0, 1e300), "no larger than 9"),
    "tiny count": ("fedavg", metric("loss_labeled", 1.0, 1e-300), "its mean may be at most"),
    "formula": ("fedavg", metric("=1+1", 1.0), "no good name"),
    "claim": ("fedavg", claim(1.7e308), "claims 1.7e"),
    "reduce": ("fedavg", note(model_reduce="sum"), "the strategy reduces by 'mean'"),
    "absurd": ("fedavg", everywhere(1e15), "moved by"),
    "vast number": ("fedavg", everywhere(3e38), "larger than 1e+18"),
    "student": ("fedlabel", note(student_weight=1.7e308), "a weight is 1.7e"),
    "names": ("fedproto", weights(lambda w: w.pop("present")), "other names"),
    "shape": (
        "fedproto",
        weights(lambda w: w.update(vectors=np.ones((3, 10, 1)))),
        "does not broadcast",
    ),
    "heavy": ("fedproto", weights(lambda w: w.update(present=np.full(10, 1e308))), "a weight is"),
}


@pytest.mark.parametrize("fault", REJECTED)
def test_is_rejected_and_the_model_is_as_without_it(fault: str, benches: dict[str, Bench]) -> None:
    method, change, text = REJECTED[fault]
    bench = benches[method]

    def changed(message: Message, reply: Message) -> Message:
        if message.metadata.dst_node_id == ROGUE:
            content = dict(reply.content)
            change(content)
            reply.content = RecordDict(content)
        return reply

    def gone(message: Message, reply: Message) -> Message:
        return error(message, "gone") if message.metadata.dst_node_id == ROGUE else reply

    bench.flower.change = gone
    reference = bench.round()[1]
    bench.flower.change = changed
    statuses, prints, _ = bench.round()
    assert statuses == ["ok", "rejected", "ok"]
    assert text in str(bench.grid.last[0].rows[1].error)
    assert prints == reference


TESTS = 20  # of every device here
IMPOSSIBLE = {
    "more right than tested": ("device_accuracy", TESTS + 0.5, TESTS, "no test finds that"),
    "fewer than none right": ("device_accuracy", -1.0, TESTS, "no test finds that"),
    "more than it has": ("device_accuracy", 1.0, TESTS + 1, "said that it has 20"),
    "more by a rule": ("device_accuracy_head", 1e9, 1.0, "no test finds that"),
    "a loss below none": ("device_loss", -1e-3, TESTS, "no test finds that"),
    "a loss without end": ("device_loss", float("inf"), TESTS, "must be finite"),
    "a loss over many": ("device_loss", 1.0, 2.0**53, "said that it has 20"),
}


@pytest.mark.parametrize("fault", IMPOSSIBLE)
def test_what_no_test_can_find_is_rejected(fault: str, benches: dict[str, Bench]) -> None:
    name, total, count, text = IMPOSSIBLE[fault]
    bench = benches["fedavg"]

    def changed(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "query":
            return reply
        content = dict(reply.content)
        metric("device_accuracy", 15.0, TESTS)(content)
        metric("device_loss", 0.0, TESTS)(content)
        if message.metadata.dst_node_id == ROGUE:
            metric(name, total, count)(content)
        reply.content = RecordDict(content)
        return reply

    bench.flower.change = changed
    bench.grid.evaluate = True
    try:
        statuses, _, _ = bench.round()
    finally:
        bench.grid.evaluate = False
    assert statuses == ["ok", "rejected", "ok"]
    rows = bench.grid.last[0].rows
    assert text in str(rows[1].error)
    assert [row.metrics.get("device_accuracy") for row in rows] == [(15, 20), None, (15, 20)]


def test_who_has_more_test_samples_than_before_is_asked_again(benches: dict[str, Bench]) -> None:
    bench = benches["fedavg"]

    def grown(message: Message, reply: Message) -> Message:
        content = dict(reply.content)
        if message.metadata.dst_node_id != ROGUE:
            return reply
        if message.metadata.message_type == "query":
            content["device"] = ConfigRecord({**content["device"], "test": TESTS + 5})
        else:
            metric("device_accuracy", 20.0, TESTS + 5)(content)
        reply.content = RecordDict(content)
        return reply

    bench.flower.change = lambda _, reply: reply
    bench.grid.get_node_ids()
    bench.flower.change = grown
    bench.grid.evaluate = True
    try:
        assert bench.round()[0] == ["ok", "rejected", "ok"]
        bench.grid.get_node_ids()  # it is asked
        assert bench.round()[0] == ["ok"] * 3
    finally:
        bench.grid.evaluate = False


def test_an_answer_that_cannot_be_read_is_rejected(
    benches: dict[str, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benches["fedavg"]
    bench.flower.change = lambda _, reply: reply
    read = wire.decode_remark

    def stumbles(content: RecordDict) -> wire.Remark:
        said = read(content)
        if said.client_id == ROGUE - 100:
            raise RuntimeError("a fault of ours")
        return said

    monkeypatch.setattr(wire, "decode_remark", stumbles)
    assert bench.round()[0] == ["ok", "failed", "ok"]
    assert bench.grid.last[0].rows[1].error == "RuntimeError"


def test_what_is_not_needed_is_not_even_decoded(benches: dict[str, Bench]) -> None:
    bench = benches["fedavg"]
    bench.flower.change = lambda _, reply: reply
    honest = bench.round()[1]

    def more(message: Message, reply: Message) -> Message:
        text = ArrayRecord({"text": Array("object", (3,), "numpy.ndarray", b"no array")})
        reply.content = RecordDict({**reply.content, "term.extra": text})
        return reply

    bench.flower.change = more
    statuses, prints, _ = bench.round()
    assert statuses == ["ok"] * 3
    assert prints == honest


def test_a_device_alone_makes_no_columns(benches: dict[str, Bench]) -> None:
    bench = benches["fedavg"]

    def more(message: Message, reply: Message) -> Message:
        if message.metadata.dst_node_id == ROGUE:
            content = dict(reply.content)
            metric("mine", 1.0)(content)
            reply.content = RecordDict(content)
        return reply

    bench.flower.change = more
    assert bench.round()[0] == ["ok"] * 3
    assert all("mine" not in row.metrics for row in bench.grid.last[0].rows)
    assert all("loss_labeled" in row.metrics for row in bench.grid.last[0].rows)


def test_headers_are_read_before_anything_is_allocated() -> None:
    due = {"w": np.zeros((2, 3), np.float32)}
    good = Array(np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)))
    read = from_stranger(ArrayRecord({"w": good}), due)
    np.testing.assert_array_equal(read["w"], np.arange(6).reshape(2, 3))
    vast = Array(
        "float32", (2**50,), "numpy.ndarray", good.data.replace(b"(2, 3)", b"(%d,)" % 2**50)
    )
    for like in (due, None):
        with pytest.raises(WireError, match="'w'"):
            from_stranger(ArrayRecord({"w": vast}), like)


def test_rounds_in_which_all_are_rejected_end_the_run(tmp_path: Any) -> None:
    devices = nodes_of(
        write_devices(tmp_path / "data", {0: (20, 30), 1: (15, 40)}), tmp_path / "states"
    )

    def nan(message: Message, reply: Message) -> Message:
        return spoil(
            message.metadata.dst_node_id, lambda _, r: with_model(r, lambda v: v * np.nan)
        )(message, reply)

    with pytest.raises(RunError, match="2 of 2 clients failed or were rejected in round 2"):
        run(Loopback(devices, nan), tmp_path, more="rounds=9 deploy.lost_rounds=2")
    with (tmp_path / "run" / "rounds.csv").open(newline="") as file:
        assert [row["rejected"] for row in csv.DictReader(file)] == ["2"]
