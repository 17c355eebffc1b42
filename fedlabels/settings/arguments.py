"""Arguments of ``run_sim.py`` as Hydra has to be given them."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fedlabels import plugins
from fedlabels.errors import ConfigError
from fedlabels.renamed import RENAMED

_MULTIRUN = ("-m", "--multirun")
# Groups whose keys depend on the option that is chosen.
_CHOSEN = (
    "client", "training", "strategy", "partition", "labels", "model", "dataset", "tracker",
    "callbacks",
)  # fmt: skip


def with_current_names(arguments: Sequence[str]) -> list[str]:
    """Give settings of commands of before the names that they have now.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``run_sim.py``.

    Returns
    -------
    list of str
        As many arguments.

    Examples
    --------
    >>> with_current_names(["client.local_steps=10", "seed=1"])
    ['training.steps=10', 'seed=1']
    """
    parts = [argument.partition("=") for argument in arguments]
    return [f"{RENAMED.get(key, key)}{equals}{value}" for key, equals, value in parts]


def with_choices(arguments: Sequence[str]) -> list[str]:
    """Turn constant settings of groups that a sweep may vary into choices of one value.

    Hydra composes what is constant with the default option of each group before it looks at the
    values that are swept, so ``-m method=fedavg,fedprox training.lr=0.05`` would be refused for a
    client that takes no part. A choice of one value is part of every cell instead.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``run_sim.py``.

    Returns
    -------
    list of str
        The same where nothing is swept, or where Hydra has something to say about an argument.

    Examples
    --------
    >>> with_choices(["-m", "method=fedavg,fedprox", "training.lr=0.05", "seed=1"])
    ['-m', 'method=fedavg,fedprox', 'training.lr=choice(0.05)', 'seed=1']
    """
    if not set(arguments) & set(_MULTIRUN):
        return list(arguments)
    return [_choice(argument) for argument in arguments]


def plugins_of(arguments: Sequence[str]) -> object:
    """Return what arguments give as ``plugins``; the last one counts.

    Raises
    ------
    ConfigError
        If it cannot be read, or has several values.

    Examples
    --------
    >>> plugins_of(["plugins=mine", "seed=1"]), plugins_of(["plugins=[a,b]"]), plugins_of([])
    ('mine', ['a', 'b'], None)
    """
    given = [argument for argument in arguments if argument.startswith(f"{plugins.KEY}=")]
    if not given:
        return None
    try:
        override: Override = OverridesParser.create().parse_override(given[-1])
    except HydraException as error:
        raise ConfigError(f"{given[-1]} cannot be read: give {plugins.KEY}=my_package") from error
    if override.is_sweep_override():
        raise ConfigError(f"{given[-1]} is a sweep: several packages are {plugins.KEY}=[one,other]")
    value: object = override.value()
    return value


def _choice(argument: str) -> str:
    if argument.startswith("-") or "=" not in argument:
        return argument
    try:
        override: Override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return argument
    group, below, _ = override.key_or_group.partition(".")
    if not below or group not in _CHOSEN or override.is_delete() or override.is_sweep_override():
        return argument
    key, _, value = argument.partition("=")
    return f"{key}=choice({value})"
