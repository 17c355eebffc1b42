import json
from typing import Any

import numpy as np
import pytest

from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.rounds import wire
from fedlabels.strategies.base import State
from fedlabels.strategies.stock import Stock, StockSettings
from tests.strategies.fakes import same, stock


class TestState:
    def test_names_what_cannot_be_resumed(self) -> None:
        class Ledger:
            def __init__(self) -> None:
                self.events = 0

        strategy = stock("FedAvg")
        strategy.strategy.ledger = Ledger()  # type: ignore[attr-defined]
        with pytest.raises(CheckpointError, match=r"FedAvg cannot be resumed.*'ledger'"):
            strategy.state()

    def test_an_opaque_attribute_that_stayed_the_same_is_no_obstacle(self) -> None:
        strategy = stock("FedAvg")
        assert callable(vars(strategy.strategy)["train_metrics_aggr_fn"])
        assert strategy.state().values["class"] == "FedAvg"

    def test_a_replaced_function_is_named(self) -> None:
        strategy = stock("DifferentialPrivacyServerSideFixedClipping")
        inner = vars(strategy.strategy)["strategy"]
        inner.train_metrics_aggr_fn = lambda replies, key: None
        with pytest.raises(CheckpointError, match=r"'strategy\.train_metrics_aggr_fn'"):
            strategy.state()

    def test_another_strategys_state_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="'FedAvg', not 'FedAdam'"):
            stock("FedAdam").load_state(stock("FedAvg").state())
        with pytest.raises(CheckpointError, match="empty"):
            stock("FedAdam").load_state(State())

    def test_keeps_every_kind_of_value(self) -> None:
        values: dict[str, Any] = {
            "none": None,
            "flag": True,
            "count": 3,
            "inf": float("inf"),
            "scalar": np.float32(0.1),
            "array": np.arange(3.0),
            "nested": {1: [np.eye(2), (1, "a")], "k": {"x": np.array(2)}},
            "record": wire.to_record({"a": np.ones(2, np.float32)}),
        }
        first, second = stock("FedAvg"), stock("FedAvg")
        vars(first.strategy).update(values)
        state = first.state()
        second.load_state(State(state.arrays, json.loads(json.dumps(state.values))))
        back = vars(second.strategy)
        assert back["none"] is None
        assert (back["flag"], back["count"], back["inf"]) == (True, 3, float("inf"))
        assert type(back["scalar"]) is np.float32
        assert back["scalar"] == values["scalar"]
        np.testing.assert_array_equal(back["array"], values["array"])
        np.testing.assert_array_equal(back["nested"][1][0], np.eye(2))
        assert back["nested"][1][1] == (1, "a")
        assert back["nested"]["k"]["x"] == 2
        same(wire.from_record(back["record"]), {"a": np.ones(2, np.float32)})


class TestSettings:
    def test_names_may_carry_the_module(self) -> None:
        made = Stock(StockSettings("flwr.serverapp.strategy.FedMedian")).strategy
        assert type(made).__name__ == "FedMedian"

    @pytest.mark.parametrize("name", ["Nope", "Strategy", "Result", "os.system", "FedXgbCyclic"])
    def test_unknown_names_list_the_known_ones(self, name: str) -> None:
        with pytest.raises(ConfigError, match="FedMedian"):
            Stock(StockSettings(name))

    def test_sampling_is_the_runs(self) -> None:
        with pytest.raises(ConfigError, match="'fraction_train'"):
            stock("FedAvg", fraction_train=0.5)

    def test_unknown_options_list_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"beta_3.*eta, eta_l"):
            stock("FedAdam", beta_3=0.5)
        with pytest.raises(ConfigError, match="beta"):
            stock("FedTrimmedAvg", beta=0.7)
        with pytest.raises(ConfigError, match="num_sampled_clients"):
            Stock(StockSettings("DifferentialPrivacyServerSideFixedClipping"))
