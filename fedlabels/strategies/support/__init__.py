"""What strategies are made of: sampling, reading replies, guards, snapshots."""

from fedlabels.strategies.support.contract import Merged, NoSettings, Outcome, Server, State
from fedlabels.strategies.support.guard import finite_norms, global_random, one_thread
from fedlabels.strategies.support.replies import Collected, collect
from fedlabels.strategies.support.sampling import SampledGrid, connected_nodes, draw

__all__ = [
    "Collected",
    "Merged",
    "NoSettings",
    "Outcome",
    "SampledGrid",
    "Server",
    "State",
    "collect",
    "connected_nodes",
    "draw",
    "finite_norms",
    "global_random",
    "one_thread",
]
