"""Conversions of whole models: to standardized convolutions, and back to plain ones for export."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fedlabels.models.layers import BatchNorm
from fedlabels.models.wsconv import Standardized, WSConv1d, WSConv2d, WSLinear

_BATCH_NORMS = (BatchNorm, nn.modules.batchnorm._BatchNorm)
_NORMS = (
    *_BATCH_NORMS,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
)
_PLAIN: dict[type[Standardized], type[nn.Module]] = {
    WSConv2d: nn.Conv2d,
    WSConv1d: nn.Conv1d,
    WSLinear: nn.Linear,
}
_Convert = Callable[[nn.Module], nn.Module]


def to_wsconv(
    model: nn.Module,
    *,
    skip_fan_in_1: bool = True,
    linear: bool = False,
    **options: Any,
) -> nn.Module:
    """Make standardized convolutions of a model's, and drop its batch normalization.

    Parameters
    ----------
    model : torch.nn.Module
        Not changed. Its weights become raw weights: their scale counts no more, so a network that
        was trained with batch normalization does not keep its function.
    skip_fan_in_1 : bool
        Leave convolutions plain whose units have one input (1x1 depthwise); False raises.
    linear : bool
        Convert dense layers, too, except the one named ``head``.
    **options
        ``gamma``, ``eps`` and ``unbiased`` of :class:`~fedlabels.models.wsconv.Standardized`.

    Returns
    -------
    torch.nn.Module
        A copy whose 1-d and 2-d convolutions are standardized and have biases.

    Raises
    ------
    ValueError
        If a unit has one input and must not be skipped.

    Warns
    -----
    UserWarning
        If a normalization of another kind is left.
    """
    out = copy.deepcopy(model)
    head = getattr(out, "head", None)

    def converted(module: nn.Module) -> nn.Module:
        if isinstance(module, _BATCH_NORMS):
            return nn.Identity()
        if isinstance(module, Standardized):
            return module
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            lonely = math.prod(module.weight.shape[1:]) < 2
            return module if lonely and skip_fan_in_1 else _standardized(module, options)
        if linear and isinstance(module, nn.Linear) and module is not head:
            return _standardized(module, options)
        return module

    out = _replaced(out, converted)
    warn_of_norms(out)
    return out


def fold(model: nn.Module) -> nn.Module:
    """Bake standardized weights in, for inference and export.

    Parameters
    ----------
    model : torch.nn.Module
        Not changed.

    Returns
    -------
    torch.nn.Module
        A copy of plain layers with the same outputs. Do not train it: it no longer standardizes.
    """
    return _replaced(copy.deepcopy(model), _folded)


def norms_of(model: nn.Module) -> list[str]:
    """Name the normalization modules of a model."""
    return [name or type(m).__name__ for name, m in model.named_modules() if isinstance(m, _NORMS)]


def warn_of_norms(model: nn.Module) -> None:
    """Warn if a model that shall do without normalization has some.

    Warns
    -----
    UserWarning
        Naming the modules.
    """
    found = norms_of(model)
    if found:
        warnings.warn(
            f"normalization is left in a model that shall have none: {', '.join(found)}; "
            "build it without, or live with its statistics",
            stacklevel=3,
        )


def _replaced(module: nn.Module, convert: _Convert) -> nn.Module:
    new = convert(module)
    if new is module:
        for name, child in module.named_children():
            setattr(module, name, _replaced(child, convert))
    return new


def _settings(module: nn.Module) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that make a layer of the same shape."""
    fixed: dict[str, Any] = {"bias": module.bias is not None}
    fixed |= {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        return [module.in_features, module.out_features], fixed
    assert isinstance(module, nn.Conv1d | nn.Conv2d)  # nothing else is converted
    shape = [module.in_channels, module.out_channels, module.kernel_size, module.stride]
    fixed |= {"padding_mode": module.padding_mode, "groups": module.groups}
    return [*shape, module.padding, module.dilation], fixed


def _standardized(module: nn.Module, options: dict[str, Any]) -> nn.Module:
    kind = next(k for k, plain in _PLAIN.items() if isinstance(module, plain))
    shape, fixed = _settings(module)
    new = kind(*shape, **{**fixed, "bias": True}, **options)
    return _filled(new, module, module.weight)


def _folded(module: nn.Module) -> nn.Module:
    if not isinstance(module, Standardized):
        return module
    shape, fixed = _settings(module)
    with torch.no_grad():
        return _filled(_PLAIN[type(module)](*shape, **fixed), module, module.standardized())


def _filled(new: nn.Module, old: nn.Module, weight: Any) -> nn.Module:
    """Copy weight and bias; a bias that only the new layer has stays 0."""
    with torch.no_grad():
        new.weight.copy_(weight)  # type: ignore[operator]
        if old.bias is not None:
            new.bias.copy_(old.bias)  # type: ignore[operator, arg-type]
    return new.train(old.training)
