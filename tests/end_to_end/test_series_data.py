"""One round on each kind of series and table that people have."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import test_reader_leaf as leaf
from tests.data import test_reader_series as ragged
from tests.data import test_reader_table as table
from tests.data import test_reader_ts as ts
from tests.data import test_reader_wearables as wearables
from tests.end_to_end.harness import column, config_of, simulate

TINY = (
    "backend=serial", "per_round=2", "rounds=1", "training.steps=2", "dataset.views=none",
    "labels.fraction=0.5",
)  # fmt: skip


def _ragged(folder: Path) -> tuple[str, ...]:
    ragged.save(folder, ragged.stored("objects", ragged.series()))
    return ("dataset=timeseries_npz", "dataset.options.window=8", "dataset.options.pad=repeat",
            "model=cnn1d", "partition=iid", "clients=2")  # fmt: skip


def _ts(folder: Path) -> tuple[str, ...]:
    ts.write(folder)
    return ("dataset=ts", "dataset.options.window=8", "dataset.options.pad=zero", "model=cnn1d",
            "dataset.options.name=Vowels", "partition=iid", "clients=2")  # fmt: skip


def _uci_har(folder: Path) -> tuple[str, ...]:
    wearables.write_har(folder)
    return ("dataset=uci_har", "model=cnn1d", "partition=natural", "clients=3")


def _wisdm(folder: Path) -> tuple[str, ...]:
    wearables.write_wisdm(folder)
    return ("dataset=wisdm", "dataset.options.window=8", "dataset.options.step=4", "model=cnn1d",
            "partition=natural", "clients=2", "evaluate_clients=true")  # fmt: skip


def _leaf(folder: Path) -> tuple[str, ...]:
    leaf.write_set(folder)
    return ("dataset=leaf", "dataset.options.shape=[1,4,4]", "dataset.views=digits", "model=mlp",
            "method=fixmatch", "partition=natural", "clients=3",
            "evaluate_clients=true")  # fmt: skip


def _table(folder: Path) -> tuple[str, ...]:
    place = table.write(folder / "heart.csv")
    roles = [f"dataset.options.{option}={name}" for option, name in table.BY_COLUMN.items()]
    return ("dataset=table", f"dataset.root={place}", *roles, "model=mlp", "partition=natural",
            "clients=2")  # fmt: skip


WRITERS = [_ragged, _ts, _uci_har, _wisdm, _table, _leaf]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.strip("_"))
def test_a_round(write: Callable[[Path], tuple[str, ...]], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    config = config_of(*TINY, "method=fedavg", f"dataset.root={data}", *write(data))
    simulate(tmp_path / "run", config)
    assert len(column(tmp_path / "run", "test_accuracy")) >= 1
