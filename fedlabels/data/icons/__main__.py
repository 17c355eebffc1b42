"""Write icons.npz: ``python -m fedlabels.data.icons [FOLDER]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedlabels.data.icons.build import SYSTEM_THEMES, build
from fedlabels.data.icons.reader import FILE, NAME
from fedlabels.data.roots import data_home
from fedlabels.errors import DataError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m fedlabels.data.icons``.

    Parameters
    ----------
    arguments : sequence of str or None
        Those of the command line.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fedlabels.data.icons",
        description="Collect the icons of installed desktop themes into icons.npz.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="where to write it; $FEDLABELS_DATA/icons or ~/.cache/fedlabels/icons if not given",
    )
    parser.add_argument("--themes", type=Path, default=SYSTEM_THEMES, help="installed themes")
    given = parser.parse_args(arguments)
    folder = given.folder or data_home() / NAME
    try:
        counts = build(folder, themes=given.themes)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    found = ", ".join(f"{theme} {count}" for theme, count in counts.items())
    sys.stdout.write(f"{folder / FILE}: {sum(counts.values())} icons ({found})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
