"""Pictures by lists: DomainNet, PACS, Office-31."""

import numpy as np
import pytest
from PIL import Image

from fedlabels.data import load
from fedlabels.errors import ConfigError, DataError

CLASSES = ("dog", "elephant", "giraffe")
DOMAINS = ("art_painting", "photo")


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, "uint8")).save(path)


def tree(folder, classes=CLASSES, count=5):
    """Write a picture for each name; returns the names by domain, with the number of the class."""
    found = {}
    for place, domain in enumerate(DOMAINS):
        for number, name in enumerate(classes):
            for k in range(count):
                path = f"{domain}/{name}/pic {k}.png"
                picture(folder / path, 100 * place + 10 * number + k)
                found.setdefault(domain, []).append((path, number))
    return found


def write(path, lines, base=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} {number + base}\n" for name, number in lines))


def read(folder, **options):
    return load("image_folder", root=str(folder), **{"lists": True, **options})


def values(split):
    return split.x[:, 0, 0, 0].tolist()


def test_domainnet_takes_numbers_from_its_lists(tmp_path):
    for domain, lines in tree(tmp_path).items():
        # the second class has no training image in one domain, and the fourth of five is nowhere
        lines = [(name, 4 if n == 2 else n) for name, n in lines if "photo/eleph" not in name]
        write(tmp_path / f"{domain}_train.txt", [one for one in lines if "pic 0" not in one[0]])
        write(tmp_path / f"{domain}_test.txt", [one for one in lines if "pic 0" in one[0]])
    (tmp_path / "README.txt").write_text("Pictures of animals.\n")
    source = read(tmp_path)
    assert source.train.class_names == ("dog", "elephant", "2", "3", "giraffe")
    assert source.train.domain_names == DOMAINS
    assert values(source.test) == [0, 10, 20, 100, 120]
    assert source.test.y.tolist() == [0, 1, 4, 0, 4]
    assert source.test.domain.tolist() == [0, 0, 0, 1, 1]
    assert len(source.train) == 20


def test_pacs_counts_from_1_and_has_training_images_in_its_test_lists(tmp_path):
    for domain, lines in tree(tmp_path / "kfold").items():
        held = [one for one in lines if "pic 4" in one[0]]
        rest = [one for one in lines if one not in held]
        for kind, part in (("train", rest), ("crossval", held), ("test", lines)):
            write(tmp_path / "splits" / f"{domain}_{kind}_kfold.txt", part, base=1)
    source = read(tmp_path, lists="splits")
    assert source.train.class_names == CLASSES
    assert source.test.y.tolist() == [0, 1, 2] * 2
    assert values(source.test) == [4, 14, 24, 104, 114, 124]


def test_a_list_a_domain_holds_out_each_fifth(tmp_path):
    for domain, lines in tree(tmp_path).items():
        write(tmp_path / "image_list" / f"{domain}.txt", lines)
    source = read(tmp_path, lists="image_list")
    assert source.test.domain_names == DOMAINS
    assert values(source.test) == [4, 14, 24, 104, 114, 124]


def test_lists_without_a_domain(tmp_path):
    lines = tree(tmp_path)["photo"]
    write(tmp_path / "train.txt", lines[::2])
    write(tmp_path / "val.txt", lines[1::2])
    source = read(tmp_path)
    assert source.train.domain is None
    assert len(source.test) == 7


def test_names_are_numbers_where_folders_say_something_else(tmp_path):
    for k in range(4):
        picture(tmp_path / "all" / f"{k}.png", k)
    write(tmp_path / "train.txt", [("all/0.png", 0), ("all/1.png", 1)])
    write(tmp_path / "test.txt", [("all/2.png", 0), ("all/3.png", 1)])
    assert read(tmp_path).train.class_names == ("0", "1")


class TestDoubts:
    def write(self, folder, train, test=(("photo/dog/pic 4.png", 0),), domain="photo"):
        tree(folder)
        write(folder / "photo_train.txt", train)
        write(folder / f"{domain}_test.txt", test)

    @pytest.mark.parametrize(
        ("train", "options", "message"),
        [
            ([("photo/dog/pic 9.png", 0)], {}, r"photo_train\.txt: 1 of 1 files are not below"),
            ([("pic 1.png", 0)], {}, "'pic 1.png' in line 1 may be .*; name files by their path"),
            ([("photo/dog/pic 0.png", 0)] * 2, {}, r"pic 0\.png twice, in lines 1 and 2"),
            ([("photo/dog/pic 0.png", "")], {}, "line 1 must be a path, a space and the number"),
            ([("photo/dog/pic 0.png", 0)], {}, "numbers of classes are 0, up to 0, of 2 images"),
            ([("photo/dog/pic 0.png", 9)], {}, "numbers of classes are 0, 9, up to 9, of 2 images"),
            ([("photo/dog/pic 4.png", 0)], {}, "lists of test name training images; add <domain>_"),
            (
                [("photo/dog/pic 0.png", 1)],
                {"domain": "art"},
                "art has a list of train or test, not",
            ),
        ],
    )
    def test_lists(self, tmp_path, train, options, message):
        train = [(name, n) if n != "" else (name.replace(" ", ""), -1) for name, n in train]
        self.write(tmp_path, train, **options)
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    def test_no_list(self, tmp_path):
        tree(tmp_path)
        with pytest.raises(DataError, match=r"has no lists; it must hold <domain>_train.txt and"):
            read(tmp_path)
        write(tmp_path / "photo_test.txt", [("photo/dog/pic 4.png", 0)])
        with pytest.raises(DataError, match="has lists of test, but none called <domain>_train"):
            read(tmp_path)

    @pytest.mark.parametrize("lists", ["../lists", "/tmp", 3])
    def test_options(self, tmp_path, lists):
        with pytest.raises(ConfigError, match="lists must be a "):
            read(tmp_path, lists=lists)

    def test_a_table_or_lists(self, tmp_path):
        with pytest.raises(ConfigError, match="table or lists, not both"):
            read(tmp_path, table="a.csv")
