"""The schema of the settings: structured configs, made from the settings classes themselves.

YAML below configs/ holds only deviations and presets. A client or a strategy is a group option by
being there: its dataclass is its schema, so an unknown key or a wrong type is refused at start.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf

from fedlabels import clients, plugins, strategies
from fedlabels.cohort.device import DEVICES
from fedlabels.cohort.training import own_names, training_names
from fedlabels.cohort.types import EMPTY
from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.settings.arguments import plugins_of
from fedlabels.settings.groups import (
    TRACKERS,
    ArchitecturesConfig,
    BackendConfig,
    CallbacksConfig,
    DatasetConfig,
    DeployConfig,
    EarlyStopConfig,
    LabelNoiseConfig,
    LongTailConfig,
    ShiftConfig,
    SweepConfig,
    TestShardsConfig,
    TrackerConfig,
)
from fedlabels.settings.unread import refuse_unknown, refuse_unused
from fedlabels.worker.mods import check_mods


@dataclass
class RunConfig:
    """Settings of one run.

    Parameters
    ----------
    name : str
        Label of the run in manifest, report and tracker.
    plugins : str or list of str
        Packages of your own with clients, strategies and settings; installed, or in this folder.
    clients : int
        Clients of the federation, >= 1.
    per_round : int
        Clients drawn each round, from 1 to ``clients``.
    rounds : int
        Rounds, >= 1; may be raised when a run is resumed.
    schedule_rounds : int or None
        Rounds over which schedules are planned, >= 1; None is ``rounds`` of the first run. Past
        them a schedule keeps its last value.
    seed : int
        Decides every draw, >= 0.
    evaluate_every : int
        Rounds from one test to the next, >= 1; the last round is tested, too.
    evaluate_clients : bool or None
        Whether clients test on test samples of their own; None is where models stay with them.
    predictions : bool
        Whether ``predictions.npz`` holds every class's probability for each test sample.
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
    resume_code : {"same", "any"}
        Whether a run goes on with the version and commit that made it alone.
    """

    name: str = "run"
    plugins: Any = field(default_factory=list)
    clients: int = 100
    per_round: int = 10
    rounds: int = 50
    schedule_rounds: int | None = None
    seed: int = 0
    evaluate_every: int = 1
    evaluate_clients: bool | None = None
    predictions: bool = True
    checkpoint_every: int = 10
    max_client_failures: float = 0.5
    precision: str = "float32"
    run_dir: str | None = None
    resume: str | None = None
    resume_code: str = "same"
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
    training: Any = None
    strategy: Any = None
    backend: BackendConfig = field(default_factory=BackendConfig)
    early_stop: EarlyStopConfig = field(default_factory=EarlyStopConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


_UNLESS = "fedlabels_unless"
# What run_sim.py takes where a partition or a label policy leaves the choice to its user. Not in
# config.yaml: there they would be keys that other partitions and policies do not have.
USUAL = {
    "partition": {"alpha": 0.5, "sigma": 1.0},
    "labels": {"alpha": 0.5, "fraction": 0.1},
}
# What every partition takes beside its own settings.
_DEALT: Mapping[str, tuple[Any, Any]] = {
    "reuse": (bool, False),
    "samples_per_client": (int | None, None),
    "keep": (float, 1.0),
}


def register(overrides: Sequence[str] = ()) -> None:
    """Put all schemas into Hydra's store; call it before ``hydra.main`` or ``compose``.

    Parameters
    ----------
    overrides : sequence of str
        Of the settings to compose: the plugins that they name take part.

    Raises
    ------
    ConfigError
        If a plugin cannot be used.
    """
    plugins.activate(plugins_of(overrides))
    # of two settings that exclude each other the one that is given wins over the other's default
    OmegaConf.register_new_resolver(
        _UNLESS, lambda other, value: value if other is None else None, replace=True
    )
    store = ConfigStore.instance()
    launcher = {"_target_": "hydra_plugins.fedlabels_cells.Cells"}
    store.store(group="hydra/launcher", name="cells", node=launcher)
    _put(None, "run_schema", partial(_open, RunConfig))
    for name, kind in PARTITIONS.items():
        _put("partition", name, partial(_schema, name, kind, _DEALT, USUAL["partition"]))
    for name, policy in POLICIES.items():
        _put("labels", name, partial(_of_policy, name, policy))
    for name in clients.names():
        _put("client", name, partial(_of_client, name), package="_global_")
    for name in strategies.names():
        _put("strategy", name, partial(_of_strategy, name))


class _Schema(ConfigNode):
    """An entry of Hydra's store that is made when it is asked for: a run needs few of them."""

    def __init__(
        self, name: str, make: Callable[[], Any], group: str | None, package: str | None
    ) -> None:
        self._make = make
        self._node: DictConfig | None = None
        self.name, self.group, self.package, self.provider = name, group, package, None

    @property
    def node(self) -> DictConfig:
        if self._node is None:
            self._node = OmegaConf.structured(self._make())
        return self._node

    @node.setter
    def node(self, node: DictConfig) -> None:
        self._node = node


def _put(
    group: str | None, name: str, make: Callable[[], Any], *, package: str | None = None
) -> None:
    entries = ConfigStore.instance().repo
    for part in group.split("/") if group else ():
        entries = entries.setdefault(part, {})
    entries[f"{name}.yaml"] = _Schema(f"{name}.yaml", make, group, package)


def _of_strategy(name: str) -> Any:
    return _schema(name, strategies.find(name).Settings)


def _of_policy(name: str, policy: type) -> Any:
    node = _schema(name, policy, usual=USUAL["labels"])
    if "total" in node:
        usual = USUAL["labels"]["fraction"] if node["fraction"] is None else node["fraction"]
        node["fraction"] = f"${{{_UNLESS}:${{labels.total}},{usual}}}"
    return node


def _of_client(name: str) -> dict[str, Any]:
    """Make the schema of a client: its own settings, and those of local training it has."""
    kind = clients.find(name)
    training = training_names(kind)
    node = {"client": _schema(name, kind, keys=own_names(kind)), "training": {}}
    if training:
        node["training"] = _schema(None, kind, keys=training)
        amounts = [key for key in ("steps", "epochs") if key in training]
        for key, other in permutations(amounts, 2):
            if (usual := node["training"][key]) is not None:
                node["training"][key] = f"${{{_UNLESS}:${{training.{other}}},{usual}}}"
    return node


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
    name: str | None,
    kind: type,
    extra: Mapping[str, tuple[Any, Any]] = EMPTY,
    usual: Mapping[str, Any] = EMPTY,
    keys: Collection[str] | None = None,
) -> Any:
    """Make a structured config of a settings class: its fields, or some, and ``name`` if any."""
    hints = get_type_hints(kind)
    fields: list[Any] = [] if name is None else [("name", str, field(default=name))]
    for entry in dataclasses.fields(kind):
        if keys is not None and entry.name not in keys:
            continue
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


def check(config: Mapping[str, Any], *, runs: bool = True) -> None:
    """Check what no single group can know.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    runs : bool
        Whether clients are drawn, or the federation is looked at only.

    Raises
    ------
    ConfigError
        If a number is out of range, settings contradict each other, or nothing would read one.
    """
    if not isinstance(config["training"], Mapping):
        raise ConfigError(
            f"training is a group, whose settings come with client=, got {config['training']}: "
            "give training.lr=VALUE and so on"
        )
    refuse_unknown(config, RunConfig)
    _check_deploy(config["deploy"])
    _check_tracker(config.get("tracker") or {})  # a run from before there were trackers has none
    for key in ("clients", "per_round", "rounds", "evaluate_every", "checkpoint_every"):
        if config[key] < 1:
            raise ConfigError(f"{key} must be >= 1, got {config[key]}")
    if (config.get("schedule_rounds") or 1) < 1:
        raise ConfigError(f"schedule_rounds must be >= 1, got {config['schedule_rounds']}")
    _one_of("resume_code", config.get("resume_code", "same"), ("same", "any"))
    if config["seed"] < 0:
        raise ConfigError(f"seed must be >= 0, got {config['seed']}")
    if runs and config["per_round"] > config["clients"]:
        raise ConfigError(
            f"per_round={config['per_round']} is more than clients={config['clients']}; lower it, "
            "or have more clients"
        )
    if not 0 <= config["max_client_failures"] <= 1:
        raise ConfigError(
            f"max_client_failures is a share in [0, 1], got {config['max_client_failures']}"
        )
    _one_of("precision", config["precision"], ("float32", "float64", "bfloat16"))
    start = config["model"].get("start")
    if not (start is None or (isinstance(start, str) and start)):
        raise ConfigError(f"model.start must be a run folder or a .safetensors file, got {start!r}")
    _check_backend(config["backend"])
    _check_early_stop(config)
    _check_architectures(config["architectures"]["models"])
    _check_variants(config["client"], config["strategy"])
    refuse_unused(config, RunConfig)


def _check_early_stop(config: Mapping[str, Any]) -> None:
    every, rounds = config["evaluate_every"], config["rounds"]
    if EarlyStopConfig(**config["early_stop"]).wanted and every > rounds:
        raise ConfigError(
            f"early_stop needs evaluations, but evaluate_every={every} is more than"
            f" rounds={rounds}: lower evaluate_every, or set early_stop.target=null"
            " early_stop.patience=null"
        )


def _check_backend(backend: Mapping[str, Any]) -> None:
    _one_of("backend.name", backend["name"], ("ray", "processes", "serial"))
    _one_of("backend.execution", backend["execution"], ("looped", "stacked", "graphed", "auto"))
    _one_of("backend.device", backend["device"], DEVICES)
    for key in ("stack_size", "block_size", "lanes", "threads"):
        if backend[key] is not None and backend[key] < 1:
            raise ConfigError(f"backend.{key} must be >= 1, got {backend[key]}")


def _check_architectures(models: Any) -> None:
    good = isinstance(models, list | tuple) and all(
        isinstance(m, str) or (isinstance(m, Mapping) and isinstance(m.get("name"), str))
        for m in models
    )
    if not good:
        raise ConfigError(
            "architectures.models must be a list of names of models, or of dicts with name and the "
            f"model's settings, got {models!r}"
        )


def _check_tracker(tracker: Mapping[str, Any]) -> None:
    _one_of("tracker.name", tracker.get("name", "none"), TRACKERS)
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
    check_mods(deploy["mods"])
    for key in ("min_clients", "lost_rounds"):
        if deploy[key] < 1:
            raise ConfigError(f"deploy.{key} must be >= 1, got {deploy[key]}")
    for key in ("describe_seconds", "round_seconds", "max_update_norm", "max_examples"):
        if deploy[key] is not None and not deploy[key] > 0:
            raise ConfigError(f"deploy.{key} must be > 0, got {deploy[key]}")
    if deploy["connect_seconds"] < 0:
        raise ConfigError(f"deploy.connect_seconds must be >= 0, got {deploy['connect_seconds']}")
