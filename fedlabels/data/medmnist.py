"""MedMNIST (Yang et al., 2023): medical images of 28 to 224 pixels, one ``.npz`` file a set.

``bloodmnist.npz``, ``bloodmnist_64.npz`` and so on, with ``train_images``, ``train_labels`` (N, 1)
and the same of ``val`` and ``test``. Images are grey (N, H, W) or colour (N, H, W, 3).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlabels.data import labels
from fedlabels.data.arrays import statistics
from fedlabels.data.dataset import DataSource, pair
from fedlabels.data.options import text
from fedlabels.data.roots import Roots, candidates, find_first, missing
from fedlabels.errors import ConfigError, DataError

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip
CLASSES: dict[str, tuple[str, ...]] = {
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte",
        "neutrophil", "platelet",
    ),
    "breastmnist": ("malignant", "normal, benign"),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
        "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "tissuemnist": (
        "collecting duct, connecting tubule", "distal convoluted tubule",
        "glomerular endothelial cells", "interstitial endothelial cells", "leukocytes", "podocytes",
        "proximal tubule segments", "thick ascending limb",
    ),
}  # fmt: skip
"""Set -> its classes."""
_SIZES = ("", "_64", "_128", "_224")
_FOLDERS = ("medmnist",)
_SITE = "https://zenodo.org/records/10519652"
_KEYS = tuple(f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels"))


def read_medmnist(roots: Roots, /, *, file: str) -> DataSource:
    """Read a set of MedMNIST; its validation images are left aside.

    Parameters
    ----------
    roots : Roots
        Where to search.
    file : str
        Name of the set as its file has it, for instance ``"bloodmnist"`` or ``"bloodmnist_64"``.

    Returns
    -------
    DataSource
        Training and test split, uint8 (N, 1 or 3, H, W). Constants are those of the training split.

    Raises
    ------
    ConfigError
        If there is no such set, or it is not one of images with one class each.
    DataError
        If the file is missing or damaged.
    """
    name = text("medmnist", "file", file).removesuffix(".npz")
    known = next((kind for kind in CLASSES if name in [kind + size for size in _SIZES]), None)
    if known is None:
        raise ConfigError(f"medmnist: {_reason(name)}")
    tried = [place / f"{name}.npz" for place in (*candidates(roots, _FOLDERS), *roots.shared)]
    path = find_first(tried, Path.is_file)
    if path is None:
        raise missing("medmnist", tried, f"put {name}.npz of {_SITE} into $FEDLABELS_DATA/medmnist")
    arrays = _read(path)
    train, test = (_part(path, split, arrays, len(CLASSES[known])) for split in ("train", "test"))
    mean, std = statistics(train[0])
    return pair(name, train, test, class_names=CLASSES[known], mean=mean, std=std)


def _reason(name: str) -> str:
    """Say why a set is not read."""
    allowed = f"choose one of {', '.join(CLASSES)} (or NAME_64, NAME_128, NAME_224)"
    if name.startswith("chestmnist"):
        return (
            f"{name} has 14 findings an image (multi-label), and a sample has one class here; "
            f"{allowed}, or store one of its columns for dataset=npz"
        )
    if "3d" in name:
        return f"{name} holds volumes (28 x 28 x 28), and images are read; {allowed}"
    return f"dataset.options.file={name} is no set of it; {allowed}"


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in _KEYS if key not in archive]
            if absent:
                raise DataError(
                    f"{path} lacks {', '.join(absent)}; it holds {', '.join(archive.files)}; get "
                    "it again"
                )
            return {key: archive[key] for key in _KEYS}
    except DataError:
        raise
    # A damaged archive has no common class of error.
    except Exception as error:
        raise DataError(f"{path} cannot be read ({error}); get the file again") from error


def _part(
    path: Path, split: str, arrays: dict[str, NDArray[Any]], classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    x = arrays[f"{split}_images"]
    y = labels.one_a_sample(f"{path}: {split}_labels", arrays[f"{split}_labels"])
    if x.dtype != np.uint8 or not (x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 3)):
        raise DataError(
            f"{path}: {split}_images must be bytes of shape (N, H, W) or (N, H, W, 3), got "
            f"{x.dtype} {x.shape}; volumes are not read"
        )
    if len(x) != len(y) or (len(y) and not 0 <= y.min() <= y.max() < classes):
        raise DataError(
            f"{path}: {len(x)} images and {len(y)} labels of {split} do not belong together, or a "
            f"label is not in 0..{classes - 1}; get the file again"
        )
    first = x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return first, y
