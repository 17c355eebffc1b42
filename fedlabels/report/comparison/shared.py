"""Settings that methods share: rates, steps, batches, clipping."""

from collections.abc import Iterable, Mapping
from typing import Any

SHARED = {
    "learning rate": "training.lr",
    "local steps": "training.steps",
    "local epochs": "training.epochs",
    "batch size": "training.batch_size",
    "batch of unlabeled samples": "training.batch_unlabeled",
    "clipping": "training.clip",
}
"""What is meant -> its dotted key."""


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
        for meaning, key in SHARED.items():
            value = settings.get(key)
            if value is None and key == SHARED["batch of unlabeled samples"]:
                value = settings.get(SHARED["batch size"])  # null is that of the labeled ones
            if key in settings and (value is not None or meaning == "clipping"):
                values[meaning].setdefault(method, set()).add(_text(value))
    lines = []
    for meaning, by_method in values.items():
        if len({frozenset(given) for given in by_method.values()}) > 1:
            listed = (f"{name} {'/'.join(sorted(given))}" for name, given in by_method.items())
            lines.append(f"{meaning}: {', '.join(listed)}")
    return lines


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
