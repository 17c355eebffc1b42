"""The command ``fedlabels``, which is ``python -m fedlabels``: one word for each thing to do.

Nothing heavy is imported before it is known what is asked for: help comes at once.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import fedlabels
from fedlabels.errors import near

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True)
class Command:
    """One command.

    Parameters
    ----------
    summary : str
        What it does, in a line.
    place : str
        ``module:function``; the function takes the arguments and returns the exit status, None for
        0.
    """

    summary: str
    place: str

    def load(self) -> Callable[[Sequence[str]], int | None]:
        """Import its function."""
        module, _, name = self.place.partition(":")
        with uncollected():
            function: Callable[[Sequence[str]], int | None] = getattr(import_module(module), name)
        return function

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command and return its exit status."""
        return self.load()(arguments) or 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave garbage alone while modules and settings are loaded.

    They make many objects that stay, and the collector would look through all of them again and
    again: a third of the time until a run begins. What is there in the end is never looked at
    again, if it was loaded by this process for the first time.
    """
    first, enabled = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        if enabled:
            gc.enable()


_SIMULATE = "fedlabels.command.simulate"
COMMANDS = {
    "run": Command("simulate one setting", f"{_SIMULATE}:simulate"),
    "sweep": Command("simulate all combinations of values", f"{_SIMULATE}:sweep"),
    "resume": Command("go on with a run that was ended", f"{_SIMULATE}:resume"),
    "preview": Command("who would hold which samples and labels", "fedlabels.preview:main"),
    "methods": Command("which methods there are", "fedlabels.command.methods:main"),
    "datasets": Command(
        "which data sets there are, and where they lie here", "fedlabels.command.datasets:main"
    ),
    "doctor": Command(
        "whether this machine, or a device, is ready", "fedlabels.command.doctor:main"
    ),
    "verify": Command(
        "whether a run folder is whole, and comes out again", "fedlabels.command.verify:main"
    ),
    "completion": Command("a script for your shell", "fedlabels.command.completion:main"),
    "bench": Command("rounds a second here, by backend", "fedlabels.command.bench:main"),
    "report": Command("the report of a run, or a comparison", "fedlabels.report.__main__:main"),
    "predict": Command("what a run's model says of samples", "fedlabels.use.predict:predict_main"),
    "export": Command("a run's model for other programs", "fedlabels.use.export:export_main"),
    "deploy": Command("keys, connections, real devices", "fedlabels.deploy.__main__:main"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named first.

    Parameters
    ----------
    arguments : sequence of str or None
        None takes those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 where something is wrong, 2 for a command that is not known, or 130 after
        Ctrl-C.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in ("", "-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if name in ("-V", "--version", "version"):
        sys.stdout.write(f"fedlabels {fedlabels.__version__}\n")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"error: {_unknown(name)}\n")
        return 2
    return COMMANDS[name].run(rest[:-1])


def overview() -> str:
    """Return what commands there are."""
    wide = 2 + max(map(len, COMMANDS))
    lines = [f"  {name:<{wide}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fedlabels COMMAND ...",
            "",
            fedlabels.__doc__ or "",
            "",
            *lines,
            "",
            "fedlabels COMMAND --help says more, fedlabels --version which version this is.",
            "",
        ]
    )


def _unknown(name: str) -> str:
    if "=" in name:
        return f"{name} is a setting, and no command: fedlabels run {name} ..."
    return f"{name} is no command{near(name, COMMANDS)}; there are: {', '.join(COMMANDS)}"
