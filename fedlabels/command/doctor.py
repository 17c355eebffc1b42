"""``fedlabels doctor``: whether this machine can simulate; with options, whether a device can."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fedlabels import plugins
from fedlabels.answers import JSON
from fedlabels.command.output import answer
from fedlabels.errors import FedLabelsError
from fedlabels.machine import allowed_cores
from fedlabels.requirements import extra, required

USAGE = """usage: fedlabels doctor [--json]
       fedlabels doctor --node-config PAIRS ...

Looks this machine over for simulations: Python, packages, cores, memory, GPU, disk, data sets and
plugins. With options it looks a device over, as python -m fedlabels.deploy doctor does.
The exit status is 1 where something must be solved.
"""
_GIB = 1 << 30
_TO_GET = 'pip install "fedlabels[sim]"'


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Parameters
    ----------
    name : str
        What was looked at.
    ok : bool
        Whether simulations can run as it is.
    text : str
        What was found; of a problem also what to do.
    """

    name: str
    ok: bool
    text: str


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    if set(arguments) - {JSON, "-h", "--help"}:
        from fedlabels.deploy.__main__ import main as deploy

        return deploy(["doctor", *arguments])
    found = list[Finding]()

    def facts(_given: Sequence[str]) -> dict[str, Any]:
        found.extend(examine())
        return {"ok": all(f.ok for f in found), "findings": [asdict(f) for f in found]}

    status = answer(arguments, USAGE, facts, _shown)
    return status or int(not all(finding.ok for finding in found))


def _shown(facts: Mapping[str, Any]) -> str:
    lines = [
        f"{'ok     ' if f['ok'] else 'PROBLEM'}  {f['name']}: {f['text']}"
        for f in facts["findings"]
    ]
    problems = sum(not f["ok"] for f in facts["findings"])
    return "\n".join([*lines, f"{problems} to solve" if problems else "all is well", ""])


def examine() -> Iterator[Finding]:
    """Look the machine over; nothing is changed, no data are read."""
    yield from _packages()
    yield _cores()
    yield from _memory()
    yield from _torch()
    yield _disk()
    yield from _data()
    yield from _plugins()


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement  # comes with Flower
    from packaging.specifiers import SpecifierSet

    python, packages = required()
    version = platform.python_version()
    good = SpecifierSet(python).contains(version, prereleases=True)
    yield Finding("python", good, f"{version} (supported: {python})")
    ranges = {Requirement(line).name: Requirement(line) for line in packages if ";" not in line}
    for line in [*extra("sim"), "ray"]:  # that Flower brings with its extra
        ranges.setdefault(Requirement(line).name, Requirement(line))
    for name, needed in ranges.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, False, f"not installed: {_TO_GET}")
            continue
        good = needed.specifier.contains(version, prereleases=True)
        supported = f" (supported: {needed.specifier})" if str(needed.specifier) else ""
        then = "" if good else f': pip install "{needed}"'
        yield Finding(name, good, f"{version}{supported}{then}")


def _cores() -> Finding:
    try:
        allowed = allowed_cores()
    except FedLabelsError as error:
        return Finding("cores", False, str(error))
    return Finding("cores", True, f"{allowed} may be used, of {os.cpu_count()}")


def _memory() -> Iterator[Finding]:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        sizes = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        total, free = (
            int(sizes[key].split()[0]) * 1024 / _GIB for key in ("MemTotal", "MemAvailable")
        )
        yield Finding("memory", True, f"{free:.1f} GiB free of {total:.1f}")
    shared = Path("/dev/shm")
    if shared.exists():
        free = shutil.disk_usage(shared).free / _GIB
        text = f"{free:.1f} GiB free in /dev/shm"
        if free < 1:
            text += "; Ray puts objects on disk then: backend=processes needs none of it"
        yield Finding("shared memory", True, text)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", False, f"cannot be imported ({error}): {_TO_GET}")
        return
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())}
        text = f"{torch.cuda.device_count()} ({', '.join(sorted(names))})"
    else:
        text = f"none that torch {torch.__version__} can use; the CPU computes"
    yield Finding("gpu", True, text)


def _disk() -> Finding:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / _GIB
    if not os.access(here, os.W_OK):
        return Finding("disk", False, f"{here} cannot be written: start in another folder")
    text = f"{free:.1f} GiB free in {here}, where runs are written"
    return Finding("disk", free > 0.1, text if free > 0.1 else f"{text}: make room")


def _data() -> Iterator[Finding]:
    try:
        from fedlabels.command.datasets import dataset
        from fedlabels.settings.presets import presets
    except ImportError as error:
        yield Finding("data", False, f"{error}: {_TO_GET}")
        return
    found = {e["name"]: e["found"] for e in map(dataset, presets("dataset").values()) if e["found"]}
    listed = "; ".join(f"{name} ({place})" for name, place in found.items())
    yield Finding("data", True, f"{listed}. fedlabels datasets says how to get others")


def _plugins() -> Iterator[Finding]:
    names = plugins.active()
    for name in names:
        try:
            yield Finding("plugin", True, f"{name} in {plugins.folder_of(name)}")
        except FedLabelsError as error:
            yield Finding("plugin", False, str(error))
    if not names:
        yield Finding("plugins", True, "none")
