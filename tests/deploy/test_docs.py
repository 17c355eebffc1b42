"""Every command of docs/deploy.md, as it stands: server, proxy and three devices, TLS and keys."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.waiting import LIMIT

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "deploy.md"
WAIT = "fedlabels.deploy wait "  # for a minute, which a busy machine may need to start the server


def commands():
    """The bash blocks of the page, in order."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


def environment(root):
    """That of a user who has activated the environment; hydra and ray are gone on devices."""
    values = {k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "FEDLABELS_"))}
    values["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{values['PATH']}"
    values["FEDLABELS_CHECKOUT"] = str(REPO)
    # Flower's own default is a second; polling much faster takes the cores from what is polled for
    values["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = "0.5"
    values["OMP_NUM_THREADS"] = "1"
    return values


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run the page in a new folder; what is left of it is looked at by the tests."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    root = tmp_path_factory.mktemp("deploy")
    lines = ["set -euo pipefail", "trap 'kill -INT $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, block in enumerate(commands()):
        block = block.replace("1848$i", "1848$((i+4))").replace(WAIT, f"{WAIT}--seconds {LIMIT} ")
        lines += [f"echo '--- block {number}'", "date +%s", block]
    script = root / "page.sh"
    script.write_text("\n".join(lines), encoding="utf-8")
    process = subprocess.Popen(
        ["bash", str(script)],
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
    logs = "\n".join(
        f"=== {path}\n{path.read_text()[-3000:]}" for path in sorted(root.glob("*/*.log"))
    )
    assert process.returncode == 0, f"{output[-6000:]}\n{logs}"
    return root, output


def rows(root, run, table="rounds"):
    with (root / "server" / run / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_fedlabel_runs_and_goes_on(told):
    root, output = told
    table = rows(root, "run-1")
    assert [row["round"] for row in table] == ["1", "2", "3"]  # two, and one after the resume
    assert all((row["sampled"], row["ok"]) == ("3", "3") for row in table)
    clients = rows(root, "run-1", "clients")
    assert [row["labeled"] for row in clients[:3]] == ["20", "0", "40"]
    assert [int(row["unlabeled"]) > 0 for row in clients[:3]] == [True, True, True]
    manifest = json.loads((root / "server" / "run-1" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["deployed"]
    assert "finished:completed" in output or manifest["rounds_done"] == 3


def test_fedbn_keeps_its_normalization_on_the_devices(told):
    root, _ = told
    assert [row["round"] for row in rows(root, "run-2")] == ["1", "2"]
    model = load_file(root / "server" / "run-2" / "model.safetensors")
    assert all(np.isfinite(value).all() for value in model.values())
    run = json.loads((root / "server" / "run-2" / "manifest.json").read_text())["run_id"]
    for k in range(3):
        folder = root / "devices" / f"state-{k}"
        owner = json.loads((folder / "owner.json").read_text())
        assert (owner["run"], owner["client_id"]) == (run, k)


def test_devices_come_through_the_proxy(told):
    root, output = told
    assert output.count("ok       proxy: the address refuses what devices do not need") == 3
    assert output.count("all is well") == 4  # one of them with what devices will be told
    assert "ok       method: client fedlabel and model lenet are known here" in output
    table = json.loads((root / "server" / "run-1" / "devices.json").read_text())
    assert sorted(table["clients"]) == ["0", "1", "2"]
    assert not any(entry["key"].startswith("node:") for entry in table["clients"].values())
    assert table["refused"] == {}
    # what had to be set aside, and where, is in the device's own log
    assert str(root / "devices" / "state-0" / "aside") in (
        root / "devices" / "supernode-0.log"
    ).read_text(errors="replace")


def test_secrets_stay_secret(told):
    root, _ = told
    for path in [root / "server" / "superlink.db", root / "server" / "run-1" / "model.safetensors"]:
        assert path.stat().st_mode & 0o077 == 0
    for path in [root / "certs" / "ca.key", *(root / "certs" / "devices").glob("device-?")]:
        assert path.stat().st_mode & 0o077 == 0
