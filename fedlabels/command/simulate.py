"""Simulations: one run, a sweep, or a run to go on with."""

from fedlabels import telemetry

telemetry.disable()  # before Flower and Ray are imported

# ruff: noqa: E402
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fedlabels.answers import JSON, alone
from fedlabels.command import uncollected
from fedlabels.command.estimate import ESTIMATE
from fedlabels.command.estimate import main as estimate
from fedlabels.command.output import fail
from fedlabels.errors import CheckpointError, ConfigError, FedLabelsError
from fedlabels.run.main import main, own_overrides, pin_kernels
from fedlabels.settings.arguments import with_choices, with_current_names
from fedlabels.settings.config import register
from fedlabels.settings.mistakes import (
    FULL_ERROR,
    Composition,
    composition,
    composition_done,
    handed_on,
    plain,
)
from fedlabels.settings.overrides import overrides_of
from fedlabels.settings.presets import CONFIGS

# Arguments that Hydra's own start has to see: options, among them -m, and its settings.
_OF_HYDRA = ("-", "hydra.", "hydra/")


def simulate(arguments: Sequence[str]) -> int:
    """Run what settings on a command line ask for.

    Parameters
    ----------
    arguments : sequence of str
        ``KEY=VALUE``, Hydra's options, and ``--json``: one JSON object a round on the standard
        output, a last one with the result or the error, and nothing else there. ``--estimate``
        answers about how long it would take instead.

    Returns
    -------
    int
        Exit status: 0, or 1 for an error that was explained. An ended run exits by itself.
    """
    if ESTIMATE in arguments:
        return estimate([argument for argument in arguments if argument != ESTIMATE])
    machine, given = JSON in arguments, [a for a in arguments if a != JSON]
    current = with_current_names(given)
    for before, now in zip(given, current, strict=True):
        if before != now:
            sys.stderr.write(f"note: {before} is {now} now\n")
    try:
        if machine and {"-m", "--multirun"} & set(current):
            raise ConfigError(
                f"{JSON} answers for one run: leave it out, cells.csv has the results"
            )
        _start(with_choices(current), machine)
    except FedLabelsError as error:
        return fail(str(error), machine)
    return 0


def sweep(arguments: Sequence[str]) -> int:
    """Run all combinations of values, as `simulate` does with ``-m``."""
    return simulate(["-m", *arguments])


def resume(arguments: Sequence[str]) -> int:
    """Go on with a run: its folder, and settings that may be given anew, such as ``rounds=``."""
    folders = [a for a in arguments if not a.startswith("-") and ("=" not in a or Path(a).is_dir())]
    if len(folders) != 1:
        asked = bool({"-h", "--help"} & set(arguments))
        usage = "usage: fedlabels resume RUN [KEY=VALUE ...] [--json]"
        (sys.stdout if asked else sys.stderr).write(f"{usage}\n")
        return 0 if asked else 2
    settings = [argument for argument in arguments if argument not in folders]
    return simulate([*overrides_of({"resume": folders[0]}), *settings])


def _start(given: list[str], machine: bool) -> None:
    """Run with what was given, after the overrides of a run to resume: the same groups then."""
    own = _own(given)
    sys.argv[1:] = whole = [*own, *given]  # where Hydra reads
    of_hydra = any(argument.lstrip("+~").startswith(_OF_HYDRA) for argument in given)
    if not of_hydra and os.environ.get(FULL_ERROR) != "1":
        # Hydra's own start composes twice: once to see whether this is a sweep
        with uncollected():
            asked = composition(whole, own)
        _run(asked, machine)
        return
    register(whole)
    OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)
    with handed_on(whole, own):
        job = partial(_job, machine)
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()


def _job(machine: bool, config: DictConfig) -> None:
    composition_done()
    job = HydraConfig.get()
    try:
        asked = Composition(plain(config), list(job.overrides.task), job.runtime.choices)
    except FedLabelsError as error:
        sys.exit(fail(str(error), machine))
    _run(asked, machine)


def _run(asked: Composition, machine: bool) -> None:
    if asked.config["backend"]["portable"]:
        pin_kernels(machine=machine)  # a new process: the standard output has to be as it was
    with alone() if machine else nullcontext() as answers:
        status = main(asked, answers=answers)
    if status:
        sys.exit(status)


def _sweep_folder(folder: str | None, name: str) -> str:
    """Choose the folder of a sweep: the same each time, so that finished cells are found."""
    return folder or os.path.join("runs", "sweeps", name)


def _own(given: list[str]) -> list[str]:
    """Return the overrides of a run to resume."""
    named = [argument for argument in given if argument.startswith("resume=")]
    if not named:
        return []
    try:
        folder = OverridesParser.create().parse_override(named[-1]).value()
    except HydraException:
        return []  # Hydra says what is wrong with it
    if folder and not os.path.exists(os.path.join(str(folder), "config.yaml")):
        # before Hydra makes the folder
        raise CheckpointError(f"resume={folder} holds no run (no config.yaml there)")
    return own_overrides(str(folder))
