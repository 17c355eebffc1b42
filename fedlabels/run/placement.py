"""Which execution a run gets: what can be decided before workers start is decided here."""

from collections.abc import Mapping
from typing import Any

from fedlabels.cohort.device import choose_device
from fedlabels.errors import ConfigError


def execution_of(backend: Mapping[str, Any]) -> str:
    """Return the execution that workers are told.

    Parameters
    ----------
    backend : mapping
        Settings of the backend.

    Returns
    -------
    str
        ``"auto"`` only where workers may have a GPU, on which it is measured.

    Raises
    ------
    ConfigError
        If a GPU is asked for that is not there, or an execution that needs one.
    """
    execution: str = backend["execution"]
    if backend["name"] == "ray" and backend["address"] != "local":
        return execution  # nothing is known here of the machines of a cluster: workers decide
    if choose_device(backend["device"]).type == "cuda":
        return execution
    if execution == "graphed":
        raise ConfigError(
            "backend.execution=graphed replays CUDA graphs and needs a GPU; use auto, which is "
            "looped on a CPU"
        )
    return "looped" if execution == "auto" else execution
