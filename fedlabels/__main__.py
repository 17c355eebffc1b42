"""``python -m fedlabels``: the command ``fedlabels``."""

import sys

from fedlabels.command import main

if __name__ == "__main__":
    sys.exit(main())
