from typing import Any

import pytest

from fedlabels import strategies
from fedlabels.errors import ConfigError
from fedlabels.strategies.fedadam import FedAdam
from tests.strategies.fakes import run


class TestRegistry:
    def test_finds_strategies_by_module_name(self) -> None:
        assert set(strategies.names()) >= {"fedavg", "fedprox", "fedadam", "fedlabel", "stock"}
        assert "base" not in strategies.names()
        assert "support" not in strategies.names()
        assert strategies.find("fedadam") is FedAdam

    @pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedadam", "fedlabel", "stock"])
    def test_every_strategy_is_built_from_its_settings(self, name: str) -> None:
        strategy = strategies.build(name)
        assert isinstance(strategy, strategies.find(name))
        assert isinstance(run(strategy, rounds=[1]).models[0], dict)

    def test_unknown_names_and_settings_list_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"strategy=nope is not known.*fedavg"):
            strategies.find("nope")
        with pytest.raises(ConfigError, match="no setting mu; allowed: proximal_mu"):
            strategies.build("fedprox", {"mu": 1.0})
        assert strategies.build("fedadam", {"eta": 0.5}).eta == 0.5  # type: ignore[attr-defined]

    def test_a_new_strategy_is_one_file(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "toy.py").write_text(
            "from fedlabels.strategies.base import CohortStrategy\n\n\nclass Toy(CohortStrategy):\n    pass\n"
        )
        (tmp_path / "twins.py").write_text(
            "from fedlabels.strategies.base import CohortStrategy as C\n\n\n"
            "class A(C):\n    pass\n\n\nclass B(C):\n    pass\n"
        )
        (tmp_path / "chosen.py").write_text((tmp_path / "twins.py").read_text() + "STRATEGY = B\n")
        monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
        assert strategies.find("toy").__name__ == "Toy"
        assert run(strategies.build("toy"), rounds=[1]).outcomes[0].arrays is not None
        assert strategies.find("chosen").__name__ == "B"
        with pytest.raises(ConfigError, match=r"STRATEGY; found \['A', 'B'\]"):
            strategies.find("twins")
