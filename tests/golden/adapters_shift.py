"""Feature shift: transforms of one image, dealing of images to domains, graded noise."""

from typing import Any

import numpy as np

from fedlabels.data import shift, shift_ops
from fedlabels.federation import Ragged
from fedlabels.federation.summary import class_counts
from tests.golden.registry import adapter


@adapter("multi_domain.transforms")
def transforms(inputs: dict[str, Any]) -> dict[str, Any]:
    """Every transform and preset of one image with its stored noise."""
    image, eps = np.array(inputs["image"]), np.array(inputs["eps"])
    presets = ("warm_lowcontrast", "negative_noise", "gray_blur")
    return {
        "rot90_1": shift_ops.rot90(image, 1),
        "rot90_2": shift_ops.rot90(image, 2),
        "rot90_3": shift_ops.rot90(image, 3),
        "channel_perm_210": shift_ops.channel_perm(image),
        "gain_warm": shift_ops.gain(image, shift_ops.WARM),
        "gain_cool": shift_ops.gain(image, shift_ops.COOL),
        "gray": shift_ops.gray(image),
        "invert": shift_ops.invert(image),
        "contrast_0_4": shift_ops.contrast(image, 0.4),
        "gamma_2": shift_ops.gamma(image, 2.0),
        "noise_0_08": shift_ops.noise(image, 0.08, eps),
        "blur_1": shift_ops.blur(image, 1.0),
        "edge": shift_ops.edge(image),
        "pixelate_2": shift_ops.pixelate(image, 2),
        **{f"preset_{name}": shift.TRANSFORMS[name](image, eps) for name in presets},
    }


@adapter("multi_domain.deal")
def deal(inputs: dict[str, Any]) -> dict[str, Any]:
    """Owner domain of every image, and the counts of every domain by class."""
    classes = [np.array(part) for part in inputs["shuffled_indices_per_class"]]
    domain = shift.domains_of_classes(classes, inputs["domains"])
    label = Ragged.from_lists(classes)
    counts = class_counts(domain[label.index], label.owners, inputs["domains"], len(classes))
    return {"domain_of_index": domain, "counts_domain_by_class": counts}


@adapter("multi_domain.noise_levels")
def noise_levels(inputs: dict[str, Any]) -> dict[str, Any]:
    """Graded noise of the clients."""
    return {"levels": shift_ops.noise_levels(inputs["num_clients"], inputs["sigma_max"])}
