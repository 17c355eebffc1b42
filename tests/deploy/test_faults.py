"""A real fleet with TLS and keys: a device dies as it uploads and comes back, no stranger joins."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.cable import Cable
from tests.deploy.processes import Processes
from tests.waiting import LIMIT, wait_for

REPO = Path(__file__).resolve().parents[2]
PORT = 18493
# Deadline of a round in seconds: a quiet machine needs 8 for the first and 3 for the others, and
# the round in which a device is killed takes all of them.
ROUND = 100


class Fleet(Processes):
    """With TLS and keys."""

    def node(
        self, number: int, key: str, port: int, ca: str = "certs/ca.crt", superlink: int = PORT
    ) -> None:
        config = (
            f'client-id={number} data-dir="{self.root}/devices/device-{number}" '
            f'state-dir="{self.root}/state-{number}" threads=1'
        )
        self.start(
            f"node-{number}", "flower-supernode", "--superlink", f"127.0.0.1:{superlink}",
            "--root-certificates", ca, "--auth-supernode-private-key", key,
            "--host", "127.0.0.1", "--port", str(port), "--node-config", config,
        )  # fmt: skip


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    root = tmp_path_factory.mktemp("fleet")
    made = Fleet(root)
    deploy = (sys.executable, "-m", "fedlabels.deploy")
    try:
        made.run(*deploy, "keys", "--out", "certs", "--devices", "3")
        made.run(*deploy, "keys", "--out", "certs", "--device", "stranger")
        made.run(*deploy, "keys", "--out", "other", "--devices", "1")
        made.run(*deploy, "example", "--out", "devices", "--labels", "20", "0", "40")
        made.start(
            "superlink", "flower-superlink", "--host", "127.0.0.1", "--port", str(PORT),
            "--ssl-ca-certfile", "certs/ca.crt", "--ssl-certfile", "certs/server.pem",
            "--ssl-keyfile", "certs/server.key", "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        address = f"127.0.0.1:{PORT}"
        made.run(
            *deploy, "connection", "--name", "fl", "--address", address, "--ca", "certs/ca.crt"
        )
        wait = ("wait", "--seconds", str(LIMIT))
        made.run(*deploy, *wait, "--superlink", address, "--ca", "certs/ca.crt")
        for number in range(3):
            key = f"certs/devices/device-{number}.pub"
            made.run("flwr", "supernode", "register", key, "fl", "--name", f"device-{number}")
        yield made
    finally:
        made.close()


def rows(folder, table):
    path = folder / f"{table}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def cable():
    made = Cable(PORT)
    yield made
    made.close()


def test_a_killed_device_comes_back_and_strangers_do_not_get_in(fleet, cable):
    for number in range(2):
        fleet.node(number, f"certs/devices/device-{number}", PORT + 1 + number)

    def third():
        fleet.node(2, "certs/devices/device-2", PORT + 3, superlink=cable.port)

    third()
    # a key that nobody registered, and a server that this device cannot trust
    shutil.copytree(fleet.root / "devices" / "device-0", fleet.root / "devices" / "device-8")
    shutil.copytree(fleet.root / "devices" / "device-0", fleet.root / "devices" / "device-9")
    fleet.node(8, "certs/devices/stranger", PORT + 8)
    fleet.node(9, "certs/devices/device-0", PORT + 9, ca="other/ca.crt")

    folder = fleet.root / "run"
    overrides = (
        "method=fedbn dataset=digits model=lenet training.lr=0.1 per_round=3 checkpoint_every=1 "
        f"rounds=14 deploy.min_clients=2 deploy.connect_seconds={LIMIT} "
        f"deploy.round_seconds={ROUND} deploy.final_evaluation=false run_dir={folder}"
    )
    out = fleet.run("flwr", "run", str(REPO), "fl", "--run-config", f'overrides="{overrides}"')
    assert "run" in out
    state = fleet.root / "state-2" / "2"
    wait_for(lambda: len(rows(folder, "rounds")) >= 1)
    before = sorted(path.name for path in state.glob("*.safetensors"))
    assert before
    cable.break_after(60_000)  # of 116,264 bytes that it uploads in a round
    wait_for(cable.broken.is_set)
    fleet.kill("node-2")  # with everything that it started
    cable.mend()
    manifest = folder / "manifest.json"

    def ended() -> bool:
        # Flower lets the node in again when it has missed its heartbeat for a minute
        fleet.tend("node-2", third)
        return json.loads(manifest.read_text())["status"] != "running"

    wait_for(ended, pause=0.2)
    assert json.loads(manifest.read_text())["status"] == "finished"
    assert [row["round"] for row in rows(folder, "rounds")] == [str(i) for i in range(1, 15)]
    table = rows(folder, "clients")
    assert {row["client_id"] for row in table} == {"0", "1", "2"}
    (lost,) = [row for row in table if row["status"] == "failed"]
    assert lost["client_id"] == "2"
    assert f"its reply began to arrive and was not whole within {ROUND} s" in lost["error"]
    others = [row["client_id"] for row in table if row["round"] == lost["round"]]
    assert others == ["0", "1", "2"]  # whose replies counted
    back = [row for row in table if row["client_id"] == "2" and row["status"] == "ok"]
    assert back[0]["round"] == "1"
    assert int(back[-1]["round"]) > 1  # it took part again
    assert not (fleet.root / "state-2" / "aside").exists()  # with the state that it had
    newest = sorted(path.stem for path in state.glob("*.safetensors"))[-1]
    assert int(newest) == int(back[-1]["round"])
    assert rows(folder, "rounds")[-1]["rejected"] == "0"


def test_strangers_were_refused(fleet):
    assert not (fleet.root / "state-8").exists()
    assert not (fleet.root / "state-9").exists()
    assert "SSL/TLS handshake error" in fleet.log("node-9")
    assert "Failed to activate SuperNode" in fleet.log("node-8")
    assert "No SuperNode found with the given public key" in fleet.log("superlink")
