import collections
import copyreg
import os
import pickle

import numpy as np
import pytest

from fedlabels.data.pickles import load_pickle
from fedlabels.errors import DataError


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def write(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_numbers_and_text_come_back(tmp_path, protocol):
    value = {
        b"bytes": b"\x00\xff",
        "text": "h\u00e4",
        "numbers": [1, -2, 2**70, 0.5, True, None],
        "nested": (np.arange(6, dtype=">i2").reshape(2, 3), [np.float32([0.25])]),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float64(1.5),
        "names": np.array(["a", "bc"]),
    }
    got = load_pickle(write(tmp_path / "p", value, protocol))
    assert {k: got[k] for k in (b"bytes", "text", "numbers", "scalar")} == {
        k: value[k] for k in (b"bytes", "text", "numbers", "scalar")
    }
    np.testing.assert_array_equal(got["nested"][0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(got["nested"][1][0], np.float32([0.25]))
    np.testing.assert_array_equal(got["fortran"], value["fortran"])
    assert got["names"].tolist() == ["a", "bc"]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_is_known_by_its_old_and_its_new_name(tmp_path, module):
    raw = pickle.dumps(np.arange(3), protocol=2)
    for other in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        raw = raw.replace(other + b"\n_reconstruct", module.encode() + b"\n_reconstruct")
    (tmp_path / "p").write_bytes(raw)
    assert module.encode() in raw
    np.testing.assert_array_equal(load_pickle(tmp_path / "p"), [0, 1, 2])


def test_objects_in_arrays_become_lists(tmp_path):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.arange(2), np.arange(3)]
    np.save(tmp_path / "o.npy", np.array({"x": ragged}, dtype=object), allow_pickle=True)
    got = load_pickle(tmp_path / "o.npy", skip_npy_header=True)
    assert [a.tolist() for a in got["x"]] == [[0, 1], [0, 1, 2]]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "place", [lambda a: a, lambda a: {b"data": a}, lambda a: np.array([a], dtype=object)]
)
def test_a_call_is_refused_and_not_run(tmp_path, protocol, place):
    path, mark = tmp_path / "p", tmp_path / "mark"
    with pytest.raises(DataError, match=r"asks for \w+\.system, which no data set needs"):
        load_pickle(write(path, place(Command(mark)), protocol))
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the file does its harm where nobody hinders it
    assert mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        {1, 2},
        bytearray(b"x"),
        np.ndarray,
        np.dtype("f4"),
        np.zeros(2, dtype=[("a", "f4")]),
        copyreg.__newobj__,
        np.random.default_rng,
        np.load,
        eval,
    ],
)
def test_other_objects_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="asks for"):
        load_pickle(write(tmp_path / "p", value))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85X\x01\x00\x00\x00b\x87R"
OBJECTS = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R"
POINTER = b"C\x08AAAAAAAA"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.",
            "asks for the codec 'bz2'",
        ),
        (
            b"c_codecs\nencode\n}X\x08\x00\x00\x00__code__K\x01sb.",
            "asks for a change of a function",
        ),
        (b"cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.", "asks for a change of a function"),
        (b"cnumpy\nndarray\n.", "asks for"),
        (b"cnumpy.core.multiarray\nscalar\n" + OBJECTS + POINTER + b"\x86R.", "asks for a scalar"),
        # Raw bytes as an array of objects would be wild pointers: here they are small numbers.
        (ARRAY + b"(K\x01K\x08\x85" + OBJECTS + b"\x89" + POINTER + b"tb.", None),
    ],
)
def test_hand_made_attacks_do_nothing(tmp_path, raw, message):
    (tmp_path / "p").write_bytes(raw)
    if message is None:
        assert load_pickle(tmp_path / "p") == [65] * 8
        return
    with pytest.raises(DataError, match=message):
        load_pickle(tmp_path / "p")


@pytest.mark.parametrize("raw", [b"", b"\x80\x02", b"no pickle", b"\x80\x02]q\x00h\x00a."])
def test_damage_is_named(tmp_path, raw):
    (tmp_path / "p").write_bytes(raw)
    with pytest.raises(DataError, match=r"p cannot be read .*get the file again"):
        load_pickle(tmp_path / "p")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere cannot be read"):
        load_pickle(tmp_path / "nowhere")
