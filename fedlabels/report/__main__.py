"""Write the report of a run: ``python -m fedlabels.report RUN_FOLDER``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedlabels.errors import FedLabelsError
from fedlabels.report.page import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the report.

    Parameters
    ----------
    arguments : sequence of str or None
        The command line; None reads the process's own.

    Raises
    ------
    SystemExit
        Always: with 0 and the report's path, or with 2 and what went wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m fedlabels.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="what the run wrote")
    folder = parser.parse_args(arguments).folder
    try:
        path = write_report(folder)
    except (FedLabelsError, OSError) as error:
        parser.error(str(error))
    parser.exit(message=f"{path}\n")


if __name__ == "__main__":
    main()
