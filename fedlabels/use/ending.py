"""How a command ends: its exit status, and its error in one line."""

import sys
from collections.abc import Callable

from fedlabels.errors import FedLabelsError


def explained(work: Callable[[], None]) -> int:
    """Do what a command does; return its exit status: 0, 1 after an error, 130 after Ctrl-C."""
    try:
        work()
    except (FedLabelsError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0
