"""Simulate federated learning: one run, or a sweep with -m. See README.md.

In a checkout this is what ``fedlabels run`` is where the package is installed.
"""

import sys

from fedlabels.command import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
