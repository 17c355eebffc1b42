"""Which settings count only beside certain values of others.

A class of settings declares it in ``counts``, beside its fields; `fedlabels.settings.unread`
refuses what was set without effect, for all classes in the same words.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Need:
    """What a value must be for other settings to count.

    Parameters
    ----------
    text : str
        Follows the setting's name in an error.
    holds : callable
        Says of a value whether it is met.
    """

    text: str
    holds: Callable[[Any], bool]


ABOVE_0 = Need(" above 0", lambda value: value is not None and value > 0)
GIVEN = Need("", bool)
NULL = Need("=null", lambda value: value is None)


def other_than(value: Any) -> Need:
    """Need any value but one."""
    return Need(f" other than {value}", lambda got: got != value)


@dataclasses.dataclass(frozen=True)
class Only:
    """Settings that count only where one of some needs is met.

    Parameters
    ----------
    keys : tuple of str
        Fields of the class that declares it.
    when : mapping of str to Need
        Field of the same group, or dotted key of any other -> what it must be. One that is not
        there meets nothing.
    """

    keys: tuple[str, ...]
    when: Mapping[str, Need]

    def met(self, values: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
        """Say whether the settings count.

        Parameters
        ----------
        values : mapping
            The group's values, defaults included.
        config : mapping
            All settings, nested.
        """
        return any(
            found and need.holds(value)
            for key, need in self.when.items()
            for found, value in [_look_up(key, values, config)]
        )

    def remedy(
        self, full: Callable[[str], str], values: Mapping[str, Any], config: Mapping[str, Any]
    ) -> str:
        """Say what would make the settings count, and what is there instead.

        Parameters
        ----------
        full : callable
            Returns the dotted key of a field of the group.
        values, config : mapping
            As for `met`.
        """
        present = {key: _look_up(key, values, config) for key in self.when}
        names = {
            key: key if "." in key else full(key) for key, (found, _) in present.items() if found
        }
        needs = " or ".join(f"{name}{self.when[key].text}" for key, name in names.items())
        state = ", ".join(f"{name} is {shown(present[key][1])}" for key, name in names.items())
        return f"{needs} ({state})"


def only(*keys: str, **when: Any) -> Only:
    """Declare that settings count only beside certain values of others.

    Parameters
    ----------
    *keys : str
        Names of the settings.
    **when
        Field -> a value, a tuple of values, or a `Need`; one that is met is enough. Several needs
        that must all be met are several declarations. Dotted keys of other groups go through a
        mapping: ``**{"client.mu": NULL}``.

    Examples
    --------
    >>> only("fix_after", bn_policy="fix").when["bn_policy"].text
    '=fix'
    """
    return Only(keys, {key: _need(value) for key, value in when.items()})


def declared(kind: type) -> Iterator[Only]:
    """Yield what a class and its bases declare in ``counts``."""
    for base in kind.__mro__:
        yield from vars(base).get("counts", ())


def defaults(kind: Any) -> dict[str, Any]:
    """Return the defaults of a dataclass, or of a constructor's arguments, where there are some."""
    if dataclasses.is_dataclass(kind):
        return {f.name: _default(f) for f in dataclasses.fields(kind) if _has_default(f)}
    given = inspect.signature(kind).parameters.items()
    return {k: p.default for k, p in given if p.default is not inspect.Parameter.empty}


def _has_default(entry: Any) -> bool:
    missing = dataclasses.MISSING
    return entry.default is not missing or entry.default_factory is not missing


def _default(entry: Any) -> Any:
    factory = entry.default_factory
    return entry.default if factory is dataclasses.MISSING else factory()


def _need(value: Any) -> Need:
    if isinstance(value, Need):
        return value
    allowed = value if isinstance(value, tuple) else (value,)
    text = " or ".join(shown(one) for one in allowed)
    return Need(f"={text}", lambda got: got in allowed)


def _look_up(key: str, values: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[bool, Any]:
    """Say whether a key is there, and return its value."""
    found: Any = config if "." in key else values
    for name in key.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return False, None
        found = found[name]
    return True, found


def shown(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
