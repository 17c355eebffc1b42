"""Where Hydra looks: a launcher, see :mod:`fedlabels.sweep.launcher`, and settings of plugins."""

from collections.abc import Sequence

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fedlabels import plugins


class Cells(Launcher):
    """The launcher ``hydra/launcher=cells``; a single run does not load what a sweep needs."""

    def __init__(self) -> None:
        from fedlabels.sweep.launcher import CellsLauncher

        self._launcher = CellsLauncher()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra knows."""
        self._launcher.setup(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run all cells that are not finished."""
        return self._launcher.launch(job_overrides, initial_job_idx)


class PluginSettings(SearchPathPlugin):
    """The folders ``configs`` of the plugins that take part."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them: a file of ours is never replaced."""
        for name, folder in plugins.configs().items():
            search_path.append(provider=name, path=f"file://{folder}")
