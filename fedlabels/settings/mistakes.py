"""Mistakes in settings that Hydra finds while it composes them, as one line each.

Hydra's own texts advise ``+key``, which adds what nothing reads, and do not say what is allowed.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from fedlabels.errors import ConfigError, near
from fedlabels.program import SETTINGS
from fedlabels.renamed import RENAMED
from fedlabels.settings.config import register
from fedlabels.settings.presets import CONFIGS, preset_files
from fedlabels.settings.unread import BESIDE, CHOOSER, options_with

FULL_ERROR = "HYDRA_FULL_ERROR"
_TYPES = {
    "Integer": "a whole number",
    "int": "a whole number",
    "Float": "a number",
    "float": "a number",
    "Boolean": "true or false",
    "bool": "true or false",
    "String": "a text",
    "str": "a text",
}
_held: list[str | None] = []  # what the environment said before Hydra was told to hand errors on


@contextmanager
def composing(given: Sequence[str], own: Sequence[str] = ()) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one line that says what is allowed.

    Parameters
    ----------
    given : sequence of str
        The overrides, as they were given.
    own : sequence of str
        Those of them that a run to resume was started with.

    Raises
    ------
    ConfigError
        If the settings cannot be composed.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(error, given, own)) from error
    except yaml.YAMLError as error:  # a file of settings, which a plugin may bring
        reason = " ".join(str(error).split())
        raise ConfigError(f"settings cannot be read ({reason}): mend the file") from error


@dataclass(frozen=True)
class Composition:
    """Settings as Hydra composed them; they are not checked yet.

    Parameters
    ----------
    config : dict
        With everything filled in.
    overrides : list of str
        What it was composed with.
    choices : mapping of str to str
        Group -> the option that was chosen.
    """

    config: dict[str, Any]
    overrides: list[str]
    choices: Mapping[str, str]


def composition(
    overrides: Sequence[str],
    own: Sequence[str] = (),
    *,
    name: str = "config",
    configs: Path = CONFIGS,
) -> Composition:
    """Compose settings outside of ``hydra.main``; a Hydra that the caller has is left alone.

    Parameters
    ----------
    overrides, own : sequence of str
        As for `composing`.
    name : str
        Of the YAML file to begin with.
    configs : Path
        Folder of the YAML files.

    Raises
    ------
    ConfigError
        If the settings cannot be composed, or one has no value.
    """
    register(overrides)
    theirs, base = GlobalHydra.instance(), VersionBase.instance()
    GlobalHydra.set_instance(copy(theirs))
    GlobalHydra.instance().clear()
    VersionBase.set_instance(copy(base))
    try:
        with composing(overrides, own), initialize_config_dir(str(configs), version_base="1.3"):
            config = compose(name, overrides=list(overrides), return_hydra_config=True)
    finally:
        GlobalHydra.set_instance(theirs)
        VersionBase.set_instance(base)
    choices = {str(group): str(option) for group, option in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
    return Composition(plain(config), list(overrides), choices)


def composed(
    overrides: Sequence[str],
    own: Sequence[str] = (),
    *,
    name: str = "config",
    configs: Path = CONFIGS,
) -> dict[str, Any]:
    """Return the settings of a `composition` alone."""
    return composition(overrides, own, name=name, configs=configs).config


@contextmanager
def handed_on(given: Sequence[str], own: Sequence[str] = ()) -> Iterator[None]:
    """Do what `composing` does around ``hydra.main``, which prints its errors and exits.

    With ``HYDRA_FULL_ERROR=1`` the errors are left as they are.
    """
    if os.environ.get(FULL_ERROR) == "1":
        yield
        return
    _held.append(os.environ.get(FULL_ERROR))
    os.environ[FULL_ERROR] = "1"
    try:
        with composing(given, own):
            yield
    finally:
        composition_done()


def composition_done() -> None:
    """Let Hydra report again as the user wants it; for what runs once settings are composed."""
    while _held:
        before = _held.pop()
        os.environ.pop(FULL_ERROR, None)
        if before is not None:
            os.environ[FULL_ERROR] = before


def plain(config: DictConfig) -> dict[str, Any]:
    """Return composed settings with everything filled in.

    Raises
    ------
    ConfigError
        If a setting has no value, or refers to one that is not there.
    """
    try:
        found = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise ConfigError(f"{key} has no default here: give {key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"the settings are incomplete: {_first(error)}") from error
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def explained(error: Exception, given: Sequence[str], own: Sequence[str] = ()) -> str:
    """Say in one line what is wrong with settings, what is allowed and what to do."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    for override in _parsed(given):
        if override.is_sweep_override() and "Ambiguous" in str(error):
            line = str(override.input_line)
            if line in str(error):
                key, _, values = line.partition("=")
                return (
                    f"{line} has several values: add -m to run all of them, one after the other; a "
                    f"list is {key}=[{values}]"
                )
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _no_option(str(error.missing_cfg_file), error.options, own)
    cause = error if isinstance(error, OmegaConfBaseException) else _cause(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        part = re.match(r"In '(\w+)/(\w+)'", str(error))
        return _misfit(part[1], part[2], cause) if part else _no_key(cause, _key_of(error, cause))
    kind = re.search(r"(?:converted to|field of type|is not a valid) '?(\w+)", str(cause))
    if isinstance(cause, OmegaConfBaseException) and kind and kind[1] in _TYPES:
        key = str(cause.full_key)
        refused = _value_of(error, key)
        return f"{key} must be {_TYPES[kind[1]]}, got {refused}"
    taken = re.search(r"An item is already at '([^']+)'", str(error))
    if taken:
        return f"{taken[1]} is a setting already: give it as {taken[1]}=VALUE, without the plus"
    return _first(cause if isinstance(cause, OmegaConfBaseException) else error)


def _cause(error: Exception) -> BaseException | None:
    return error.__cause__ or error.__context__


def _parsed(given: Sequence[str]) -> Iterator[Override]:
    parser = OverridesParser.create()
    for argument in given:
        try:
            yield parser.parse_override(argument)
        except HydraException:
            continue  # an option of the command


def _unreadable(error: OverrideParseException) -> str:
    given = str(error.override)
    if "=" not in given:
        return f"{given} is no setting with a value: give KEY=VALUE, for instance {given}=VALUE"
    key = given.partition("=")[0]
    return (
        f"the value of {given} cannot be read; put one with brackets, quotes, commas or blanks into"
        f" quotes of both kinds: \"{key}='...'\""
    )


def _no_option(file: str, options: Sequence[str], own: Sequence[str]) -> str:
    group, _, name = file.rpartition("/")
    if f"{group}={name}" in own:
        return (
            f"the run's {group} {name} is not in this checkout: bring its files back, or resume "
            "where they are"
        )
    return f"{group}={name} is not known{near(name, options)}; allowed: {_listed(options)}"


def _key_of(error: Exception, cause: OmegaConfBaseException) -> str:
    """Return the key as it was given, else the one that was not found."""
    found = re.search(r"Could not (?:override|append to config|delete) '([^']+)'", str(error))
    full = str(cause.full_key)
    return found[1] if found and found[1].startswith(full) else full


def _no_key(cause: OmegaConfBaseException, key: str) -> str:
    above, _, last = str(cause.full_key).rpartition(".")
    known = _keys(cause.parent_node)
    prefix = f"{above}." if above else ""
    hint = near(last, known, prefix)
    option, group = _chosen(above, cause.parent_node)
    of = f" of {group}={option}" if option else ""
    if key in RENAMED:
        return f"{key} is {RENAMED[key]} now, for every method; {SETTINGS} lists all"
    others = options_with(above, last) if above else []
    if others:
        hint = f" ({', '.join(f'{group}={name}' for name in others)} would have it)"
    if not above:  # all of them would be a page
        return f"{key} is no setting{hint}; {SETTINGS} lists all"
    listed = _listed(f"{prefix}{entry}" for entry in known)
    return f"{key} is no setting{of}{hint}; allowed: {listed}"


def _misfit(group: str, name: str, cause: OmegaConfBaseException) -> str:
    """Say that a method or a preset sets a key which the chosen part does not have."""
    part, _, key = str(cause.full_key).rpartition(".")
    if key == group and not part:
        return (
            f"the file of {group}={name} must begin with the line '# @package _global_', else its "
            f"settings are those of a group {group}"
        )
    chosen, chooser = _chosen(part, cause.parent_node)
    fits = [n for n in options_with(part, key) if _has_all(part, n, group, name)]
    has_not = f"which {chooser}={chosen} does not have" if chosen else "which is no setting"
    known = f"; fitting: {', '.join(f'{chooser}={option}' for option in fits)}" if fits else ""
    return f"{group}={name} sets {part}.{key}, {has_not}{known}; or leave {chooser}= out"


def _has_all(part: str, option: str, group: str, name: str) -> bool:
    """Return whether an option has all keys that a method or a preset sets in its group."""
    try:
        files = {file.stem: file for file in preset_files(group)}
        text = files[name].read_text(encoding="utf-8")
        set_there = (yaml.safe_load(text) or {}).get(part) or {}
    except (KeyError, OSError, ValueError, yaml.YAMLError):
        return False
    return all(option in options_with(part, str(key)) for key in set_there)


def _keys(node: Any) -> list[str]:
    known = [str(key) for key in node] if isinstance(node, DictConfig) else []
    is_whole = "per_round" in known and "clients" in known
    return [*known, *(BESIDE if is_whole else ())]


def _chosen(group: str, node: Any) -> tuple[str | None, str]:
    """Return the option that decides a group's keys, and the group in which it is chosen."""
    chooser = CHOOSER.get(group, group)
    if chooser != group and isinstance(node, DictConfig):
        node = OmegaConf.select(cast(DictConfig, node._get_root()), chooser)
    return _name(node), chooser


def _name(node: Any) -> str | None:
    named = isinstance(node, DictConfig) and "name" in node and node._get_parent() is not None
    return str(node["name"]) if named else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _value_of(error: Exception, key: str) -> str:
    found = re.search(re.escape(f"override {key}=") + r"(.*)", str(error))
    return f"'{found[1]}'" if found else _first(error)


def _first(error: Exception | None) -> str:
    """Return the first line of a text."""
    return str(error).strip().partition("\n")[0]
