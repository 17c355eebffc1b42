"""``python -m fedlabels.federation preview``: the command that `fedlabels.preview` was before."""

import runpy
import sys

if __name__ == "__main__":
    sys.stderr.write("note: this command is python -m fedlabels.preview now\n")
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "preview"]
    runpy.run_module("fedlabels.preview", run_name="__main__", alter_sys=True)
