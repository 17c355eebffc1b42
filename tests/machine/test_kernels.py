"""Kernels: what a manifest says of them, who is warned, and runs for which they are pinned."""

import json
import os
import platform
import subprocess
import sys

import pytest

from fedlabels.errors import ConfigError
from fedlabels.machine import portable
from fedlabels.machine.differences import DECIDES, differing
from fedlabels.machine.kernels import cost_of_bfloat16, hardware, has_bfloat16
from fedlabels.run import kernels
from fedlabels.run.folder import RunFolder
from fedlabels.run.setup import build_backend, build_world
from fedlabels.settings.hashing import config_hash, differing_keys
from tests.end_to_end.harness import FEDAVG, REPO, TINY, config_of, prints, simulate
from tests.waiting import LIMIT

X86 = platform.machine() == "x86_64" and {"avx2", "fma"} <= portable.instructions()


def test_the_manifest_says_what_computes(tmp_path):
    simulate(tmp_path / "run", config_of(*FEDAVG, "rounds=1"))
    said = json.loads((tmp_path / "run" / "manifest.json").read_text())["hardware"]
    assert said == hardware()
    assert {*DECIDES, "machine", "cores", "portable"} == set(said)
    assert all(said[name] for name in ("cpu", "aten", "blas", "onednn"))


def test_what_decides_bits_is_compared():
    here = hardware()
    assert differing(here, here) == []
    assert differing({}, here) == []
    assert differing(here, {**here, "cores": 99}) == []
    assert differing(here, {**here, "aten": "X"}) == [f"kernels of torch: {here['aten']} -> X"]
    for key in ("torch", "numpy", "mkl", "numpy_off"):
        assert differing(here, {**here, key: "X"}) == [f"{DECIDES[key]}: {here[key]} -> X"]
    pinned = {**here, "portable": True}
    assert differing(pinned, {**pinned, "cpu": "another", "instructions": "avx2"}) == []
    assert differing(pinned, {**here, "cpu": "another"}) == [
        f"processors: {here['cpu']} -> another"
    ]


def test_a_resume_with_other_kernels_warns(tmp_path, capsys):
    folder = tmp_path / "run"
    settings = (*FEDAVG, "checkpoint_every=1")
    simulate(folder, config_of(*settings, "rounds=1"))
    simulate(folder, config_of(*settings, "rounds=2"), resume=True)
    assert "other kernels" not in capsys.readouterr().out
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["hardware"] |= {"aten": "OTHER", "torch": "1.0"}
    path.write_text(json.dumps(manifest))
    simulate(folder, config_of(*settings, "rounds=3"), resume=True)
    for told in (capsys.readouterr().out, (folder / "run.log").read_text()):
        assert "kernels of torch: OTHER -> " in told
        assert "versions of torch: 1.0 -> " in told


@pytest.mark.parametrize(
    ("native", "precision", "warned"),
    [(False, "bfloat16", True), (True, "bfloat16", False), (False, "float32", False)],
)
def test_bfloat16_without_its_arithmetic_says_what_it_costs(monkeypatch, native, precision, warned):
    monkeypatch.setattr(kernels, "has_bfloat16", lambda: native)
    monkeypatch.setattr(kernels, "cost_of_bfloat16", lambda: 7.14)
    told = kernels.warnings_of(config_of(*TINY, f"precision={precision}"), {}, {})
    assert [("7.1 times" in line) for line in told] == [True] * warned


def test_the_cost_is_measured(monkeypatch):
    assert cost_of_bfloat16() > 0
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not has_bfloat16()


def test_portable_is_another_setting_and_its_absence_is_not():
    plain, other = config_of(*TINY), config_of(*TINY, "backend.portable=true")
    older = {**plain, "backend": {k: v for k, v in plain["backend"].items() if k != "portable"}}
    assert differing_keys(older, plain) == []
    assert len(differing_keys(plain, other)) == 1
    assert config_hash(older) == config_hash(plain) != config_hash(other)


def test_portable_is_refused_where_it_would_not_hold(tmp_path, monkeypatch):
    config = config_of(*TINY, "backend.portable=true")
    world = build_world(config)
    monkeypatch.setattr(portable, "_STARTED", {})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(portable, "instructions", lambda: frozenset({"avx2", "fma"}))
    with pytest.raises(ConfigError, match=r"run it with run_sim.py, or start .*MKL_CBWR="):
        build_backend(config, world, RunFolder(tmp_path), 0)
    monkeypatch.setattr(portable, "instructions", lambda: frozenset({"avx"}))
    with pytest.raises(ConfigError, match="needs AVX2"):
        build_backend(config, world, RunFolder(tmp_path), 0)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(ConfigError, match="this machine is aarch64"):
        build_backend(config, world, RunFolder(tmp_path), 0)


@pytest.mark.skipif(not X86, reason="needs x86-64 with AVX2")
def test_portable_runs_agree_whatever_the_machine_would_choose(tmp_path):
    other = {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "AUTO",
        "OPENBLAS_CORETYPE": "Prescott",
    }  # fmt: skip
    settings = (*FEDAVG, "rounds=1", "backend.portable=true")
    for name, environment in (("one", {}), ("other", other)):
        done = subprocess.run(
            [sys.executable, "run_sim.py", *settings, f"run_dir={tmp_path / name}"], cwd=REPO,
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=LIMIT,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said = json.loads((tmp_path / name / "manifest.json").read_text())["hardware"]
        assert (said["aten"], said["onednn"], said["portable"]) == ("AVX2", "AVX2", True)
    assert prints(tmp_path / "one") == prints(tmp_path / "other")
