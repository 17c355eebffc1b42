"""Settings that nothing would read: unknown keys, and those whose switch is off.

A ``+key`` on the command line adds any key to Hydra's config, at any depth, so the composed config
is compared with the schema once more.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import clients
import strategies
from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.models.registry import MODELS, known_settings
from fedlabels.run import groups
from fedlabels.run.hashing import may_differ

Config = Mapping[str, Any]
Known = Mapping[str, Any]  # key -> None for a value or an open dict, or the keys below it
BESIDE = ("method", "preset", "hydra")  # names of presets, not settings
PARTITION_EXTRA = ("reuse", "samples_per_client", "keep")


def refuse_unknown(config: Config, schema: type) -> None:
    """Refuse keys that no part of a run reads, by their full path.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    schema : type
        Dataclass of a whole run.

    Raises
    ------
    ConfigError
        If there is one; the message names the nearest known key.
    """
    known = _known_of(schema) | _chosen(config)
    unknown = list(_unknown({k: v for k, v in config.items() if k not in BESIDE}, known, ""))
    if unknown:
        paths = list(_paths(known, ""))
        above = unknown[0].rpartition(".")[0]
        beside = [path for path in paths if path.rpartition(".")[0] == above]
        near = _near(unknown[0], beside) or _near(unknown[0], paths)
        told = f"; did you mean {near}?" if near else "; docs/settings.md lists all"
        raise ConfigError(f"{unknown[0]} is no setting, nothing would read it{told}")


def _near(path: str, known: list[str]) -> str | None:
    """Return the known path that is nearest, by its last part first."""
    last = {entry.rpartition(".")[2]: entry for entry in known}
    found = difflib.get_close_matches(path.rpartition(".")[2], list(last), n=1)
    return last[found[0]] if found else None


def _known_of(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {
        entry.name: _known_of(hints[entry.name])
        if dataclasses.is_dataclass(hints[entry.name])
        else None
        for entry in dataclasses.fields(schema)
    }


def _chosen(config: Config) -> dict[str, Any]:
    """Return the keys of the groups whose schema depends on a name; an unknown name has any."""
    found: dict[str, Any] = {}
    for group in (*_KINDS, "model"):
        keys = _keys_of(group, str(config[group]["name"]))
        if keys is not None:
            found[group] = dict.fromkeys(keys)
    return found


def options_with(group: str, key: str) -> list[str]:
    """Return the options of a group that have a key.

    Parameters
    ----------
    group : str
        ``client``, ``strategy``, ``partition``, ``labels`` or ``model``; others have one schema.
    key : str
        Its last part.
    """
    options: dict[str, Iterable[str]] = {
        "partition": PARTITIONS,
        "labels": POLICIES,
        "client": clients.names(),
        "strategy": strategies.names(),
        "model": MODELS,
    }
    return [n for n in sorted(options.get(group, ())) if key in (_keys_of(group, n) or ())]


_KINDS: dict[str, Callable[[str], Any]] = {
    "partition": PARTITIONS.get,
    "labels": POLICIES.get,
    "client": lambda name: clients.find(name) if name in clients.names() else None,
    "strategy": lambda n: strategies.find(n).Settings if n in strategies.names() else None,
}


def _keys_of(group: str, name: str) -> tuple[str, ...] | None:
    """Return the keys of a group's option; None where the name is not known."""
    if group == "model":
        return ("name", *known_settings(name)) if name in MODELS else None
    kind = _KINDS[group](name)
    extra = PARTITION_EXTRA if group == "partition" else ()
    return None if kind is None else ("name", *extra, *_names(kind))


def _names(kind: type[Any]) -> list[str]:
    return [entry.name for entry in dataclasses.fields(kind)]


def _unknown(config: Config, known: Known, prefix: str) -> Iterator[str]:
    for key, value in config.items():
        if key not in known:
            yield f"{prefix}{key}{_first_below(value)}"
        elif isinstance(known[key], Mapping) and isinstance(value, Mapping):
            yield from _unknown(value, known[key], f"{prefix}{key}.")


def _first_below(value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return ""
    key = next(iter(value))
    return f".{key}{_first_below(value[key])}"


def _paths(known: Known, prefix: str) -> Iterator[str]:
    for key, below in known.items():
        if isinstance(below, Mapping):
            yield from _paths(below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@dataclass(frozen=True)
class Switch:
    """Settings of a group that count only under a condition.

    Parameters
    ----------
    group : type
        Dataclass with the defaults.
    path : str
        Dotted name of the group.
    keys : tuple of str
        The settings.
    on : callable
        Says of the group's values whether they count.
    otherwise : str
        What is the case when they do not, and what to do.
    """

    group: type
    path: str
    keys: tuple[str, ...]
    on: Callable[[Config], bool]
    otherwise: str


SWITCHES = (
    Switch(
        groups.LongTailConfig, "long_tail", ("order",), lambda g: g["factor"] != 1,
        "without a long tail; set long_tail.factor below 1",
    ),
    Switch(
        groups.LabelNoiseConfig, "label_noise", ("concentration",), lambda g: g["kind"] != "none",
        "without label noise; set label_noise.kind and label_noise.rate",
    ),
    Switch(
        groups.ShiftConfig, "shift", ("sigma_max",), lambda g: g["preset"] == "noise",
        "without shift.preset=noise",
    ),
    Switch(
        groups.ShiftConfig, "shift", ("share",), lambda g: g["preset"] == "corruptions",
        "without shift.preset=corruptions",
    ),
    Switch(
        groups.TestShardsConfig, "test_shards", ("by",), lambda g: g["share"] > 0,
        "without test_shards.share above 0",
    ),
    Switch(
        groups.ArchitecturesConfig, "architectures", ("assign",), lambda g: bool(g["models"]),
        "without architectures.models",
    ),
    Switch(
        groups.ProfileConfig, "callbacks.profile", ("trace_round",), lambda g: g["enabled"],
        "without callbacks=profile",
    ),
    Switch(
        groups.DecompositionConfig, "callbacks.decomposition",
        ("variant", "every", "probe_samples", "server_samples", "labels"),
        lambda g: g["enabled"], "without callbacks=decomposition",
    ),
    Switch(
        groups.TrackerConfig, "tracker", ("uri",), lambda g: g["name"] != "none",
        "without a tracker; choose one, for instance tracker=tensorboard",
    ),
    Switch(
        groups.TrackerConfig, "tracker", ("project",), lambda g: g["name"] in ("wandb", "mlflow"),
        "without tracker=wandb or tracker=mlflow",
    ),
    Switch(
        groups.TrackerConfig, "tracker", ("mode",), lambda g: g["name"] == "wandb",
        "without tracker=wandb",
    ),
    Switch(
        groups.BackendConfig, "backend", ("gpus_per_worker", "num_gpus", "address"),
        lambda g: g["name"] == "ray", "without backend=ray",
    ),
    Switch(
        groups.BackendConfig, "backend", ("num_workers",), lambda g: g["name"] != "serial",
        "with backend=serial, which has no workers; choose backend=processes or ray",
    ),
    Switch(
        groups.SweepConfig, "sweep", ("cpus",), lambda g: g["address"] is not None,
        "without sweep.address",
    ),
    Switch(
        groups.DatasetConfig, "dataset", ("root",), lambda g: g["name"] != "digits",
        "with dataset=digits, which comes with scikit-learn",
    ),
)  # fmt: skip


def refuse_unused(config: Config) -> None:
    """Refuse settings that differ from their default where they have no effect.

    Settings that may differ at a resume are left alone then: they come with the run's own, and a
    run may go on elsewhere.

    Raises
    ------
    ConfigError
        If there is one.
    """
    resumed = config.get("resume") is not None
    for switch in SWITCHES:
        if resumed and may_differ(switch.path):
            continue
        values: Any = config
        for name in switch.path.split("."):
            values = values.get(name) or {}
        if not values or switch.on(values):
            continue
        usual = {entry.name: entry.default for entry in dataclasses.fields(switch.group)}
        for key in switch.keys:
            if key in values and values[key] != usual[key]:
                raise ConfigError(
                    f"{switch.path}.{key}={values[key]} has no effect {switch.otherwise}; or leave "
                    "it out"
                )
