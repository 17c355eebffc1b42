"""Simulate federated learning: one run, or a sweep with -m. See README.md.

In a checkout this is what ``fedlabels run`` is where the package is installed.
"""

import sys

from fedlabels.command.simulate import simulate

if __name__ == "__main__":
    sys.exit(simulate(sys.argv[1:]))
