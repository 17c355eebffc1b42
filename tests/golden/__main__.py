"""Command line: ``python -m tests.golden FILE.json [...] [--kinds PREFIX]``."""

import sys

from tests.golden.runner import main

if __name__ == "__main__":
    sys.exit(main())
