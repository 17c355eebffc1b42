"""How a run ends: every step is tried, what went wrong first is kept, and the status is true."""

from collections.abc import Callable


def tried(step: Callable[[], object], first: BaseException | None) -> BaseException | None:
    """Take a step of an end; what goes wrong in it never hides what went wrong before.

    Parameters
    ----------
    step : callable
        What is to be done in any case.
    first : BaseException or None
        What went wrong so far.

    Returns
    -------
    BaseException or None
        `first`, else what went wrong now.
    """
    try:
        step()
    except BaseException as error:
        return error if first is None else first
    return first


def status_of(first: BaseException | None) -> str:
    """Return a run's status in its manifest: ``finished``, ``stopped`` or ``failed``."""
    if first is None:
        return "finished"
    return "stopped" if isinstance(first, KeyboardInterrupt) else "failed"
