import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import LIMIT

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import scale
from scaling import axes, chart, probe, run, tables

from fedlabels.run.main import compose_settings

LINUX = pytest.mark.skipif(not probe.PROC.is_dir(), reason="reads /proc")


def result(number: int, place: str, model: str, seconds: float) -> dict[str, object]:
    memory = {"driver": 5 * tables.MIB, "workers": 0, "store": 0, "peak": 9, "worker_peak": 0}
    looks = [
        {**memory, "round": k, "driver": (5 + (k > 30)) * tables.MIB} for k in range(10, 101, 10)
    ]
    return {
        "place": place, "model": model, "clients": number, "cohort": number, "load": 0.0,
        "data_and_dealing": 1.0, "setup": 2.0, "first": 3.0, "round": seconds, "report": 0.5,
        "outside": seconds / 4, "outside_least": 0.1,
        "arrays": 8 * number, "before": 0, "started": memory, "last": memory, "samples": looks,
        "federation_file": number, "model_sha256": model,
        "left": {"processes": 0, "temporary_files": 1, "open_files": 0, "names": ["a"]},
    }  # fmt: skip


def part(name: str) -> dict[str, object]:
    rows = [
        result(number, place, "mlp", seconds)
        for number in (10, 1000)
        for place, seconds in (("serial", 4.0), ("ray-2", 2.5))
    ]
    broken = {"place": "ray-1", "model": "mlp", "error": "exit status 1: a < b"}
    return {"text": "a < b", "rows": [*rows, broken]}


@pytest.mark.parametrize("name", scale.PARTS)
def test_every_part_is_tabled_and_drawn(name, tmp_path):
    out = tmp_path / "out.json"
    scale.save(out, name, part(name))
    other = next(key for key in scale.PARTS if key != name)
    scale.save(out, other, part(other))
    assert set(json.loads(out.read_text())["parts"]) == {name, other}
    assert len(ElementTree.parse(out.with_suffix(".svg")).getroot().findall(".//*")) > 20
    said = tables.part(name, part(name))
    assert said.count("\n|") == 6
    assert "exit status 1" in said


def test_bits_are_compared_with_those_of_one_process():
    serial, ray = result(10, "serial", "mlp", 4.0), result(10, "ray-2", "mlp", 2.5)
    assert tables.alone([ray, serial], ray) is serial
    assert "| same |" in "\n".join(tables.cluster([serial, ray]))
    other = {**ray, "model_sha256": "x"}
    assert "| OTHER |" in "\n".join(tables.cluster([serial, other]))


def test_what_is_beside_training_is_the_round_without_an_even_share(monkeypatch):
    backend = SimpleNamespace(workers=2)
    done = SimpleNamespace(seconds={"work": 6.0})
    monkeypatch.setattr(run.SimulationBackend, "run", lambda self, job: done)
    ticks = iter([0.0, 0.0, 4.0, 5.0, 6.0, 6.0])
    monkeypatch.setattr(run.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(probe, "memory", dict)
    meter = run.Meter(every=10)
    meter.on_run_start(folder=None, config={})
    with meter.listening():
        run.SimulationBackend.run(backend, None)
    meter.on_round_end(record={"round": 1})
    meter.on_round_end(record={"round": 2})
    assert meter.seconds == [4.0, 1.0]
    assert meter.outside == [1.0, 1.0]


def test_bytes_a_client_are_what_more_clients_add():
    few, many = result(10, "serial", "mlp", 1.0), result(110, "serial", "mlp", 1.0)
    many["started"] = {**many["started"], "driver": few["started"]["driver"] + 5_000}
    assert tables.fewest([many, few], many) is few
    assert tables.client_cells(many, few)[-4:] == ["50", "0", "0", "0"]
    assert tables.client_cells(few, few)[-4:] == [""] * 4


def test_growth_is_counted_once_the_run_has_settled():
    assert tables.growth(result(10, "serial", "mlp", 1.0), "driver") == tables.MIB
    found = {"processes": 2, "open_files": 3, "names": ["a", "b"]}
    assert tables.left(found) == "2 processes, 3 open files"
    assert tables.left({"processes": 0, "open_files": 0, "names": []}) == "nothing"


@pytest.mark.parametrize("make", scale.PARTS.values())
def test_the_settings_of_a_row_are_those_it_says(make):
    row = [*make(False)][-1]
    case = run.Case(**row.case())
    config = compose_settings([*case.overrides, f"rounds={case.rounds}"])
    assert config["clients"] == row.facts["clients"]
    assert config["per_round"] == row.facts["cohort"]
    assert config["model"]["name"] == row.facts["model"]
    assert row.facts["place"].startswith(config["backend"]["name"])
    assert len([*make(True)]) >= 1


def test_marks_are_round_numbers_inside():
    shown = [chart.number(value) for value in chart.marks(-1.0, 1.0)]
    assert shown == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


@LINUX
def test_processes_are_found_and_seen_to_end(monkeypatch):
    before = set(probe.descendants())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert set(probe.descendants()) - before == {child.pid}
    monkeypatch.setattr(probe, "PATIENCE", 0.0)
    assert len(probe.survivors(before)) == 1
    monkeypatch.setattr(probe, "PATIENCE", LIMIT)
    child.communicate(b"\n")
    assert probe.survivors(before) == []
    assert probe.memory()["driver"] > 1 << 20


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_even_and_inside(low, span):
    high = low + span
    found = axes.ticks(low, high)
    assert 2 <= len(found) <= 7
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert all(low - slack <= tick <= high + slack for tick in found)
    assert axes.ticks(0.5, 3.5, whole=True) == [1, 2, 3]


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_the_range_holds_all_values(values):
    low, high = axes.nice_range(values)
    slack = 1e-6 * (high - low)
    assert low < high
    assert all(low - slack <= value <= high + slack for value in values)
