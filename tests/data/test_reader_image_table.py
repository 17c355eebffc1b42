"""Pictures in one folder, with a table of their classes, domains, people and splits."""

import sys

import numpy as np
import pytest
from PIL import Image

from fedlabels.data import load
from fedlabels.errors import ConfigError, DataError

COUNT = 20
CLASSES = ["nv", "mel"]
OPTIONS = {"table": "metadata.csv", "file_column": "image_id", "label_column": "dx"}


def rows(**columns):
    """Return the columns of a table as ISIC has it, some of them others."""
    numbers = range(COUNT)
    return {
        "image_id": [f"ISIC_{k:07d}" for k in numbers],
        "dx": [CLASSES[k // 2 % 2] for k in numbers],
        "center": ["xy"[k % 2] for k in numbers],
        "patient_id": [f"P{k % 3}" for k in numbers],
        **columns,
    }


def write(tmp_path, columns=None, *, folder="images", ending=".png", name="metadata.csv", sep=","):
    columns = columns or rows()
    for k in range(COUNT):
        path = tmp_path / (folder(k) if callable(folder) else folder) / f"ISIC_{k:07d}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 10 * k, "uint8")).save(path)
    lines = [
        sep.join(columns),
        *(sep.join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return str(tmp_path)


def numbers(split):
    """Return which images a split holds: the value of their pixels says it."""
    return (split.x[:, 0, 0, 0] // 10).tolist()


def read(root, **options):
    return load("image_folder", root=root, **{**OPTIONS, **options})


class TestColumns:
    def test_classes_domains_and_people(self, tmp_path):
        source = read(write(tmp_path), domain_column="center", client_column="patient_id")
        train, test = source.train, source.test
        assert train.class_names == ("mel", "nv")
        assert sorted(numbers(train) + numbers(test)) == list(range(COUNT))
        for split in (train, test):
            assert split.domain_names == ("x", "y")
            held = numbers(split)
            assert split.y.tolist() == [1 - k // 2 % 2 for k in held]
            assert split.domain.tolist() == [k % 2 for k in held]
            people = [split.owner_names[o] for o in split.owner]
            assert people == [f"P{k % 3}" for k in held]
        # each fifth of every class in every domain
        assert len(test) == 4
        assert len(set(zip(test.y.tolist(), test.domain.tolist(), strict=True))) == 4

    @pytest.mark.parametrize(
        "name", ["ISIC_{:07d}.png", "images/ISIC_{:07d}.png", "./images/ISIC_{:07d}"]
    )
    def test_files_go_by_name_or_path_with_or_without_ending(self, tmp_path, name):
        root = write(tmp_path, rows(image_id=[name.format(k) for k in range(COUNT)]))
        assert len(read(root).train) == 16

    def test_files_in_several_folders_and_a_table_in_a_third(self, tmp_path):
        (tmp_path / "tables").mkdir()
        root = write(tmp_path, folder=lambda k: f"part_{k % 2}", name="tables/metadata.csv")
        assert len(read(root, table="tables/metadata.csv").train) == 16

    @pytest.mark.parametrize("sep", [";", "\t"])
    def test_other_separators(self, tmp_path, sep):
        assert len(read(write(tmp_path, sep=sep)).train) == 16

    def test_an_empty_cell_is_unlabeled(self, tmp_path):
        dx = [" " if k in (3, 7) else CLASSES[k % 2] for k in range(COUNT)]
        source = read(write(tmp_path, rows(dx=dx)))
        assert np.array(numbers(source.train))[source.train.y < 0].tolist() == [3, 7]

    def test_numbers_are_sorted_by_value(self, tmp_path):
        source = read(write(tmp_path, rows(dx=[(2, 10)[k % 2] for k in range(COUNT)])))
        assert source.train.class_names == ("2", "10")
        assert source.train.y[0] == 0

    def test_all_classes_may_be_given(self, tmp_path):
        source = read(write(tmp_path), class_names=["nv", "bkl", "mel"])
        assert source.train.class_names == ("nv", "bkl", "mel")
        assert source.train.y[:4].tolist() == [0, 0, 2, 2]

    def test_given_and_true_labels(self, tmp_path):
        wrong = ["nv", "", *rows()["dx"][2:]]
        wrong[2] = "nv"
        root = write(tmp_path, rows(given=wrong))
        source = read(root, label_column="given", true_label_column="dx")
        train = source.train
        assert train.y.tolist() == read(root).train.y.tolist()
        differ = np.array(numbers(train))[train.given != train.y]
        assert differ.tolist() == [1, 2]
        assert train.given[1] == -1

    def test_one_column_a_class(self, tmp_path):
        columns = {
            "MEL": [k % 2 for k in range(COUNT)],
            "NV": [f"{1 - k % 2}.0" for k in range(COUNT)],
        }
        columns["MEL"][5] = columns["NV"][5] = ""
        root = write(tmp_path, rows(**columns))
        source = read(root, label_column=None, label_columns=["MEL", "NV"])
        assert source.train.class_names == ("MEL", "NV")
        held = numbers(source.train)
        assert source.train.y.tolist() == [-1 if k == 5 else 1 - k % 2 for k in held]


class TestSplits:
    def test_the_usual_words(self, tmp_path):
        words = ["Train", "TEST", "val", "train"]
        source = read(write(tmp_path, rows(fold=[words[k % 4] for k in range(COUNT)])),
                      split_column="fold")  # fmt: skip
        assert numbers(source.train) == [k for k in range(COUNT) if k % 4 in (0, 3)]
        assert numbers(source.test) == [k for k in range(COUNT) if k % 4 == 1]

    def test_validation_data_where_there_is_no_test(self, tmp_path):
        fold = ["train" if k < 12 else "valid" for k in range(COUNT)]
        source = read(write(tmp_path, rows(fold=fold)), split_column="fold")
        assert numbers(source.test) == list(range(12, COUNT))

    def test_values_of_your_own(self, tmp_path):
        root = write(tmp_path, rows(part=[k % 3 for k in range(COUNT)]))
        source = read(root, split_column="part", train_split=0, test_split=2)
        assert numbers(source.test) == [k for k in range(COUNT) if k % 3 == 2]
        with pytest.raises(DataError, match=r"column 'part' is '0' in row 1, allowed are train"):
            read(root, split_column="part")
        with pytest.raises(DataError, match="marks no row as test data; it holds 0, 1, 2"):
            read(root, split_column="part", train_split=0, test_split=7)

    def test_people_of_both_splits_are_numbered_apart(self, tmp_path):
        fold = ["train" if k < 12 else "test" for k in range(COUNT)]
        people = [f"P{k // 4}" for k in range(COUNT)]
        root = write(tmp_path, rows(fold=fold, patient_id=people))
        source = read(root, split_column="fold", client_column="patient_id")
        assert source.train.owner_names == ("P0", "P1", "P2")
        assert source.test.owner_names == ("P3", "P4")

    def test_a_class_of_test_rows_alone(self, tmp_path):
        fold = ["train" if k < 16 else "test" for k in range(COUNT)]
        root = write(tmp_path, rows(fold=fold, dx=[*rows()["dx"][:-1], "bkl"]))
        with pytest.raises(
            DataError, match="row 20 is test data of class 'bkl', which no training"
        ):
            read(root, split_column="fold")
        assert read(root, split_column="fold", class_names=["mel", "nv", "bkl"]).test.y[-1] == 2


def changed(column, row, value):
    cells = rows()[column]
    cells[row] = value
    return rows(**{column: cells})


class TestDoubts:
    @pytest.mark.parametrize(
        ("columns", "options", "message"),
        [
            (changed("image_id", 3, "ISIC_9"), {}, "column 'image_id': 1 of 20 files are not"),
            (changed("image_id", 3, ""), {}, "the first is '' in row 4; put them there"),
            (changed("image_id", 3, "ISIC_0000000"), {}, "ISIC_0000000.png twice, in rows 1 and 4"),
            (changed("image_id", 3, "../x"), {}, "the first is '../x' in row 4"),
            (changed("dx", 2, "-1"), {}, "is '-1' in row 3: if that means that the class is not"),
            (changed("dx", 2, "nan"), {}, "set dataset.options.unlabeled_value='nan', if it is a"),
            (changed("center", 2, ""), {"domain_column": "center"}, "nobody's samples would be"),
            (rows(dx=["nv"] * COUNT), {}, "must name images of two or more classes, it names nv"),
            (rows(dx=list(range(COUNT))), {}, "no class has the five images"),
            (None, {"label_column": "diagnosis"}, "no column 'diagnosis'; it has image_id, dx"),
            (None, {"file_column": "patient_id"}, "column 'patient_id': 20 of 20 files"),
            (None, {"class_names": ["nv", "bkl"]}, "row 3 is of class 'mel', the classes are nv"),
            (None, {"table": "meta.csv"}, r"meta\.csv does not exist; tables in .*: metadata\.csv"),
            (None, {"label_column": None, "label_columns": ["dx", "center"]}, "0 and 1, got 'nv'"),
        ],
    )  # fmt: skip
    def test_tables(self, tmp_path, columns, options, message):
        with pytest.raises(DataError, match=message):
            read(write(tmp_path, columns), **options)

    @pytest.mark.parametrize(
        ("cells", "message"),
        [
            ((1, 1), r"it has 2; several labels a sample \(multi-label\) are not supported"),
            ((0, 0), "it has 0; leave all cells empty where the class is not known"),
        ],
    )
    def test_one_column_a_class(self, tmp_path, cells, message):
        columns = {name: [cell] * COUNT for name, cell in zip("AB", cells, strict=True)}
        with pytest.raises(DataError, match=message):
            read(write(tmp_path, rows(**columns)), label_column=None, label_columns=["A", "B"])

    def test_what_unknown_is_called_can_be_said(self, tmp_path):
        root = write(tmp_path, changed("dx", 2, "-1"))
        assert read(root, unlabeled_value=-1).train.y.min() == -1
        assert read(root, class_names=["-1", "mel", "nv"]).train.y[2] == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"table": None}, r"options\.file_column says how a table is read; set dataset"),
            (
                {"label_column": None},
                "set dataset.options.table=metadata.csv dataset.options.file_",
            ),
            ({"file_column": None}, r"file_column=image_id .*columns: dx, center, patient_id"),
            ({"label_columns": ["a", "b"]}, "not both"),
            ({"domains": True}, "with a table set domain_column"),
            ({"table": "/etc/passwd"}, "table must be a path below dataset.root"),
            ({"label_column": 3}, "label_column must be a text, got 3"),
            ({"train_split": "a"}, "give both dataset.options.train_split and test_split"),
            ({"train_split": "a", "test_split": "b"}, "are values of split_column; set it"),
            ({"split_column": "dx", "train_split": "a", "test_split": "a"}, "are both 'a'"),
            (
                {"label_column": None, "label_columns": ["a", "b"], "unlabeled_value": "x"},
                "unlabeled_value is of a label_column",
            ),
        ],
    )
    def test_options(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            read(write(tmp_path), **options)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"image_id,dx\n", "must have a line of names and a row, it has 1 lines"),
            (b"image_id,dx\na\n", "row 1 has 1 cells, the line of names has 2"),
            (b"image_id,dx,dx\na,b,c\n", "two columns called 'dx'"),
            (b"image_id,dx\n\xff,b\n", "cannot be read as a table in UTF-8"),
            (b'image_id,dx\n"a,b\n', "cannot be read as a table in UTF-8"),
        ],
    )
    def test_damaged_tables(self, tmp_path, text, message):
        root = write(tmp_path)
        (tmp_path / "metadata.csv").write_bytes(text)
        with pytest.raises(DataError, match=message):
            read(root)

    def test_two_files_of_one_name(self, tmp_path):
        root = write(tmp_path)
        write(tmp_path, folder="more")
        with pytest.raises(DataError, match=r"'ISIC_0000000' in row 1 may be .* or .*; name files"):
            read(root)


class TestWithoutOptions:
    def test_the_message_names_table_options_and_columns(self, tmp_path):
        with pytest.raises(DataError) as caught:
            load("image_folder", root=write(tmp_path))
        for part in ("table=metadata.csv", "file_column=image_id", "dx, center, patient_id"):
            assert part in str(caught.value)

    def test_folders_that_say_nothing_are_asked_about(self, tmp_path):
        root = write(tmp_path, folder=lambda k: f"part_{k % 2}")
        with pytest.raises(
            DataError, match=r"are the folders classes\? Set dataset\.options\.table="
        ):
            load("image_folder", root=root)
        assert load("image_folder", root=root, table=False).train.class_names == (
            "part_0",
            "part_1",
        )

    def test_folders_that_a_column_repeats_are_classes(self, tmp_path):
        root = write(tmp_path, folder=lambda k: rows()["dx"][k])
        assert load("image_folder", root=root).train.class_names == ("mel", "nv")

    def test_a_table_of_something_else(self, tmp_path):
        root = write(tmp_path, rows(image_id=list(range(COUNT))))
        with pytest.raises(DataError, match=r"if .*metadata\.csv names its images, set dataset"):
            load("image_folder", root=root)


class TestParquet:
    def test_reads_it(self, tmp_path):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        root = write(tmp_path)
        columns = rows(dx=[None if k == 1 else k // 2 % 2 for k in range(COUNT)])
        columns["boxes"] = [[k] for k in range(COUNT)]
        parquet.write_table(arrow.table(columns), tmp_path / "m.parquet")
        source = read(root, table="m.parquet", client_column="patient_id")
        assert source.train.class_names == ("0", "1")
        assert source.train.y[:4].tolist() == [0, -1, 1, 1]
        with pytest.raises(
            DataError, match="'boxes' must hold text or numbers, row 1 holds a list"
        ):
            read(root, table="m.parquet", label_column="boxes")
        (tmp_path / "m.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            read(root, table="m.parquet")

    def test_says_what_to_install(self, tmp_path, monkeypatch):
        root = write(tmp_path, name="m.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(DataError, match="pip install pyarrow"):
            read(root, table="m.parquet")
