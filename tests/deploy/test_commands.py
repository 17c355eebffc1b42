"""The commands that are printed parse as a shell and as Flower read them, and are safe."""

import importlib.metadata
import json
import re
import shlex
import subprocess

import pytest

from fedlabels.deploy.__main__ import main
from fedlabels.deploy.address import Address, parse_address
from fedlabels.deploy.commands import commands, numbered
from fedlabels.deploy.doctor import parse_node_config
from fedlabels.deploy.keys import make_keys
from fedlabels.deploy.spec import loads_preview
from fedlabels.errors import ConfigError
from tests.end_to_end.harness import TINY

SERVER = Address("fl.example.org", 8000)
HERE = Address("localhost", 8123)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with space") / "certs"
    make_keys(folder, hosts=["fl.example.org"], count=2, devices=["kitchen"])
    return folder


def lines(text):
    """Return the commands of a text as lists of words, as bash reads them."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines() if line and line[0] != "#"]


def of(program, text):
    return [words for words in lines(text) if words[0] == program]


def option(words, name):
    return words[words.index(name) + 1]


def test_secure_commands(keys):
    text = commands(SERVER, {"device-0": 0, "kitchen": 7}, folder=keys)
    assert "--insecure" not in text
    (server,) = of("flower-superlink", text)
    assert "--enable-supernode-auth" in server
    assert "--disable-runtime-dependency-installation" in server
    assert option(server, "--ssl-keyfile") == str(keys / "server.key")
    assert (option(server, "--host"), option(server, "--port")) == ("127.0.0.1", "8001")
    (proxy,) = [words for words in of("python", text) if "proxy" in words]
    assert (option(proxy, "--listen"), option(proxy, "--superlink")) == ("8000", "127.0.0.1:8001")
    (connection,) = [words for words in of("python", text) if "connection" in words]
    assert option(connection, "--address") == "127.0.0.1:8001"  # orders are given on the server
    registered = [words for words in of("flwr", text) if "register" in words]
    assert [words[3] for words in registered] == [
        str(keys / "devices" / f"{name}.pub") for name in ("device-0", "kitchen")
    ]
    nodes = of("flower-supernode", text)
    assert [option(node, "--superlink") for node in nodes] == [str(SERVER)] * 2
    configs = [parse_node_config(option(node, "--node-config")) for node in nodes]
    assert [config["client-id"] for config in configs] == [0, 7]
    assert len({option(node, "--port") for node in nodes}) == 2
    assert len({config["state-dir"] for config in configs}) == 2


def test_secrets_stay_where_they_belong(keys):
    text = commands(SERVER, {"device-0": 0, "device-1": 1}, folder=keys)
    assert "ca.key" not in text
    for node in of("flower-supernode", text):
        assert str(keys) not in " ".join(node)  # another machine


def test_on_one_machine_every_path_exists(keys):
    text = commands(HERE, {"device-0": 0}, folder=keys)
    (server,), (node,) = of("flower-superlink", text), of("flower-supernode", text)
    assert option(server, "--host") == "127.0.0.1"
    for words, names in (
        (server, ("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile")),
        (node, ("--root-certificates", "--auth-supernode-private-key")),
    ):
        for name in names:
            with open(option(words, name), "rb") as file:
                assert file.read()


def test_every_shell_has_telemetry_off(keys):
    head, *blocks = commands(SERVER, {"device-0": 0}, folder=keys).split("\n\n")
    assert head.startswith("# ")
    for block in blocks:
        for name in ("FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1", "umask 077"):
            assert name in block


def test_without_keys_only_on_this_machine():
    text = commands(HERE, {"device-0": 0}, folder=None)
    assert [("--insecure" in w) for w in [*of("flower-superlink", text)]] == [True]
    assert all("--insecure" in words for words in of("flower-supernode", text))
    assert "register" not in text
    with pytest.raises(ConfigError, match="one machine"):
        commands(SERVER, {"device-0": 0}, folder=None)


def test_bash_parses_them(keys):
    for text in (
        commands(SERVER, {"device-0": 0}, folder=keys),
        commands(HERE, {"device-0": 0}, folder=None),
    ):
        done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_our_own_commands_are_the_ones_of_this_module(keys, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    text = commands(SERVER, {"device-0": 0}, folder=keys)
    ours = [words[3:] for words in of("python", text)]
    assert [words[0] for words in ours] == ["proxy", "connection", "doctor"]
    assert main(ours[1]) == 0


def test_what_is_missing_is_named(keys, tmp_path):
    with pytest.raises(ConfigError, match=r"ca\.crt is missing"):
        commands(SERVER, {"device-0": 0}, folder=tmp_path)
    with pytest.raises(ConfigError, match="device-9 is missing"):
        commands(SERVER, {"device-9": 9}, folder=keys)
    with pytest.raises(ConfigError, match=r"not valid for 10\.0\.0\.9; .*--host 10\.0\.0\.9"):
        commands(parse_address("10.0.0.9:1"), {"device-0": 0}, folder=keys)
    with pytest.raises(ConfigError, match="connection's name"):
        commands(SERVER, {"device-0": 0}, folder=keys, connection="a;b")


def test_a_device_is_a_client_for_ever():
    assert numbered(["device-3", "kitchen=0", "device-1=5"]) == {
        "device-3": 3, "kitchen": 0, "device-1": 5,
    }  # fmt: skip
    for wrong in (["kitchen"], ["device-x"], ["=3"], ["a=-1"], ["a=1", "b=1"], ["a=1", "a=2"],
                  ["$(x)=1"]):  # fmt: skip
        with pytest.raises(ConfigError):
            numbered(wrong)


def test_the_command(keys, tmp_path, capsys):
    arguments = ["commands", "--out", str(keys), "--address", "fl.example.org:8000"]
    assert main([*arguments, "--devices", "2"]) == 0
    assert len(of("flower-supernode", capsys.readouterr().out)) == 2
    assert main([*arguments, "--device", "kitchen=4", "device-0"]) == 0
    assert "client-id=4" in capsys.readouterr().out
    assert main(arguments) == 1  # all that have a key, and of one it is not known which it is
    assert "--device kitchen=0" in capsys.readouterr().err
    assert main(["commands", "--address", "localhost:1", "--insecure"]) == 1
    assert "say which devices" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    found = re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert found == [
        "keys", "connection", "commands", "proxy", "wait", "doctor", "example", "spec", "adopt",
        "free",
    ]  # fmt: skip
    for command in found:
        with pytest.raises(SystemExit):
            main([command, "--help"])


def test_spec_is_what_devices_will_be_told(tmp_path, capsys):
    overrides = [o for o in TINY if not o.startswith(("rounds=", "backend"))]
    assert main(["spec", *overrides, "--out", str(tmp_path / "spec.json")]) == 0
    spec, flower = loads_preview((tmp_path / "spec.json").read_text())
    assert flower == importlib.metadata.version("flwr")
    assert spec.run == "preview"
    assert spec.shape == (1, 8, 8)
    assert "INFO" not in capsys.readouterr().err  # Flower's own log
    assert main(["spec", *overrides]) == 0
    assert capsys.readouterr().out == (tmp_path / "spec.json").read_text()
    assert main(["spec", "client=nobody"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_adopt_says_what_it_did(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "state" / "3").mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"run_id": "r1"}))
    (run / "state" / "3" / "00000002.safetensors").write_bytes(b"x")
    arguments = ["adopt", str(run), "--client-id", "3", "--state-dir", str(tmp_path / "s")]
    assert main(arguments) == 0
    assert "client 3 goes on from" in capsys.readouterr().out
    assert (tmp_path / "s" / "3" / "00000002.safetensors").read_bytes() == b"x"
    assert main(arguments) == 1
    assert "holds a state already" in capsys.readouterr().err


def test_example_data_are_dealt(tmp_path, capsys):
    import numpy as np

    assert main(["example", "--out", str(tmp_path / "d"), "--labels", "20", "0", "40"]) == 0
    kept = [np.load(tmp_path / "d" / f"device-{k}" / "train.npz") for k in range(3)]
    assert [int((part["y"] >= 0).sum()) for part in kept] == [20, 0, 40]
    assert all((part["y"] < 0).any() for part in kept)
    assert not (kept[0]["x"][:5] == kept[1]["x"][:5]).all()
    assert len(np.load(tmp_path / "d" / "device-0" / "test.npz")["y"]) > 0
    capsys.readouterr()
    for wrong in (["20"], ["9999"], ["-1"]):
        assert main(["example", "--out", str(tmp_path / "d"), "--labels", *wrong]) == 1
        assert capsys.readouterr().err.startswith("error: ")
