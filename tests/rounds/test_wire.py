import pickle

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedlabels.errors import WireError
from fedlabels.rounds import wire
from tests.strategies.fakes import model, same


def test_a_downlink_comes_back() -> None:
    sent = wire.Downlink(
        3,
        9,
        {"model": model(), "anchors": {"a": np.eye(2)}},
        {"proto": {"p": np.ones(2, np.float16)}},
        {"lr": 0.1, "name": "x", "on": True, "n": 3},
    )
    encoded = wire.encode_down(sent)
    assert set(encoded) == {"config", "arrays", "shared.anchors", "own.proto"}
    back = wire.decode_down(encoded)
    assert (back.round, back.rounds, back.settings) == (3, 9, sent.settings)
    same(back.shared["model"], model())
    same(back.own["proto"], {"p": np.ones(2, np.float16)})


def test_an_uplink_comes_back() -> None:
    terms = {
        "model": wire.UpTerm(model(), 4.0),
        "counts": wire.UpTerm({"n": np.arange(3.0)}, 2.0, "sum"),
        "proto": wire.UpTerm({"p": np.eye(2)}, {"p": np.array([[1.0], [0.0]])}),
    }
    back = wire.decode_up(wire.encode_up(wire.Uplink(terms, 4.0, {"loss": (1.5, 2.0)})))
    assert back.weight == back.terms["model"].weight == 4.0
    assert (back.terms["counts"].weight, back.terms["counts"].reduce) == (2.0, "sum")
    assert isinstance(back.terms["proto"].weight, dict)
    assert back.metrics == {"loss": (1.5, 2.0)}


def test_a_model_alone_is_what_stock_strategies_read() -> None:
    encoded = wire.encode_up(wire.Uplink({"model": wire.UpTerm(model(), 4.0)}, 4.0))
    assert set(encoded) == {"arrays", "metrics"}


def test_plain_metrics_of_other_clients_count_once() -> None:
    record = wire.encode_up(wire.Uplink({}, 1.0))
    metrics = record["metrics"]
    metrics["accuracy"] = 0.5  # type: ignore[assignment]
    assert wire.decode_up(record).metrics == {"accuracy": (0.5, 1.0)}


@pytest.mark.parametrize("dtype", ["V2", "O", "complex64", "U3", "longdouble"])
def test_what_cannot_be_sent_is_named(dtype: str) -> None:
    # bfloat16 arrays have kind V: numpy has no such type of its own.
    with pytest.raises(WireError, match=r"'w'.*float32"):
        wire.to_record({"w": np.zeros(2, dtype=dtype)})


def test_bfloat16_is_refused() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    with pytest.raises(WireError, match="float32"):
        wire.to_record({"w": np.zeros(2, dtype=bfloat16)})


def test_damaged_bytes_are_an_error() -> None:
    record = wire.to_record({"w": np.zeros(3)})
    record["w"].data = record["w"].data[:-4]
    with pytest.raises(WireError, match="'w'"):
        wire.from_record(record)


def test_pickled_arrays_are_refused() -> None:
    record = wire.to_record({"w": np.zeros(3)})
    record["w"].data = pickle.dumps([1])
    with pytest.raises(WireError, match="'w'"):
        wire.from_record(record)


def test_settings_are_scalars_and_leave_the_round_alone() -> None:
    with pytest.raises(WireError, match="server-round"):
        wire.config_record(1, 2, {"server-round": 3})
    with pytest.raises(WireError, match="list"):
        wire.config_record(1, 2, {"x": [1]})  # type: ignore[dict-item]
    with pytest.raises(WireError, match="list"):
        wire.decode_down(RecordDict({"config": ConfigRecord({"server-round": 1, "x": [1]})}))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_are_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(WireError, match="num-examples"):
        wire.encode_up(wire.Uplink({}, weight))


def test_missing_records_are_an_error() -> None:
    with pytest.raises(WireError, match="config"):
        wire.decode_down(RecordDict())
    with pytest.raises(WireError, match="num-examples"):
        wire.decode_up(RecordDict())
    with pytest.raises(WireError, match="server-round"):
        wire.decode_down(RecordDict({"config": ConfigRecord({"x": 1})}))


def test_the_round_trip_keeps_every_dtype_and_shape() -> None:
    arrays = {
        d: np.ones((2, 0) if d == "int8" else (), dtype=d)
        for d in ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")
    }
    same(wire.from_record(wire.to_record(arrays)), arrays)
