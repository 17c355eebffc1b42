"""Where Hydra looks for launchers; what it finds is in :mod:`fedlabels.sweep.launcher`."""

from fedlabels.sweep.launcher import CellsLauncher


class Cells(CellsLauncher):
    """The launcher ``hydra/launcher=cells``."""
