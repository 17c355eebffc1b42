"""The machine: cores that may be used, threads and instruction sets that decide the last bits.

Nothing here imports torch or numpy before it is called: `portable` has to speak first.
"""

from fedlabels.machine.cores import SHARE, allowed_cores, share_of_cores

__all__ = ["SHARE", "allowed_cores", "share_of_cores"]
