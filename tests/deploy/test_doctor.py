"""The doctor finds each problem of a device, and changes nothing."""

import importlib.metadata
import json
import shutil
import socket
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from fedlabels.deploy import doctor
from fedlabels.deploy.__main__ import main
from fedlabels.deploy.address import Address
from fedlabels.deploy.device_state import sealed
from fedlabels.deploy.doctor import examine, parse_node_config
from fedlabels.deploy.keys import make_keys
from fedlabels.deploy.link import Link, examine_link, wait
from fedlabels.deploy.spec import DeviceSpec, dumps_preview
from fedlabels.errors import ConfigError, RunError
from tests.deploy.tls_server import serving
from tests.waiting import LIMIT

SPEC = DeviceSpec(
    run="preview",
    seed=0,
    client={"name": "fedavg"},
    model={"name": "mlp"},
    shape=(1, 4, 4),
    class_names=("cat", "dog", "eel"),
    mean=(0.5,),
    std=(0.25,),
    pixels=True,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "certs"
    make_keys(folder, count=1)
    return folder


@pytest.fixture
def node(tmp_path):
    """A device that is well."""
    x = np.random.default_rng(0).integers(0, 255, (6, 1, 4, 4)).astype(np.uint8)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "train.npz", x=x, y=np.array([0, 2, -1, 1, -1, -1]))
    np.savez(tmp_path / "data" / "test.npz", x=x[:2], y=np.array([0, 2]))
    folders = {"data-dir": str(tmp_path / "data"), "state-dir": str(tmp_path / "state")}
    return {"client-id": 4, "threads": 1, **folders}


def look(node, name, **more):
    """Return the findings of one name; the others must be well."""
    found = list(examine(node, **more))
    assert [f for f in found if not f.ok and f.name != name] == []
    return [f for f in found if f.name == name]


def problem(node, name, **more):
    """Return the text of the only problem, which has that name."""
    (text,) = [f.text for f in look(node, name, **more) if not f.ok]
    return text


def remember(node, run="r1", client_id=4, rounds=(1, 2), owner=True):
    from pathlib import Path

    folder = Path(node["state-dir"])
    (folder / str(client_id)).mkdir(parents=True)
    for index in rounds:
        path = folder / str(client_id) / f"{index:08d}.safetensors"
        save_file({"kept/w": np.arange(3.0)}, path)
    if owner:
        text = json.dumps({"format": 1, "run": run, "client_id": client_id})
        (folder / "owner.json").write_text(text)
    return folder


def flipped(state):
    """Return a state with one bit that is not as it was written."""
    value = state["kept/w"].copy()
    value.view(np.uint8)[0] ^= 1
    return {**state, "kept/w": value}


def tree(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def steps(link, now=None):
    """Return the steps of the way to the server, and the text of the problem."""
    found = list(examine_link(link, now or datetime.now(UTC)))
    return [f.name for f in found], " ".join(f.text for f in found if not f.ok)


# ---- a device that is well


def test_all_is_well(node, keys, tmp_path):
    before = tree(tmp_path)
    key = keys / "devices" / "device-0"
    with serving(keys) as address:
        link = Link(address, keys / "ca.crt")
        found = {f.name: f for f in examine(node, spec=SPEC, link=link, key=key)}
    assert [f for f in found.values() if not f.ok] == []
    assert {"python", "flwr", "numpy", "safetensors", "torch", "method", "key"} <= found.keys()
    assert {"server", "tls", "health", "clock"} <= found.keys()
    assert "3 labeled, 3 unlabeled, 2 test" in found["data"].text
    assert "client 4" in found["node-config"].text
    assert tree(tmp_path) == before


def test_without_a_specification_data_are_counted(node):
    (found,) = look(node, "data")
    assert "3 labeled, 3 unlabeled, 2 test" in found.text
    assert "--spec" in found.text


def test_images_are_counted(node, tmp_path):
    for name in ("train/dog", "train/unlabeled", "test/dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / "a.png")
    (found,) = look({**node, "data-dir": str(tmp_path / "images")}, "data")
    assert "1 labeled, 1 unlabeled, 1 test" in found.text


def test_a_partition_needs_a_place_that_the_device_chose(tmp_path):
    partition = {"partition-id": 3, "state-dir": str(tmp_path)}
    assert "needs data-root" in problem(partition, "data")
    (found,) = look({**partition, "data-root": "packaged"}, "data")
    assert found.ok
    assert "does not exist" in problem({**partition, "data-root": str(tmp_path / "no")}, "data")


def test_a_folder_of_others_is_found(node, tmp_path):
    (tmp_path / "home" / "models").mkdir(parents=True)
    said = problem({**node, "state-dir": str(tmp_path / "home")}, "state")
    assert "holds models, which is no device's state" in said


# ---- software


def test_a_package_out_of_range_is_found(node, monkeypatch):
    versions = {"flwr": "1.29.0"}
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda n: versions.get(n) or real(n))
    assert 'pip install "flwr' in problem(node, "flwr")


@pytest.mark.parametrize("server", ["1.41.0", "1.42.3"])
def test_any_two_flowers_that_are_supported_fit(node, server):
    (found,) = look(node, "versions", flower=server)
    here = importlib.metadata.version("flwr")
    assert found.text.startswith(f"Flower {server} on the server, {here} here: they fit")


@pytest.mark.parametrize("server", ["1.40.0", "1.43.0.dev20261026", "2.0", "unknown"])
def test_a_server_with_another_flower_is_found(node, server):
    assert "the server's is not supported; pip install \"flwr>=" in problem(
        node, "versions", flower=server
    )


def test_a_flower_of_the_server_that_nobody_said(node):
    (found,) = look(node, "versions")
    assert "give --spec" in found.text


def test_a_missing_package_is_found(node, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "safetensors":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert problem(node, "safetensors").startswith("not installed: pip install")


def test_an_old_python_is_found(node, monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.2")
    assert "3.9.2" in problem(node, "python")


def test_a_torch_that_cannot_be_imported_is_found(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = {f.name: f for f in examine({**node})}
    assert "build for this processor" in found["torch"].text
    assert not found["torch"].ok


def test_a_missing_gpu_is_found(node, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no GPU" in problem({**node, "device": "cuda"}, "torch")


# ---- configuration, disk, state, data


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_dir": "x"}, "unknown key 'data_dir'"),
        ({"client-id": "4"}, "client-id must be a whole number"),
        ({"data-dir": None}, "client-id needs data-dir"),
        ({"data-dir": 7}, "data-dir must be the path of a folder"),
        ({"data-kind": "csv"}, "data-kind must be one of npz, timeseries_npz, image_folder"),
        ({"threads": 0}, "threads must be a whole number >= 1, got 0"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, got 'gpu'"),
        ({"data-root": "packaged"}, "data-root is not read beside client-id"),
    ],
)
def test_one_mistake_is_one_line(node, change, told):
    wrong = {key: value for key, value in {**node, **change}.items() if value is not None}
    assert told in problem(wrong, "node-config")
    assert told in problem(wrong, "node-config", spec=SPEC)


@pytest.mark.parametrize(
    ("given", "told"), [(None, "lacks state-dir"), ("", "state-dir must be the path of a folder")]
)
def test_a_missing_state_dir_is_found(node, given, told):
    del node["state-dir"]
    assert told in problem(node if given is None else {**node, "state-dir": given}, "state-dir")


def test_a_partition_is_one_of_as_many_as_it_says(tmp_path):
    node = {"partition-id": 3, "state-dir": str(tmp_path), "data-root": "packaged"}
    assert "above partition-id" in problem({**node, "num-partitions": 3}, "node-config")
    assert "is not read beside" in problem({**node, "data-dir": "x"}, "node-config")
    assert [f.ok for f in look({**node, "num-partitions": 4}, "data")] == [True]


def test_a_state_dir_that_cannot_be_written_is_found(node, tmp_path):
    (tmp_path / "file").write_text("x")
    node["state-dir"] = str(tmp_path / "file" / "state")
    assert "cannot be written" in problem(node, "state-dir")


def test_a_full_disk_is_found(node, monkeypatch):
    usage = type(shutil.disk_usage("/"))(1 << 40, 1 << 40, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "free at least" in problem(node, "state-dir")


def test_a_state_is_described(node):
    folder = remember(node)
    before = tree(folder)
    (found,) = look(node, "state", spec=SPEC)
    assert (found.ok, found.text) == (True, "of run r1, client 4, after round 2")
    assert tree(folder) == before


def test_a_state_of_another_client_is_found(node):
    folder = remember(node, client_id=5)
    before = tree(folder)
    assert "of client 5, but this device is client 4" in problem(node, "state")
    assert tree(folder) == before


def test_a_state_of_another_run_is_found(node):
    remember(node)
    from dataclasses import replace

    assert "of run r1, but the server runs r2" in problem(
        node, "state", spec=replace(SPEC, run="r2")
    )


def test_a_damaged_state_is_found(node):
    folder = remember(node)
    path = folder / "4" / "00000002.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    before = tree(folder)
    assert "00000002.safetensors is damaged" in problem(node, "state")
    assert tree(folder) == before
    save_file(flipped(sealed({"kept/w": np.arange(3.0)})), path)  # still a file of tensors
    assert "00000002.safetensors is damaged" in problem(node, "state")


@pytest.mark.parametrize("owner", [None, "{", "[]", '{"format": 9}'])
def test_a_state_of_unknown_origin_is_found(node, owner):
    folder = remember(node, owner=False)
    if owner is not None:
        (folder / "owner.json").write_text(owner)
    assert "of unknown origin" in problem(node, "state")


def test_data_that_are_missing_are_found(node, tmp_path):
    gone = {**node, "data-dir": str(tmp_path / "none")}
    assert "is no folder" in problem(gone, "data")
    assert "is no folder" in problem(gone, "data", spec=SPEC)
    (tmp_path / "empty").mkdir()
    empty = {**node, "data-dir": str(tmp_path / "empty")}
    assert "nothing to train on" in problem(empty, "data")
    assert "no training data" in problem(empty, "data", spec=SPEC)


def test_damaged_data_are_found(node, tmp_path):
    (tmp_path / "data" / "train.npz").write_bytes(b"damaged")
    assert "cannot be read" in problem(node, "data")
    assert "cannot be read" in problem(node, "data", spec=SPEC)


def test_data_that_do_not_fit_the_model_are_found(node):
    from dataclasses import replace

    (found,) = look(node, "data")
    assert found.ok  # only the specification knows
    assert "shape" in problem(node, "data", spec=replace(SPEC, shape=(1, 5, 5)))


def test_a_client_that_is_not_known_here_is_found(node):
    from dataclasses import replace

    strange = replace(SPEC, client={"name": "tomorrow"})
    assert "tomorrow" in problem(node, "method", spec=strange)


# ---- the key and the way to the server


def test_a_key_that_others_may_read_is_found(node, keys, tmp_path):
    path = tmp_path / "key"
    path.write_bytes((keys / "devices" / "device-0").read_bytes())
    path.chmod(0o644)
    assert "chmod 600" in problem(node, "key", key=path)
    path.write_bytes((keys / "devices" / "device-0.pub").read_bytes())
    assert "OpenSSH private key" in problem(node, "key", key=path)


def test_the_way_is_tried_step_by_step(keys):
    with serving(keys) as address:
        names, said = steps(Link(address, keys / "ca.crt"))
    assert (names, said) == (["clock", "server", "tls", "health", "clock", "proxy"], "")


def test_without_tls_on_this_machine():
    with serving(None) as address:
        assert steps(Link(address, insecure=True)) == (["server", "health", "clock"], "")
    with pytest.raises(ConfigError, match="one machine"):
        Link(Address("fl.example.org", 1), insecure=True)


def test_a_server_that_is_not_there(keys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", free.getsockname()[1])
        names, said = steps(Link(address, keys / "ca.crt"))
    assert names == ["clock", "server"]
    assert "firewall" in said


def test_another_authority(keys, tmp_path):
    make_keys(tmp_path / "other")
    with serving(keys) as address:
        names, said = steps(Link(address, tmp_path / "other" / "ca.crt"))
        assert names[-1] == "tls"
        assert "give the ca.crt" in said
        names, said = steps(Link(address))  # by the authorities of the system
        assert "give the ca.crt" in said


def test_a_host_that_the_certificate_lacks(keys, tmp_path):
    from cryptography import x509

    from fedlabels.deploy import keys as made

    authority, signer = made._authority(keys)
    private = made._read_key(keys / "server.key")
    now = datetime.now(UTC)
    built = made._server_certificate(
        ["elsewhere.example.org"], private, authority, now, now + timedelta(days=50)
    )
    certificate: x509.Certificate = built.sign(signer, made.hashes.SHA384())
    (tmp_path / "server.pem").write_bytes(certificate.public_bytes(made.Encoding.PEM))
    (tmp_path / "server.key").write_bytes((keys / "server.key").read_bytes())
    with serving(tmp_path) as address:
        _, said = steps(Link(address, keys / "ca.crt"))
    assert "keys --host 127.0.0.1" in said


@pytest.mark.parametrize(
    ("began", "days", "said"),
    [(-40, 10, "renew"), (-20, 25, "renew"), (10, 100, "clock")],
    ids=["ended", "ends soon", "not yet"],
)
def test_a_certificate_out_of_its_time(tmp_path, began, days, said):
    make_keys(tmp_path, now=datetime.now(UTC) - timedelta(days=100))
    (tmp_path / "server.pem").unlink()
    make_keys(tmp_path, now=datetime.now(UTC) + timedelta(days=began), days=days)
    with serving(tmp_path) as address:
        names, text = steps(Link(address, tmp_path / "ca.crt"))
    assert names[1:3] == ["server", "tls"]
    assert said in text


@pytest.mark.parametrize("days", [-3, 4000])
def test_a_clock_that_is_wrong(keys, days):
    with serving(keys) as address:
        found = examine_link(Link(address, keys / "ca.crt"), datetime.now(UTC) + timedelta(days))
        first = next(iter(found))
        list(found)
    assert (first.name, first.ok) == ("clock", False)
    assert "set the clock" in first.text


@pytest.mark.parametrize(
    ("server", "told"),
    [(60, ""), (600, "s behind the server's: set one"), (-30, "s ahead of the server's: set one")],
)
def test_a_clock_that_differs_from_the_servers(keys, server, told):
    """Flower takes signatures that are minutes old, and none of the future."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=server), usegmt=True)
    with serving(keys, date=date) as address:
        names, said = steps(Link(address, keys / "ca.crt"))
    assert names[-2:] == ["clock", "proxy"]
    assert told in said
    assert bool(said) == bool(told)


def test_something_else_that_answers(keys):
    with serving(keys, status=404) as address:
        _, said = steps(Link(address, keys / "ca.crt"))
        assert "GET /health says 404" in said
    with serving(None) as address:  # no TLS where TLS is expected
        _, said = steps(Link(address, keys / "ca.crt"))
        assert "started with certificates" in said
    with serving(keys) as address:  # and the other way round
        _, said = steps(Link(address, insecure=True))
        assert "GET /health failed" in said


def test_wait_returns_when_the_server_is_healthy(keys, tmp_path):
    with serving(keys) as address:
        wait(Link(address, keys / "ca.crt"), 0.0)
        make_keys(tmp_path / "other")
        with pytest.raises(RunError, match="refused"):  # at once: waiting would not help
            wait(Link(address, tmp_path / "other" / "ca.crt"), 1e6)
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        link = Link(Address("127.0.0.1", later.getsockname()[1]), insecure=True)
        with pytest.raises(RunError, match="no connection"):
            wait(link, 0.0)

        def answer():
            connection, _ = later.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Timer(0.2, lambda: (later.listen(), answer()))
        thread.start()
        wait(link, LIMIT)
        thread.join()


# ---- the command


def test_node_configurations_are_read_as_flower_reads_them(tmp_path):
    assert parse_node_config('client-id=0 data-dir="a b" device=\'cpu\' x=1.5 y=true') == {
        "client-id": 0, "data-dir": "a b", "device": "cpu", "x": 1.5, "y": True,
    }  # fmt: skip
    (tmp_path / "node.toml").write_text('client-id = 3\ndata-dir = "d"\n')
    assert parse_node_config(str(tmp_path / "node.toml")) == {"client-id": 3, "data-dir": "d"}
    for wrong in ("client-id=0 data-dir=/data", "client-id=0 data-dir", "none.toml", "a=1 a=2"):
        with pytest.raises(ConfigError, match="node configuration"):
            parse_node_config(wrong)


def test_the_command_has_a_line_for_each_check(node, keys, tmp_path, capsys):
    (tmp_path / "spec.json").write_text(dumps_preview(SPEC, "1.42.0"))
    text = " ".join(f"{key}={json.dumps(value)}" for key, value in node.items())
    arguments = ["doctor", "--node-config", text, "--spec", str(tmp_path / "spec.json")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all is well"
    assert all(line.startswith("ok ") for line in lines[:-1])
    with serving(keys, status=500) as address:
        more = ["--superlink", str(address), "--ca", str(keys / "ca.crt")]
        assert main([*arguments, *more]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("PROBLEM  health: ")]
    assert lines[-1] == "1 to solve"
    assert main([*arguments, "--ca", str(keys / "ca.crt")]) == 1
    assert "--superlink, which is missing" in capsys.readouterr().err
    damaged = dumps_preview(SPEC, "1.42.0").replace('"mods": []', '"mods": [[]]')
    for content in (b"\xff\xfe", b"{", b"{}", SPEC.dumps().encode(), damaged.encode()):
        (tmp_path / "spec.json").write_bytes(content)
        assert main(arguments) == 1
        assert "spec.json cannot be used" in capsys.readouterr().err
