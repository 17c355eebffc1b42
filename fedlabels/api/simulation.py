"""A run from Python: the settings, the bits and the folder of ``fedlabels run``."""

import os
from pathlib import Path
from typing import Any

from fedlabels.api.run import Run
from fedlabels.errors import ConfigError
from fedlabels.run.in_process import run_in_process
from fedlabels.settings.overrides import overrides_of


def simulate(
    *,
    run_dir: str | Path | None = None,
    resume: str | Path | Run | None = None,
    progress: bool = False,
    **settings: Any,
) -> Run:
    """Run a setting in this process and return what came out.

    Parameters
    ----------
    run_dir : str or Path or None
        The run folder; None is a new one by date below ``runs``.
    resume : str or Path or Run or None
        A run to go on with, with its own settings; those that are given beside it change them, as
        far as a resume may.
    progress : bool
        Whether to show a line every few rounds; the run's log has them in any case.
    **settings
        As on the command line. A value that is no dict is ``KEY=VALUE``: ``method="fixmatch"``,
        ``clients=20``. A dict has the keys below: ``training={"lr": 0.1}`` is ``training.lr=0.1``;
        in that of a group ``name`` chooses the option: ``labels={"name": "zero_label_clients",
        "fraction": 0.2}``. A dotted key may be given as ``**{"training.lr": 0.1}``. A key that is
        given twice is refused. Unlike the command, a run is ``backend="serial"`` where nothing else
        is said.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    FedLabelsError
        As the command says it: a setting is wrong, data are missing, the run cannot go on.
    KeyboardInterrupt
        At Ctrl-C, or when a notebook's cell is stopped; a checkpoint was written, ``resume`` goes
        on.
    """
    if isinstance(resume, Run):
        resume = resume.path
    if run_dir is not None and resume is not None:
        raise ConfigError(
            f"run_dir={os.fspath(run_dir)} and resume={os.fspath(resume)} are both the run folder:"
            " give resume to go on, run_dir for a new run"
        )
    places = {"run_dir": run_dir, "resume": resume}
    overrides = overrides_of({k: v for k, v in places.items() if v is not None})
    overrides += overrides_of(settings)
    if resume is None and not any(text.startswith("backend=") for text in overrides):
        overrides.append("backend=serial")
    folder = None if resume is None else os.fspath(resume)
    try:
        return Run.open(run_in_process(overrides, resume=folder, shown=progress))
    except ConfigError as error:
        raise error from None  # it says all; a notebook would show what Hydra says before it
