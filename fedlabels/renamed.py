"""Names that settings had in runs of before, so that these runs can still be read."""

from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {
    "client.lr": "training.lr",
    "client.lr_labeled": "training.lr",
    "client.lr_unlabeled": "training.lr_unlabeled",
    "client.lr_schedule": "training.schedule",
    "client.local_steps": "training.steps",
    "client.tau": "training.steps",
    "client.tau_prime": "training.steps_unlabeled",
    "client.local_epochs": "training.epochs",
    "client.batch_size": "training.batch_size",
    "client.batch_labeled": "training.batch_size",
    "client.batch_unlabeled": "training.batch_unlabeled",
    "client.momentum": "training.momentum",
    "client.nesterov": "training.nesterov",
    "client.weight_decay": "training.weight_decay",
    "client.decay_biases": "training.decay_biases",
    "client.clip": "training.clip",
    "client.agc": "training.agc",
}
"""Dotted key of before -> the key now."""

_SINCE: Mapping[str, Any] = {
    "training.optimizer": "sgd",
    "training.momentum": 0.0,
    "training.nesterov": False,
    "training.weight_decay": 0.0,
    "training.decay_biases": True,
    "training.agc": None,
    "training.warmup_rounds": 0,
}
LATER: Mapping[str, Any] = {
    "schedule_rounds": None,
    "labels.total": None,
    "labels.clients": None,
    "model.start": None,
}
"""Setting that came later -> its value in runs of before, which do not have it."""

_AS_LABELED = {
    "client.lr_labeled": ("training.lr", "training.lr_unlabeled"),
    "client.batch_labeled": ("training.batch_size", "training.batch_unlabeled"),
}


def came_later(key: str, value: Any) -> bool:
    """Say whether a setting is what a run from before there was it has."""
    return key in LATER and bool(value == LATER[key])


def is_of_before(settings: Mapping[str, Any]) -> bool:
    """Say whether settings, by dotted key, are those of a run that had other names for them.

    A run of now has the group ``training``, if only an empty one, beside which a client may have
    settings of such names for itself.
    """
    if any(key.partition(".")[0] == "training" for key in settings):
        return False
    return not RENAMED.keys().isdisjoint(settings)


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names that they have now.

    Parameters
    ----------
    settings : mapping
        Resolved settings by dotted key, of any version.

    Returns
    -------
    dict
        Sorted by key. What a run of before could not set has the value by which it ran.

    Examples
    --------
    >>> renamed({"seed": 1, "client.local_steps": 10})["training.steps"]
    10
    """
    if not is_of_before(settings):
        return dict(settings)
    values = {**_SINCE, **{RENAMED.get(key, key): value for key, value in settings.items()}}
    for key, (labeled, unlabeled) in _AS_LABELED.items():
        if key in settings and values[unlabeled] == values[labeled]:
            values[unlabeled] = None
    if settings.get("client.variant") == "joint":
        values["training.lr_unlabeled"] = None  # nothing reads it there
    if settings.get("client.name") == "fixmatch" and values.get("training.epochs") is None:
        values.pop("training.epochs", None)  # it had to be null, and is no setting of it any more
    return dict(sorted(values.items()))
