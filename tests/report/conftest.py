"""Run folders with made-up numbers, written through the classes that runs use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlabels.data import ArrayDataset
from fedlabels.federation import Ragged
from fedlabels.run import RunFolder
from fedlabels.run.folder.records import write_round
from fedlabels.seeds import generator
from fedlabels.worker.evaluation import Scored, evaluate

CONFIG = """\
name: digits at 2 % labels
seed: 3
rounds: 200
clients: 100
per_round: 10
checkpoint_every: 10
max_client_failures: 0.2
dataset: {name: digits, root: null, options: {download: false}}
partition: {name: dirichlet, alpha: 0.3, min_size: 2}
labels: {name: fraction, fraction: 0.02, per_class: true}
client: {name: fedlabel, learning_rate: 0.05, batch_size: 10, views: [weak, strong]}
strategy: {name: fedlabel, threshold: 0.95}
model: {name: lenet}
backend: {name: ray, num_workers: 4}
tracker: {uri: "postgresql://reader:secret-word@host/runs"}
"""
MANIFEST = {
    "name": "digits at 2 % labels",
    "method": "FedLabel",
    "seed": 3,
    "status": "finished",
    "rounds_done": 200,
    "started": "2025-01-02T10:00:00+00:00",
    "finished": "2025-01-02T10:31:12+00:00",
    "seconds": 1872.4,
    "num_parameters": 61706,
    "command": ["python", "run_sim.py", "method=fedlabel", "name=digits at 2 % labels", "seed=3"],
    "federation_hash": "3f" * 32,
    "config_hash": "a7" * 32,
    "package": {"fedlabels": "0.1.0", "flwr": "1.41.0", "numpy": "2.4.6", "torch": "2.13.0"},
    "hardware": {"cpu": "2 cores", "gpu": None, "platform": "Linux x86_64"},
}


def fill_federation(path: Path, *, clients: int, classes: int, fraction: float) -> None:
    draw = generator(0, "federation")
    labels = np.repeat(np.arange(classes), 6000 // classes).astype(np.int64)
    shares = draw.dirichlet(np.full(clients, 0.3), classes)
    owner = np.concatenate([draw.choice(clients, 6000 // classes, p=row) for row in shares])
    labeled = draw.random(len(labels)) < fraction
    arrays: dict[str, Any] = {"labels": labels, "num_classes": np.int64(classes)}
    for name, mask in (("labeled", labeled), ("unlabeled", ~labeled)):
        order = np.argsort(owner[mask], kind="stable")
        arrays[f"{name}_index"] = np.flatnonzero(mask)[order]
        counts = np.bincount(owner[mask], minlength=clients)
        arrays[f"{name}_offsets"] = np.concatenate([[0], np.cumsum(counts)])
    np.savez(path, **arrays)


def fill_rounds(folder: RunFolder, *, rounds: int, pseudo: bool, every: int, losses: bool) -> None:
    draw = generator(0, "rounds")
    rows: list[dict[str, Any]] = []
    for index in range(1, rounds + 1):
        grown = 1 - np.exp(-index / 45)
        noise = draw.normal(0, 0.012, 8)
        row: dict[str, Any] = {"round": index, "sampled": 10, "ok": 10, "empty": 0}
        row |= {"failed": 0, "rejected": 0, "weight": float(480 + index % 7)}
        if losses and index % 17 == 0:
            row |= {"ok": 8, "failed": 1, "rejected": 1}
        row |= {"loss_labeled": 2.3 - 2.1 * grown + noise[0]}
        if pseudo:
            row |= {
                "loss_unlabeled": 1.4 - grown + noise[1],
                "pass_rate": 0.3 + 0.55 * grown + noise[2],
                "local_share": 0.75 - 0.5 * grown + noise[3],
                "agreement": 0.4 + 0.5 * grown + noise[4],
                "ratio": 0.2 + grown,
                "pseudo_accuracy": 0.62 + 0.33 * grown + noise[5],
                "pseudo_accuracy_local": 0.6 + 0.27 * grown + noise[6],
                "pseudo_accuracy_global": 0.3 + 0.62 * grown + noise[7],
            }
        if every and index % every == 0:
            row |= {"test_accuracy": 0.1 + 0.82 * grown + noise[0] / 2}
            row |= {"test_loss": 2.3 - 1.95 * grown + noise[1]}
        row |= {"bytes_down": 10 * 247_000, "bytes_up": row["ok"] * 247_000 + 900}
        row |= {"seconds_train": 7.5 + abs(noise[2]) * 30 + (14.0 if index == 1 else 0.0)}
        row |= {"seconds_evaluate": 1.1 if row.get("test_accuracy") else 0.0}
        rows.append(row | {"seconds_total": row["seconds_train"] + row["seconds_evaluate"] + 0.4})
    folder.rounds.append(rows)


def fill_clients(folder: RunFolder, *, rounds: int, clients: int, losses: bool) -> None:
    rows = []
    for index in range(1, rounds + 1):
        for client in generator(0, "sample", index).choice(clients, min(10, clients), False):
            row = {"round": index, "client_id": int(client), "status": "ok", "weight": 48.0}
            rows.append(row)
        if losses and index % 17 == 0:
            rows[-1] |= {"status": "failed", "error": "RuntimeError: <b>out of memory</b>"}
            rows[-2] |= {"status": "rejected", "error": "update is not finite"}
    folder.clients.append(rows)


def fill_recall(folder: RunFolder, *, rounds: int, every: int, classes: int) -> None:
    evaluated = range(every, rounds + 1, every) if every else range(0)
    for index in evaluated:
        draw = generator(0, "recall", index)
        recalls = np.clip(0.97 - 0.5 * draw.random(classes) ** 2 * (40 / (index + 40)), 0, 1)
        row = {f"recall_{c}": float(value) for c, value in enumerate(recalls)}
        folder.test_class.append([{"round": index, **row}])


def fill_figures(folder: RunFolder, *, index: int, classes: int, domains: int) -> None:
    """Add a round with what a run of before knows nothing of: figures beyond accuracy."""
    draw = generator(0, "figures")
    label = np.arange(40 * classes) % classes
    scores = draw.dirichlet(np.ones(classes), len(label)) + 0.5 * np.eye(classes)[label]
    each = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    test = ArrayDataset(
        "toy",
        np.zeros((len(label), 1, 1, 1), dtype=np.uint8),
        label,
        classes,
        tuple(map(str, range(classes))),
        (0.5,),
        (1.0,),
        np.arange(len(label)) // 7 % domains if domains else None,
        tuple(f"place {d}" for d in range(domains)),
    )
    blocks = [Scored(0.0, each.argmax(1), each)]
    found = evaluate(blocks, test, Ragged.from_lists([[0]]))
    record = {"round": index, "test_accuracy": found.accuracy, **found.parts}
    write_round(folder, record, [], found, [])
    folder.last_test.write(index, found, predictions=True)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder; what is not said is a finished run of FedLabel with all its parts."""

    def make(
        *,
        rounds: int = 20,
        clients: int = 12,
        classes: int = 10,
        every: int = 5,
        pseudo: bool = True,
        losses: bool = False,
        fraction: float = 0.02,
        config: str = CONFIG,
        manifest: dict[str, Any] | None = None,
        path: Path = tmp_path / "run",
        figures: bool = False,
        domains: int = 0,
    ) -> Path:
        folder = RunFolder(path)
        folder.write_config(config)
        folder.update_manifest(**(MANIFEST | {"rounds_done": rounds} | (manifest or {})))
        fill_federation(folder.federation, clients=clients, classes=classes, fraction=fraction)
        fill_rounds(folder, rounds=rounds, pseudo=pseudo, every=every, losses=losses)
        fill_clients(folder, rounds=rounds, clients=clients, losses=losses)
        fill_recall(folder, rounds=rounds, every=every, classes=classes)
        if figures:
            fill_figures(folder, index=rounds + 1, classes=classes, domains=domains)
        return folder.path

    return make
