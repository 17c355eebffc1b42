"""What ``manifest.json`` says of a run: what it is, from its first moment on, and how it ended."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import yaml

from fedlabels.machine.kernels import hardware
from fedlabels.run.code import package_versions
from fedlabels.run.console import Console
from fedlabels.run.data import input_of, sample_of
from fedlabels.run.ending import status_of
from fedlabels.run.folder import RunFolder
from fedlabels.run.folder.checkpoint import Checkpoint
from fedlabels.run.kernels import warnings_of
from fedlabels.run.notes import odd
from fedlabels.run.world import World
from fedlabels.settings.hashing import config_hash

Settings = Mapping[str, Any]


def own_settings(config: Settings) -> dict[str, Any]:
    """Return the settings that are the run's own: where it goes on from is none of them."""
    return {key: value for key, value in config.items() if key != "resume"}


class Manifest:
    """The manifest of a run, whose clock starts here.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        Data, federation, client.
    folder : RunFolder
        Where it is written.
    facts : mapping
        Further values, such as the command.
    checkpoint : Checkpoint or None
        Where the run goes on from.
    """

    def __init__(
        self,
        config: Settings,
        world: World,
        folder: RunFolder,
        facts: Settings,
        checkpoint: Checkpoint | None,
    ) -> None:
        self._config, self._world, self._folder = config, world, folder
        self.facts, self._checkpoint = facts, checkpoint
        self._began, self._since = time.time(), time.monotonic()

    def seconds(self) -> float:
        """Return the seconds that this process and those before it took."""
        before = self._checkpoint.manifest.get("seconds", 0.0) if self._checkpoint else 0.0
        return float(before) + time.monotonic() - self._since

    def announce(self, console: Console, *, dealt: bool) -> None:
        """Write what the run is: its settings, who holds what, and the manifest of both.

        Parameters
        ----------
        console : Console
            Gets what is odd about the data or the machine.
        dealt : bool
            Whether it is known who holds what.
        """
        config, source = own_settings(self._config), self._world.source
        self._folder.write_config(yaml.safe_dump(config, sort_keys=False))
        if dealt:
            self._world.federation.save(self._folder.federation)
        saved = self._folder.read_manifest()
        before, now = saved.get("hardware"), hardware(config["backend"]["threads"])
        notes = odd(self._world, dealt=dealt)
        notes += warnings_of(config, (before if self._checkpoint else None) or {}, now)
        console.note(*(f"! {note}" for note in notes))
        self._folder.update_manifest(
            # what devices keep belongs to a run
            run_id=saved.get("run_id") or secrets.token_hex(8),
            name=config["name"],
            seed=config["seed"],
            status="running",
            started=self._began,
            stopped_early=None,
            package=package_versions(),
            hardware=now,
            config_hash=config_hash(config),
            federation_hash=self._world.federation.hash,
            class_names=list(source.train.class_names),
            dataset=source.train.name,
            sample=sample_of(source.train),
            input=input_of(source.train),
            view_options=dict(self._world.view_options),
            notes=notes,
            **{"method": config["client"]["name"], **self.facts},
        )

    def end(self, error: BaseException | None, **values: Any) -> None:
        """Write how the run ended: finished, or with an error, a signal being one."""
        status = status_of(error)
        if status == "finished":
            # one of fewer rounds: whoever finds a finished run without a report writes it
            self._folder.remove_report()
        self._folder.update_manifest(
            status=status, finished=time.time(), seconds=self.seconds(), **values
        )
