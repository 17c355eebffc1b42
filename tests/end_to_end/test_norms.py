"""Runs of FedBN, SiloBN, FixBN and FedWon: state, workers, resume, awkward federations, export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedlabels.cohort import DataSpec, Layout, Nets
from fedlabels.models import WSConv2d, build, fold
from fedlabels.run.data import build_data
from tests.end_to_end.harness import column, config_of, contents, prints, simulate, table
from tests.run.test_resume import StopAfter

METHODS = ("fedbn", "silobn", "fixbn", "fedwon")
LENET = (
    "backend=serial", "dataset=digits", "model=lenet", "clients=6", "per_round=4", "rounds=3",
    "partition.alpha=0.5", "labels.fraction=0.5", "training.batch_size=8", "training.steps=4",
)  # fmt: skip


def given(method: str, *overrides: str) -> tuple[str, ...]:
    names = {override.partition("=")[0] for override in overrides}
    return (
        *(o for o in LENET if o.partition("=")[0] not in names),
        f"method={method}",
        *overrides,
    )


def model_of(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def owned(norm: str = "batch") -> Layout:
    return Layout(build("lenet", DataSpec((1, 8, 8), 10), norm=norm))


@pytest.mark.parametrize("method", METHODS)
def test_clients_that_lack_classes_or_labels(method: str, tmp_path: Path) -> None:
    awkward = ("labels=zero_label_clients", "labels.share=0.4", "partition.alpha=0.05")
    simulate(tmp_path, config_of(*given(method, *awkward, "per_round=6")))
    ok, empty = column(tmp_path, "ok"), column(tmp_path, "empty")
    assert [a + b for a, b in zip(ok, empty, strict=True)] == [6, 6, 6]
    assert min(empty) > 0
    assert all(np.isfinite(v).all() for v in model_of(tmp_path).values())
    losses = column(tmp_path, "test_loss" if method in ("fixbn", "fedwon") else "personal_loss")
    assert losses[0] != losses[-1]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("method", METHODS)
def test_one_client(method: str, tmp_path: Path) -> None:
    simulate(
        tmp_path, config_of(*given(method, "clients=1", "per_round=1", "training.batch_size=1"))
    )
    assert column(tmp_path, "ok") == [1, 1, 1]
    assert all(np.isfinite(v).all() for v in model_of(tmp_path).values())


@pytest.mark.parametrize("method", ["fedbn", "silobn"])
def test_own_tensors_stay_with_the_clients(method: str, tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*given(method)))
    model, layout = model_of(tmp_path), owned()
    norms = layout.names(module_type="BatchNorm")
    own = norms if method == "fedbn" else norms - layout.names(role="parameter")
    fresh = build("lenet", DataSpec((1, 8, 8), 10), norm="batch").state_dict()
    for name in norms:
        unchanged = bool((model[name] == fresh[name].numpy()).all())  # 0 or 1 at the start
        assert unchanged == (name in own), name
    states = sorted((tmp_path / "state").glob("*/*.safetensors"))
    kept = [load_file(path) for path in states]
    assert all(tree.keys() == {f"private/{name}" for name in own} for tree in kept)
    means = {tree["private/body.1.running_mean"].tobytes() for tree in kept}
    assert len(means) == len(kept) > 2
    asked = {row["client_id"] for row in table(tmp_path, "personal")}
    assert asked == {str(k) for k in range(6)}  # those that never took part, too
    sizes = [sum(v.nbytes for k, v in model.items() if k not in own)]
    assert {int(r["bytes_up"]) for r in table(tmp_path, "clients")} == set(sizes)


def test_fixed_statistics_are_the_same_everywhere(tmp_path: Path) -> None:
    runs = {}
    for rounds in (2, 4):
        folder = tmp_path / str(rounds)
        simulate(folder, config_of(*given("fixbn", "rounds=4", f"client.fix_after={rounds / 4}")))
        runs[rounds] = model_of(folder)
    statistics = [n for n in runs[2] if "running" in n]
    assert all((runs[2][n] != runs[4][n]).any() for n in statistics)
    short = tmp_path / "short"
    simulate(short, config_of(*given("fixbn", "rounds=2", "client.fix_after=1.0")))
    kept = model_of(short)
    assert all((runs[2][n] == kept[n]).all() for n in statistics)  # as they were after round 2
    assert (runs[2]["body.1.weight"] != kept["body.1.weight"]).any()


def test_updates_that_are_not_finite_leave_no_state(tmp_path: Path) -> None:
    wild = ("training.lr=1e30", "max_client_failures=1.0", "rounds=1")
    simulate(tmp_path, config_of(*given("fedbn", *wild)))
    assert column(tmp_path, "rejected") == [4]
    assert column(tmp_path, "model_kept") == [1]
    assert not list((tmp_path / "state").glob("*/*"))


@pytest.mark.parametrize("method", ["fedbn", "silobn"])
def test_interrupted_and_resumed(method: str, tmp_path: Path) -> None:
    settings = config_of(*given(method, "checkpoint_every=2", "client.recompute_statistics=true"))
    whole, folder = tmp_path / "whole", tmp_path / "run"
    simulate(whole, settings)
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, settings, callbacks=[StopAfter(1)])
    simulate(folder, settings, resume=True)
    assert prints(folder) == prints(whole)
    assert contents(folder / "state") == contents(whole / "state")
    assert table(folder, "personal") == table(whole, "personal")


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("method", "execution", "workers"),
    [("fedbn", "looped", 1), ("silobn", "stacked", 2), ("fedwon", "looped", 2)],
)
def test_same_bits_on_ray(method: str, execution: str, workers: int, tmp_path: Path) -> None:
    blocks = ("backend.block_size=2", f"backend.execution={execution}")
    stacks = ("backend.stack_size=2",) if execution == "stacked" else ()
    settings = given(method, *blocks, *stacks, "rounds=2", "evaluate_clients=true")
    simulate(tmp_path / "serial", config_of(*settings))
    on_ray = ("backend=ray", f"backend.num_workers={workers}", "backend.gpus_per_worker=0")
    simulate(tmp_path / "ray", config_of(*settings, *on_ray))
    assert prints(tmp_path / "ray") == prints(tmp_path / "serial")
    assert table(tmp_path / "ray", "personal") == table(tmp_path / "serial", "personal")
    states = [
        contents(tmp_path / where / "state") if method != "fedwon" else {}
        for where in ("ray", "serial")
    ]
    assert states[0] == states[1]


def test_domains_have_accuracies_of_their_own(tmp_path: Path) -> None:
    domains = ("shift.preset=rot4", "partition=domain", "clients=4", "labels.fraction=1.0")
    overrides = [o for o in given("fedbn", *domains) if not o.startswith("partition.alpha")]
    simulate(tmp_path, config_of(*overrides))
    row = table(tmp_path)[-1]
    names = {k for k in row if k.startswith("personal_accuracy_")}
    assert {f"personal_accuracy_{d}" for d in ("clean", "rot90", "rot180", "rot270")} <= names
    assert len({r["domain"] for r in table(tmp_path, "personal")}) == 4


def test_a_trained_model_is_folded_and_exported(tmp_path: Path) -> None:
    config = config_of(*given("fedwon", "training.agc=0.64"))
    record = simulate(tmp_path, config)
    test = build_data(config)[0].test
    net = build("lenet", DataSpec((1, 8, 8), 10), norm="ws").eval()
    net.load_state_dict({k: torch.from_numpy(v) for k, v in model_of(tmp_path).items()})
    assert not any("running" in name or "tracked" in name for name in net.state_dict())
    plain = fold(net)
    assert not [m for m in plain.modules() if isinstance(m, WSConv2d)]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (test.mean, test.std))
    x = (torch.from_numpy(test.x).float() / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(plain(x), net(x), rtol=1e-6, atol=1e-6)
        accuracy = (plain(x).argmax(1) == torch.from_numpy(test.y)).double().mean()
        exported = torch.export.export(plain, (x[:2],)).module()
        torch.testing.assert_close(exported(x[:2]), plain(x[:2]))
    assert float(accuracy) == pytest.approx(record["test_accuracy"], abs=2 / len(test.y))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        spec = DataSpec((1, 8, 8), 10)
        return Nets(lambda: {"model": build("lenet", spec, norm="ws")}, seed)["model"].init

    first, again, other = built(1), built(1), built(2)
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not torch.equal(first["body.0.weight"], other["body.0.weight"])
