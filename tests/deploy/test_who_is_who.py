"""Who is which client, over a grid in this process: claims, restarts, silence, and what is told."""

import csv
import json
import logging

import pytest
from PIL import Image

from fedlabels.deploy import reception
from fedlabels.deploy.bindings import FILE
from fedlabels.deploy.server import execute, settings
from fedlabels.errors import RunError
from fedlabels.rounds import wire
from fedlabels.run import latest_checkpoint, read_checkpoint
from tests.deploy.loopback import Loopback, nodes_of, write_devices
from tests.end_to_end.harness import REPO

FEW = (
    "method=fedavg dataset=digits checkpoint_every=1 deploy.connect_seconds=0.2 model=mlp "
    "model.hidden=[8] training.lr=0.1 training.steps=1 deploy.final_evaluation=false per_round=3"
)


@pytest.fixture
def devices(tmp_path):
    counts = {0: (20, 5), 1: (20, 5), 2: (20, 5)}
    return nodes_of(write_devices(tmp_path / "data", counts), tmp_path / "states")


def run(grid, tmp_path, more, name="run"):
    overrides = f"{FEW} run_dir={tmp_path / name} {more}"
    return execute(settings({"overrides": overrides}, REPO / "configs"), grid, overrides)


def rounds(tmp_path):
    """Round -> the clients whose update counted."""
    with (tmp_path / "run" / "clients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    out = {}
    for row in rows:
        if row["status"] == "ok":
            out.setdefault(int(row["round"]), []).append(int(row["client_id"]))
    return out


class Scripted(Loopback):
    """Does something at each look at the connected nodes, counted from 1."""

    def __init__(self, nodes, script):
        super().__init__(nodes)
        self.script, self.looks = script, 0

    def get_node_ids(self):
        self.looks += 1
        self.script(self)
        return super().get_node_ids()


def leaves_and_claims(node, client_id, at=3):
    """A node is away for one look, and says then that it is another client."""
    kept = {}

    def script(grid):
        if grid.looks == at:
            kept.update(grid.nodes.pop(node))
        elif grid.looks == at + 1:
            grid.nodes[node] = {**kept, "client-id": client_id}

    return script


def told(grid, node):
    texts = [m.content[wire.DEVICE].get("refused") for m in grid.sent if _to(m) == node]
    return [text for text in texts if text]


def _to(message):
    return message.metadata.dst_node_id


def test_nobody_takes_another_ones_place(devices, tmp_path, caplog):
    grid = Scripted(devices, leaves_and_claims(102, 0))
    with caplog.at_level(logging.ERROR, "fedlabels"):
        run(grid, tmp_path, "rounds=6")
    assert rounds(tmp_path)[6] == [0, 1]
    assert caplog.text.count("node 102 cannot take part") == 1
    (text,) = told(grid, 102)  # and its own log has it
    assert "client 0 belongs to the device with key node:100" in text
    assert f"does not let this device take part: {text}" in caplog.text
    table = json.loads((tmp_path / "run" / FILE).read_text())
    assert table["clients"]["0"]["key"] == "node:100"
    assert table["refused"]["node:102"]["problem"] == text


def test_also_not_while_the_owner_is_away(devices, tmp_path):
    def script(grid):
        if grid.looks == 3:
            grid.gone = grid.nodes.pop(100)
            del grid.nodes[102]
        if grid.looks == 4:
            grid.nodes[102] = {**devices[102], "client-id": 0}
        if grid.looks == 6:
            grid.nodes[100] = grid.gone

    run(Scripted(devices, script), tmp_path, "rounds=7")
    assert rounds(tmp_path)[5] == [1]
    assert rounds(tmp_path)[7] == [0, 1]


def test_a_copied_node_configuration_leaves_the_right_device_alone(devices, tmp_path):
    def script(grid):
        if grid.looks == 3:
            grid.nodes[50] = dict(devices[101])  # of a lower number, with everything of the other

    run(Scripted(devices, script), tmp_path, "rounds=5")
    assert rounds(tmp_path)[5] == [0, 1, 2]
    table = json.loads((tmp_path / "run" / FILE).read_text())
    assert table["clients"]["1"]["key"] == "node:101"
    assert "node:50" in table["refused"]


def test_the_key_counts_and_not_the_node(devices, tmp_path):
    def script(grid):
        if grid.looks == 3:  # the SuperLink lost its registrations, and its state folder is new
            grid.nodes[900] = {**grid.nodes.pop(102), "state-dir": str(tmp_path / "states" / "x")}
            grid.keys[900] = grid.keys.pop(102)

    grid = Scripted(devices, script)
    grid.keys = {node: f"key {node}".encode() for node in devices}
    run(grid, tmp_path, "rounds=4")
    assert rounds(tmp_path)[4] == [0, 1, 2]


def test_it_holds_when_the_run_is_resumed(devices, tmp_path):
    run(Loopback(devices), tmp_path, "rounds=2")
    kept = read_checkpoint(latest_checkpoint(tmp_path / "run")).manifest["devices"]
    assert {k: entry["key"] for k, entry in kept.items()} == {
        "0": "node:100", "1": "node:101", "2": "node:102",
    }  # fmt: skip
    (tmp_path / "run" / FILE).unlink()
    mixed = {100: devices[100], 300: {**devices[102], "client-id": 1}}
    overrides = f"{FEW} rounds=4 resume={tmp_path / 'run'}"
    execute(settings({"overrides": overrides}, REPO / "configs"), Loopback(mixed), overrides)
    assert rounds(tmp_path)[4] == [0]


def test_a_freed_client_goes_to_the_device_that_waits(devices, tmp_path):
    orders = tmp_path / "run" / "devices.free"

    def script(grid):
        if grid.looks == 3:
            del grid.nodes[102]
            state = str(tmp_path / "states" / "new")
            grid.nodes[300] = {**devices[102], "state-dir": state}
        if grid.looks == 5:
            assert 2 not in rounds(tmp_path)[4]
            orders.write_text("2\n")

    run(Scripted(devices, script), tmp_path, "rounds=6")
    assert rounds(tmp_path)[5] == [0, 1, 2]
    assert not orders.exists()


def test_who_answers_as_another_client_is_rejected(devices, tmp_path):
    def signs_as_another(message, reply):
        if _to(message) == 102 and message.metadata.message_type == "train":
            reply.content[wire.DEVICE]["client-id"] = 0
        return reply

    record = run(Loopback(devices, signs_as_another), tmp_path, "rounds=1")
    assert (record["ok"], record["rejected"]) == (2, 1)
    assert rounds(tmp_path)[1] == [0, 1]


@pytest.mark.parametrize("number", [2**31, 2**62, -1, True, "0", 1.5])
def test_a_number_that_no_client_has(number, devices, tmp_path):
    def says(message, reply):
        if _to(message) == 102:
            reply.content[wire.DEVICE]["client-id"] = number
        return reply

    record = run(Loopback(devices, says), tmp_path, "rounds=1")
    assert record["sampled"] == record["ok"] == 2


def test_a_silent_device_costs_no_round_anything(devices, tmp_path, hurry):
    flaps = {}

    def script(grid):
        if grid.looks % 2:
            flaps[102] = grid.nodes.pop(102, None) or flaps.get(102)
        else:
            grid.nodes[102] = flaps[102]

    grid = Scripted(devices, script)
    grid.change = lambda message, reply: None if _to(message) == 102 else reply
    # a deadline that nobody could wait for here
    run(grid, tmp_path, "rounds=6 deploy.describe_seconds=100000")
    assert rounds(tmp_path)[6] == [0, 1]
    assert not hurry.slept  # nobody was waited for


def test_the_pause_of_a_silent_device_grows(devices, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(reception.time, "monotonic", lambda: now[0])

    def script(grid):
        now[0] += 10.0
        grid.asked.append((now[0], sum(_to(m) == 102 for m in grid.sent)))

    grid = Scripted(devices, script)
    grid.asked = []
    grid.change = lambda message, reply: None if _to(message) == 102 else reply
    run(grid, tmp_path, "rounds=40 deploy.describe_seconds=5 checkpoint_every=40")
    counts = [count for _, count in grid.asked]
    assert 3 <= counts[-1] <= 4  # 400 seconds: at once, after 60, 120 and 240 more


def test_a_mended_device_joins(devices, tmp_path):
    right = devices[101]

    def script(grid):
        if grid.looks == 3:
            del grid.nodes[101]
        if grid.looks == 4:
            grid.nodes[101] = right

    broken = {**devices, 101: {**right, "data-dir": str(tmp_path / "nowhere")}}
    run(Scripted(broken, script), tmp_path, "rounds=5")
    assert rounds(tmp_path)[1] == [0, 2]
    assert rounds(tmp_path)[5] == [0, 1, 2]


def texts_of(replies):
    out = []
    for reply in replies:
        for record in reply.content.values():
            out += [v for v in dict(record).values() if isinstance(v, str)]
    return out


def test_names_of_files_and_classes_stay_on_the_device(devices, tmp_path, caplog):
    spoilt = tmp_path / "Jane Doe"
    (spoilt / "train" / "ward 9").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(spoilt / "train" / "ward 9" / "a.png")
    (tmp_path / "Jane Doe" / "broken").mkdir()
    (tmp_path / "Jane Doe" / "broken" / "train.npz").write_bytes(b"no archive")
    replies = []

    def note(message, reply):
        replies.append(reply)
        return reply

    nodes = {
        **devices,
        200: {**devices[100], "client-id": 7, "data-dir": str(spoilt)},
        201: {**devices[100], "client-id": 8, "data-dir": str(spoilt / "broken")},
        202: {**devices[100], "client-id": 9, "state-dir": str(tmp_path)},
        203: {**devices[100], "client-id": 10, "device": "Jane Doe"},
    }
    # a state of another run: set aside, and where it is stays there
    state = tmp_path / "states" / "1"
    (state / "1").mkdir(parents=True)
    (state / "owner.json").write_text('{"format": 1, "run": "Jane Doe", "client_id": 4}')
    with caplog.at_level(logging.WARNING, "fedlabels"):
        run(Loopback(nodes, note), tmp_path, "rounds=1")
    texts = texts_of(replies)
    assert any(text.startswith("error 2: ") for text in texts)
    assert any(text.startswith("error 3: ") for text in texts)
    assert any("set aside" in text for text in texts)
    for text in texts:
        assert "Jane" not in text
        assert "ward" not in text
        assert str(tmp_path) not in text
    assert "class 'ward 9' is not known" in caplog.text  # the device's own log


def test_errors_of_the_file_system_have_the_number_of_what_was_looked_at(
    devices, tmp_path, monkeypatch
):
    def gone(*arguments):
        raise PermissionError("/home/Jane Doe")

    monkeypatch.setattr("fedlabels.deploy.device_state.StateStore", gone)
    monkeypatch.setattr("fedlabels.deploy.device_data.kind_of", gone)
    said = []

    def note(message, reply):
        said.append(texts_of([reply]))
        return reply

    nodes = {100: devices[100]}
    with pytest.raises(RunError):
        run(Loopback(nodes, note), tmp_path, "rounds=1 deploy.lost_rounds=1", "data")
    assert said[-1][0].startswith("error 2: ")
    monkeypatch.undo()
    monkeypatch.setattr("fedlabels.deploy.device_state.StateStore", gone)
    with pytest.raises(RunError):
        run(Loopback(nodes, note), tmp_path, "rounds=1 deploy.lost_rounds=1", "state")
    assert said[-1][0].startswith("error 3: ")


def test_what_a_device_writes_is_one_line_and_no_formula(devices, tmp_path, caplog):
    def writes(message, reply):
        if _to(message) == 102:
            said = reply.content[wire.DEVICE]
            said["note"] = "fine\n2026-01-01 INFO client 0 has joined\u2028again\x1b[2J"
            if message.metadata.message_type == "train":
                said["error"] = '=HYPERLINK("http://x")'
        return reply

    with caplog.at_level(logging.WARNING, "fedlabels"):
        run(Loopback(devices, writes), tmp_path, "rounds=1")
    notes = [r.getMessage() for r in caplog.records if "has joined" in r.getMessage()]
    assert notes
    for text in notes:
        assert text.isprintable()
    with (tmp_path / "run" / "clients.csv").open(newline="") as file:
        (bad,) = [row for row in csv.DictReader(file) if row["client_id"] == "2"]
    assert bad["error"] == '\'=HYPERLINK("http://x")'


def test_a_serial_number_as_client_id_costs_no_memory(devices, tmp_path):
    large = 2**31 - 1
    nodes = {**devices, 102: {**devices[102], "client-id": large}}
    record = run(Loopback(nodes), tmp_path, "rounds=1")
    assert record["ok"] == 3
    assert rounds(tmp_path)[1] == [0, 1, large]
