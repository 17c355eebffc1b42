"""One round on each kind of series and table that people have."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import test_reader_series as ragged
from tests.end_to_end.harness import column, config_of, simulate

TINY = ("backend=serial", "per_round=2", "rounds=1", "training.steps=2", "dataset.views=none")


def _ragged(folder: Path) -> tuple[str, ...]:
    ragged.save(folder, ragged.stored("objects", ragged.series()))
    return ("dataset=timeseries_npz", "dataset.options.window=8", "dataset.options.pad=repeat",
            "model=cnn1d", "partition=iid", "clients=2")  # fmt: skip


@pytest.mark.parametrize("write", [_ragged], ids=lambda write: write.__name__.strip("_"))
def test_a_round(write: Callable[[Path], tuple[str, ...]], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    config = config_of(*TINY, "method=fedavg", f"dataset.root={data}", *write(data))
    simulate(tmp_path / "run", config)
    assert len(column(tmp_path / "run", "test_accuracy")) >= 1
