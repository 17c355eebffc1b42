import pytest

from fedlabels.data import load
from fedlabels.errors import ConfigError, DataError

HEAD = """# A comment: with a colon
%another

@problemName Vowels
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false

@classLabel true 10 9 ?
@data
"""
TRAIN = """1.5,2,3:10,20,30:10

# between
4,5,6,7:40,50,60,70:9
8,9,1:80,90,10:?
1,2,3,4,5:1,2,3,4,5:NaN
"""
TEST = "1,1,1:2,2,2:9\n3,3,3:4,4,4:10\n"


def write(folder, train=TRAIN, test=TEST, head=HEAD, name="Vowels"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_TRAIN.ts").write_text(head + train)
    (folder / f"{name}_TEST.ts").write_text(head + test)
    return str(folder)


class TestReads:
    def test_classes_in_the_order_of_the_header_and_unknown_ones_unlabeled(self, tmp_path):
        source = load("ts", root=write(tmp_path), name="Vowels", window=3)
        assert source.train.class_names == ("10", "9")
        assert source.train.y.tolist() == [0, 1, -1, -1]
        assert source.test.y.tolist() == [1, 0]
        assert source.train.x[0].tolist() == [[1.5, 2, 3], [10, 20, 30]]
        assert source.train.name == "Vowels"
        assert "from 4 series of 3 to 5 steps" in source.train.reading

    @pytest.mark.parametrize("place", ["", "Vowels", "ts/Vowels"])
    def test_is_found_where_archives_put_it(self, tmp_path, place):
        write(tmp_path / place)
        assert load("ts", root=str(tmp_path), name="Vowels", window=3).train.shape == (2, 3)

    def test_the_only_set_needs_no_name(self, tmp_path):
        write(tmp_path)
        assert len(load("ts", root=str(tmp_path), window=3).test) == 2
        write(tmp_path, name="Other")
        with pytest.raises(DataError, match=r"2 sets \(Other, Vowels\); set dataset\.options\.nam"):
            load("ts", root=str(tmp_path), window=3)

    def test_a_set_called_as_its_folder_needs_no_name(self, tmp_path):
        write(tmp_path / "Vowels", name="Vowels_eq")
        root = write(tmp_path / "Vowels")
        assert load("ts", root=root, window=3).train.name == "Vowels"

    def test_univariate_and_tags_in_any_case(self, tmp_path):
        head = "@TimeStamps False\n@UNIVARIATE true\n@classlabel TRUE a b\n@DATA\n"
        root = write(tmp_path, "1,2,3:a\n4,5,6:b\n", "7,8,9:b\n", head)
        source = load("ts", root=root)
        assert source.train.x.tolist() == [[[1, 2, 3]], [[4, 5, 6]]]

    def test_missing(self, tmp_path):
        rows = "?,2,?,6,?:1,2,3,4,5:9\n1,2,3,4,?:1,2,3,4,?:10\n1,2,3,4,NaN:1,2,3,4,?:10\n"
        root = write(tmp_path, rows)
        with pytest.raises(
            DataError,
            match=r"TRAIN\.ts, line 13: a value is missing in channel 0 at step 0; set "
            r"dataset\.options\.missing=interpolate",
        ):
            load("ts", root=root, window=3)
        source = load("ts", root=root, window=3, missing="interpolate")
        assert source.train.x[0, 0].tolist() == [2, 2, 4]
        assert "3 to 5" not in source.train.reading  # behind the last value a series ends
        assert "4 to 5" in source.train.reading

    def test_lengths_are_asked_about(self, tmp_path):
        with pytest.raises(DataError, match=r"TRAIN\.ts holds series of 3 to 5 steps.*window=5"):
            load("ts", root=write(tmp_path))


class TestRefusals:
    @pytest.mark.parametrize(
        ("head", "rows", "message"),
        [
            (HEAD.replace("Stamps false", "Stamps true"), TRAIN, "line 5: values with time stamps"),
            (HEAD, "(0,1),(1,2):(0,1),(1,2):9\n", "line 13: values with time stamps are not read"),
            (HEAD, "1,2,3:4,5,6\n", r"ends in '4,5,6', which is no class of @classLabel \(10, 9\)"),
            (HEAD, "1,2,3:4,5,6:-1\n", "ends in '-1', which is no class"),
            (HEAD, "1,2,3:4,5,6:8\n", "ends in '8', which is no class"),
            (HEAD, "1,2,3:4,5,6:9\n1,2,3:9\n", "line 14: 1 channels, the lines before have 2"),
            (HEAD, "1,2,3:4,5:9\n", r"line 13: channels of different lengths \(3, 2\)"),
            (HEAD, "1,2,x:4,5,6:9\n", "line 13: channel 0 holds what is neither a number nor ?"),
            (HEAD, "1,2,:4,5,6:9\n", "line 13: channel 0 holds what is neither"),
            (HEAD, ":1,2,3:9\n", "line 13: channel 0 holds what is neither"),
            (HEAD, "1,inf,3:4,5,6:9\n", "line 13: series 0 is inf in channel 0"),
            (HEAD, "?,?:?,?:9\n", "line 13: every value is missing"),
            (HEAD, "9\n", "line 13: no values before the class"),
            (HEAD, "", "holds no series"),
            ("1,2,3:a\n", "", "line 1: neither @... nor a comment"),
            ("@problemName x\n", "", "holds no series, and no line @data"),
            ("@data\n", TRAIN, "line 1: @data without a line @classLabel"),
            ("@targetlabel true\n@data\n", TRAIN, "numbers .regression., not classes"),
            ("@classLabel false\n@data\n", TRAIN, "a set without classes is not read"),
            ("@classLabel true a\n@data\n", TRAIN, "two or more different classes, got a"),
            (HEAD, TRAIN + "@data\n", "@data after @data"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, tmp_path, head, rows, message):
        with pytest.raises(DataError, match=message) as caught:
            load("ts", root=write(tmp_path, rows, head=head), window=2)
        assert "Vowels_TRAIN.ts" in str(caught.value)

    def test_other_classes_in_the_test_file(self, tmp_path):
        root = write(tmp_path)
        (tmp_path / "Vowels_TEST.ts").write_text(HEAD.replace("10 9", "10 8") + "1,1:1,1:8\n")
        with pytest.raises(DataError, match="@classLabel of both must name the same"):
            load("ts", root=root, window=2)

    def test_no_test_part(self, tmp_path):
        root = write(tmp_path)
        (tmp_path / "Vowels_TEST.ts").unlink()
        with pytest.raises(DataError, match=r"Vowels_TEST\.ts(.|\n)*TRAIN\.ts lies there alone"):
            load("ts", root=root)

    def test_options(self, tmp_path):
        with pytest.raises(ConfigError, match=r"options\.missing must be one of interpol"):
            load("ts", root=str(tmp_path), missing="mean")
        with pytest.raises(ConfigError, match=r"dataset\.options\.name must be a text"):
            load("ts", root=str(tmp_path), name=5)
        with pytest.raises(DataError, match=r"NAME_TRAIN\.ts(.|\n)*dataset\.options\.name=NAME"):
            load("ts", root=str(tmp_path))
