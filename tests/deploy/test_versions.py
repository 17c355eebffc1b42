"""Server and device with unlike versions of Flower, as while a fleet is upgraded: a run of a round.

The other version lies in an environment of its own: ``make test-flower`` makes it and runs this.
"""

import csv
import json
import os
from pathlib import Path

import pytest

from tests.deploy.processes import BIN, Processes
from tests.waiting import LIMIT

REPO = Path(__file__).resolve().parents[2]
OTHER = os.environ.get("FEDLABELS_OTHER_FLOWER")
PORT = 18513

pytestmark = pytest.mark.skipif(OTHER is None, reason="no other Flower: make test-flower")


def flower_of(fleet, programs):
    code = "import importlib.metadata as m; print(m.version('flwr'))"
    return fleet.run(str(programs / "python"), "-c", code).strip()


@pytest.mark.parametrize("server", ["older", "newer"])
def test_a_server_and_devices_of_two_versions(server, tmp_path):
    older, newer = BIN, Path(OTHER).absolute()
    fleet = Processes(tmp_path)
    try:
        versions = [flower_of(fleet, programs) for programs in (older, newer)]
        assert versions == sorted(versions)
        assert versions[0] != versions[1]
        programs = older if server == "older" else newer
        address = f"127.0.0.1:{PORT}"
        deploy = (str(programs / "python"), "-m", "fedlabels.deploy")
        fleet.run(*deploy, "example", "--out", "devices", "--labels", "20", "20")
        fleet.start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port",
            str(PORT), "--disable-runtime-dependency-installation", programs=programs,
        )  # fmt: skip
        fleet.run(*deploy, "connection", "--name", "fl", "--address", address, "--insecure")
        wait = ("wait", "--seconds", str(LIMIT), "--insecure")
        fleet.run(*deploy, *wait, "--superlink", address)
        for number, device in enumerate((older, newer)):
            config = (
                f'client-id={number} data-dir="{tmp_path}/devices/device-{number}" '
                f'state-dir="{tmp_path}/state-{number}" threads=1'
            )
            fleet.start(
                f"node-{number}", "flower-supernode", "--insecure", "--superlink", address,
                "--host", "127.0.0.1", "--port", str(PORT + 1 + number), "--node-config", config,
                programs=device,
            )  # fmt: skip
        folder = tmp_path / "run"
        overrides = (
            "method=fedavg dataset=digits model=mlp model.hidden=[8] training.lr=0.1 rounds=1 "
            f"per_round=2 deploy.min_clients=2 deploy.connect_seconds={LIMIT} "
            f"deploy.round_seconds={LIMIT} deploy.final_evaluation=false run_dir={folder}"
        )
        flwr = (str(programs / "flwr"), "run", str(REPO), "fl", "--stream")
        fleet.run(*flwr, "--run-config", f'overrides="{overrides}"')
        assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"
        with (folder / "clients.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["client_id"], row["status"]) for row in rows] == [("0", "ok"), ("1", "ok")]
    finally:
        fleet.close()
