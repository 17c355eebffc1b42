"""Addresses, and Flower's connection file, of which nothing else may be lost."""

import tomllib

import pytest

from fedlabels.deploy.__main__ import main
from fedlabels.deploy.address import Address, check_host, parse_address, require_loopback
from fedlabels.deploy.connection import write_connection
from fedlabels.deploy.keys import make_keys
from fedlabels.errors import ConfigError, DataError

SERVER = Address("fl.example.org", 8000)
HERE = Address("127.0.0.1", 8000)
BEFORE = """# mine
[superlink]
default = "lab"

# the lab's
[superlink.lab]
address = "lab:1" # keep
insecure = true
[superlink.lab.options]
num-supernodes = 3

# the other's
[superlink.other]
address = "other:2"

[elsewhere]
list = [
  1,
]
"""


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder / "ca.crt"


def read(path):
    return tomllib.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("fl.example.org:8000", "fl.example.org", 8000, False),
        ("FL.example.org:1", "fl.example.org", 1, False),
        ("10.0.0.1:65535", "10.0.0.1", 65535, False),
        ("[2001:db8::1]:80", "2001:db8::1", 80, False),
        ("localhost:80", "localhost", 80, True),
        ("127.3.2.1:80", "127.3.2.1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("localhost.example.org:80", "localhost.example.org", 80, False),
    ],
)
def test_addresses(text, host, port, loopback):
    address = parse_address(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", "host:0", "host:65536", "host:x", ":80", "https://host:80", "::1:80",
     "0.0.0.0:80", "[::]:80", "a b:80", "host:8 0", "1.2.3.4.5:80", "host:²"],
)  # fmt: skip
def test_no_addresses(text):
    with pytest.raises(ConfigError):
        parse_address(text)


def test_hosts_of_odd_form():
    assert check_host("[::1]") == "::1"
    for host in ("-x", "a..b", "x" * 64, "a.b.", "$(id)"):
        with pytest.raises(ConfigError):
            check_host(host)


def test_a_new_file_has_it_as_its_default(tmp_path, ca):
    path = write_connection("fedlabels", SERVER, ca=ca, home=tmp_path / "new" / "home")
    assert path == tmp_path / "new" / "home" / "config.toml"
    entry = {"address": "fl.example.org:8000", "root-certificates": str(ca)}
    assert read(path) == {"superlink": {"default": "fedlabels", "fedlabels": entry}}


def test_everything_else_stays(tmp_path, ca):
    path = tmp_path / "config.toml"
    path.write_text(BEFORE)
    path.chmod(0o640)
    write_connection("fedlabels", SERVER, ca=ca, home=tmp_path)
    assert path.read_text().startswith(BEFORE)  # comments, too
    assert path.stat().st_mode & 0o777 == 0o640
    values = read(path)
    assert values["superlink"].pop("fedlabels")["address"] == "fl.example.org:8000"
    assert values == tomllib.loads(BEFORE)
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]


def test_a_connection_of_that_name_is_replaced(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(BEFORE)
    write_connection("lab", HERE, insecure=True, home=tmp_path)
    values = read(path)
    assert values["superlink"]["lab"] == {"address": "127.0.0.1:8000", "insecure": True}
    assert values["superlink"]["other"] == {"address": "other:2"}
    assert (values["superlink"]["default"], values["elsewhere"]) == ("lab", {"list": [1]})
    for comment in ("# mine", "# the lab's", "# the other's"):
        assert comment in path.read_text()
    write_connection("lab", SERVER, home=tmp_path)  # by the authorities of the system
    assert read(path)["superlink"]["lab"] == {"address": "fl.example.org:8000"}
    assert path.read_text().count("[superlink.lab]") == 1


@pytest.mark.parametrize(
    "before",
    [
        'superlink.a.address = "x:1"\nsuperlink.b.address = "y:2"\n',
        'superlink = {a = {address = "x:1"}, b = {address = "y:2"}}\n',
        '[superlink."a"]\naddress = "x:1"\n[superlink.b]\naddress = "y:2"\n',
        '[superlink.b]\naddress = "y:2"\n[superlink.a]\naddress = """\n[superlink.b]\n"""\n',
        "",
    ],
)
def test_unusual_notations_keep_their_values(tmp_path, before):
    path = tmp_path / "config.toml"
    path.write_text(before)
    write_connection("a", HERE, insecure=True, home=tmp_path)
    expected = tomllib.loads(before)
    expected.setdefault("superlink", {})["a"] = {"address": "127.0.0.1:8000", "insecure": True}
    assert read(path) == expected


def test_a_linked_file_stays_linked(tmp_path):
    (tmp_path / "real.toml").write_text(BEFORE)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").symlink_to(tmp_path / "real.toml")
    write_connection("x", SERVER, home=tmp_path / "home")
    assert (tmp_path / "home" / "config.toml").is_symlink()
    assert "x" in read(tmp_path / "real.toml")["superlink"]


def test_a_damaged_file_is_left_alone(tmp_path):
    path = tmp_path / "config.toml"
    for text, said in (("a = = 1", "no TOML"), ("superlink = 3", "must be a table")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            write_connection("x", SERVER, home=tmp_path)
        assert path.read_text() == text


def test_what_is_refused(tmp_path, ca):
    for name in ("default", "", "a.b", "a b", "x]"):
        with pytest.raises(ConfigError, match="connection's name"):
            write_connection(name, SERVER, home=tmp_path)
    with pytest.raises(ConfigError, match="one machine"):
        write_connection("x", SERVER, insecure=True, home=tmp_path)
    with pytest.raises(ConfigError, match="either"):
        write_connection("x", HERE, insecure=True, ca=ca, home=tmp_path)
    with pytest.raises(DataError, match="as a certificate"):
        write_connection("x", SERVER, ca=tmp_path / "none.crt", home=tmp_path)
    assert list(tmp_path.iterdir()) == []
    require_loopback(HERE)


def test_the_command(tmp_path, ca, monkeypatch, capsys):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.chdir(ca.parent)
    arguments = ["connection", "--name", "mine", "--address"]
    assert main([*arguments, "fl.example.org:8000", "--ca", "ca.crt"]) == 0
    entry = read(tmp_path / "config.toml")["superlink"]["mine"]
    assert entry["root-certificates"] == str(ca)  # absolute, as Flower wants it
    assert "flwr run . mine" in capsys.readouterr().out
    assert main([*arguments, "fl.example.org:8000", "--insecure"]) == 1
    assert capsys.readouterr().err.startswith("error: --insecure is for trials")
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "localhost:1", "--insecure", "--ca", "ca.crt"])
    assert stopped.value.code == 2
