import struct
import sys
import zlib

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")


def _png16(side=4):
    """Write a PNG of 16 bits a colour, which Pillow reads but does not write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    rows = (b"\0" + b"\x9c\x40" * 3 * side) * side
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _tiff16(side=4):
    """Write a TIFF of 16 bits a colour."""
    pixels = b"\x40\x9c" * 3 * side * side
    entries = [
        (256, 3, 1, side), (257, 3, 1, side), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, side), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    start = 14 + len(pixels)
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", start) + struct.pack("<HHH", 16, 16, 16)
    return head + pixels + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)


DEEP = {
    "deep.png": _png16(),
    "deep.tif": _tiff16(),
    "deep.ppm": b"P6 4 4 65535\n" + b"\x9c\x40" * 48,
}


def picture(path, value=100, *, side=4, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side) if mode == "L" else (side, side, len(mode))
    Image.fromarray(np.full(shape, value, dtype=np.uint8), mode).save(path)
    return path


def class_tree(folder, classes=("cat", "dog"), *, count=2, value=0):
    for number, name in enumerate(classes):
        for i in range(count):
            picture(folder / name / f"{i:03}.png", value + 10 * number + i)
    return folder


def first_pixels(x):
    return x[:, 0, 0, 0].tolist()


class TestSplits:
    @pytest.mark.parametrize("test", ["test", "val", "valid"])
    def test_reads_splits_and_classes_in_the_order_of_their_names(self, tmp_path, test):
        class_tree(tmp_path / "train", ("dog", "cat"))
        class_tree(tmp_path / test, ("dog",), value=200)
        source = load("image_folder", root=str(tmp_path))
        assert source.train.class_names == ("cat", "dog")
        assert source.train.x.shape == (4, 3, 4, 4)
        assert first_pixels(source.train.x) == [10, 11, 0, 1]
        assert source.train.y.tolist() == [0, 0, 1, 1]
        assert first_pixels(source.test.x) == [200, 201]
        assert source.test.y.tolist() == [1, 1]
        np.testing.assert_allclose(source.train.mean, [5.5 / 255] * 3)
        assert source.train.domain is None

    def test_test_comes_before_valid_as_in_cinic(self, tmp_path):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "valid", value=50)
        class_tree(tmp_path / "test", value=90)
        assert load("image_folder", root=str(tmp_path)).test.x.min() == 90

    def test_tiny_imagenet(self, tmp_path):
        for value, name in enumerate(("n02", "n01")):
            for i in range(2):
                picture(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG", 40 * value)
            (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("x\t0\t0\t1\t1\n")
        for i, value in enumerate((7, 60, 90)):
            picture(tmp_path / "val" / "images" / f"val_{i}.png", value)
            picture(tmp_path / "test" / "images" / f"test_{i}.png", 255)
        lines = ("val_1.png\tn01\t0\t0\t9\t9", "val_0.png\tn02\t0\t0\t9\t9", "val_2.png\tn01\t0\t0")
        (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
        source = load("image_folder", root=str(tmp_path))
        assert source.train.class_names == ("n01", "n02")
        assert source.train.y.tolist() == [0, 0, 1, 1]
        assert first_pixels(source.test.x) == [7, 60, 90]
        assert source.test.y.tolist() == [1, 0, 0]
        (tmp_path / "val" / "images" / "val_2.png").unlink()
        with pytest.raises(DataError, match=r"val_annotations\.txt names val_2\.png, which is not"):
            load("image_folder", root=str(tmp_path))

    def test_images_without_class_are_unlabeled(self, tmp_path):
        class_tree(tmp_path / "train", count=1)
        class_tree(tmp_path / "test", count=1)
        picture(tmp_path / "train" / "stray.png", 77)
        picture(tmp_path / "train" / "unlabeled" / "a.png", 88)
        source = load("image_folder", root=str(tmp_path))
        assert source.train.class_names == ("cat", "dog")
        by_pixel = dict(zip(first_pixels(source.train.x), source.train.y.tolist(), strict=True))
        assert by_pixel == {0: 0, 10: 1, 77: -1, 88: -1}

    @pytest.mark.parametrize("name", ["Unlabeled", "UNLABELED", "unlabelled"])
    def test_unlabeled_in_any_spelling(self, tmp_path, name):
        class_tree(tmp_path / "train", count=1)
        class_tree(tmp_path / "test", count=1)
        picture(tmp_path / "train" / name / "a.png", 88)
        source = load("image_folder", root=str(tmp_path))
        assert source.train.class_names == ("cat", "dog")
        assert sorted(source.train.y.tolist()) == [-1, 0, 1]

    @pytest.mark.parametrize("below", ["train", ""])
    def test_an_empty_class_is_named(self, tmp_path, below):
        class_tree(tmp_path / below, count=5)
        if below:
            class_tree(tmp_path / "test")
        (tmp_path / below / "bird").mkdir()
        (tmp_path / below / "bird" / "notes.txt").write_text("none yet")
        with pytest.raises(DataError, match=r"bird holds no image .* class 'bird' would disappear"):
            load("image_folder", root=str(tmp_path))
        picture(tmp_path / below / "bird" / "a.jfif.png")
        assert load("image_folder", root=str(tmp_path)).train.class_names == ("bird", "cat", "dog")

    def test_an_empty_class_of_a_domain_is_no_class_that_disappears(self, tmp_path):
        for domain in ("art", "photo"):
            class_tree(tmp_path / domain, count=5)
        (tmp_path / "photo" / "dog" / "x").mkdir()
        (tmp_path / "art" / "empty").mkdir()
        with pytest.raises(DataError, match=r"art/empty holds no image"):
            load("image_folder", root=str(tmp_path), domains=True)

    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize("name", ["a.heic", "A.HEIF", "a.avif", "a.dcm"])
    def test_a_picture_of_an_unread_kind_is_named(self, tmp_path, split, name):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        (tmp_path / split / "cat" / name).write_bytes(b"a picture")
        with pytest.raises(DataError, match=rf"cat/{name} is a picture of a kind that is not read"):
            load("image_folder", root=str(tmp_path))

    def test_what_archives_add_is_no_class(self, tmp_path):
        class_tree(tmp_path, count=5)
        (tmp_path / "__MACOSX").mkdir()
        (tmp_path / "__MACOSX" / "._a.png").write_bytes(b"")
        assert load("image_folder", root=str(tmp_path)).train.class_names == ("cat", "dog")

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (b"../../train/cat/000.png\tcat\n", "is no name of a file in"),
            (b"..\\\\a.png\tcat\n", "is no name of a file in"),
            (b"..\tcat\n", "is no name of a file in"),
            ("a.png\tKätzchen\n".encode("latin-1"), "cannot be read as UTF-8"),
            (b"a.png\tcat\na.png\tdog\n", r"gives a\.png two classes, cat and dog"),
        ],
    )
    def test_the_table_of_val_names_files_beside_it(self, tmp_path, table, message):
        class_tree(tmp_path / "train")
        picture(tmp_path / "val" / "images" / "a.png")
        (tmp_path / "val" / "val_annotations.txt").write_bytes(table)
        with pytest.raises(DataError, match=message):
            load("image_folder", root=str(tmp_path))
        (tmp_path / "val" / "val_annotations.txt").write_bytes(b"\xef\xbb\xbfa.png\tcat\n")
        assert load("image_folder", root=str(tmp_path)).test.y.tolist() == [0]

    def test_other_files_are_ignored(self, tmp_path):
        class_tree(tmp_path / "train", count=1)
        class_tree(tmp_path / "test", count=1)
        for name in ("notes.txt", "._000.png", "Thumbs.db"):
            (tmp_path / "train" / "cat" / name).write_text("no image")
        (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
        assert len(load("image_folder", root=str(tmp_path)).train) == 2

    def test_without_splits_each_fifth_of_a_class_is_test(self, tmp_path):
        class_tree(tmp_path, count=10)
        picture(tmp_path / "unlabeled" / "a.png", 250)
        source = load("image_folder", root=str(tmp_path))
        assert first_pixels(source.test.x) == [4, 9, 14, 19]
        assert source.test.y.tolist() == [0, 0, 1, 1]
        assert len(source.train) == 17
        assert source.train.y.min() == -1


class TestDomains:
    def test_each_fifth_of_every_class_and_domain_is_test(self, tmp_path):
        for number, domain in enumerate(("photo", "art")):
            class_tree(tmp_path / domain, count=5, value=100 * number)
        source = load("image_folder", root=str(tmp_path), domains=True)
        assert source.train.domain_names == ("art", "photo")
        assert first_pixels(source.test.x) == [104, 114, 4, 14]
        assert source.test.domain.tolist() == [0, 0, 1, 1]
        assert source.test.y.tolist() == [0, 1, 0, 1]
        assert np.bincount(source.train.domain).tolist() == [8, 8]

    def test_below_train_and_test(self, tmp_path):
        class_tree(tmp_path / "train" / "art")
        picture(tmp_path / "train" / "art" / "unlabeled" / "a.png", 99)
        class_tree(tmp_path / "test" / "clip", ("dog",))
        source = load("image_folder", root=str(tmp_path), domains=True)
        assert source.train.domain.tolist() == [0] * 5
        assert source.test.domain.tolist() == [1] * 2
        assert source.test.domain_names == ("art", "clip")
        assert sorted(source.train.y.tolist()) == [-1, 0, 0, 1, 1]

    def test_image_outside_of_a_domain_is_named(self, tmp_path):
        class_tree(tmp_path / "art")
        picture(tmp_path / "unlabeled" / "a.png")
        with pytest.raises(DataError, match=r"a\.png is in no domain"):
            load("image_folder", root=str(tmp_path), domains=True)

    def test_forgotten_option_is_noticed(self, tmp_path):
        class_tree(tmp_path / "art", count=5)
        class_tree(tmp_path / "photo", count=5)
        with pytest.raises(DataError, match=r"000\.png lies too deep .*options\.domains=true"):
            load("image_folder", root=str(tmp_path))

    @pytest.mark.parametrize("test", ["test", "val"])
    def test_splits_in_every_domain(self, tmp_path, test):
        for number, domain in enumerate(("photo", "art")):
            class_tree(tmp_path / domain / "train", count=3, value=100 * number)
            class_tree(tmp_path / domain / test, count=1, value=100 * number + 50)
            if test == "test":
                class_tree(tmp_path / domain / "val", count=1)  # left aside
        source = load("image_folder", root=str(tmp_path), domains=True)
        assert source.train.domain_names == ("art", "photo")
        assert len(source.train) == 12
        assert first_pixels(source.test.x) == [150, 160, 50, 60]
        assert source.test.y.tolist() == [0, 1, 0, 1]
        assert source.test.domain.tolist() == [0, 0, 1, 1]

    def test_every_domain_needs_both_splits(self, tmp_path):
        class_tree(tmp_path / "art" / "train")
        class_tree(tmp_path / "art" / "val")
        class_tree(tmp_path / "photo" / "train")
        with pytest.raises(DataError, match=r"of one name .*art: train and val, photo: train$"):
            load("image_folder", root=str(tmp_path), domains=True)
        class_tree(tmp_path / "photo" / "val", ("cat", "cow"))
        with pytest.raises(DataError, match=r"cow.*a test image must be in a folder named as a"):
            load("image_folder", root=str(tmp_path), domains=True)

    @pytest.mark.parametrize(
        ("path", "domains", "message"),
        [
            ("kfold/art/dog", True, r"<domain>/<class>/ .*; set dataset\.root=ROOT/kfold$"),
            ("kfold/art/train/dog", True, r"set dataset\.root=ROOT/kfold$"),
            ("a/kfold/art/dog", True, r"set dataset\.root=ROOT/a/kfold$"),
            ("art/train/dog", False, r"set dataset\.options\.domains=true; if they are not"),
            ("kfold/art/dog", False, r"options\.domains=true dataset\.root=ROOT/kfold; if"),
            ("art/fold/dog", True, r"set dataset\.root=ROOT/art$"),
            ("train/kfold/art/dog", True, r"below ROOT/train lie <domain>/<class>/; move the"),
        ],
    )
    def test_a_level_too_many_says_what_to_set(self, tmp_path, path, domains, message):
        picture(tmp_path / path / "0.png")
        if path.startswith("train"):
            class_tree(tmp_path / "test" / "art", ("dog",))
        with pytest.raises(DataError, match=message.replace("ROOT", str(tmp_path))):
            load("image_folder", root=str(tmp_path), domains=domains)

    def test_a_folder_beside_the_splits_is_named(self, tmp_path):
        class_tree(tmp_path / "art" / "train")
        (tmp_path / "art" / "labels").mkdir()
        with pytest.raises(
            DataError, match="if train is a split, every domain must hold train and"
        ):
            load("image_folder", root=str(tmp_path), domains=True)


class TestPixels:
    def test_size_scales_and_colours_come_in_channels(self, tmp_path):
        red = np.zeros((6, 10, 3), np.uint8)
        red[..., 0] = 200
        for split in ("train", "test"):
            class_tree(tmp_path / split, count=1)
            Image.fromarray(red).save(tmp_path / split / "cat" / "wide.png")
        source = load("image_folder", root=str(tmp_path), size=8)
        assert source.train.shape == (3, 8, 8)
        np.testing.assert_array_equal(
            source.train.x[1], np.full((8, 8), 200) * np.eye(3)[0][:, None, None]
        )

    def test_shapes_that_differ_need_size(self, tmp_path):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        picture(tmp_path / "train" / "dog" / "big.png", side=9)
        with pytest.raises(DataError, match=r"big\.png has 9 x 9 pixels.*dataset\.options\.size"):
            load("image_folder", root=str(tmp_path))

    def test_grey_palette_and_transparency(self, tmp_path):
        class_tree(tmp_path / "test")
        picture(tmp_path / "train" / "dog" / "grey.png", 50, mode="L")
        (tmp_path / "train" / "cat").mkdir()
        seen = np.full((4, 4, 4), 30, np.uint8)
        seen[:2, :, 3] = 0
        seen[2:, :, 3] = 255
        Image.fromarray(seen).save(tmp_path / "train" / "cat" / "a.png")
        Image.fromarray(np.full((4, 4, 3), 60, np.uint8)).quantize(4).save(
            tmp_path / "train" / "cat" / "b.gif"
        )
        x = load("image_folder", root=str(tmp_path)).train.x
        assert x[0, :, 0, 0].tolist() == [255] * 3
        assert x[0, :, 3, 0].tolist() == [30] * 3
        assert x[1, :, 0, 0].tolist() == [60] * 3
        assert x[2, :, 0, 0].tolist() == [50] * 3

    @pytest.mark.parametrize("damage", ["cut", "text", "empty", "header"])
    def test_corrupt_image_is_named(self, tmp_path, damage):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        path = tmp_path / "train" / "dog" / "bad.png"
        Image.fromarray(noise).save(path)
        raw = path.read_bytes()
        content = {"cut": raw[:500], "text": b"<html>", "empty": b"", "header": raw[:20]}
        path.write_bytes(content[damage])
        with pytest.raises(DataError, match=r"train/dog/bad\.png cannot be read as an image"):
            load("image_folder", root=str(tmp_path), size=4)

    def test_sixteen_bits_are_refused(self, tmp_path):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        deep = np.full((4, 4), 40_000, np.uint16)
        Image.fromarray(deep).save(tmp_path / "train" / "dog" / "deep.png")
        with pytest.raises(DataError, match=r"deep\.png has more than 8 bits"):
            load("image_folder", root=str(tmp_path))

    @pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.ppm"])
    def test_sixteen_bits_of_colour_are_refused(self, tmp_path, name):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        (tmp_path / "train" / "dog" / name).write_bytes(DEEP[name])
        with pytest.raises(DataError, match=rf"{name} has more than 8 bits"):
            load("image_folder", root=str(tmp_path))

    def test_an_image_is_turned_as_its_file_says(self, tmp_path):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        tags = Image.Exif()
        tags[0x0112] = 3  # turned by 180 degrees
        pixels = np.zeros((4, 4, 3), np.uint8)
        pixels[0] = 200
        Image.fromarray(pixels).save(tmp_path / "train" / "dog" / "z.png", exif=tags)
        x = load("image_folder", root=str(tmp_path)).train.x[-1]
        assert x[0, :, 0].tolist() == [0, 0, 0, 200]

    def test_says_what_to_install(self, tmp_path, monkeypatch):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        with pytest.raises(DataError, match=r"'image_folder' needs PIL.*pip install pillow"):
            load("image_folder", root=str(tmp_path))


class TestMistakes:
    def test_missing_folder_lists_paths(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
        with pytest.raises(DataError, match=r"shared/image_folder\n(.|\n)*set dataset\.root"):
            load("image_folder")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"size": 0}, "size must be a whole number >= 1, got 0"),
            ({"size": True}, "size must be a whole number"),
            ({"size": "32"}, "size must be a whole number"),
            ({"size": 100_000}, "size must be a whole number <= 4096"),
            ({"domains": "yes"}, "domains must be true or false"),
        ],
    )
    def test_options_out_of_range(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            load("image_folder", root=str(tmp_path), **options)

    def test_no_test_folder(self, tmp_path):
        class_tree(tmp_path / "train")
        with pytest.raises(DataError, match="has train, but no test, val, valid or validation"):
            load("image_folder", root=str(tmp_path))

    def test_no_train_folder(self, tmp_path):
        class_tree(tmp_path / "test")
        class_tree(tmp_path / "valid")
        with pytest.raises(DataError, match="has a folder test, but none called train"):
            load("image_folder", root=str(tmp_path))

    @pytest.mark.parametrize("place", ["bird/a.png", "a.png", "unlabeled/a.png"])
    def test_test_image_without_known_class(self, tmp_path, place):
        class_tree(tmp_path / "train")
        class_tree(tmp_path / "test")
        picture(tmp_path / "test" / place)
        with pytest.raises(DataError, match=r"a\.png: a test image must be .*\(cat, dog\)"):
            load("image_folder", root=str(tmp_path))

    def test_one_class_is_too_few(self, tmp_path):
        class_tree(tmp_path / "train", ("cat",))
        with pytest.raises(DataError, match="two or more class folders, found cat"):
            load("image_folder", root=str(tmp_path))

    def test_too_few_images_to_hold_out(self, tmp_path):
        class_tree(tmp_path, count=4)
        with pytest.raises(DataError, match="no class of five images"):
            load("image_folder", root=str(tmp_path))
