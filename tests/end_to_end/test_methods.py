"""Every method preset, and stock strategies of Flower, from settings to a finished run folder."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.end_to_end.harness import REPO, TINY, column, config_of, prints, simulate

# Without a global model there is nothing that this file compares: see test_prototypes.py.
OWN_MODELS = {"fedproto", "fedsa", "fedtgp", "local_training"}
METHODS = sorted({path.stem for path in (REPO / "configs" / "method").glob("*.yaml")} - OWN_MODELS)
RULES = {
    "FedAvg": "{}",
    "FedAdam": "{eta: 0.05}",
    "FedMedian": "{}",
    "Krum": "{num_malicious_nodes: 1}",
    "FedTrimmedAvg": "{beta: 0.2}",
    "DifferentialPrivacyServerSideFixedClipping": "{noise_multiplier: 0.01, clipping_norm: 5.0,"
    " num_sampled_clients: 8, strategy: {name: FedAvg}}",
}
SMALL = (*TINY, "clients=8", "per_round=4", "rounds=2", "labels.fraction=0.3")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_looped_and_stacked(method: str, tmp_path: Path) -> None:
    models, accuracy = [], []
    for execution in ("looped", "stacked"):
        folder = tmp_path / execution
        simulate(folder, config_of(*SMALL, f"method={method}", f"backend.execution={execution}"))
        assert column(folder, "ok") == [4.0, 4.0]
        assert (folder / "report.html").stat().st_size > 10_000
        models.append(load_file(folder / "model.safetensors"))
        accuracy.append(column(folder, "test_accuracy"))
        assert len(set(column(folder, "test_loss"))) == 2  # the model moved
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.03)
    for name, value in models[0].items():
        np.testing.assert_allclose(value, models[1][name], atol=2e-3)


@pytest.mark.parametrize("rule", RULES)
def test_stock_strategies(rule: str, tmp_path: Path) -> None:
    options = f"strategy.options={RULES[rule]}"
    config = config_of(
        *TINY, "method=stock", f"strategy.rule={rule}", options, "per_round=8", "rounds=2"
    )
    assert config["strategy"]["rule"] == rule
    for folder in (tmp_path / "first", tmp_path / "second"):
        simulate(folder, config)
        assert column(folder, "ok") == [8.0, 8.0]
        loss = column(folder, "test_loss")
        assert loss[0] != loss[1]
    assert prints(tmp_path / "first") == prints(tmp_path / "second")


def test_stock_fedavg_is_our_fedavg(tmp_path: Path) -> None:
    for name in ("stock", "fedavg"):
        simulate(tmp_path / name, config_of(*TINY, f"method={name}", "rounds=2"))
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("stock", "fedavg")]
    for name, value in models[0].items():
        np.testing.assert_allclose(value, models[1][name], atol=1e-6)
    assert column(tmp_path / "stock", "weight") == column(tmp_path / "fedavg", "weight")


@pytest.mark.parametrize("method", ["fedavg", "fedlabel_stable"])
@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_bfloat16_is_close_and_has_its_own_bits(
    method: str, execution: str, tmp_path: Path
) -> None:
    small = [option for option in SMALL if not option.startswith("model")]
    given = (*small, f"method={method}", "model=lenet")
    models = {}
    for folder, precision in (("full", "float32"), ("low", "bfloat16"), ("again", "bfloat16")):
        config = config_of(*given, f"precision={precision}", f"backend.execution={execution}")
        simulate(tmp_path / folder, config)
        models[folder] = load_file(tmp_path / folder / "model.safetensors")
    assert prints(tmp_path / "low") == prints(tmp_path / "again")
    for name, value in models["full"].items():
        assert models["low"][name].dtype == np.float32
        np.testing.assert_allclose(models["low"][name], value, atol=0.02)
    assert any((models["low"][k] != v).any() for k, v in models["full"].items())
