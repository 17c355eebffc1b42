"""Cores that may be used: of affinity, control groups and a sweep's share."""

import os

import pytest

from fedlabels.errors import ConfigError
from fedlabels.machine import SHARE, allowed_cores, share_of_cores
from fedlabels.machine.cores import quota
from fedlabels.run.setup import build_backend, build_world
from tests.end_to_end.harness import TINY, config_of, simulate


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("listed", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        # a group has no more than those above it
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        # a container that sees its own group only, under a path of the host
        ("0::/docker/abc\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "4:cpu,cpuacct:/x\n",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "600000\n",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        (
            "2:cpu:/\n1:memory:/y\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("", {}, None),
    ],
)
def test_quota_of_a_container(tmp_path, listed, files, cores):
    (tmp_path / "groups").write_text(listed)
    write(tmp_path / "mount", files)
    assert quota(tmp_path / "groups", tmp_path / "mount") == cores


def test_no_control_groups(tmp_path):
    assert quota(tmp_path / "absent", tmp_path) is None


def test_the_least_limit_counts(monkeypatch):
    monkeypatch.delenv(SHARE, raising=False)
    monkeypatch.setattr("fedlabels.machine.cores._affinity", lambda: 8)
    monkeypatch.setattr("fedlabels.machine.cores.quota", lambda groups, mount: None)
    assert allowed_cores() == 8
    assert share_of_cores() is None
    monkeypatch.setattr("fedlabels.machine.cores.quota", lambda groups, mount: 4)
    assert allowed_cores() == 4
    monkeypatch.setenv(SHARE, "3")
    assert allowed_cores() == 3
    monkeypatch.setenv(SHARE, "0")
    assert allowed_cores() == 1
    monkeypatch.setenv(SHARE, "")
    assert share_of_cores() is None


@pytest.mark.parametrize("text", ["abc", "-1", "2.0", " 2", "\u0663"])
def test_a_share_that_is_no_number_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.setenv(SHARE, text)
    with pytest.raises(ConfigError, match=r"FEDLABELS_CORES=.* must be a whole number of cores"):
        simulate(tmp_path, config_of(*TINY, "method=fedavg"))
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_one_allowed_core_is_one_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("fedlabels.simulation.process_backend.WorkerProcess", _Nobody)
    config = config_of(*TINY, "method=fedavg", "backend=processes")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        backend = build_backend(config, build_world(config), _Folder(tmp_path), 0)
    finally:
        os.sched_setaffinity(0, before)
    assert backend.workers == 1
    backend.close()


class _Folder:
    def __init__(self, path):
        self.state = path / "state"


class _Nobody:
    """A worker process that is not there."""

    def __init__(self, spec, gpu):
        pass

    def hang_up(self):
        pass

    def ended(self, seconds):
        return True
