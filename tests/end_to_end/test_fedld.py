"""FedLD and the loss decomposition in whole runs: with other clients, and on Ray."""

from pathlib import Path

import pytest

from tests.end_to_end.harness import TINY, column, config_of, prints, simulate, table

SMALL = (*TINY, "clients=6", "per_round=6", "rounds=2", "strategy=fedld")
CLIENTS = {
    "fedprox": ("client=fedprox", "client.mu=0.1"),
    "fedlabel": (
        "client=fedlabel",
        "training.steps=2",
        "training.steps_unlabeled=2",
        "client.threshold=0.2",
    ),
    "fixmatch": ("client=fixmatch", "training.steps=2", "client.threshold=0.2"),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_any_client_with_this_server(name: str, tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*SMALL, *CLIENTS[name]))
    assert column(tmp_path, "ok") == [6, 6]
    assert len(column(tmp_path, "pg_effective_rank")) == 1  # the first round is a mean
    assert 1 <= column(tmp_path, "pg_effective_rank")[0] <= 6


def test_fedlabel_on_a_residual_net(tmp_path: Path) -> None:
    tiny = ("backend=serial", "dataset=digits", "clients=3", "per_round=3", "rounds=2")
    given = ("client=fedlabel", "strategy=fedld", "model=resnet8")
    short = ("training.steps=1", "training.steps_unlabeled=1", "training.batch_size=8")
    simulate(tmp_path, config_of(*tiny, *given, *short, "labels.fraction=0.05"))
    assert column(tmp_path, "ok") == [3, 3]
    assert column(tmp_path, "pg_norm_ratio")[0] > 0


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("variant", "more"),
    [
        ("server", ["backend.execution=looped"]),
        (
            "probe",
            ["backend.execution=stacked", "backend.stack_size=2",
             "callbacks.decomposition.probe_samples=9"],
        ),
    ],
)  # fmt: skip
def test_same_bits_on_ray(variant: str, more: list[str], tmp_path: Path) -> None:
    settings = (
        *TINY, "method=fedld", "training.lr=0.1", "rounds=2", "callbacks=decomposition",
        "callbacks.decomposition.every=1", f"callbacks.decomposition.variant={variant}",
        "backend.block_size=2", *more,
    )  # fmt: skip
    simulate(tmp_path / "serial", config_of(*settings))
    on_ray = (*settings, "backend=ray", "backend.num_workers=2", "backend.gpus_per_worker=0")
    simulate(tmp_path / "ray", config_of(*on_ray))
    assert prints(tmp_path / "ray") == prints(tmp_path / "serial")
    assert table(tmp_path / "ray", "decomposition") == table(tmp_path / "serial", "decomposition")
    assert len(column(tmp_path / "serial", "loss_shift")) == 2
