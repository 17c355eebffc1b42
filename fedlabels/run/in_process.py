"""A run inside a program or a notebook, which finds its process as it was."""

from collections.abc import Sequence
from pathlib import Path

from fedlabels.rounds.flower_compat import quieted
from fedlabels.run.folder import remove_new
from fedlabels.run.kernels import check_portable
from fedlabels.run.main import execute, facts_of, folder_of, own_overrides, settings
from fedlabels.settings.config import check
from fedlabels.settings.mistakes import composition


def run_in_process(
    overrides: Sequence[str], *, resume: str | None = None, shown: bool = False
) -> Path:
    """Do what ``fedlabels run`` does with the same overrides.

    Parameters
    ----------
    overrides : sequence of str
        As on the command line, ``resume=`` among them where a run goes on.
    resume : str or None
        The folder that ``resume=`` names.
    shown : bool
        Whether progress is shown.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    FedLabelsError
        As the command says it.
    KeyboardInterrupt
        At Ctrl-C, SIGTERM or SIGHUP, after a checkpoint was written.
    """
    own = own_overrides(resume) if resume else []
    asked = composition([*own, *overrides], own)
    config = settings(asked)
    check(config)
    check_portable(config["backend"])
    path = folder_of(config, asked)
    try:
        with quieted():
            execute(config, path, facts=facts_of(asked, overrides), shown=shown)
    except KeyboardInterrupt as stop:
        stop.add_note(f"go on with: fedlabels.simulate(resume={str(path)!r})")
        raise
    finally:
        if not (config["resume"] or config["run_dir"]):
            remove_new(path)  # as far as nothing came into it
    return path
