"""Settings that methods share under names of their own: rates, steps, batches, clipping."""

from collections.abc import Iterable, Mapping
from typing import Any

SHARED = {
    "learning rate": ("client.lr", "client.lr_labeled"),
    "local steps": ("client.local_steps", "client.tau"),
    "local epochs": ("client.local_epochs",),
    "batch size": ("client.batch_size", "client.batch_labeled"),
    "batch of unlabeled samples": ("client.batch_unlabeled",),
    "clipping": ("client.clip",),
}
"""What is meant -> the names that it has in the methods, by dotted key."""


def unequal(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Say which shared settings are not the same for all methods.

    Parameters
    ----------
    runs : iterable of (str, mapping)
        Method and resolved settings by dotted key; several runs of a method may vary a setting.

    Returns
    -------
    list of str
        ``"learning rate: fixmatch 0.1, uda 0.03"`` each; empty where all have the same values. A
        method without such a setting, or with null for it among others' numbers of steps or
        epochs, is compared by those that it has.
    """
    values: dict[str, dict[str, set[str]]] = {meaning: {} for meaning in SHARED}
    for method, settings in runs:
        for meaning, keys in SHARED.items():
            for key in keys:
                found = settings.get(key)
                if key in settings and (found is not None or meaning == "clipping"):
                    values[meaning].setdefault(method, set()).add(_text(found))
    lines = []
    for meaning, by_method in values.items():
        if len({frozenset(given) for given in by_method.values()}) > 1:
            told = (f"{name} {'/'.join(sorted(given))}" for name, given in by_method.items())
            lines.append(f"{meaning}: {', '.join(told)}")
    return lines


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
