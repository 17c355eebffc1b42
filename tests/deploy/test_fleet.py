"""Server and devices over a grid in this process: good rounds, and everything that can go wrong."""

import csv
import json
import logging
import shlex

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from fedlabels.deploy.server import execute, settings
from fedlabels.errors import CheckpointError, ConfigError, RunError
from fedlabels.rounds import wire
from tests.deploy.loopback import Loopback, error, nodes_of, write_devices
from tests.end_to_end.harness import REPO, config_of, model_print, simulate

COUNTS = {0: (20, 30), 1: (0, 40), 2: (35, 0)}
FEW = "dataset=digits rounds=3 checkpoint_every=1 deploy.connect_seconds=0.2"
SMALL = "model=mlp model.hidden=[16]"


@pytest.fixture
def devices(tmp_path):
    return nodes_of(write_devices(tmp_path / "data", COUNTS), tmp_path / "states")


def given(method="fedavg", more=""):
    client = "training.lr=0.1 training.steps=5" if method == "fedavg" else ""
    model = "" if "model=" in more else SMALL
    overrides = f"method={method} {FEW} {model} {client} {more}"
    return overrides, settings({"overrides": overrides}, REPO / "configs")


def run(grid, tmp_path, method="fedavg", more="", name="run"):
    overrides, config = given(method, f"run_dir={tmp_path / name} {more}")
    return execute(config, grid, overrides)


def rows(tmp_path, table="rounds", name="run"):
    with (tmp_path / name / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["fedavg", "fedlabel_stable", "fedbn", "fedsa", "fedld"])
def test_methods_run_on_devices(method, devices, tmp_path):
    more = {
        "fedlabel_stable": "training.lr=0.1 training.lr_unlabeled=0.1 client.threshold=0.3"
        " training.steps=5 training.steps_unlabeled=3",
        "fedbn": "model=lenet",
    }.get(method, "")
    record = run(Loopback(devices), tmp_path, method, more)
    assert record["round"] == 3
    assert record["sampled"] == 3
    assert record["failed"] == record["rejected"] == 0
    table = rows(tmp_path, "clients")
    assert [row["labeled"] for row in table[:3]] == ["20", "0", "35"]
    assert [row["unlabeled"] for row in table[:3]] == ["30", "40", "0"]
    assert 0 <= record["device_accuracy"] <= 1  # of what the round before left
    assert 0 <= record["final_device_accuracy"] <= 1
    assert record["device_clients"] == record["final_device_clients"] == 3
    assert record["device_samples"] == record["final_device_samples"] == 60
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert all(np.isfinite(value).all() for value in model.values())
    if method in ("fedbn", "fedsa"):
        for client_id in COUNTS:
            states = list((tmp_path / "states" / str(client_id)).glob("*/*.safetensors"))
            assert states or client_id == 1


def test_devices_answer_in_any_order_and_are_sampled_by_client_id(devices, tmp_path):
    run(Loopback(devices), tmp_path)
    other = {1000 - node: config for node, config in devices.items()}  # other node ids
    run(Loopback(other), tmp_path, name="other", more="")
    hashes = [model_print(tmp_path / name) for name in ("run", "other")]
    assert hashes[0] == hashes[1]


def test_two_of_three_are_drawn_each_round(devices, tmp_path):
    run(Loopback(devices), tmp_path, more="per_round=2 rounds=4")
    drawn = [(row["round"], row["client_id"]) for row in rows(tmp_path, "clients")]
    assert len(drawn) == 8
    assert len({client for _, client in drawn}) == 3


def spoil(node, how, kinds=("train",)):
    """Change the replies of one node to messages of some kinds."""

    def change(message, reply):
        mine = message.metadata.dst_node_id == node
        return how(message, reply) if mine and message.metadata.message_type in kinds else reply

    return change


def with_model(reply, change):
    arrays = {name: change(array.numpy()) for name, array in reply.content["arrays"].items()}
    content = RecordDict(dict(reply.content))
    content["arrays"] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    reply.content = content
    return reply


def claims(message, reply):
    metrics = {**reply.content["metrics"], "num-examples": 1e9}
    content = RecordDict(dict(reply.content))
    content["metrics"] = MetricRecord(metrics)
    reply.content = content
    return reply


def without_metrics(message, reply):
    content = RecordDict(dict(reply.content))
    del content["metrics"]
    reply.content = content
    return reply


BAD = {
    "nan": lambda _, reply: with_model(reply, lambda v: v * np.nan),
    "shape": lambda _, reply: with_model(reply, lambda v: v.reshape(-1)[:1]),
    "dtype": lambda _, reply: with_model(reply, lambda v: v.astype(np.float64)),
    "huge": lambda _, reply: with_model(reply, lambda v: v + np.float32(1e6)),
    "claims": claims,
    "metrics": without_metrics,
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_update_changes_a_counter_and_nothing_else(how, devices, tmp_path):
    limits = "deploy.max_update_norm=100 deploy.max_examples=1000"
    record = run(Loopback(devices, spoil(102, BAD[how])), tmp_path, more=limits)
    assert (record["rejected"], record["failed"], record["ok"]) == (1, 0, 1)
    silent = spoil(102, lambda message, reply: None)
    without = run(Loopback(devices, silent), tmp_path, more=limits, name="without")
    assert (without["rejected"], without["failed"]) == (0, 1)
    hashes = [model_print(tmp_path / name) for name in ("run", "without")]
    assert hashes[0] == hashes[1]
    (bad,) = [r for r in rows(tmp_path, "clients") if r["round"] == "1" and r["client_id"] == "2"]
    assert bad["status"] == "rejected"
    assert bad["error"]


def test_late_and_dead_devices(devices, tmp_path):
    dead = spoil(100, lambda message, reply: error(message, "node unavailable"))
    late = spoil(101, lambda message, reply: None)
    both = lambda message, reply: late(message, dead(message, reply))  # noqa: E731
    grid = Loopback(devices, both)
    record = run(grid, tmp_path, more="deploy.round_seconds=7 deploy.describe_seconds=5")
    assert (record["failed"], record["ok"]) == (2, 1)
    # what nobody waits for any more is not handed out
    lives = {message.metadata.message_type: message.metadata.ttl for message in grid.sent}
    assert lives == {"query": 5, "train": 7, "evaluate": 7}
    errors = {row["client_id"]: row["error"] for row in rows(tmp_path, "clients")}
    assert errors["0"] == "Flower: node unavailable"
    assert errors["1"] == "no reply within 7 s"


def test_nobody_answers_any_more(devices, tmp_path):
    seen = []

    def gone(message, reply):
        seen.append(message)
        return reply if message.metadata.message_type == "query" or len(seen) <= 6 else None

    with pytest.raises(RunError, match=r"3 of 3 clients failed in round 3 .* 2 rounds in which"):
        run(Loopback(devices, gone), tmp_path, more="rounds=9 deploy.lost_rounds=2")
    # round 1 was good; it is in a checkpoint, with which the run goes on
    overrides, config = given(more=f"resume={tmp_path / 'run'} rounds=4")
    record = execute(config, Loopback(devices), overrides)
    assert record["round"] == 4
    assert record["failed"] == 0


def test_too_few_devices(devices, tmp_path):
    only = {100: devices[100]}
    with pytest.raises(RunError, match="1 clients were connected after"):
        run(Loopback(only), tmp_path, more="deploy.min_clients=2")


def test_a_device_that_comes_back_as_another_node(devices, tmp_path):
    grid = Loopback(devices)

    def restarts(message, reply):
        if message.metadata.message_type == "train" and 102 in grid.nodes:
            grid.nodes[555] = grid.nodes.pop(102)  # killed in the round: no reply
            return None if message.metadata.dst_node_id == 102 else reply
        return reply

    grid.change = restarts
    # the state of the device is found again, though its node is another one
    record = run(grid, tmp_path, "fedbn", "model=lenet")
    assert record["sampled"] == 3
    assert record["failed"] == 0
    states = sorted((tmp_path / "states" / "2" / "2").glob("*.safetensors"))
    assert states[-1].stem == "00000003"


def test_a_device_with_wrong_data_is_left_out_and_named(devices, tmp_path, caplog):
    broken = {**devices, 101: {**devices[101], "data-dir": str(tmp_path / "nowhere")}}
    with caplog.at_level(logging.ERROR, "fedlabels"):
        record = run(Loopback(broken), tmp_path)
    assert record["sampled"] == 2
    assert "node 101 cannot take part" in caplog.text
    assert "is no folder" in caplog.text


def test_a_device_that_is_none_of_ours(devices, tmp_path, caplog):
    def foreign(message, reply):
        return Message(RecordDict({}), reply_to=message)

    with caplog.at_level(logging.ERROR, "fedlabels"):
        record = run(Loopback(devices, spoil(101, foreign, ("query",))), tmp_path)
    assert record["sampled"] == 2
    assert "not of a device of this toolkit" in caplog.text


def test_resumed_is_uninterrupted(devices, tmp_path):
    run(Loopback(devices), tmp_path, "fedbn", "model=lenet rounds=4", name="whole")
    again = {
        node: {**config, "state-dir": config["state-dir"] + "-b"}
        for node, config in devices.items()
    }
    run(Loopback(again), tmp_path, "fedbn", "model=lenet rounds=2")
    # the server lost its last checkpoint: devices go back with it
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints[-1].name == "round-00000002"
    for file in checkpoints[-1].iterdir():
        file.unlink()
    checkpoints[-1].rmdir()
    overrides, config = given("fedbn", f"model=lenet resume={tmp_path / 'run'} rounds=4")
    record = execute(config, Loopback(again), overrides)
    assert record["round"] == 4
    hashes = [model_print(tmp_path / name) for name in ("run", "whole")]
    assert hashes[0] == hashes[1]
    assert [row["round"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]


def test_a_server_without_data(devices, tmp_path):
    told = (
        "deploy.data.shape=[1,8,8] deploy.data.num_classes=10 "
        "deploy.data.mean=[0.3] deploy.data.std=[0.3]"
    )
    record = run(Loopback(devices), tmp_path, more=told)
    assert "test_accuracy" not in record
    assert record["device_accuracy"] > 0
    with pytest.raises(ConfigError, match="missing: std"):
        run(Loopback(devices), tmp_path, name="x", more=told.rsplit(" ", 1)[0])


def test_the_same_federation_simulated_has_the_same_bits(tmp_path):
    overrides = (
        "method=fedbn dataset=digits model=lenet clients=3 per_round=3 rounds=3"
        " partition.alpha=1.0 labels.fraction=0.3 checkpoint_every=1"
    )
    shared = overrides.split()
    simulate(tmp_path / "simulated", config_of("backend=serial", *shared))
    nodes = {
        7 + k: {
            "partition-id": k,
            "data-root": "packaged",
            "state-dir": str(tmp_path / "states" / str(k)),
            "threads": 1,
        }
        for k in range(3)
    }
    more = f"{overrides} deploy.partitions=true run_dir={tmp_path / 'deployed'}"
    execute(settings({"overrides": more}, REPO / "configs"), Loopback(nodes), more)
    names = ("simulated", "deployed")
    models = [load_file(tmp_path / name / "model.safetensors") for name in names]
    for name, value in models[0].items():
        np.testing.assert_array_equal(value, models[1][name])
    for k in range(3):
        ours = load_file(tmp_path / "states" / str(k) / str(k) / "00000003.safetensors")
        theirs = load_file(tmp_path / "simulated" / "state" / str(k) / "00000003.safetensors")
        for name, value in theirs.items():
            np.testing.assert_array_equal(value, ours[name])


def test_a_simulation_goes_on_on_devices(tmp_path):
    from fedlabels.deploy.device_state import adopt

    overrides = (
        "method=fedbn dataset=digits model=lenet clients=3 per_round=3 partition.alpha=1.0"
        " labels.fraction=0.3 checkpoint_every=1"
    )
    whole = config_of("backend=serial", *overrides.split(), "rounds=4")
    simulate(tmp_path / "whole", whole)
    simulate(tmp_path / "run", {**whole, "rounds": 2})
    nodes = {}
    for k in range(3):
        adopt(tmp_path / "run", k, tmp_path / "states" / str(k))
        state = str(tmp_path / "states" / str(k))
        node = {"partition-id": k, "data-root": "packaged", "state-dir": state, "threads": 1}
        nodes[7 + k] = node
    more = f"{overrides} rounds=4 deploy.partitions=true resume={tmp_path / 'run'}"
    record = execute(settings({"overrides": more}, REPO / "configs"), Loopback(nodes), more)
    assert record["round"] == 4
    hashes = [model_print(tmp_path / name) for name in ("run", "whole")]
    assert hashes[0] == hashes[1]


def test_differential_privacy_and_mods(tmp_path, devices):
    rule = (
        "method=stock strategy.rule=DifferentialPrivacyClientSideFixedClipping "
        "strategy.options.noise_multiplier=0.01 strategy.options.clipping_norm=0.05 "
        "strategy.options.num_sampled_clients=2 "
        "+strategy.options.strategy.name=FedAvg deploy.mods=[fixed_clipping] client=fedavg "
        "training.lr=0.1 training.steps=5"
    )
    dealt = f"dataset=digits {SMALL} {rule} clients=2 per_round=2 rounds=2 labels.fraction=0.3"
    simulate(tmp_path / "simulated", config_of("backend=serial", *shlex.split(dealt)))
    nodes = {
        7 + k: {
            "partition-id": k, "data-root": "packaged", "state-dir": str(tmp_path / f"s{k}"),
            "threads": 1,
        }
        for k in range(2)
    }  # fmt: skip
    more = f"{dealt} deploy.partitions=true run_dir={tmp_path / 'dealt'}"
    execute(settings({"overrides": more}, REPO / "configs"), Loopback(nodes), more)
    hashes = [model_print(tmp_path / n) for n in ("simulated", "dealt")]
    assert hashes[0] == hashes[1]
    with_labels = {node: devices[node] for node in (100, 102)}
    sent = []

    def note(message, reply):
        if message.metadata.message_type == "train":
            before = message.content["arrays"]
            after = reply.content["arrays"]
            moved = [after[k].numpy() - before[k].numpy() for k in after]
            sent.append(float(np.sqrt(sum(np.sum(v.astype(np.float64) ** 2) for v in moved))))
        return reply

    overrides = f"{FEW} {SMALL} {rule} run_dir={tmp_path / 'run'}"
    config = settings({"overrides": overrides}, REPO / "configs")
    record = execute(config, Loopback(with_labels, note), overrides)
    assert record["ok"] == 2
    assert len(sent) == 6
    assert max(sent) == pytest.approx(0.05, rel=1e-3)  # clipped on the device, before it was sent


def test_what_no_device_reads_is_refused_before_anything_is_written(devices, tmp_path):
    clipped = (
        "method=stock strategy.rule=DifferentialPrivacyClientSideFixedClipping "
        "'strategy.options={noise_multiplier: 0.0, clipping_norm: 1.0, num_sampled_clients: 3,"
        " strategy: {name: FedAvg}}'"
    )
    for more, words in (
        (clipped, r"clipping_norm.*deploy\.mods=\[fixed_clipping\]"),
        ("strategy=fedprox", "proximal-mu.*client=fedprox"),
        ("strategy=fedproto", "client=fedproto"),
        ("deploy.mods=[fixed_clipping]", "needs the setting clipping_norm"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(Loopback(devices), tmp_path, more=more)
        assert list((tmp_path / "run").glob("*")) == []
    with pytest.raises(ConfigError, match="adaptive_clipping is refused"):
        given(more="deploy.mods=[adaptive_clipping]")


def test_wrong_settings(tmp_path):
    with pytest.raises(ConfigError, match="deploy"):
        settings({"overrides": "deploy.nothing=1"}, REPO / "configs")
    with pytest.raises(CheckpointError, match="holds no run"):
        settings({"overrides": f"resume={tmp_path}"}, REPO / "configs")
    with pytest.raises(ConfigError, match="min_clients"):
        settings({"overrides": "deploy.min_clients=0"}, REPO / "configs")
    assert settings({"overrides": "", "num-rounds": 7}, REPO / "configs")["rounds"] == 7


def test_a_message_leaves_the_process_as_it_was(devices, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        random, legacy = torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002
        run(Loopback(devices), tmp_path, "fedlabel_stable", "rounds=1")
        assert torch.get_num_threads() == 2
        assert float(torch.tensor(1e-310, dtype=torch.float64) * 1) > 0  # denormals are numbers
        assert torch.equal(random, torch.random.get_rng_state())
        assert (legacy[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    finally:
        torch.set_num_threads(threads)


def test_messages_name_no_code(devices, tmp_path):
    grid = Loopback(devices)
    run(grid, tmp_path)
    texts = {message.content[wire.DEVICE]["spec"] for message in grid.sent}
    (text,) = texts
    assert "_target_" not in text
    assert json.loads(text)["client"]["name"] == "fedavg"


@pytest.mark.parametrize("method", sorted(p.stem for p in (REPO / "configs/method").glob("*.yaml")))
def test_every_method_of_the_simulator_runs_on_devices(method, devices, tmp_path):
    """From its YAML alone; devices with labels and without, a small model of its normalization."""
    overrides = (
        f"method={method} {FEW} model=lenet rounds=2 run_dir={tmp_path / 'run'}"
        " deploy.final_evaluation=false"
    )
    config = settings({"overrides": overrides}, REPO / "configs")
    for key in ("steps", "steps_unlabeled"):
        if config["training"].get(key):
            config["training"][key] = 2
    record = execute(config, Loopback(devices), overrides)
    assert record["failed"] == record["rejected"] == 0, rows(tmp_path, "clients")
    assert record["ok"] + record["empty"] == 3  # local_training sends nothing
