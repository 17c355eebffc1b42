"""A run whose clients are real devices: settings, the server's own data, the round loop."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedlabels import clients, plugins
from fedlabels.data.content import content_hash
from fedlabels.data.dataset import ArrayDataset, DataSource
from fedlabels.deploy.bindings import FILE, Bindings
from fedlabels.deploy.connection import flower_home
from fedlabels.deploy.device_data import check_dealt, check_files
from fedlabels.deploy.fleet import DeviceGrid, Patience
from fedlabels.deploy.reception import Fleet
from fedlabels.deploy.spec import DeviceSpec
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.federation.federation import Federation
from fedlabels.federation.ragged import Ragged
from fedlabels.rounds.job import Backend, ClientRow
from fedlabels.run.callbacks import Callback
from fedlabels.run.callbacks.trackers import tracking_of
from fedlabels.run.code import code_of
from fedlabels.run.console import Console
from fedlabels.run.data import Dealt, build_data, contents_of, read_data, views_of
from fedlabels.run.early_stop import EarlyStop
from fedlabels.run.folder import RunFolder, new_folder, remove_new
from fedlabels.run.folder.checkpoint import Checkpoint, newest_checkpoint
from fedlabels.run.folder.owner import owned
from fedlabels.run.identity import check_identity, planned
from fedlabels.run.loop import Loop
from fedlabels.run.main import check_unfinished, early_end, measured, own_overrides
from fedlabels.run.place import Elsewhere, RoundPlan, usable
from fedlabels.run.setup import build_world
from fedlabels.run.signals import terminable
from fedlabels.run.start import keep, start_of
from fedlabels.run.world import World
from fedlabels.settings.config import check
from fedlabels.settings.mistakes import composed
from fedlabels.settings.presets import CONFIGS
from fedlabels.strategies.support.replies import Limits

LOG = logging.getLogger(__name__)
_DEALT = (
    "dataset", "partition", "labels", "clients", "seed", "long_tail", "label_noise", "shift",
    "test_shards", "architectures", "evaluate_clients", "client", "training",
)  # fmt: skip


def settings(run_config: Mapping[str, Any], configs: Path = CONFIGS) -> dict[str, Any]:
    """Compose the settings of a deployed run.

    Parameters
    ----------
    run_config : mapping
        Flower's: ``config-name``, ``overrides`` (as on the command line of ``run_sim.py``) and
        ``num-rounds`` (0 leaves it to the settings).
    configs : Path
        Folder of the YAML files.

    Returns
    -------
    dict
        Resolved and checked; ``overrides`` is not among them.

    Raises
    ------
    ConfigError
        If a key or a value is not known.
    CheckpointError
        If the run to resume does not exist.
    """
    overrides = shlex.split(str(run_config.get("overrides", "")))
    rounds = run_config.get("num-rounds", 0)
    if rounds:
        overrides.append(f"rounds={rounds}")
    resumed = [o.partition("=")[2] for o in overrides if o.startswith("resume=")]
    own: list[str] = []
    if resumed:
        folder = Path(resumed[-1]).expanduser()
        if not (folder / "config.yaml").exists():
            raise CheckpointError(f"resume={folder} holds no run (no config.yaml there)")
        own = own_overrides(str(folder))
        overrides = [*own, *overrides]
    name = str(run_config.get("config-name", "config"))
    config = composed(overrides, own, name=name, configs=configs)
    check(config)
    return config


def folder_of(config: Mapping[str, Any]) -> Path:
    """Return the run folder: the one to resume, the one given, or a new one by date."""
    folder = config["resume"] or config["run_dir"]
    if folder:
        return Path(folder).expanduser().absolute()
    stamp = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    return new_folder(flower_home() / "runs" / f"{stamp}-{config['client']['name']}")


def execute(config: dict[str, Any], grid: Grid, overrides: str = "") -> dict[str, Any]:
    """Run a setting with the devices of a grid, new or resumed.

    Parameters
    ----------
    config : dict
        From `settings`.
    grid : flwr.serverapp.Grid
        Where the devices connect.
    overrides : str
        For the manifest: how the run was started.

    Returns
    -------
    dict
        The last round's record.

    Raises
    ------
    FedLabelsError
        If settings or data are wrong, or the devices are lost; what was done is in a checkpoint.
    """
    path = folder_of(config)
    try:
        with terminable(), owned(path):
            return _execute(config, grid, overrides, path)
    finally:
        if not config["resume"] and not config["run_dir"]:
            remove_new(path)  # as far as nothing came into it


def _execute(config: dict[str, Any], grid: Grid, overrides: str, path: Path) -> dict[str, Any]:
    resumed = config["resume"] is not None
    checkpoint = newest_checkpoint(path) if resumed else None
    if checkpoint is not None:
        config = planned(config, checkpoint)
    tracking = tracking_of(config)
    world = build_world(config, undealt)
    start = start_of(config, world, path, checkpoint)
    if start is not None and not world.strategy.has_model:
        raise ConfigError(
            f"model.start with strategy={config['strategy']['name']} is for simulations: clients "
            "have models of their own, and devices do not get the weights"
        )
    world = replace(world, start=start)
    early_stop = EarlyStop(**config["early_stop"], every=config["evaluate_every"])
    early_stop.choose(measured(config, world))
    contents, notes = (
        contents_of(config, world.source.content, start.sha256 if start else None),
        list[str](),
    )
    if checkpoint is not None:
        check_unfinished(checkpoint, config, path, None, early_stop, reports=False)
        notes = check_identity(checkpoint, config, contents)
    folder = RunFolder(path, resume=resumed)
    keep(start, path)
    if resumed:
        folder.cut_back(checkpoint.round if checkpoint else 0)
    LOG.info("run folder: %s", folder.path)
    place = Devices(config, world, grid, checkpoint)
    console = Console(log=folder.log, every=1)
    for note in notes:
        console.warn(note)
    facts = {
        "overrides": shlex.split(overrides), "deployed": True, "content": contents,
        "code": code_of(config), "resume_notes": notes,
    }  # fmt: skip
    callbacks: list[Callback] = [tracking] if tracking else []
    loop = Loop(config, world, folder, console, checkpoint, callbacks, facts, place, early_stop)
    try:
        record = loop.run()
    finally:
        if tracking:
            tracking.close()
    console.finish([*early_end(folder), f"run folder: {folder.path}"])
    return record


def undealt(config: Mapping[str, Any]) -> Dealt:
    """Return the server's own data of a run whose clients are devices: nobody is dealt anything.

    Raises
    ------
    FedLabelsError
        If a setting is for simulations only, or data are missing.
    """
    if config["architectures"]["models"]:
        raise ConfigError(
            "architectures.models is for simulations; real devices have one architecture so far"
        )
    if config["deploy"]["partitions"]:
        check_dealt(config["dataset"])
        check_files(config)
    source, nobody = _server_data(config), Ragged.from_lists([[]])
    federation = Federation.plain(nobody, nobody, source.train.y, source.train.num_classes, {})
    return Dealt(source, federation, views_of(config, source))


def _server_data(config: Mapping[str, Any]) -> DataSource:
    """Return what the server knows of the data: a data set, or only what samples look like.

    With ``deploy.data`` (shape, class_names or num_classes, mean, std, pixels) the server holds
    none, and nothing is tested on it. Otherwise ``dataset`` gives shape, classes and
    normalization, and its test split is the global test set.
    """
    described = dict(config["deploy"]["data"])
    if not described:
        source = read_data(config)
        return replace(source, content=content_hash(source))
    allowed = ("shape", "num_classes", "class_names", "mean", "std", "pixels")
    unknown = sorted(set(described) - set(allowed))
    missing = [key for key in ("shape", "mean", "std") if key not in described]
    if not {"num_classes", "class_names"} & set(described):
        missing.append("class_names (or num_classes)")
    if unknown or missing:
        raise ConfigError(
            f"deploy.data has {', '.join(allowed)}; "
            + (f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}")
        )
    names = described.get("class_names") or [str(c) for c in range(int(described["num_classes"]))]
    kind = np.uint8 if described.get("pixels", True) else np.float32
    nothing = np.zeros((0, *described["shape"]), dtype=kind)
    dataset = ArrayDataset(
        "devices", nothing, np.zeros(0, dtype=np.int64), len(names), tuple(map(str, names)),
        tuple(map(float, described["mean"])), tuple(map(float, described["std"])),
    )  # fmt: skip
    return DataSource(dataset, dataset, empty=True)


class Devices(Elsewhere):
    """Clients that are real devices.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    world : World
        What is run.
    grid : flwr.serverapp.Grid
        Where they connect.
    checkpoint : Checkpoint or None
        Where the run goes on from.
    """

    def __init__(
        self, config: Mapping[str, Any], world: World, grid: Grid, checkpoint: Checkpoint | None
    ) -> None:
        super().__init__(config, world)
        self._flower = grid
        self._fleet = Fleet()
        self._lost = 0
        self._grid: DeviceGrid | None = None
        before = checkpoint.manifest.get("devices") if checkpoint else None
        self._bindings = Bindings(before=before)
        deploy = config["deploy"]
        self.client_of = self._fleet.client_of
        self.asks_at_the_end = deploy["final_evaluation"]
        self.min_clients = deploy["min_clients"]
        self.lost_rounds = deploy["lost_rounds"]
        self.deadline_seconds = deploy["connect_seconds"]

    def grid(self, folder: RunFolder, backend: Backend) -> DeviceGrid:
        """Return the grid of the devices."""
        deploy = self._config["deploy"]
        patience = Patience(deploy["describe_seconds"], deploy["round_seconds"])
        limits = Limits(deploy["max_update_norm"], deploy["max_examples"])
        spec = self.spec(str(folder.read_manifest()["run_id"]))
        self._bindings = Bindings(folder.path / FILE, self._bindings.table())
        self._grid = DeviceGrid(
            self._flower, spec.dumps(), self._fleet, patience, limits, self._bindings
        )
        self._grid.expected = self._world.strategy.expected
        self._grid.floored = self._world.layout.floored
        self._grid.least = self.min_clients
        return self._grid

    def spec(self, run: str) -> DeviceSpec:
        """Return what devices must know of the run."""
        train, config = self._world.source.train, self._config
        dealt = None
        if config["deploy"]["partitions"]:
            dealt = {key: config[key] for key in _DEALT}
            dealt["dataset"] = {**dealt["dataset"], "root": None}  # a folder of this machine
        return DeviceSpec(
            run=run,
            seed=config["seed"],
            client=clients.settings_of(config),
            model={key: value for key, value in config["model"].items() if key != "start"},
            shape=train.shape,
            class_names=train.class_names,
            mean=train.mean,
            std=train.std,
            pixels=train.x.dtype == np.uint8,
            views=config["dataset"]["views"],
            view_options=self._world.view_options,
            precision=config["precision"],
            federation=dealt,
            federation_hash=self._dealt_hash(),
            mods=tuple(config["deploy"]["mods"]),
            plugins=plugins.used(type(self._world.client)),
        )

    def _dealt_hash(self) -> str | None:
        """Return the hash of what devices deal by themselves, as far as the server has the data."""
        deploy = self._config["deploy"]
        if not deploy["partitions"] or deploy["data"]:
            return None
        return build_data(self._config, rendered=False)[1].hash

    def held(self, client_id: int) -> tuple[int, int]:
        """Return how many labeled and unlabeled samples a device said it has."""
        held = self._fleet.held[client_id]
        return held.labeled, held.unlabeled

    def kept(self) -> dict[str, Any]:
        """Return who is which client."""
        return {"devices": self._bindings.table()}

    def begin(self, plan: RoundPlan) -> None:
        """Tell the devices of the next messages what this round needs."""
        if self._grid is not None:
            self._grid.evaluate = plan.evaluates and plan.index > 1  # before, nothing is learned
            self._grid.kept_from = plan.kept_from
            self._grid.tested = plan.tested

    def evaluates_clients(self) -> bool:
        """Say no: devices test what they receive when they train, one process for both."""
        return False

    def goes_on(self, rows: Sequence[ClientRow]) -> bool:
        """Go on until nobody has sent anything usable for some rounds, one after the other."""
        self._lost = 0 if usable(rows) else self._lost + 1
        return self._lost < self.lost_rounds

    def allowance(self) -> str:
        """Say which failures are allowed."""
        return f"{self._config['deploy']['lost_rounds']} rounds in which nobody answers usably"


def serve(grid: Grid, run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Do the whole of a run: compose its settings and execute them."""
    return execute(settings(run_config), grid, str(run_config.get("overrides", "")))
