"""Where Hydra looks: a launcher, see :mod:`fedlabels.sweep.launcher`, and settings of plugins."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from fedlabels import plugins
from fedlabels.sweep.launcher import CellsLauncher


class Cells(CellsLauncher):
    """The launcher ``hydra/launcher=cells``."""


class PluginSettings(SearchPathPlugin):
    """The folders ``configs`` of the plugins that take part."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them: a file of ours is never replaced."""
        for name, folder in plugins.configs().items():
            search_path.append(provider=name, path=f"file://{folder}")
