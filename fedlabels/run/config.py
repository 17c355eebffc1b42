"""The schema of the settings: structured configs, made from the settings classes themselves.

YAML below configs/ holds only deviations and presets. A client or a strategy is a group option by
being there: its dataclass is its schema, so an unknown key or a wrong type is refused at start.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

import clients
import strategies
from fedlabels.cohort.device import DEVICES
from fedlabels.cohort.types import EMPTY
from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.run.trackers import NAMES


@dataclass
class DatasetConfig:
    """Which data: reader, folder, preset of the weak and strong views, reader's own options.

    Parameters
    ----------
    name : str
        A reader, from ``digits`` to ``huggingface``.
    root : str or None
        Folder of the data, the only place that is searched; None searches ``$FEDLABELS_DATA``, then
        ``/usr/share/datasets``.
    views : {"none", "digits", "fashion", "natural", "timeseries"}
        Preset of the weak and strong views.
    view_options : dict
        What differs from the preset.
    options : dict
        The reader's own options.
    """

    name: str = "digits"
    root: str | None = None
    views: str = "none"
    view_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class BackendConfig:
    """Where and how clients are simulated; changes nothing of what is simulated.

    Parameters
    ----------
    name : {"ray", "processes", "serial"}
        Workers on Ray, workers as plain processes of this machine, or all in this process.
    num_workers : int or None
        Workers, >= 1; None is one a GPU, or one a core without GPUs. Not of ``serial``.
    gpus_per_worker : float or None
        GPUs of a Ray worker, >= 0; None is 1 where Ray sees a GPU, else 0.
    execution : {"auto", "looped", "stacked", "graphed"}
        One by one, many as one model, CUDA graphs; ``auto`` is ``looped`` on a CPU, else measured.
    threads : int
        torch threads of a worker, >= 1; another number changes the last bits.
    """

    name: str = "ray"
    num_workers: int | None = None
    gpus_per_worker: float | None = None
    num_gpus: int | None = None
    address: str = "local"
    device: str = "auto"
    execution: str = "auto"
    stack_size: int | None = None
    block_size: int | None = None
    lanes: int = 4
    tf32: bool = True
    threads: int = 1


@dataclass
class EarlyStopConfig:
    """Stop when the test accuracy reached a target, or has not risen for some evaluations."""

    target: float | None = None
    patience: int | None = None


@dataclass
class ProfileConfig:
    """Where the time of every round goes, and the course of one of them; None is the second.

    Parameters
    ----------
    enabled : bool
        Whether times are taken; ``callbacks=profile`` sets it.
    """

    enabled: bool = False
    trace_round: int | None = None


@dataclass
class DecompositionConfig:
    """What the loss is made of, every few rounds: which variant, on how many samples.

    Parameters
    ----------
    enabled : bool
        Whether the loss is decomposed; ``callbacks=decomposition`` sets it.
    """

    enabled: bool = False
    variant: str = "full"
    every: int = 10
    probe_samples: int = 500
    server_samples: int = 1000
    labels: str = "labeled"


@dataclass
class CallbacksConfig:
    """What is called while a run goes on; may differ when it is resumed."""

    profile: ProfileConfig = field(default_factory=ProfileConfig)
    decomposition: DecompositionConfig = field(default_factory=DecompositionConfig)


@dataclass
class TrackerConfig:
    """Where rounds.csv is mirrored: which tracker, its place, online or not; docs/trackers.md.

    Parameters
    ----------
    name : {"none", "tensorboard", "wandb", "mlflow"}
        Which tracker.
    uri : str or None
        Folder, store or server; None is a place in the run folder.
    mode : {"offline", "online"}
        Whether W&B uploads while the run goes on.
    project : str
        W&B's project, MLflow's experiment.
    """

    name: str = "none"
    uri: str | None = None
    mode: str = "offline"
    project: str = "fedlabels"


@dataclass
class LongTailConfig:
    """Thins out classes: smallest over largest class, and which class is large."""

    factor: float = 1.0
    order: str = "natural"


@dataclass
class LabelNoiseConfig:
    """Turns labels of the clients wrong: kind, mean rate, spread over the clients."""

    kind: str = "none"
    rate: float = 0.0
    concentration: float | None = None


@dataclass
class ShiftConfig:
    """Feature shift of images: synthetic domains, or shifts of single clients."""

    preset: str = "none"
    sigma_max: float = 0.1
    share: float = 1.0


@dataclass
class ArchitecturesConfig:
    """Further models beside ``model``, and who has which; none is one model for all.

    Parameters
    ----------
    models : list
        Names of models, or dicts of ``name`` and the model's settings.
    """

    models: Any = field(default_factory=list)
    assign: str = "cyclic"


@dataclass
class TestShardsConfig:
    """Test samples of each client's own: size of all over that of the test set, and which."""

    share: float = 0.0
    by: str = "classes"


@dataclass
class DeployConfig:
    """Real devices: how long to wait, what an update may be at most, what the server knows.

    Parameters
    ----------
    min_clients : int
        Fewest devices that a round begins with, >= 1.
    connect_seconds : float
        How long the first round waits for ``per_round`` devices, >= 0.
    describe_seconds : float
        Deadline for a new device to say who it is, > 0.
    round_seconds : float
        Deadline of a round, > 0: who is later does not count.
    lost_rounds : int
        So many rounds without any answer end the run, >= 1.
    final_evaluation : bool
        Whether devices test the last model, in an exchange of its own.
    max_update_norm : float or None
        Largest distance of an update from the sent model, > 0; None is any.
    max_examples : float or None
        Most examples that a device may claim, > 0; None is any.
    partitions : bool
        Whether devices hold partitions of ``dataset``, dealt as in the simulator.
    mods : list of str
        Flower's ``fixed_clipping``, ``adaptive_clipping``, ``message_size``, ``arrays_size``,
        outermost first.
    data : dict
        Instead of data at the server: ``shape``, ``class_names`` or ``num_classes``, ``mean``,
        ``std`` and ``pixels``.
    """

    min_clients: int = 1
    connect_seconds: float = 120.0
    describe_seconds: float = 300.0
    round_seconds: float = 3600.0
    lost_rounds: int = 3
    final_evaluation: bool = True
    max_update_norm: float | None = None
    max_examples: float | None = None
    partitions: bool = False
    mods: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepConfig:
    """Many settings: where, how many side by side, what goes with a method; see docs/sweeps.md.

    Parameters
    ----------
    name : str
        Folder below ``runs/sweeps``.
    dir : str or None
        Another folder.
    jobs : int or None
        Cells side by side on this machine, >= 1; None is one a core.
    address : str or None
        A Ray cluster instead, ``auto`` or HOST:PORT; the folder must be on a shared disk.
    cpus : float
        CPUs of a cell on Ray, > 0.
    per_method : dict
        Method -> list of overrides: steps and rates have other names in other methods.
    """

    name: str = "sweep"
    dir: str | None = None
    jobs: int | None = None
    address: str | None = None
    cpus: float = 1.0
    per_method: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunConfig:
    """Settings of one run.

    Parameters
    ----------
    name : str
        Label of the run in manifest, report and tracker.
    clients : int
        Clients of the federation, >= 1.
    per_round : int
        Clients drawn each round, from 1 to ``clients``.
    rounds : int
        Rounds, >= 1; may be raised when a run is resumed.
    seed : int
        Decides every draw, >= 0.
    evaluate_every : int
        Rounds from one test to the next, >= 1; the last round is tested, too.
    evaluate_clients : bool or None
        Whether clients test on test samples of their own; None is where models stay with them.
    checkpoint_every : int
        Rounds from one checkpoint to the next, >= 1.
    max_client_failures : float
        Share of a round's clients that may fail, in [0, 1]; more stop the run.
    precision : {"float32", "float64", "bfloat16"}
        Of the computation; ``bfloat16`` keeps weights and sums in float32.
    run_dir : str or None
        The run folder; None is a new one by date below ``runs``.
    resume : str or None
        Run folder to go on from, with its settings.
    """

    name: str = "run"
    clients: int = 100
    per_round: int = 10
    rounds: int = 50
    seed: int = 0
    evaluate_every: int = 1
    evaluate_clients: bool | None = None
    checkpoint_every: int = 10
    max_client_failures: float = 0.5
    precision: str = "float32"
    run_dir: str | None = None
    resume: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    partition: Any = None
    labels: Any = None
    long_tail: LongTailConfig = field(default_factory=LongTailConfig)
    label_noise: LabelNoiseConfig = field(default_factory=LabelNoiseConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    test_shards: TestShardsConfig = field(default_factory=TestShardsConfig)
    model: Any = None
    architectures: ArchitecturesConfig = field(default_factory=ArchitecturesConfig)
    client: Any = None
    strategy: Any = None
    backend: BackendConfig = field(default_factory=BackendConfig)
    early_stop: EarlyStopConfig = field(default_factory=EarlyStopConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


# What run_sim.py takes where a partition or a label policy leaves the choice to its user. Not in
# config.yaml: there they would be keys that other partitions and policies do not have.
USUAL = {
    "partition": {"alpha": 0.5, "sigma": 1.0},
    "labels": {"alpha": 0.5, "fraction": 0.1},
}


def register() -> None:
    """Put all schemas into Hydra's store; call it before ``hydra.main`` or ``compose``."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=_open(RunConfig))
    launcher = {"_target_": "hydra_plugins.fedlabels_cells.Cells"}
    store.store(group="hydra/launcher", name="cells", node=launcher)
    extra: dict[str, tuple[Any, Any]] = {
        "reuse": (bool, False),
        "samples_per_client": (int | None, None),
        "keep": (float, 1.0),
    }
    for name, kind in PARTITIONS.items():
        store.store(
            group="partition", name=name, node=_schema(name, kind, extra, USUAL["partition"])
        )
    for name, policy in POLICIES.items():
        node = _schema(name, policy, usual=USUAL["labels"])
        store.store(group="labels", name=name, node=node)
    for name in clients.names():
        store.store(group="client", name=name, node=_schema(name, clients.find(name)))
    for name in strategies.names():
        store.store(group="strategy", name=name, node=_schema(name, strategies.find(name).Settings))


def _open(schema: Any) -> DictConfig:
    """Let the dicts of a schema take new keys, which Hydra forbids everywhere else."""
    node: DictConfig = OmegaConf.structured(schema)
    for key in node:
        part = None if OmegaConf.is_missing(node, key) else node[key]
        if isinstance(part, DictConfig) and OmegaConf.get_type(part) is dict:
            OmegaConf.set_struct(part, False)
        elif isinstance(part, DictConfig):
            node[key] = _open(part)
    return node


def _schema(
    name: str,
    kind: type,
    extra: Mapping[str, tuple[Any, Any]] = EMPTY,
    usual: Mapping[str, Any] = EMPTY,
) -> Any:
    """Make a structured config of a settings class: its fields, and ``name``."""
    hints = get_type_hints(kind)
    fields: list[Any] = [("name", str, field(default=name))]
    for entry in dataclasses.fields(kind):
        value = _default(entry)
        if entry.name in usual and value.default == "???":
            value = field(default=usual[entry.name])
        fields.append((entry.name, _plain(hints[entry.name]), value))
    for key, (hint, value) in extra.items():
        fields.append((key, _plain(hint), field(default=value)))
    return _open(dataclasses.make_dataclass(f"{kind.__name__}Config", fields))


def _default(entry: Any) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return field(default_factory=entry.default_factory)
    if entry.default is dataclasses.MISSING:
        return field(default="???")  # Hydra's mark of a value that must be given
    value = entry.default
    if isinstance(value, tuple):
        return field(default_factory=lambda: list(value))
    return field(default=value)


def _plain(hint: Any) -> Any:
    """Reduce a type to what OmegaConf checks: scalars, their optional forms, dicts; else Any."""
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        if len(inner) == 1 and len(get_args(hint)) == 2:
            plain = _plain(inner[0])
            return typing.Any if plain is typing.Any else plain | None
        return typing.Any
    if get_origin(hint) is dict:
        return dict[str, typing.Any]
    return hint if hint in (bool, int, float, str) else typing.Any


def check(config: Mapping[str, Any]) -> None:
    """Check what no single group can know.

    Raises
    ------
    ConfigError
        If a number is out of range, or settings contradict each other.
    """
    _check_deploy(config["deploy"])
    _check_tracker(config.get("tracker") or {})  # a run from before there were trackers has none
    for key in ("clients", "per_round", "rounds", "evaluate_every", "checkpoint_every"):
        if config[key] < 1:
            raise ConfigError(f"{key} must be >= 1, got {config[key]}")
    if config["seed"] < 0:
        raise ConfigError(f"seed must be >= 0, got {config['seed']}")
    if config["per_round"] > config["clients"]:
        raise ConfigError(
            f"per_round={config['per_round']} is more than clients={config['clients']}; lower it, "
            "or have more clients"
        )
    if not 0 <= config["max_client_failures"] <= 1:
        raise ConfigError(
            f"max_client_failures is a share in [0, 1], got {config['max_client_failures']}"
        )
    _one_of("precision", config["precision"], ("float32", "float64", "bfloat16"))
    _check_backend(config["backend"])
    _check_variants(config["client"], config["strategy"])


def _check_backend(backend: Mapping[str, Any]) -> None:
    _one_of("backend.name", backend["name"], ("ray", "processes", "serial"))
    _one_of("backend.execution", backend["execution"], ("looped", "stacked", "graphed", "auto"))
    _one_of("backend.device", backend["device"], DEVICES)
    for key in ("stack_size", "block_size", "lanes", "threads"):
        if backend[key] is not None and backend[key] < 1:
            raise ConfigError(f"backend.{key} must be >= 1, got {backend[key]}")


def _check_tracker(tracker: Mapping[str, Any]) -> None:
    _one_of("tracker.name", tracker.get("name", "none"), NAMES)
    _one_of("tracker.mode", tracker.get("mode", "offline"), ("offline", "online"))


def _check_variants(client: Mapping[str, Any], strategy: Mapping[str, Any]) -> None:
    """Refuse a client and a strategy whose terms do not fit: one sends what the other reads."""
    sent, read = client.get("variant"), strategy.get("variant")
    if (sent == "flute") != (read == "flute") and (read is not None or sent == "flute"):
        raise ConfigError(
            f"client.variant={sent} does not fit strategy {strategy['name']} (variant={read}); use "
            f"strategy=fedlabel strategy.variant={sent}"
        )


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got '{value}'")


def _check_deploy(deploy: Mapping[str, Any]) -> None:
    for key in ("min_clients", "lost_rounds"):
        if deploy[key] < 1:
            raise ConfigError(f"deploy.{key} must be >= 1, got {deploy[key]}")
    for key in ("describe_seconds", "round_seconds", "max_update_norm", "max_examples"):
        if deploy[key] is not None and not deploy[key] > 0:
            raise ConfigError(f"deploy.{key} must be > 0, got {deploy[key]}")
    if deploy["connect_seconds"] < 0:
        raise ConfigError(f"deploy.connect_seconds must be >= 0, got {deploy['connect_seconds']}")
