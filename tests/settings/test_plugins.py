"""Packages of others beside ours: found, refused, told apart, and never chosen from outside."""

import sys

import pytest

from fedlabels import clients, plugins, strategies
from fedlabels.deploy.doctor import examine
from fedlabels.deploy.server import execute, settings
from fedlabels.deploy.spec import DeviceSpec
from fedlabels.errors import ConfigError, RunError
from fedlabels.run.code import code_of, is_other
from fedlabels.settings.arguments import plugins_of
from tests.deploy.loopback import Loopback, nodes_of, write_devices
from tests.end_to_end.harness import config_of

CLIENT = """
from dataclasses import dataclass
from fedlabels.clients.fedavg import FedAvg

@dataclass(frozen=True)
class Mine(FedAvg):
    '''Of somebody else.'''

    factor: float = 1.0
"""
SERVER = """
from fedlabels.strategies.base import CohortStrategy

class Theirs(CohortStrategy):
    '''Of somebody else.'''
"""
METHOD = """# @package _global_
# Somebody's method.
defaults:
  - override /client: mine
  - override /strategy: theirs
training:
  lr: 0.1
  steps: 5
client:
  factor: 2.0
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of a package in the folder of the call, which is not on the path."""
    name = f"somebody_{abs(hash(str(tmp_path)))}"
    for part, file, text in (
        ("clients", "mine.py", CLIENT),
        ("strategies", "theirs.py", SERVER),
        ("configs/method", "mine.yaml", METHOD),
    ):
        folder = tmp_path / name / part
        folder.mkdir(parents=True)
        (folder / file).write_text(text)
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = set(sys.modules)
    yield name
    plugins.activate(())
    for module in set(sys.modules) - before:
        if module.startswith(name):
            del sys.modules[module]


def test_its_method_is_one_like_ours(package):
    config = config_of(f"plugins={package}", "method=mine")
    assert config["plugins"] == package
    assert (config["client"]["name"], config["client"]["factor"]) == ("mine", 2.0)
    assert clients.find("mine").__module__ == f"{package}.clients.mine"
    assert "theirs" in strategies.names()
    assert clients.find("fedavg").__module__ == "fedlabels.clients.fedavg"


def test_it_takes_part_only_where_it_is_named(package):
    config_of(f"plugins=[{package}]", "method=mine")
    with pytest.raises(Exception, match="method"):
        config_of("method=mine")
    assert "mine" not in clients.names()


def test_an_edited_file_is_imported_anew(package, tmp_path):
    def code():
        return code_of(config_of(f"plugins={package}", "method=mine"))["plugins"][package]

    before, kind = code(), clients.find("mine")
    assert (code(), clients.find("mine")) == (before, kind)
    file = tmp_path / package / "clients" / "mine.py"
    file.write_text(CLIENT.replace("float = 1.0", "float = 123.0"))
    assert code() != before
    assert clients.find("mine")().factor == 123.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (:\n", r"SyntaxError: invalid syntax \(mine.py, line 1\)"),
        ("\nimport nothing_like_it\n", r"ModuleNotFoundError.*mine.py:2\)"),
        ("raise ValueError('no')", r"ValueError: no, .*mine.py:1\)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(package, tmp_path, text, said):
    (tmp_path / package / "clients" / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"{package}.clients.mine cannot be imported \({said}"):
        config_of(f"plugins={package}", "method=mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{:::\n", r"settings cannot be read \(.*mine.yaml\", line 1"),
        ("client: mine\n", "method=mine must begin with the line '# @package _global_'"),
    ],
)
def test_a_wrong_file_of_settings_is_named(package, tmp_path, text, said):
    (tmp_path / package / "configs" / "method" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        config_of(f"plugins={package}", "method=mine")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("plugins=no_such_package", "cannot be imported.*No module named"),
        ("plugins=json", "none of the folders clients, strategies, configs"),
        ("plugins='./somewhere'", "takes names of packages"),
        ("plugins=7", "must be a package or a list"),
        ("plugins=one,other", r"plugins=\[one,other\]"),
        ("plugins=[", "cannot be read"),
    ],
)
def test_what_is_no_plugin_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        plugins.activate(plugins_of([given]))


def test_an_error_of_its_own_is_told(package, tmp_path):
    (tmp_path / package / "__init__.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ConfigError, match=r"No module named 'not_installed_anywhere'"):
        plugins.activate(package)


def test_a_file_replaces_nothing(package, tmp_path):
    (tmp_path / package / "clients" / "fedprox.py").write_text(CLIENT)
    with pytest.raises(ConfigError, match=r"fedlabels\.clients\.fedprox and somebody_.*one name"):
        config_of(f"plugins={package}")


def test_other_code_is_another_run(package, tmp_path):
    config = config_of(f"plugins={package}", "method=mine")
    code = code_of(config)
    assert set(code["plugins"]) == {package}
    assert not is_other(code, code_of(config))
    assert "plugins" not in code_of(config_of("method=fedavg"))
    config_of(f"plugins={package}")
    (tmp_path / package / "notes.txt").write_text("no code")
    assert not is_other(code, code_of(config))
    (tmp_path / package / "configs" / "method" / "mine.yaml").write_text(METHOD + "seed: 1\n")
    assert is_other(code, code_of(config))
    with pytest.raises(ConfigError, match="differs from that of the run"):
        plugins.check(code["plugins"])


def test_an_installed_one_is_found_by_its_entry_point(package, tmp_path):
    config_of(f"plugins={package}")  # its folder is on the path now
    about = tmp_path / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nmethod = {package}\n")
    plugins.installed.cache_clear()
    try:
        config = config_of("method=mine")
        assert config["plugins"] == []
        assert set(code_of(config)["plugins"]) == {package}
        assert "plugins" not in code_of(config_of("method=fedavg"))
    finally:
        (about / "entry_points.txt").unlink()
        plugins.installed.cache_clear()


COUNTS = {0: (20, 30), 1: (20, 0)}
TINY = "dataset=digits rounds=2 model=mlp model.hidden=[16] deploy.connect_seconds=0.2"


def test_devices_use_the_plugins_that_they_name(package, tmp_path):
    nodes = nodes_of(write_devices(tmp_path / "data", COUNTS), tmp_path / "states")
    with_plugin = {k: {**node, "plugins": package} for k, node in nodes.items()}
    given = f"plugins={package} method=mine {TINY} run_dir={tmp_path / 'run'}"
    record = execute(settings({"overrides": given}), Loopback(with_plugin), given)
    assert record["failed"] == record["rejected"] == 0
    assert record["sampled"] == 2

    given = f"plugins={package} method=mine {TINY} run_dir={tmp_path / 'other'}"
    with pytest.raises(RunError):  # the server chooses no package for a device
        execute(settings({"overrides": given}), Loopback(nodes), given)


def test_the_doctor_says_whether_it_is_there(package, tmp_path):
    nodes = nodes_of(write_devices(tmp_path / "data", COUNTS), tmp_path / "states")
    node = next(iter(nodes.values()))
    plugins.activate(package)
    spec = DeviceSpec(
        run="preview", seed=0, client={"name": "mine"}, model={"name": "mlp"}, shape=(1, 8, 8),
        class_names=tuple("0123456789"), mean=(0.5,), std=(0.25,), pixels=True,
        plugins={package: plugins.digest(package)},
    )  # fmt: skip

    def problems(**more):
        return [f.text for f in examine({**node, **more}, spec=spec) if not f.ok]

    assert problems(plugins=package) == []
    assert ["needs the plugin" in text for text in problems()] == [True]
    assert ["cannot be imported" in text for text in problems(plugins="not_there")] == [True]
    (tmp_path / package / "clients" / "mine.py").write_text(CLIENT + "# changed\n")
    assert ["differs" in text for text in problems(plugins=package)] == [True]
