"""Models by name."""

import inspect
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fedlabels.cohort.types import DataSpec
from fedlabels.errors import ConfigError, named_below, unknown
from fedlabels.models.alexnet import AlexNet
from fedlabels.models.base import Classifier, with_feature_dim
from fedlabels.models.cnn1d import Cnn1d
from fedlabels.models.cnn_pfl import CnnPfl
from fedlabels.models.convert import warn_of_norms
from fedlabels.models.digits_cnn import DigitsCnn
from fedlabels.models.lenet import LeNet
from fedlabels.models.mlp import MLP
from fedlabels.models.mobilenet import MobileNet
from fedlabels.models.recipe import Recipe
from fedlabels.models.resnet import ResNet8, ResNet18

MODELS: dict[str, type[Classifier]] = {
    "alexnet": AlexNet,
    "cnn1d": Cnn1d,
    "cnn_pfl": CnnPfl,
    "digits_cnn": DigitsCnn,
    "lenet": LeNet,
    "mlp": MLP,
    "mobilenet": MobileNet,
    "resnet18": ResNet18,
    "resnet8": ResNet8,
}
"""Name -> class, called as ``Model(spec, **settings)``."""

STANDARDIZATION = ("nonlinearity_gain", "ws_unbiased", "ws_linear")
"""Further settings of models with a ``norm``; see `fedlabels.models.recipe.Recipe`."""


def known_settings(name: str) -> tuple[str, ...]:
    """Return the names of a model's settings.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    """
    own = inspect.signature(MODELS[name]).parameters
    further = STANDARDIZATION if "norm" in own else ()
    return (*(p for p in own if p != "spec"), *further, "feature_dim")


def build(name: str, spec: DataSpec, **settings: Any) -> Classifier:
    """Build a model with freshly drawn weights.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    spec : DataSpec
        Shape of a sample and number of classes.
    **settings
        The keyword arguments of the model's class; with a ``norm`` among them also those of
        `STANDARDIZATION`; and ``feature_dim`` for every model: features are pooled to this width
        (each an average of neighbours, see `with_feature_dim`), so that different architectures
        share one feature space.

    Returns
    -------
    Classifier
        Weights are drawn from torch's global generator; the caller forks and seeds it.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, or a setting is out of range.

    Warns
    -----
    UserWarning
        If ``norm="ws"`` leaves a normalization in the model.

    Examples
    --------
    >>> build("mlp", DataSpec((1, 8, 8), 10), hidden=(32,)).head
    Linear(in_features=32, out_features=10, bias=True)
    """
    if name not in MODELS:
        raise unknown(name, sorted(MODELS), "model")
    own = inspect.signature(MODELS[name]).parameters
    known = known_settings(name)
    others = sorted(set(settings) - set(known))
    if others:
        raise ConfigError(
            f"model {name} has no setting {', '.join(others)}; known: {', '.join(known)}"
        )
    _check_types(name, settings)
    width = settings.pop("feature_dim", None)
    norm: Any = settings.get("norm", own["norm"].default if "norm" in own else None)
    given = {key: settings.pop(key) for key in STANDARDIZATION if key in settings}
    with named_below("model", known):
        if given:
            settings["norm"] = Recipe(norm, **given)
        built = MODELS[name](spec, **settings)
    if norm == "ws":
        warn_of_norms(built)
    return built if width is None else with_feature_dim(built, width)


def _check_types(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse a value of another structure than the model's class states for it."""
    hints = get_type_hints(MODELS[name].__init__) | {"feature_dim": int | None}
    for key, value in settings.items():
        hint = hints.get(key, Any)
        if not _fits(value, hint):
            raise ConfigError(f"model.{key} must be {_type_text(hint)}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is Literal:
        return isinstance(value, str)  # which words, the class says itself
    if kind in (tuple, list, Sequence):
        whole = isinstance(value, list | tuple)
        return whole and all(_fits(item, inner[0]) for item in value)
    if hint in (int, float):
        numbers = Integral if hint is int else Real
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _type_text(hint: Any) -> str:
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type_text(one) for one in inner if one is not Recipe))
    if kind in (tuple, list, Sequence):
        return f"a list of {_type_text(inner[0]).removeprefix('a ')}s"
    words = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return words.get(hint, "a text")
