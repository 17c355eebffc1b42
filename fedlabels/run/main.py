"""The entry point behind ``fedlabels run``: from a composed config to a finished run folder."""

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from fedlabels.answers import write_json
from fedlabels.cohort import clock
from fedlabels.cohort.types import EMPTY
from fedlabels.errors import CheckpointError, ConfigError, FedLabelsError, RunError
from fedlabels.machine import allowed_cores, portable
from fedlabels.machine.memory import keep_memory
from fedlabels.program import IN_CHECKOUT, RUN
from fedlabels.renamed import RENAMED, is_of_before
from fedlabels.rounds.flower_compat import quiet
from fedlabels.run.callbacks import Callback
from fedlabels.run.callbacks.decomposition import decomposition_of
from fedlabels.run.callbacks.profile import profile_of
from fedlabels.run.callbacks.trackers import tracking_of
from fedlabels.run.code import code_of
from fedlabels.run.console import Console, reading_shown
from fedlabels.run.data import contents_of, evaluates_clients
from fedlabels.run.early_stop import BY_CALLBACK, EarlyStop, still_stopped
from fedlabels.run.folder import RunFolder, new_folder, remove_new
from fedlabels.run.folder.checkpoint import Checkpoint, check_origin, newest_checkpoint
from fedlabels.run.folder.owner import owned
from fedlabels.run.folder.table import Table
from fedlabels.run.identity import check_identity, planned
from fedlabels.run.json_lines import JsonLines
from fedlabels.run.loop import Loop
from fedlabels.run.setup import build_world
from fedlabels.run.signals import INTERRUPTED, terminable
from fedlabels.run.start import keep, start_of
from fedlabels.run.world import World
from fedlabels.settings.config import check
from fedlabels.settings.groups import AUC, MEANS, PERSONAL, TEST
from fedlabels.settings.hashing import flatten, may_differ
from fedlabels.settings.mistakes import Composition, composition
from fedlabels.settings.presets import CONFIGS
from fedlabels.worker.state import verify

# After a run on the data that come with scikit-learn: how to go on to others.
_FIRST = "make data" if IN_CHECKOUT else "Fashion-MNIST is in $FEDLABELS_DATA/fashion-mnist"
NEXT = f"next, after {_FIRST}: {shlex.join(RUN)} preset=fashion method=fixmatch"
_PLACES = ("resume=", "run_dir=")  # overrides that say where a run is, not what it is


def main(asked: Composition, *, answers: TextIO | None = None) -> int:
    """Run one job of ``run_sim.py``.

    Parameters
    ----------
    asked : Composition
        Its settings.
    answers : TextIO or None
        Gets one JSON object a round, and a last one with the result or the error; what people read
        goes to the standard error then.

    Returns
    -------
    int
        Exit status: 0 finished, 1 an error that was explained, 130 interrupted by Ctrl-C, SIGTERM
        or SIGHUP.
    """
    quiet()
    console, path = Console(), None

    def failed(text: str) -> None:
        console.error(text)
        if answers is not None:
            there = path if path is not None and (path / "config.yaml").exists() else None
            write_json({"error": text, "run_dir": there}, answers)

    try:
        with terminable():
            config = settings(asked)
            check(config)
            path = folder_of(config, asked)
            callbacks: list[Callback] = [] if answers is None else [JsonLines(answers)]
            facts = facts_of(asked, sys.argv[1:])
            record = execute(config, path, facts=facts, callbacks=callbacks)
            if answers is not None:
                write_json(_result(record, path), answers)
    except KeyboardInterrupt:
        begun = path is not None and (path / "config.yaml").exists()
        then = f"; go on with: {shlex.join([*RUN, f'resume={path}'])}" if begun else ""
        failed(f"stopped{then}")
        return INTERRUPTED
    except FedLabelsError as error:
        failed(str(error))
        return 1
    finally:
        if path is not None and not (config["resume"] or config["run_dir"]):
            remove_new(path)  # as far as nothing came into it
    return 0


def folder_of(config: Mapping[str, Any], asked: Composition) -> Path:
    """Return the run folder: the one to resume, the one given, or a new one by date.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    asked : Composition
        Names the method.

    Raises
    ------
    DiskError
        If it cannot be made.
    """
    given = config["resume"] or config["run_dir"]
    if given:
        return Path(given).absolute()
    stamp = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    return new_folder(Path("runs", f"{stamp}-{asked.choices['method']}").absolute())


def pin_kernels(*, machine: bool = False) -> None:
    """Start this program again with pinned kernels; return where they are, end with a reason.

    Parameters
    ----------
    machine : bool
        Whether the reason is for programs.
    """
    try:
        portable.restart()
    except ConfigError as error:
        if machine:
            write_json({"error": str(error)})
        else:
            Console().error(str(error))
        sys.exit(1)


def compose_settings(overrides: Sequence[str], configs: Path = CONFIGS) -> dict[str, Any]:
    """Return the settings of a new run, composed and checked as on the command line.

    Parameters
    ----------
    overrides : sequence of str
        As on the command line of ``run_sim.py``.
    configs : Path
        Folder of the YAML files.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.
    """
    config = settings(composition(overrides, configs=configs))
    check(config)
    return config


def settings(asked: Composition) -> dict[str, Any]:
    """Return the settings of this job: composed, or those of the run to resume.

    A resumed run takes its own settings, with what was asked for beside them on top.

    Parameters
    ----------
    asked : Composition
        For a run to resume with its own overrides first, as far as it says them.

    Raises
    ------
    CheckpointError
        If there is no run to resume, or its settings cannot be read.
    """
    config = {k: v for k, v in asked.config.items() if k not in ("method", "preset")}
    if config["resume"] is None:
        return config
    file = Path(config["resume"]) / "config.yaml"
    if not file.exists():
        raise CheckpointError(f"resume={config['resume']} holds no run (no config.yaml there)")
    try:
        saved = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}): restore it") from error
    if not isinstance(saved, dict) or not {"run_dir", "rounds"} <= set(saved):
        raise CheckpointError(f"{file} is damaged (it holds no settings of a run): restore it")
    own, given = own_overrides(config["resume"]), asked.overrides
    new = given[len(own) if given[: len(own)] == own else 0 :]
    keys = [override.lstrip("+~").partition("=")[0] for override in new]
    if "method" in keys or "preset" in keys:  # they may change any key
        return {**config, "run_dir": saved["run_dir"]}
    for key in keys:
        _copy(key.split("."), config, saved)
    # groups that the run's version did not have yet, as far as they change no result
    newer = {k: v for k, v in config.items() if k not in saved and may_differ(k)}
    return {**newer, **saved, "resume": config["resume"]}


def own_overrides(folder: str) -> list[str]:
    """Return the overrides that a run was started with; none where there is no such run.

    Raises
    ------
    CheckpointError
        If it was made when settings had other names.
    """
    path = Path(folder)
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
        config = flatten(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")))
        if is_of_before(config):
            old = next(key for key in config if key in RENAMED)
            raise CheckpointError(
                f"resume={path} was made when settings of local training had other names ({old} is"
                f" {RENAMED[old]} now): let the version that made it finish it (package and code in"
                " its manifest.json), or begin a run anew; reports and comparisons read it as it is"
            )
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        return [str(override) for override in manifest["overrides"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def execute(
    config: dict[str, Any],
    path: Path,
    *,
    facts: Mapping[str, Any] = EMPTY,
    callbacks: list[Callback] | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Run a setting in a folder, new or resumed, and write its report.

    Parameters
    ----------
    config : dict
        Resolved settings.
    path : Path
        The run folder.
    facts : mapping
        What else the manifest says: the command, and the overrides that a resume starts from.
    callbacks : list of Callback or None
        Beside the early stop, the tracker and the profile that the settings ask for.
    shown : bool
        Whether progress is shown; the run's log has it in any case.

    Returns
    -------
    dict
        The last round's record.

    Raises
    ------
    RunError
        If another process owns the folder, or the run cannot go on.
    """
    with terminable(), owned(path):
        return execute_owned(config, path, facts=facts, callbacks=callbacks, shown=shown)


def execute_owned(
    config: dict[str, Any],
    path: Path,
    *,
    facts: Mapping[str, Any] = EMPTY,
    callbacks: list[Callback] | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Do what `execute` does in a folder that the caller owns, see :func:`~.owner.owned`."""
    keep_memory()  # the sums of every round are as large as those before
    allowed_cores()  # a wrong limit of cores is refused before anything is written
    resumed = config.get("resume") is not None
    # None when it was killed before its first: it begins again, in the same folder
    checkpoint = newest_checkpoint(path) if resumed else None
    if checkpoint is not None:
        config = planned(config, checkpoint)
    profile, tracking = profile_of(config), tracking_of(config)
    with reading_shown() if shown else contextlib.nullcontext():
        world = build_world(config)
    start = start_of(config, world, path, checkpoint)
    world = replace(world, start=start)
    decomposition = decomposition_of(config, world.strategy)
    early_stop = EarlyStop(**config["early_stop"], every=config["evaluate_every"])
    early_stop.choose(measured(config, world))
    contents, notes = (
        contents_of(config, world.source.content, start.sha256 if start else None),
        list[str](),
    )
    if checkpoint is not None:
        check_unfinished(checkpoint, config, path, world.federation.hash, early_stop)
        notes = check_identity(checkpoint, config, contents)
        verify(path / "state", checkpoint.states or {})
    folder = RunFolder(path, resume=resumed)
    keep(start, path)
    if resumed:
        folder.cut_back(checkpoint.round if checkpoint else 0)
    console = Console(log=folder.log) if shown else Console.unseen(folder.log)
    for note in notes:
        console.warn(note)
    facts = {**facts, "content": contents, "code": code_of(config), "resume_notes": notes}
    # the profile comes last: what others do after a round is part of it
    called: list[Callback] = [
        *([decomposition] if decomposition else []),
        *(callbacks or []),
        *([tracking] if tracking else []),
        *([profile] if profile else []),
    ]
    loop = Loop(
        config, world, folder, console, checkpoint, called, facts, early_stop=early_stop
    )  # fmt: skip
    try:
        record = loop.run()
    finally:
        clock.stop()  # also after a round that did not end
        if tracking:
            tracking.close()
    from fedlabels.report import write_report  # a page that the first round need not wait for

    report = write_report(folder.path)
    closing = _closing(record, report, config, folder)
    console.finish([*(profile.lines() if profile else []), *closing])
    return record


def check_unfinished(
    checkpoint: Checkpoint,
    config: dict[str, Any],
    path: Path,
    federation_hash: str | None,
    early_stop: EarlyStop,
    *,
    reports: bool = True,
) -> None:
    """Check that a run can go on from a checkpoint, or has an end to be made up for.

    Parameters
    ----------
    checkpoint : Checkpoint
        The newest one.
    config : dict
        Resolved settings.
    path : Path
        The run folder.
    federation_hash : str or None
        Who holds what; None where that is not known, with real devices.
    early_stop : EarlyStop
        Gets the checkpoint's state.
    reports : bool
        Whether a report belongs to what a finished run has.

    Raises
    ------
    CheckpointError
        If other settings made it.
    RunError
        If the run has finished.
    """
    check_origin(checkpoint, config=config, federation_hash=federation_hash)
    if "early_stop" in checkpoint.manifest:
        early_stop.load_state(checkpoint.manifest["early_stop"])
    else:
        rows = Table(path / "rounds.csv").rows()
        early_stop.replay(row for row in rows if int(row["round"]) <= checkpoint.round)
    done, rounds = checkpoint.round, config["rounds"]
    if done > rounds:
        raise RunError(f"{path} has done {done} rounds already, more than rounds={rounds}")
    stopped = still_stopped(early_stop, checkpoint.manifest, rounds)
    if stopped is None and done < rounds:
        return
    if not is_finished(path, reports=reports):
        return  # it was killed on the way from its last round to its end
    if stopped is None:
        raise RunError(f"{path} has finished its {done} rounds; give a larger rounds=... to go on")
    then = "change that (early_stop.patience=null, early_stop.target=null or other values)"
    if stopped == BY_CALLBACK:
        then = "give a larger rounds=..."
    raise RunError(
        f"{path} has finished: it stopped early in round {done}, because {stopped}; to go on,"
        f" {then}"
    )


def is_finished(path: Path, *, reports: bool = True) -> bool:
    """Say whether a run has come to its end, its report included.

    Parameters
    ----------
    path : Path
        The run folder.
    reports : bool
        Whether a report belongs to it.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        finished = manifest["status"] == "finished"
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return finished and (not reports or (path / "report.html").exists())


def measured(config: Mapping[str, Any], world: World) -> list[str]:
    """Return the figures that a run measures, as :class:`~.early_stop.EarlyStop` names them."""
    own = evaluates_clients(config, world.client) and bool(world.federation.test.sizes.any())
    wanted = {TEST: world.tests_model, PERSONAL: own, AUC: world.tests_ranking}
    wanted |= dict.fromkeys(MEANS, world.tests_model)
    return [name for name, known in wanted.items() if known]


def _closing(
    record: dict[str, Any], report: Path, config: dict[str, Any], folder: RunFolder
) -> list[str]:
    accuracy, own = record.get("test_accuracy"), record.get("personal_accuracy")
    after = f"after round {record.get('round')}"
    lines = []
    if accuracy is not None or own is None:
        shown = "not evaluated" if accuracy is None else f"{100 * accuracy:.2f} %"
        lines = [f"accuracy on the global test set: {shown} {after}"]
    if own is not None:
        lines.append(
            f"accuracy of the clients' own models: {100 * own:.2f} % {after}, mean over "
            f"{int(record['personal_clients'])} of {config['clients']} clients, "
            f"{int(record['personal_samples'])} test samples"
        )
    return [
        *lines,
        *early_end(folder),
        f"report: {report}",
        *([NEXT] if config["dataset"]["name"] == "digits" else []),
    ]


def _result(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the last line of a run for programs."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    return {
        "result": record,
        "run_dir": path,
        "report": path / "report.html",
        "status": manifest["status"],
        "stopped_early": manifest.get("stopped_early"),
    }


def early_end(folder: RunFolder) -> list[str]:
    """Say that a run has stopped early, and why; nothing of one that went through."""
    stopped = folder.read_manifest().get("stopped_early")
    return [f"stopped early in round {stopped['round']}: {stopped['reason']}"] if stopped else []


def _copy(keys: list[str], source: dict[str, Any], target: dict[str, Any]) -> None:
    for key in keys[:-1]:
        source, target = source[key], target.setdefault(key, {})
    target[keys[-1]] = source[keys[-1]]


def facts_of(asked: Composition, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what only who started a run knows: it goes into the manifest.

    Parameters
    ----------
    asked : Composition
        What was asked for.
    arguments : sequence of str
        Of the command that repeats the run.
    """
    choices, given = asked.choices, [o for o in asked.overrides if not o.startswith(_PLACES)]
    method = str(choices["method"])
    if any(o.startswith(("client=", "strategy=")) for o in given):
        method = f"{choices['client']} + {choices['strategy']}"
    command = [*RUN, *(a for a in arguments if not a.startswith(_PLACES))]
    return {"command": shlex.join(command), "overrides": given, "method": method}
