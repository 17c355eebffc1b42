"""``fedlabels bench``: rounds a second on this machine, by backend, with given settings."""

import argparse
import csv
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from fedlabels import __version__
from fedlabels.answers import JSON
from fedlabels.command.output import answer, table
from fedlabels.errors import ConfigError
from fedlabels.machine import allowed_cores
from fedlabels.machine.files import json_bytes, write_atomic
from fedlabels.machine.kernels import hardware
from fedlabels.run.code import package_versions
from fedlabels.run.main import execute
from fedlabels.settings.config import check
from fedlabels.settings.mistakes import composed

USAGE = """usage: fedlabels bench [KEY=VALUE ...] [--passes N] [--out FILE.json] [--json]

Runs the same settings (preset=quickstart if none are given, 4 rounds) serially, looped and stacked,
and in processes, in folders that are removed afterwards: rounds a second, as the median of N passes
(3) that take turns, so that what else the machine does falls on all of them. The first round of
each run is left out. Nothing else should run meanwhile.
"""
MODES = {
    "serial, looped": ("backend=serial", "backend.execution=looped"),
    "serial, stacked": ("backend=serial", "backend.execution=stacked"),
    "processes": ("backend=processes",),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    if {"-h", "--help"} & set(arguments):
        return answer(["--help"], USAGE, measured, _shown)

    def facts(_given: Sequence[str]) -> dict[str, Any]:
        with redirect_stdout(sys.stderr):
            return measured([argument for argument in arguments if argument != JSON])

    return answer([JSON] if JSON in arguments else [], USAGE, facts, _shown)


def measured(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure all backends.

    Parameters
    ----------
    arguments : sequence of str
        Settings, and the options of the command but ``--json``.

    Returns
    -------
    dict
        ``settings``, ``rounds``, ``passes``, ``modes`` (``name``, ``rounds_per_second`` of each
        pass, ``median``, ``ratio`` to the first), ``fastest``, ``hardware``, ``cores``,
        ``package``, ``version``.
    """
    given, settings = _options(arguments)
    settings = settings or ["preset=quickstart"]
    if not any(setting.startswith("rounds=") for setting in settings):
        settings = [*settings, "rounds=4"]
    configs = {name: _composed([*settings, *chosen]) for name, chosen in MODES.items()}
    rounds = next(iter(configs.values()))["rounds"]
    if rounds < 2:
        raise ConfigError(f"rounds must be >= 2 here, got {rounds}: the first one is left out")
    rates: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(given.passes):
        for name, config in configs.items():
            rates[name].append(_rate(config))
    middle = {name: median(values) for name, values in rates.items()}
    first = next(iter(middle.values()))
    facts = {
        "settings": settings,
        "rounds": rounds,
        "passes": given.passes,
        "modes": [
            {
                "name": name,
                "rounds_per_second": rates[name],
                "median": middle[name],
                "ratio": middle[name] / first,
            }
            for name in configs
        ],
        "fastest": max(middle, key=middle.__getitem__),
        "hardware": hardware(next(iter(configs.values()))["backend"]["threads"]),
        "cores": allowed_cores(),
        "package": package_versions(),
        "version": __version__,
    }
    if given.out is not None:
        write_atomic(given.out, json_bytes(facts).decode())
    return facts


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--out", type=Path)
    try:
        given, settings = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}; {USAGE.splitlines()[0]}") from error
    for setting in settings:
        if setting.startswith("-") or "=" not in setting:
            raise ConfigError(f"{setting} is no setting KEY=VALUE; {USAGE.splitlines()[0]}")
        if setting.startswith(("backend=", "backend.execution=", "run_dir=", "resume=")):
            raise ConfigError(f"{setting}: the command chooses that itself; leave it out")
    if given.passes < 1:
        raise ConfigError(f"--passes must be >= 1, got {given.passes}")
    return given, settings


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    config = {k: v for k, v in composed(overrides).items() if k not in ("method", "preset")}
    check(config)
    return config


def _rate(config: Mapping[str, Any]) -> float:
    """Run settings once; return rounds a second, without the first."""
    with tempfile.TemporaryDirectory(prefix="fedlabels-bench-") as place:
        folder = Path(place) / "run"
        execute({**config, "run_dir": str(folder)}, folder)
        with (folder / "rounds.csv").open(encoding="utf-8", newline="") as file:
            seconds = [float(row["seconds_total"]) for row in csv.DictReader(file)]
    return 1 / median(seconds[1:])


def _shown(facts: Mapping[str, Any]) -> str:
    rows = [
        [
            mode["name"],
            f"{mode['median']:.2f}",
            f"{min(mode['rounds_per_second']):.2f} to {max(mode['rounds_per_second']):.2f}",
            f"{mode['ratio']:.2f}",
        ]
        for mode in facts["modes"]
    ]
    lines = table(("backend", "rounds/s", "from to", "ratio"), rows)
    what = f"{' '.join(facts['settings'])}, {facts['passes']} passes, {facts['cores']} cores"
    return f"{lines}fastest: {facts['fastest']} ({what})\n"
