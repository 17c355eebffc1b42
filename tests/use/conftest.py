"""Runs whose models are used, each made once."""

from pathlib import Path

import pytest

from tests.end_to_end.harness import FEDAVG, TINY, config_of, simulate

Folders = dict[str, Path]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a global model alone, 2 rounds."""
    folder = tmp_path_factory.mktemp("use") / "run"
    simulate(folder, config_of(*FEDAVG, "rounds=2"))
    return folder


@pytest.fixture(scope="session")
def norms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose clients keep their batch normalization."""
    folder = tmp_path_factory.mktemp("use") / "fedbn"
    settings = ("method=fedbn", "model=lenet", "model.norm=batch", "training.lr=0.05", "rounds=2")
    simulate(folder, config_of(*TINY[:2], *TINY[4:], *settings))
    return folder


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose clients have models of their own, of two architectures."""
    folder = tmp_path_factory.mktemp("use") / "fedproto"
    settings = (
        "method=fedproto", "model=mlp", "model.hidden=[16]", "model.feature_dim=8", "rounds=2",
        "architectures.models=[lenet]",
    )  # fmt: skip
    simulate(folder, config_of(*TINY[:2], *TINY[4:], *settings))
    return folder
