"""Simulation in this process: failures, groups, hidden labels; everything a worker decides."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedlabels import clients
from fedlabels.errors import RunError
from fedlabels.federation import Federation
from fedlabels.rounds.job import Job, Task
from fedlabels.run import latest_checkpoint
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_backend, build_world
from fedlabels.run.world import World
from tests.conftest import process_state
from tests.end_to_end.harness import (
    FEDAVG,
    TINY,
    column,
    config_of,
    model_print,
    prints,
    simulate,
    table,
    with_client,
)
from tests.end_to_end.toys import Careless, Chaos, Loner, Rememberer

ALL = ("per_round=10", "checkpoint_every=2")  # every client in every round
EXECUTIONS = pytest.mark.parametrize("execution", ["looped", "stacked"])
BOUNDS = pytest.mark.parametrize("share", [0.2, 1.0])


def chaos(folder: Path, *overrides: str, **wrong: Any) -> dict[str, Any]:
    client = Chaos(lr=0.1, steps=5, **wrong)
    config = config_of(*FEDAVG, *ALL, *overrides)
    return simulate(folder, config, with_client(client))


def rows_of(folder: Path, status: str) -> list[dict[str, str]]:
    return [row for row in table(folder, "clients") if row["status"] == status]


class TestClientsThatRaise:
    @EXECUTIONS
    def test_the_run_goes_on_without_them(self, tmp_path: Path, execution: str) -> None:
        folder = tmp_path / "run"
        chaos(folder, f"backend.execution={execution}", raises=(1, 4, 6))
        assert column(folder, "failed") == [3.0] * 4
        assert column(folder, "ok") == [7.0] * 4
        failed = rows_of(folder, "failed")
        assert [(row["round"], row["client_id"]) for row in failed] == [
            (str(r), str(c)) for r in (1, 2, 3, 4) for c in (1, 4, 6)
        ]
        for row in failed:
            assert row["error"] == f"train: ArithmeticError: client {row['client_id']} has no luck"
        assert not (folder / "state" / "4").exists()
        assert len(list((folder / "state").iterdir())) == 7
        assert column(folder, "test_accuracy")[-1] > column(folder, "test_accuracy")[0]

    def test_the_others_are_as_if_they_had_not_been_asked(self, tmp_path: Path) -> None:
        for name, wrong in (("raise", {"raises": (1, 4)}), ("poison", {"poisons": (1, 4)})):
            chaos(tmp_path / name, "rounds=2", **wrong)
        models = [model_print(tmp_path / n) for n in ("raise", "poison")]
        assert models[0] == models[1]

    @BOUNDS
    def test_too_many_end_the_run_after_a_checkpoint(self, tmp_path: Path, share: float) -> None:
        folder = tmp_path / "run"
        wrong = tuple(range(10)) if share == 1 else (0, 1, 2)
        with pytest.raises(RunError, match=rf"{len(wrong)} of 10 clients failed in round 4.*luck"):
            chaos(folder, f"max_client_failures={share}", raises=wrong, from_round=4)
        newest = latest_checkpoint(folder)
        assert newest is not None
        assert newest.name == "round-00000003"
        assert [row["round"] for row in table(folder)] == ["1", "2", "3"]
        assert '"status": "failed"' in (folder / "manifest.json").read_text()
        # mend the cause, go on: as if nothing had happened
        other = tmp_path / "other"
        healthy = with_client(Rememberer(lr=0.1, steps=5))
        config = config_of(*FEDAVG, *ALL, f"max_client_failures={share}")
        simulate(folder, config, healthy, resume=True)
        simulate(other, config, healthy)
        assert prints(folder) == prints(other)

    def test_as_many_as_allowed_are_fine(self, tmp_path: Path) -> None:
        chaos(tmp_path / "run", "max_client_failures=0.3", "rounds=1", raises=(0, 1, 2))
        assert column(tmp_path / "run", "failed") == [3.0]


class TestUpdatesThatAreNotFinite:
    @EXECUTIONS
    def test_are_rejected(self, tmp_path: Path, execution: str) -> None:
        folder = tmp_path / "run"
        chaos(folder, f"backend.execution={execution}", poisons=(0, 9))
        assert column(folder, "rejected") == [2.0] * 4
        assert {row["client_id"] for row in rows_of(folder, "rejected")} == {"0", "9"}
        assert all("not finite" in row["error"] for row in rows_of(folder, "rejected"))
        model = load_file(folder / "model.safetensors")
        assert all(np.isfinite(value).all() for value in model.values())
        assert not (folder / "state" / "0").exists()
        assert (folder / "state" / "1").exists()

    def test_of_all_clients_leave_the_model(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        chaos(folder, "rounds=3", poisons=tuple(range(10)), from_round=2)
        assert column(folder, "model_kept") == [1.0, 1.0]
        assert [row["model_kept"] for row in table(folder)] == ["", "1.0", "1.0"]
        accuracy = column(folder, "test_accuracy")
        assert accuracy[0] == accuracy[1] == accuracy[2]
        assert column(folder, "weight")[1:] == [0.0, 0.0]


class TestGroups:
    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_one_stackable_and_one_not(self, tmp_path: Path, precision: str) -> None:
        change = with_client(Rememberer(lr=0.1, steps=5), also=Loner(lr=0.05, steps=3))
        models = {}
        for execution in ("looped", "stacked"):
            folder = tmp_path / execution
            overrides = (f"backend.execution={execution}", f"precision={precision}", *ALL)
            simulate(folder, config_of(*FEDAVG, *overrides), change)
            models[execution] = load_file(folder / "model.safetensors")
            remembering = {int(path.name) for path in (folder / "state").iterdir()}
            assert remembering == {0, 2, 4, 6, 8}
            assert column(folder, "failed") == [0.0] * 4
        for name, value in models["looped"].items():
            tolerance = 1e-4 if precision == "float32" else 1e-12
            np.testing.assert_allclose(value, models["stacked"][name], atol=tolerance)


class TestDealing:
    @pytest.mark.parametrize(("execution", "sizes"), [("looped", [4, 4, 2]), ("stacked", [8, 2])])
    def test_ranges(self, tmp_path: Path, execution: str, sizes: list[int]) -> None:
        config = config_of(*FEDAVG, f"backend.execution={execution}", "backend.block_size=8")
        backend = build_backend(config, build_world(config), RunFolder(tmp_path), 0)
        backend.workers = 3
        job = Job("train", 1, 1, tuple(Task(i) for i in range(10)), {})
        orders = backend._ranges(job, backend._ordered(job.tasks))
        backend.close()
        assert [len(order.items) for order in orders] == sizes
        positions = [item.position for order in orders for item in order.items]
        assert positions == list(range(10))

    def test_what_cannot_be_stacked_runs_one_by_one_and_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        change = with_client(Careless(lr=0.1, steps=3))
        # a stack of one, too: 5 clients in stacks of 4
        settings = (*FEDAVG, "rounds=1", "backend.stack_size=4")
        simulate(tmp_path / "looped", config_of(*settings), change)
        simulate(tmp_path / "stacked", config_of(*settings, "backend.execution=stacked"), change)
        assert prints(tmp_path / "looped") == prints(tmp_path / "stacked")
        assert "ran one by one, which is slow" in caplog.text


class TestHiddenLabels:
    @pytest.mark.parametrize("method", ["fedlabel_stable", "fixmatch"])
    def test_never_reach_a_client(self, tmp_path: Path, method: str) -> None:
        extra = {
            "fedlabel_stable": (
                "training.steps=10",
                "training.steps_unlabeled=5",
                "training.lr=0.1",
            ),
            "fixmatch": ("training.lr=0.1",),
        }[method]
        config = config_of(
            *TINY, f"method={method}", "client.threshold=0.2", "labels.fraction=0.2", "rounds=3",
            *extra,
        )  # fmt: skip
        simulate(tmp_path / "true", config)
        simulate(tmp_path / "scrambled", config, scrambled)
        true, other = tmp_path / "true", tmp_path / "scrambled"
        assert prints(true)[0] == prints(other)[0]
        assert column(true, "test_loss") == column(other, "test_loss")
        assert column(true, "pass_rate") == column(other, "pass_rate")
        # scrambled among all unlabeled samples, a label is right by chance
        assert column(true, "pseudo_accuracy")[-1] > column(other, "pseudo_accuracy")[-1] + 0.1


def scrambled(world: World) -> World:
    """Permute the truth among the unlabeled samples; who holds what stays."""
    train, federation = world.source.train, world.federation
    hidden = federation.unlabeled.index
    truth = train.y.copy()
    truth[hidden] = np.random.default_rng(1).permutation(truth[hidden])
    changed = Federation.plain(
        federation.labeled, federation.unlabeled, truth, federation.num_classes, {}
    )
    source = replace(world.source, train=replace(train, y=truth))
    return replace(world, source=source, federation=changed)


class TestProcess:
    def test_two_runs_in_one_process_are_strangers(self, tmp_path: Path) -> None:
        config = config_of(*FEDAVG, "rounds=2")
        remember = with_client(Rememberer(lr=0.1, steps=5))
        simulate(tmp_path / "first", config, remember)
        simulate(tmp_path / "between", config_of(*FEDAVG, "rounds=1", "seed=5"))
        simulate(tmp_path / "second", config, remember)
        assert prints(tmp_path / "first") == prints(tmp_path / "second")

    @pytest.mark.parametrize("method", ["fedlabel_stable", "stock"])
    def test_global_state_is_left_alone(self, tmp_path: Path, method: str) -> None:
        torch.set_num_threads(2)
        torch.set_flush_denormal(False)
        before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        simulate(tmp_path / "run", config_of(*TINY, f"method={method}", "rounds=1"))
        assert random.getstate() == before[0]
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert float(torch.tensor(1e-310, dtype=torch.float64) * 1) > 0
        assert torch.get_default_dtype() == torch.float32
        assert torch.is_grad_enabled()

    def test_nothing_global_decides_a_run(self, tmp_path: Path) -> None:
        dropout = ("backend=serial", "model=cnn_pfl", "clients=8", "per_round=2", "rounds=1")
        config = config_of(*dropout, "method=fedavg", "training.steps=2")
        for number, name in enumerate(("a", "b")):
            torch.manual_seed(number)
            np.random.seed(number)  # noqa: NPY002
            random.seed(number)
            simulate(tmp_path / name, config)
        assert prints(tmp_path / "a") == prints(tmp_path / "b")


def test_the_fully_labeled_bound_sees_every_label(tmp_path: Path) -> None:
    config = config_of(*TINY, "method=fully_labeled", "rounds=1", "labels.fraction=0.1")
    simulate(tmp_path / "run", config)
    rows = table(tmp_path / "run", "clients")
    for row in rows:
        assert float(row["weight"]) == int(row["labeled"]) + int(row["unlabeled"])
    assert clients.build(clients.settings_of(config)).sees_all_labels


def test_an_update_of_a_wrong_shape_is_rejected_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chaos(folder, "rounds=2", reshapes=(1,))
    rejected = rows_of(folder, "rejected")
    assert [row["client_id"] for row in rejected] == ["1", "1"]
    assert "has shape" in rejected[0]["error"]
    assert column(folder, "ok") == [9.0, 9.0]


class Unbuildable(Careless):
    """Has no nets."""

    def nets(self, *_: Any) -> Any:
        raise RunError("there are none")


def test_a_backend_that_cannot_start_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = process_state()
    with pytest.raises(RunError, match="there are none"):
        simulate(
            tmp_path / "run",
            config_of(*TINY, "method=fedavg", "rounds=1", "backend.threads=2"),
            with_client(Unbuildable(lr=0.1, steps=1)),
        )
    assert process_state() == before
