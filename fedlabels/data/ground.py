"""Whether views fit the samples, and what lies behind the pictures: black paper or white."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data.dataset import ArrayDataset
from fedlabels.data.layout import described
from fedlabels.data.views import StrongView, make_views
from fedlabels.errors import ConfigError

NEAR = 0.1  # grey levels that count as one ground
_LOOKED_AT = 2000
_COLOURS = (1, 3)


def views_for(preset: str, options: Mapping[str, Any], samples: ArrayDataset) -> dict[str, Any]:
    """Return what differs from a preset of views, with the ground of these samples as ``fill``.

    Parameters
    ----------
    preset : str
        A preset of :func:`~fedlabels.data.views.make_views`.
    options : mapping
        What the user says differs from it; a ``fill`` of theirs stays.
    samples : ArrayDataset
        The training set, before any feature shift; it may be empty, then only its shape counts.

    Returns
    -------
    dict
        The options. Views of images that fill what comes in from outside have a ``fill``: the
        ground of the data where they have one that is not the preset's own, else the latter.

    Raises
    ------
    ConfigError
        If the preset or an option is not known, or the views do not fit the samples.
    """
    strong = make_views(preset, **options)["strong"]
    _check_fit(preset, strong, samples)
    if not isinstance(strong, StrongView) or strong.weak.edge != "fill" or "fill" in options:
        return dict(options)
    usual = strong.weak.fill or 0.0
    found = ground(samples.x)
    return {**options, "fill": usual if found is None or abs(found - usual) <= NEAR else found}


def ground(x: NDArray[Any]) -> float | None:
    """Return the level of the paper that pictures are drawn on.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Pixels as uint8, or floats in [0, 1].

    Returns
    -------
    float or None
        Median of the pixels at the border, in [0, 1], of up to 2,000 pictures spread over the set;
        None where fewer than half of them are within 0.1 of it, or channels differ.
    """
    if x.ndim != 4 or not x.size:
        return None
    some = x[:: -(-len(x) // _LOOKED_AT)]
    edges = (some[..., 0, :], some[..., -1, :], some[..., :, 0], some[..., :, -1])
    border = np.concatenate(edges, axis=2).swapaxes(0, 1).reshape(x.shape[1], -1)  # (C, pixels)
    border = border / (255.0 if x.dtype == np.uint8 else 1.0)
    level = float(np.median(border))
    middles = np.median(border, axis=1)
    if np.ptp(middles) > NEAR or (np.abs(border - level) <= NEAR).mean() < 0.5:
        return None
    return round(level, 4)


def _check_fit(preset: str, strong: Any, samples: ArrayDataset) -> None:
    if preset == "none":
        return
    x, shape = samples.x, samples.shape
    fits = {2: "timeseries", 3: "digits, fashion, natural"}.get(len(shape), "")
    axes, kind = (3, "images") if isinstance(strong, StrongView) else (2, "series")
    if len(shape) != axes:
        shown = described(shape, pixels=x.dtype == np.uint8)
        raise ConfigError(
            f"dataset.views={preset} is for {kind}, but a sample of {samples.name!r} is: {shown}; "
            f"choose dataset.views={f'one of {fits} or ' if fits else ''}none"
        )
    if not isinstance(strong, StrongView):
        return
    if "color" in strong.ops and shape[0] not in _COLOURS:
        raise ConfigError(
            f"dataset.views={preset} changes colours, but a sample of {samples.name!r} has "
            f"{shape[0]} channels; choose dataset.views=digits or fashion, or give "
            "dataset.view_options.ops without color"
        )
    if x.dtype != np.uint8 and x.size and not (x.min() >= 0 and x.max() <= 1):
        raise ConfigError(
            f"dataset.views={preset} is for images in [0, 1], but the samples of {samples.name!r} "
            f"reach from {x.min():g} to {x.max():g}; store pixels as uint8 (0 to 255) or floats in "
            "[0, 1], or choose dataset.views=none"
        )
