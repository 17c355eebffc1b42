"""Settings that nothing would read: unknown keys, and those whose switch is off.

A ``+key`` on the command line adds any key to Hydra's config, at any depth, so the composed config
is compared with the schema once more.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import yaml

from fedlabels import clients, strategies
from fedlabels.cohort.training import own_names, training_names
from fedlabels.cohort.types import EMPTY
from fedlabels.data import make_views
from fedlabels.effect import Only, declared, defaults, shown
from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.models.registry import MODELS, known_settings
from fedlabels.program import SETTINGS
from fedlabels.settings.hashing import may_differ
from fedlabels.settings.presets import preset_files

Config = Mapping[str, Any]
Known = Mapping[str, Any]  # key -> None for a value or an open dict, or the keys below it
BESIDE = ("method", "preset", "hydra")  # names of presets, not settings
CHOOSER = {"training": "client"}  # group -> the one whose choice decides its keys
_PARTITION_USUAL = {"reuse": False, "samples_per_client": None, "keep": 1.0}
PARTITION_EXTRA = tuple(_PARTITION_USUAL)


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
        hint = f"; did you mean {near}?" if near else f"; {SETTINGS} lists all"
        raise ConfigError(f"{unknown[0]} is no setting, nothing would read it{hint}")


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
    schemas: dict[str, Any] = {}
    for group in (*_KINDS, "training", "model"):
        keys = _keys_of(group, str(config[CHOOSER.get(group, group)]["name"]))
        if keys is not None:
            schemas[group] = dict.fromkeys(keys)
    return schemas


def options_with(group: str, key: str) -> list[str]:
    """Return the options of a group that have a key.

    Parameters
    ----------
    group : str
        ``client``, ``training`` (whose options are clients), ``strategy``, ``partition``,
        ``labels`` or ``model``; others have one schema.
    key : str
        Its last part.
    """
    options: dict[str, Iterable[str]] = {
        "partition": PARTITIONS,
        "labels": POLICIES,
        "client": clients.names(),
        "training": clients.names(),
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
        return ("name", "start", *known_settings(name)) if name in MODELS else None
    kind = _KINDS[CHOOSER.get(group, group)](name)
    if kind is None:
        return None
    if group == "training":
        return training_names(kind)
    extra = PARTITION_EXTRA if group == "partition" else ()
    return ("name", *extra, *(own_names(kind) if group == "client" else _names(kind)))


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
class _Group:
    """Some settings: their values, their defaults, and what counts only beside what."""

    path: str
    values: Config
    usual: Config
    rules: Sequence[Only]
    elsewhere: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def path_of(self, key: str) -> str:
        """Return the group of a key: the group's own path, or another's whose class is the same."""
        return self.elsewhere.get(key, self.path)

    def full(self, key: str) -> str:
        """Return the dotted key of a field."""
        path = self.path_of(key)
        return f"{path}.{key}" if path else key


def refuse_unused(config: Config, schema: type) -> None:
    """Refuse settings that differ from their default where they have no effect.

    What counts beside what is declared by the classes that have the settings, see
    :mod:`fedlabels.effect`. A value that the preset of the run's method sets passes. Settings that
    may differ at a resume are left alone then: they come with the run's own, and a run may go on
    elsewhere.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    schema : type
        Dataclass of a whole run.

    Raises
    ------
    ConfigError
        If there is one.
    """
    resumed = config.get("resume") is not None
    for group in _groups_of(config, schema):
        if resumed and may_differ(group.path):
            continue
        values = {**group.usual, **group.values}
        for rule in group.rules:
            changed = [k for k in rule.keys if not _same(values.get(k), group.usual.get(k))]
            if not changed or rule.met(values, config):
                continue
            for key in changed:
                if not _of_a_method(config, group.path_of(key), key, values[key]):
                    full = group.full(key)
                    raise ConfigError(
                        f"{full}={shown(values[key])} has no effect without "
                        f"{rule.remedy(group.full, values, config)}; set that, or go back to "
                        f"{full}={shown(group.usual.get(key))}"
                    )


def _groups_of(config: Config, schema: type) -> Iterator[_Group]:
    yield from _of_schema(config, schema, "")
    for name in _KINDS:
        kind = _KINDS[name](str(config[name]["name"]))
        if kind is not None:
            extra = _PARTITION_USUAL if name == "partition" else {}
            usual = {**defaults(kind), **extra}
            values, elsewhere = config[name], dict[str, str]()
            if name == "client":
                values = clients.settings_of(config)
                elsewhere = dict.fromkeys(training_names(kind), "training")
            yield _Group(name, values, usual, list(declared(kind)), elsewhere)
    further = config["architectures"]["models"]
    entries = {"model": config["model"]}
    entries |= {f"architectures.models[{k}]": entry for k, entry in enumerate(further)}
    for path, entry in entries.items():
        if isinstance(entry, Mapping) and entry.get("name") in MODELS:
            kind = MODELS[str(entry["name"])]
            yield _Group(path, entry, defaults(kind), list(declared(kind)))
    yield from _of_views(config["dataset"])


def _of_schema(values: Any, schema: type, path: str) -> Iterator[_Group]:
    """Yield the groups of a schema; one that a run from before it does not have is left out."""
    hints = get_type_hints(schema)
    yield _Group(path, values, defaults(schema), list(declared(schema)))
    for entry in dataclasses.fields(schema):
        below = values.get(entry.name)
        if dataclasses.is_dataclass(hints[entry.name]) and below:
            inner = f"{path}.{entry.name}" if path else entry.name
            yield from _of_schema(below, hints[entry.name], inner)


def _of_views(dataset: Config) -> Iterator[_Group]:
    try:
        views = make_views(dataset["views"])
    except ConfigError:
        return  # said with the data
    usual: dict[str, Any] = {}
    rules: list[Only] = []
    for view in views.values():
        usual |= {name: getattr(view, name) for name in _names(type(view))}
        rules += declared(type(view))
    yield _Group("dataset.view_options", dataset["view_options"], usual, rules)


def _same(value: Any, usual: Any) -> bool:
    """Say whether a value is the default; YAML has lists where classes have tuples."""
    if isinstance(value, list | tuple) and isinstance(usual, list | tuple):
        return list(value) == list(usual)
    return bool(value == usual)


def _of_a_method(config: Config, group: str, key: str, value: Any) -> bool:
    """Say whether the preset of the run's method sets a value.

    A run does not keep the method's name: it is known by its client and strategy, and by what else
    its preset sets, which differs from the default then.
    """
    for file in preset_files("method"):
        preset = yaml.safe_load(file.read_text(encoding="utf-8"))
        parts = [pair for entry in preset.pop("defaults") for pair in entry.items()]
        fits = all(config[k.removeprefix("override /")]["name"] == name for k, name in parts)
        if not fits or preset.get(group, {}).get(key) != value:
            continue
        usual = defaults(MODELS[config["model"]["name"]]) if "model" in preset else {}
        others = (k for k in preset.get("model", {}) if group != "model")
        if not any(_same(config["model"].get(k), usual.get(k)) for k in others):
            return True
    return False
