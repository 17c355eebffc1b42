"""A client_id belongs to the key that first took it, for as long as the run knows it."""

import json

import pytest

from fedlabels.deploy.__main__ import main
from fedlabels.deploy.bindings import FILE, Bindings, Claim, order_free
from fedlabels.errors import ConfigError


def test_the_first_key_keeps_a_client(tmp_path):
    bindings = Bindings(tmp_path / FILE)
    bindings.take(Claim(0, "owner", "m0"))
    assert "belongs to the device with key owner" in bindings.problem(Claim(0, "other", "m1"), True)
    assert bindings.problem(Claim(0, "other", "m1"), False)  # also while the owner is away
    assert bindings.problem(Claim(0, "other"), False)
    assert bindings.problem(Claim(0, "owner", "new"), True) is None
    again = Bindings(tmp_path / FILE)
    assert again.problem(Claim(0, "other", "m1"), False)
    assert again.problem(Claim(0, "owner"), False) is None


def test_a_replacement_brings_the_state_folder():
    bindings = Bindings()
    bindings.take(Claim(0, "owner", "m0"))
    replaced = Claim(0, "new key", "m0")
    assert "which is connected" in bindings.problem(replaced, True)
    assert bindings.problem(replaced, False) is None
    bindings.take(replaced)
    assert bindings.problem(Claim(0, "owner", "m0"), True) is None  # the first key stays the owner


def test_a_device_is_one_client(tmp_path):
    bindings = Bindings(tmp_path / FILE)
    bindings.take(Claim(0, "a", "m0"))  # a slip in node-config, mended
    bindings.take(Claim(1, "a", "m0"))
    assert bindings.problem(Claim(0, "b", "m1"), False) is None
    assert list(bindings.table()) == ["1"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"clients": {"0": 3}}', b'{"clients": {"x": {}}}']
)
def test_a_checkpoint_knows_it_where_the_file_is_damaged(content, tmp_path):
    bindings = Bindings(tmp_path / FILE)
    bindings.take(Claim(3, "owner", "m"))
    (tmp_path / FILE).write_bytes(content)
    assert Bindings(tmp_path / FILE, bindings.table()).problem(Claim(3, "other"), False)
    assert Bindings(tmp_path / FILE).problem(Claim(3, "other"), False) is None


def test_the_refused_are_in_the_file_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("fedlabels.deploy.bindings.REFUSED", 2)
    bindings = Bindings(tmp_path / FILE)
    assert bindings.refuse("k1", "why", 7)
    assert not bindings.refuse("k1", "why", 7)  # said once
    for key in ("k2", "k3"):
        bindings.refuse(key, "why", 7)
    assert list(json.loads((tmp_path / FILE).read_bytes())["refused"]) == ["k2", "k3"]


def test_an_operator_frees_a_client(tmp_path, capsys):
    bindings = Bindings(tmp_path / FILE)
    bindings.take(Claim(0, "owner", "m0"))
    assert bindings.freed() == []
    assert main(["free", str(tmp_path), "--client-id", "0"]) == 0
    assert "owner" in capsys.readouterr().out
    assert bindings.freed() == [0]
    assert bindings.freed() == []
    assert bindings.problem(Claim(0, "other"), False) is None
    with pytest.raises(ConfigError, match="belongs to nobody"):
        order_free(tmp_path, 0)
    assert main(["free", str(tmp_path / "no"), "--client-id", "0"]) == 1
