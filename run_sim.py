"""Simulate federated learning: one run, or a sweep with -m. See README.md."""

from fedlabels import telemetry

telemetry.disable()  # before Flower and Ray are imported

# ruff: noqa: E402
import os
import sys

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fedlabels.errors import FedLabelsError
from fedlabels.run.main import main, own_overrides, pin_kernels
from fedlabels.settings.arguments import with_choices, with_current_names
from fedlabels.settings.config import register
from fedlabels.settings.mistakes import composition_done, handed_on


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
        sys.stderr.write(f"error: resume={folder} holds no run (no config.yaml there)\n")
        sys.exit(1)
    return own_overrides(str(folder))


register()
OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def _job(config: DictConfig) -> None:
    composition_done()
    if config.backend.portable:
        pin_kernels()
    status = main(config)
    if status:
        sys.exit(status)


def _start(given: list[str]) -> None:
    """Run with what was given, after the overrides of a run to resume: the same groups then."""
    try:
        own = _own(given)
        sys.argv[1:] = [*own, *given]
        with handed_on(sys.argv[1:], own):
            _job()
    except FedLabelsError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    current = with_current_names(sys.argv[1:])
    for before, now in zip(sys.argv[1:], current, strict=True):
        if before != now:
            sys.stderr.write(f"note: {before} is {now} now\n")
    _start(with_choices(current))
