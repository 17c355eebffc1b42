import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.errors import ConfigError, DataError

HEADER = "age,sex,chol,site,who,part,target"
ROWS = [
    "63,m,233,basel,p9,train,yes",
    "37, f ,250,bern,p10,train,no",
    "41,f,204,basel,p9,TRAIN,",
    "56,m,236,bern,p10,train,yes",
    "57,x,354,basel,p9,test,no",
    "57,m,192,bern,p11,test,yes",
]
ROLES = {"label_column": "target", "client_column": "who", "domain_column": "site"}
BY_COLUMN = {**ROLES, "split_column": "part"}


def write(path, rows=ROWS, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


class TestReads:
    def test_columns_by_their_roles(self, tmp_path):
        source = load("table", root=write(tmp_path / "heart.csv"), **BY_COLUMN)
        assert source.train.name == "heart"
        # age, sex=f, sex=m, chol: "x" is in no training row
        expected = [[63, 0, 1, 233], [37, 1, 0, 250], [41, 1, 0, 204], [56, 0, 1, 236]]
        assert source.train.x.tolist() == expected
        assert source.test.x.tolist() == [[57, 0, 0, 354], [57, 0, 1, 192]]
        assert source.train.class_names == ("no", "yes")
        assert source.train.y.tolist() == [1, 0, -1, 1]
        assert source.test.y.tolist() == [0, 1]
        assert source.train.owner_names == ("p10", "p9")
        assert source.test.owner_names == ("p11", "p9")
        assert source.train.domain_names == ("basel", "bern")
        np.testing.assert_allclose(source.train.mean, np.mean(expected, axis=0))
        assert source.train.reading == "from 3 columns, 1 of them of text"

    def test_a_folder_of_two_files(self, tmp_path):
        write(tmp_path / "train.csv", ROWS[:4])
        write(tmp_path / "test.csv", ROWS[4:])
        source = load("table", root=str(tmp_path), **ROLES, drop_columns=["part"])
        assert len(source.train) == 4
        assert source.train.shape == (4,)

    def test_each_nth_row_of_a_class(self, tmp_path):
        rows = [f"{i},{i * i},{label}" for i, label in enumerate([1.0, 0.0, ""] * 10)]
        path = write(tmp_path / "a.csv", rows, "a,b,y")
        source = load("table", root=path, label_column="y", test_every=5)
        assert source.train.class_names == ("0", "1")
        assert source.test.y.tolist() == [1, 0, 1, 0]
        assert (source.train.y < 0).sum() == 10

    def test_classes_are_sorted_as_numbers(self, tmp_path):
        rows = [f"{i},{label}" for i, label in enumerate([10, 9, 2] * 5)]
        path = write(tmp_path / "a.csv", rows, "a,y")
        source = load("table", root=path, label_column="y", test_every=5)
        assert source.train.class_names == ("2", "9", "10")

    def test_given_and_true_labels(self, tmp_path):
        rows = [
            f"{i},{true},{given}" for i, (true, given) in enumerate([(0, 1), (1, 1), (1, "")] * 5)
        ]
        path = write(tmp_path / "a.csv", rows, "a,true,y")
        options = {"label_column": "y", "true_label_column": "true", "test_every": 5}
        source = load("table", root=path, **options)
        assert set(zip(source.train.y.tolist(), source.train.given.tolist(), strict=True)) == {
            (0, 1), (1, 1), (1, -1),
        }  # fmt: skip

    def test_numbers_that_are_names(self, tmp_path):
        rows = [f"{i % 3 + 7},{i % 2}" for i in range(20)]
        path = write(tmp_path / "a.csv", rows, "code,y")
        options = {"label_column": "y", "test_every": 5, "categorical_columns": ["code"]}
        assert load("table", root=path, **options).train.shape == (3,)

    def test_another_delimiter_and_quotes(self, tmp_path):
        rows = [f'"{i};5";{i};{i % 2}' for i in range(12)]
        path = write(tmp_path / "a.csv", rows, "name;b;y")
        options = {"label_column": "y", "test_every": 5, "drop_columns": ["name"]}
        assert load("table", root=path, **options).train.shape == (1,)

    def test_missing_values(self, tmp_path):
        rows = [*ROWS, "?,m,100,bern,p10,train,no", "50,NA,100,bern,p10,train,no"]
        path = write(tmp_path / "a.csv", rows)
        with pytest.raises(
            DataError,
            match=r"row 7: column 'age' has no value there and in 0 more rows; set "
            r"dataset\.options\.missing=mean or =drop",
        ):
            load("table", root=path, **BY_COLUMN)
        source = load("table", root=path, **BY_COLUMN, missing="drop")
        assert len(source.train) == 4
        assert source.train.reading.endswith("2 of 8 rows left out, a value is missing")
        x = load("table", root=path, **BY_COLUMN, missing="mean").train.x
        np.testing.assert_allclose(x[4, 0], np.mean([63, 37, 41, 56, 50]), rtol=1e-6)
        assert x[5, 1:3].tolist() == [0, 0]


def parquet(monkeypatch, columns):
    """Stand for pyarrow, which is optional."""
    module = ModuleType("pyarrow.parquet")
    listed = [SimpleNamespace(to_pylist=lambda v=values: v) for values in columns.values()]
    table = SimpleNamespace(column_names=list(columns), columns=listed)
    module.ParquetFile = lambda path: SimpleNamespace(read=lambda: table)
    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)


class TestParquet:
    def test_reads(self, tmp_path, monkeypatch):
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        columns = {"a": [1.5, 2.0] * 5, "flag": [True, False] * 5, "y": [0, 1] * 5}
        parquet(monkeypatch, {**columns, "image": [b"x"] * 10})
        options = {"label_column": "y", "test_every": 5}
        with pytest.raises(DataError, match=r"column 'image' must hold text or numbers, row 1"):
            load("table", root=str(tmp_path / "a.parquet"), **options)
        source = load("table", root=str(tmp_path / "a.parquet"), **options, drop_columns=["image"])
        assert source.train.x[0].tolist() == [1.5, 0, 1]

    def test_missing_library(self, tmp_path, monkeypatch):
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(DataError, match=r"needs pyarrow.*pip install pyarrow"):
            load("table", root=str(tmp_path / "a.parquet"), label_column="y")


class TestRefusals:
    @pytest.mark.parametrize(
        ("rows", "header", "options", "message"),
        [
            (["63,m,233"], HEADER, {}, "row 1 has 3 cells, the line of names has 7"),
            ([], HEADER, {}, "must have a line of names and a row"),
            (ROWS, "1,2,3,4,5,6,7", {}, "the first line must name the columns"),
            (ROWS, HEADER.replace("sex", "age"), {}, "two columns called 'age'"),
            (ROWS, HEADER.replace("sex", ""), {}, "every column needs a name"),
            ([*ROWS, "6o,m,1,bern,p9,train,no"], HEADER, {},
             "row 7: column 'age' holds numbers, but '6o' here"),
            ([*ROWS, "60,m,1,bern,p9,val,no"], HEADER, {}, "must be train or test, got 'val'"),
            ([*ROWS, "60,m,1,bern,,train,no"], HEADER, {}, "column 'who' is '' for 1 samples"),
            ([*ROWS, "inf,m,1,bern,p9,train,no"], HEADER, {}, "row 7: a number is infinite"),
            ([r.replace("yes", "1").replace("no", "-1") for r in ROWS], HEADER, {},
             "are -1 and 1, and -1 is unlabeled"),
            ([r.replace("yes", "0.5").replace("no", "1") for r in ROWS], HEADER, {},
             "label '0.5' in column 'target' is no class"),
            (ROWS, HEADER, {"split_column": None, "drop_columns": ["part"]},
             r"set dataset\.options\.split_column, or dataset\.options\.test_every=5"),
            (["63,m,233,basel,p9,train,yes\x00", '"'], HEADER, {}, "cannot be read as a table"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, tmp_path, rows, header, options, message):
        path = write(tmp_path / "a.csv", rows, header)
        with pytest.raises(DataError, match=message) as caught:
            load("table", root=path, **{**BY_COLUMN, **options})
        assert "a.csv" in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"label_column": "goal"}, r"options\.label_column=goal is no column of .* has age, "),
            ({"drop_columns": ["zip"]}, r"options\.drop_columns=zip is no column"),
            ({"drop_columns": "age"}, r"dataset\.options\.drop_columns must be a list of texts"),
            ({"client_column": 5}, r"dataset\.options\.client_column must be a text"),
            (
                {"categorical_columns": ["who"]},
                "categorical_columns names who, which is no f",
            ),
            ({"test_every": 5}, "both choose the test rows"),
            ({"missing": "zero"}, r"dataset\.options\.missing must be one of mean, drop"),
        ],
    )
    def test_options(self, tmp_path, options, message):
        path = write(tmp_path / "a.csv")
        with pytest.raises(ConfigError, match=message):
            load("table", root=path, **{**BY_COLUMN, **options})

    def test_files(self, tmp_path):
        write(tmp_path / "train.csv")
        with pytest.raises(DataError, match=r"has no test\.csv beside it: add it, or set dataset"):
            load("table", root=str(tmp_path), **ROLES)
        write(tmp_path / "test.csv", header=HEADER.replace("sex", "s"))
        with pytest.raises(DataError, match="both need the same in one order"):
            load("table", root=str(tmp_path), **ROLES)
        write(tmp_path / "test.csv")
        with pytest.raises(ConfigError, match=r"split_column has no effect, .*test\.csv is the te"):
            load("table", root=str(tmp_path), **BY_COLUMN)
        with pytest.raises(DataError, match=r"nowhere\nTo get it: set dataset\.root to a \.csv"):
            load("table", root=str(tmp_path / "nowhere"), **ROLES)
        (tmp_path / "a.xlsx").write_bytes(b"PK")
        with pytest.raises(DataError, match=r"a\.xlsx must end in \.csv"):
            load("table", root=str(tmp_path / "a.xlsx"), **ROLES)

    def test_a_column_of_names_is_no_feature(self, tmp_path):
        rows = [f"n{i},{i % 2}" for i in range(1500)]
        path = write(tmp_path / "a.csv", rows, "name,y")
        with pytest.raises(DataError, match=r"'name' has 1,200 different texts.*drop_columns"):
            load("table", root=path, label_column="y", test_every=5)
