"""``python -m fedlabels.federation preview``: see `fedlabels.run.preview`."""

import sys

if __name__ == "__main__":
    from fedlabels.run.preview import main  # needs hydra, which a device does not have

    sys.exit(main(sys.argv[1:]))
