"""``python -m fedlabels.use predict|export ...``, which are ``fedlabels predict|export``."""

import sys
from collections.abc import Sequence

from fedlabels.use.export import export_main
from fedlabels.use.predict import predict_main

COMMANDS = {"export": export_main, "predict": predict_main}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named first.

    Parameters
    ----------
    arguments : sequence of str or None
        None takes those of the process.

    Returns
    -------
    int
        Exit status: 0, 1 after an error that was explained, 2 for wrong usage, 130 after Ctrl-C.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in COMMANDS:
        return COMMANDS[name](rest[:-1])
    names = "|".join(COMMANDS)
    asked = name in ("-h", "--help")
    (sys.stdout if asked else sys.stderr).write(f"usage: python -m fedlabels.use {names} RUN ...\n")
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
