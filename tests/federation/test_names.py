"""Names of natural clients are kept."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fedlabels.federation import Federation
from fedlabels.preview import preview
from fedlabels.report.holdings import read_holdings
from tests.end_to_end.harness import config_of, simulate

NAMES = ["hospital_d", "hospital_b", "hospital_a"]


def data(folder: Path) -> str:
    random = np.random.default_rng(0)
    x = random.integers(0, 255, (90, 1, 8, 8), dtype=np.uint8)
    y = np.arange(90) % 3
    who = np.array(NAMES)[np.arange(90) // 2 % 3]
    np.savez(
        folder / "d.npz", x_train=x, y_train=y, client_train=who, x_test=x, y_test=y,
        client_test=who,
    )  # fmt: skip
    return f"dataset.root={folder / 'd.npz'}"


def settings(folder: Path, clients: int, partition: str = "natural") -> list[str]:
    return [
        "dataset=npz", data(folder), f"partition={partition}", f"clients={clients}",
        f"per_round={clients}", "rounds=1", "method=labeled_only", "evaluate_clients=true",
        "backend=serial", "model=mlp", "labels.fraction=0.5", "training.steps=1",
    ]  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_says_who_its_clients_are(tmp_path: Path) -> None:
    simulate(tmp_path / "run", config_of(*settings(tmp_path, 2)))
    federation = Federation.load(tmp_path / "run" / "federation.npz")
    assert len(federation.names) == 2
    assert set(federation.names) < set(NAMES)
    for table in ("clients.csv", "personal.csv"):
        found = {int(row["client_id"]): row["name"] for row in rows(tmp_path / "run" / table)}
        assert found == dict(enumerate(federation.names))
    held = read_holdings(tmp_path / "run" / "federation.npz")
    assert held is not None
    assert held.client(1) == f"1 {federation.names[1]}"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in federation.names)
    assert f"2 of 3 natural clients take part, drawn by the seed: {federation.names[0]}" in page


@pytest.mark.parametrize(("partition", "named"), [("natural", True), ("iid", False)])
def test_the_preview_names_people_where_they_are_not_mixed(
    tmp_path: Path, partition: str, named: bool
) -> None:
    chosen = [s for s in settings(tmp_path, 3, partition) if not s.startswith(("per_", "rounds"))]
    shown = preview(chosen, tmp_path / "page.html")
    assert ("names of clients" in shown) == named
    assert ("2 hospital_" in shown) == named
    assert "natural clients take part" not in shown  # all do
