"""What a run says of its kernels before it begins: other bits than before, slow arithmetic."""

from collections.abc import Mapping
from typing import Any

from fedlabels.cohort.device import choose_device
from fedlabels.errors import ConfigError
from fedlabels.machine.differences import differing
from fedlabels.machine.kernels import cost_of_bfloat16, has_bfloat16
from fedlabels.machine.portable import check_pinned

Settings = Mapping[str, Any]


def check_portable(backend: Settings) -> None:
    """Refuse ``backend.portable`` where it would not hold.

    Parameters
    ----------
    backend : mapping
        Settings of the backend.

    Raises
    ------
    ConfigError
        If the processor lacks what is pinned, the process began without it, or a GPU computes.
    """
    if not backend.get("portable"):
        return
    check_pinned()
    if choose_device(backend["device"]).type != "cpu":
        raise ConfigError(
            "backend.portable=true pins the kernels of CPUs, and this run would compute on a GPU: "
            "set backend.device=cpu, or backend.portable=false"
        )


def warnings_of(config: Settings, before: Settings, now: Settings) -> list[str]:
    """Return what to tell the user.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    before : mapping
        Hardware of the run that is resumed; empty for a new one.
    now : mapping
        Hardware of this process.
    """
    warnings = []
    changes = differing(before, now)
    if changes:
        warnings.append(
            "the run goes on with other kernels, so its bits are not those of one machine "
            f"({'; '.join(changes)})"
        )
    on_cpu = config["backend"]["device"] == "cpu" or choose_device("auto").type == "cpu"
    if config["precision"] == "bfloat16" and on_cpu and not has_bfloat16():
        warnings.append(
            "this CPU has no bfloat16 arithmetic: a small step took "
            f"{cost_of_bfloat16():.1f} times as long as in float32 just now; "
            "precision=float32 is faster"
        )
    return warnings
