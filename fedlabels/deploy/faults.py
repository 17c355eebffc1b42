"""What a device tells the server of an error: a number and a fixed sentence, and nothing else.

Texts of errors name files, folders and classes, which are the device's own: they go to its log.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from fedlabels.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DiskError,
    FedLabelsError,
    RunError,
    WireError,
)

NODE, DATA, STATE, METHOD, MESSAGE, WORK, OTHER = range(1, 8)
SENTENCES = {
    NODE: "its node configuration cannot be used",
    DATA: "its data are missing, damaged or do not fit the federation",
    STATE: "its state folder cannot be used",
    METHOD: "what the server says cannot be used here; both need the same version of the toolkit",
    MESSAGE: "the message does not have the agreed form, or a mod refused the reply",
    WORK: "the client's code failed",
    OTHER: "something failed that the toolkit did not expect",
}
"""Number -> what goes up."""


_KINDS = (
    (DataError, DATA),
    (DiskError, STATE),
    (CheckpointError, STATE),
    (WireError, MESSAGE),
    (ConfigError, METHOD),
    (RunError, WORK),
)


class Fault(FedLabelsError):
    """An error of a device whose number is known; its text is for the device's own log.

    Parameters
    ----------
    number : int
        One of `SENTENCES`.
    text : str
        The whole of it.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


@contextmanager
def at(number: int, files: int = OTHER) -> Iterator[None]:
    """Give errors that are raised here a number; errors of data keep theirs.

    Parameters
    ----------
    number : int
        One of `SENTENCES`, for errors of the toolkit.
    files : int
        For those of the file system: what may not be read, a disk that is gone.
    """
    try:
        yield
    except DataError as error:
        raise Fault(DATA, str(error)) from error
    except FedLabelsError as error:
        raise Fault(number, str(error)) from error
    except OSError as error:
        raise Fault(files, str(error)) from error


def number_of(error: BaseException) -> int:
    """Return the number of an error."""
    if isinstance(error, Fault):
        return error.number
    return next((number for kind, number in _KINDS if isinstance(error, kind)), OTHER)


def sentence(number: int) -> str:
    """Return what goes up for a number."""
    return f"error {number}: {SENTENCES[number]}; the device's own log says more"
