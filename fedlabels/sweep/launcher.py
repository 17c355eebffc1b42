"""Hydra's launcher of sweeps: all cells are known before the first one runs."""

import csv
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from fedlabels.errors import ConfigError, FedLabelsError, writing
from fedlabels.machine import allowed_cores, portable
from fedlabels.machine.files import write_atomic
from fedlabels.report.comparison.compare import Question, compare
from fedlabels.report.comparison.files import PAGE, write_comparison
from fedlabels.report.comparison.shared import unequal
from fedlabels.run.code import code_of, code_version, described, is_other
from fedlabels.run.console import Console
from fedlabels.run.folder.owner import owned
from fedlabels.run.signals import INTERRUPTED, terminable
from fedlabels.settings.config import check
from fedlabels.settings.hashing import flatten
from fedlabels.settings.mistakes import composing, composition_done, plain
from fedlabels.sweep.cells import Cell, accuracy_of, make_cells, method_of, status_of, with_method
from fedlabels.sweep.runner import Progress, error_file, run_here

COMPARISON = "comparison"
INDEX = "cells.csv"
MULTIRUN = "multirun.yaml"  # Hydra's: how the sweep was started
# Settings without a meaning on backend=serial: who gives one of them wants workers.
_OF_WORKERS = {
    f"backend.{key}" for key in ("name", "num_workers", "gpus_per_worker", "num_gpus", "address")
}


class CellsLauncher(Launcher):
    """Runs the jobs of a sweep as cells; see :mod:`fedlabels.sweep`."""

    def __init__(self) -> None:
        self._config: DictConfig | None = None
        self._context: HydraContext | None = None
        self._root = Path()
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._given_folder = ""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows, and let it write elsewhere until the sweep begins.

        Its sweeper notes how a sweep was started before it looks at the values: in the folders of
        sweeps that are refused, too.
        """
        self._config, self._context = config, hydra_context
        self._root = Path(config.hydra.sweep.dir).expanduser().absolute()
        given: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
        self._given_folder = str(given["dir"])
        self._aside = tempfile.TemporaryDirectory(prefix="fedlabels-")
        self._set_folder(self._aside.name)

    def _set_folder(self, folder: str) -> None:
        assert self._config is not None
        with flag_override(self._config, ["readonly", "struct"], [False, False]):
            self._config.hydra.sweep.dir = folder

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run all cells that are not finished."""
        composition_done()
        console = Console()
        try:
            with terminable():
                status = self._launch([list(overrides) for overrides in job_overrides])
        except KeyboardInterrupt:
            status = INTERRUPTED
        except FedLabelsError as error:
            console.error(str(error))
            status = 1
        if status == INTERRUPTED:
            console.error("stopped; the same command goes on")
        if status:
            sys.exit(status)
        done = JobReturn(overrides=[], status=JobStatus.COMPLETED)
        done.return_value = None
        return [done for _ in job_overrides]

    def _launch(self, jobs: Sequence[list[str]]) -> int:
        assert self._config is not None
        assert self._context is not None
        configs = []
        for overrides in jobs:
            every = with_method(self._config.sweep.per_method, overrides)
            with composing(every):
                every = [*self._where(every), *every]
                composed = self._context.config_loader.load_sweep_config(self._config, every)
            configs.append((overrides, resolved(composed)))
        root = self._root
        settings = configs[0][1]["sweep"]
        _pin_kernels([config["backend"]["portable"] for _, config in configs])
        Console().finish(inequalities(configs))
        self._set_folder(self._given_folder)
        started = OmegaConf.to_yaml(self._config)
        return run_sweep(make_cells(configs, root), root, settings, started)

    def _where(self, overrides: Sequence[str]) -> list[str]:
        """Choose where a cell runs: in its own process, unless a preset or the user says more."""
        assert self._config is not None
        assert self._context is not None
        keys = {override.lstrip("+").partition("=")[0] for override in overrides}
        if keys & _OF_WORKERS:
            return []
        defaults = self._context.config_loader.compute_defaults_list(
            config_name=self._config.hydra.job.config_name,
            overrides=list(overrides),
            run_mode=RunMode.RUN,
        )
        chosen = defaults.overrides.override_choices
        return [] if "backend" in chosen else ["backend=serial"]


def _pin_kernels(portable_cells: Sequence[bool]) -> None:
    """Let this process, and so its cells, have the kernels that all of them want."""
    if any(portable_cells) and not all(portable_cells):
        raise ConfigError(
            "backend.portable must be the same in all cells of a sweep, got true and false: run "
            "two sweeps"
        )
    if any(portable_cells):
        portable.restart()


def inequalities(configs: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> list[str]:
    """Say which rates, steps and batches the methods of a sweep do not share.

    Parameters
    ----------
    configs : sequence of (overrides, resolved settings)
        The cells.

    Returns
    -------
    list of str
        Lines for the terminal; empty where all methods have the same.
    """
    named = [(method_of(given) or str(c["client"]["name"]), flatten(c)) for given, c in configs]
    lines = unequal(named)
    if not lines:
        return []
    return [
        "warning: the methods do not share all settings, so a difference may come from these:",
        *(f"  {line}" for line in lines),
        "  training.KEY=VALUE gives all of them the same",
    ]


def resolved(composed: DictConfig) -> dict[str, Any]:
    """Return a job's settings without Hydra's own, checked.

    Raises
    ------
    ConfigError
        If one is missing or out of range.
    """
    config = plain(OmegaConf.masked_copy(composed, [str(k) for k in composed if k != "hydra"]))
    check(config)
    return config


def run_sweep(
    cells: Sequence[Cell], root: Path, settings: dict[str, Any], started: str = ""
) -> int:
    """Run the cells of a sweep that are not finished, write ``cells.csv``, compare them.

    Parameters
    ----------
    cells : sequence of Cell
    root : Path
        The sweep's folder.
    settings : dict
        The group ``sweep``.
    started : str
        For ``multirun.yaml``: how the sweep was started, as Hydra says it.

    Returns
    -------
    int
        0 if all are finished, 1 if some failed, 130 if interrupted by Ctrl-C, SIGTERM or SIGHUP.
    """
    if (settings["jobs"] is not None and settings["jobs"] < 1) or settings["cpus"] <= 0:
        raise ConfigError(
            "sweep.jobs must be >= 1 and sweep.cpus > 0, got "
            f"{settings['jobs']} and {settings['cpus']}"
        )
    for cell in cells:
        if changes := cell.changes():
            raise ConfigError(
                f"{cell.folder} was resumed with {', '.join(changes)} and is not the cell"
                f" {cell.label} any more: move it away, and the cell runs again"
            )
    cores = allowed_cores()
    jobs = settings["jobs"] or max(1, cores // max(map(_threads, cells), default=1))
    question = Question(
        metric=settings["metric"], baseline=settings["baseline"], last=settings["last"]
    )
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    if started:
        write_atomic(root / MULTIRUN, started)
    console = Console()
    todo = [cell for cell in cells if cell.status() != "finished"]
    begun = sum(cell.status() == "begun" for cell in todo)
    for cell in todo:
        error_file(cell.folder).unlink(missing_ok=True)  # of an earlier call
    console.finish(
        [f"{len(cells)} cells in {root}: {len(cells) - len(todo)} finished, {begun} to resume"]
    )
    for note in made_by_others(cells):
        console.warn(note)
    progress = Progress(lambda line: console.finish([line]), len(cells), len(cells) - len(todo))
    try:
        if settings["address"] is None:
            status = run_here(todo, jobs, progress, max(1, cores // jobs))
        else:
            from fedlabels.sweep.on_ray import run_there

            status = run_there(todo, settings["address"], settings["cpus"], progress)
    finally:
        write_index(cells, root)
    for cell in progress.failed:
        console.error(f"{cell.label}: see {error_file(cell.folder)}")
    if status:
        return status
    console.finish(_compared(root, question))
    return 1 if progress.failed else 0


def _threads(cell: Cell) -> int:
    """Return the threads of the workers that a cell asks for; what it does not count is one."""
    backend = cell.config["backend"]
    workers = 1 if backend["name"] == "serial" else backend["num_workers"] or 1
    return int(workers * (backend["threads"] or 1))


def _compared(root: Path, question: Question) -> list[str]:
    """Compare what is finished; a sweep whose cells cannot be compared has still run."""
    try:
        write_comparison(compare([root], question), root / COMPARISON)
    except FedLabelsError as error:
        return [f"no comparison: {error}"]
    page = os.path.relpath(root / COMPARISON / PAGE)
    return [f"comparison: {root / COMPARISON / PAGE if page.startswith('..') else page}"]


def made_by_others(cells: Sequence[Cell]) -> list[str]:
    """Say which finished cells are of another version or commit than this one."""
    makers: dict[str, int] = {}
    for cell in cells:
        code = cell.code()
        if code is not None and is_other(code, code_of(cell.config)):
            makers[described(code)] = makers.get(described(code), 0) + 1
    return [
        f"{count} finished {'cell was' if count == 1 else 'cells were'} made with {maker}, this is"
        f" {described(code_version())}: move them away to have them run again"
        for maker, count in makers.items()
    ]


def write_index(cells: Sequence[Cell], root: Path) -> None:
    """Write which folder holds which setting, and how far it is.

    Cells of earlier calls stay, unless their folder is gone; what is new comes last. A row has all
    overrides of its cell: what distinguishes the cells of one call is not enough for those of two.

    Parameters
    ----------
    cells : sequence of Cell
        Of this call.
    root : Path
        The sweep's folder.
    """
    with owned(root, wait=True):  # for a moment: two sweeps may end at once
        index = _index(root / INDEX)
        index |= {cell.folder.name: shlex.join(cell.facts["overrides"]) for cell in cells}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["folder", "status", "accuracy", "overrides"])
        for name, overrides in index.items():
            row = [name, status_of(root / name), accuracy_of(root / name), overrides]
            writer.writerow(["" if value is None else value for value in row])
        write_atomic(root / INDEX, text.getvalue())


def _index(path: Path) -> dict[str, str]:
    """Return the overrides that earlier calls have noted, by folder."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row.get("folder"), row.get("overrides")) for row in csv.DictReader(file)]
    return {
        str(name): str(overrides)
        for name, overrides in rows
        if name and (path.parent / name).is_dir()
    }
