"""What a reader would have to guess: refused by name, with what to store instead."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fedlabels.data.hub import HubSet, _labels
from fedlabels.data.image_folder import read_image_folder
from fedlabels.data.npz import read_npz
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError
from fedlabels.federation import Samples
from fedlabels.federation.suspicion import untested

Y = np.arange(12) % 3
PIXELS = np.arange(12 * 64, dtype=np.uint8).reshape(12, 1, 8, 8)


def source(folder: Path, x=PIXELS, y=Y, options=None, **more):
    np.savez(folder / "toy.npz", x_train=x, y_train=y, x_test=x, y_test=y, **more)
    return read_npz(Roots(folder / "toy.npz", ()), **(options or {}))


@pytest.mark.parametrize(
    ("shape", "asked"),
    [((24, 32), True), ((9, 17), True), ((8, 8, 8), True), ((6, 20, 20), False), ((1, 1), False)],
)
def test_shapes_that_could_be_read_otherwise_are_asked_about(shape, asked, tmp_path):
    x = np.random.default_rng(0).normal(size=(12, *shape)).astype(np.float32)
    if asked:
        with pytest.raises(DataError, match=r"dataset\.options\.layout"):
            source(tmp_path, x)
    else:
        assert source(tmp_path, x).train.shape == shape
    for layout in ("channels_first", "channels_last"):
        assert source(tmp_path, x, options={"layout": layout}).train.x.shape[0] == 12


def test_constants_of_pixels_are_of_pixels_in_0_to_1(tmp_path):
    with pytest.raises(DataError, match=r"scaled to \[0, 1\], got \(125\.0,\).*by 255"):
        source(tmp_path, options={"mean": [125.0], "std": [60.0]})
    assert source(tmp_path, options={"mean": [0.5], "std": [0.25]}).train.mean == (0.5,)
    x = PIXELS.astype(np.float32)
    assert source(tmp_path, x, options={"mean": [125.0], "std": [60.0]}).train.mean == (125.0,)


@pytest.mark.parametrize(
    "key", ["client", "clients_train", "Client_train", "domains", "client_val"]
)
def test_a_key_that_is_nearly_ours_is_refused(key, tmp_path):
    with pytest.raises(DataError, match=rf"holds '{key}', which is not read: '\w+_train' is"):
        source(tmp_path, **{key: Y})


def test_keys_of_one_file_in_a_folder(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=PIXELS, y=Y, client_train=Y)
    with pytest.raises(DataError, match="holds 'client_train', which is not read: 'client' is"):
        read_npz(Roots(tmp_path, ()))


def test_other_keys_are_let_alone(tmp_path):
    good = source(tmp_path, client_train=Y, client_test=Y, clean_train=Y, x_val=PIXELS)
    assert good.train.owner is not None
    assert good.test.owner is not None


@pytest.mark.parametrize("nobody", [-1, "", "nan", "None"])
def test_nobody_is_no_client(nobody, tmp_path):
    owner = np.where(Y == 1, nobody, Y) if nobody == -1 else np.where(Y == 1, nobody, Y.astype(str))
    with pytest.raises(DataError, match=r"client_train is .* for 4 samples, first sample 1"):
        source(tmp_path, client_train=owner)
    with pytest.raises(DataError, match="domain_test is"):
        source(tmp_path, domain_train=Y, domain_test=owner)


def picture(place: Path, value: int = 0) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(place)


def test_a_test_folder_of_other_classes_is_not_passed_over(tmp_path):
    for split, names in {
        "train": ("cat", "dog"),
        "test": ("Cat", "Dog"),
        "val": ("cat", "dog"),
    }.items():
        for name in names:
            picture(tmp_path / split / name / "a.png")
    with pytest.raises(DataError, match=r"test.*must be in a folder named as a training class"):
        read_image_folder(Roots(tmp_path, ()))


def test_a_file_of_several_pictures_is_refused(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            picture(tmp_path / split / name / "a.png")
    pages = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (0, 9, 20)]
    stack = tmp_path / "train" / "cat" / "b.tif"
    pages[0].save(stack, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"b\.tif holds 3 pictures, and one a file is read"):
        read_image_folder(Roots(tmp_path, ()))


def test_a_number_of_classes_against_the_columns_names():
    feature = SimpleNamespace(names=["a", "b"])

    class Rows(dict):
        features = {"label": feature}  # noqa: RUF012

    with pytest.raises(DataError, match=r"names 2 classes, dataset\.options\.num_classes=5"):
        _labels(HubSet("toy"), [Rows(label=[0, 1])], 5)
    assert _labels(HubSet("toy"), [Rows(label=[0, 1])], None)[1] == ("a", "b")


def test_classes_that_no_test_sample_has_are_said():
    assert untested(Samples(np.array([0, 1, 2]), 3)) == []
    (said,) = untested(Samples(np.array([1, 1, 1]), 3))
    assert said == "Classes without a test sample: 0, 2; accuracies are over the other 1."
    assert len(untested(Samples(np.array([1, -1, 0]), 3))) == 2
    assert untested(Samples(np.zeros(0, np.int64), 3)) == []
