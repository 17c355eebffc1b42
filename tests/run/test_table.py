"""Tables survive kills, grow columns and are cut back."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from fedlabels.errors import DataError
from fedlabels.run.folder.folder import ROUND_FIRST, ROUND_LAST
from fedlabels.run.folder.hashing import rounds_hash
from fedlabels.run.folder.table import Table


def rounds_table(folder: Path) -> Table:
    return Table(folder / "rounds.csv", first=ROUND_FIRST, last=ROUND_LAST)


def row(index: int, **more: object) -> dict[str, object]:
    base = {"round": index, "sampled": 5, "ok": 5, "loss_labeled": 1 / 3 + index}
    return base | {"seconds_total": 0.1 * index} | more


def test_columns_keep_their_place(tmp_path: Path) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1, ratio=0.5, agreement=0.25, seconds_aggregate=1.0)])
    middle = ["agreement", "loss_labeled", "ratio"]
    last = [*ROUND_LAST[:-1], "seconds_aggregate", "seconds_total"]
    assert table.columns() == [*ROUND_FIRST, *middle, *last]


def test_numbered_columns_are_in_natural_order(tmp_path: Path) -> None:
    table = Table(tmp_path / "test_class.csv")
    table.append([{"round": 1} | {f"recall_{c}": 0.5 for c in range(12)}])
    assert table.columns() == ["round", *(f"recall_{c}" for c in range(12))]


def test_values_read_back_to_the_same_bits(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 1e-300, float(np.float32(0.1)), -0.0, 1e22]
    table = Table(tmp_path / "t.csv")
    table.append([{"round": i, "value": v} for i, v in enumerate(values)])
    assert [repr(float(r["value"])) for r in table.rows()] == [repr(v) for v in values]


def test_numpy_scalars_and_texts_are_plain(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv")
    error = 'Traceback:\n  "x, y"\r\n'
    given = {"round": np.int64(1), "a": np.float32(0.5), "b": np.True_, "c": error, "d": None}
    table.append([given])
    assert table.path.read_bytes().count(b"\n") == 2
    assert list(table.rows()) == [
        {"round": "1", "a": "0.5", "b": "true", "c": 'Traceback:   "x, y"'}
    ]


def test_new_columns_widen_the_old_rows(tmp_path: Path) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1), row(2)])
    table.append([row(3, pass_rate=0.5)])
    assert [r["pass_rate"] for r in table.rows()] == ["", "", "0.5"]
    assert [float(r["loss_labeled"]) for r in table.rows()] == [1 / 3 + i for i in (1, 2, 3)]


def test_a_column_without_values_is_not_added(tmp_path: Path) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1, pass_rate=None)])
    assert "pass_rate" not in table.columns()


@pytest.mark.parametrize("kept", range(1, 40, 3))
def test_a_torn_last_line_is_dropped(tmp_path: Path, kept: int) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1), row(2), row(3)])
    whole = table.path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    table.path.write_bytes(whole[: min(start + kept, len(whole) - 1)])
    assert [r["round"] for r in table.rows()] == ["1", "2"]
    table.append([row(3)])
    assert table.path.read_bytes() == whole


def test_a_torn_header_counts_as_no_file(tmp_path: Path) -> None:
    table = rounds_table(tmp_path)
    table.path.write_text("round,sam")
    assert list(table.rows()) == []
    table.append([row(1)])
    assert [r["round"] for r in table.rows()] == ["1"]


def test_a_last_line_of_garbage_is_dropped(tmp_path: Path) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1)])
    with table.path.open("ab") as file:
        file.write(b"\0" * 50 + b"\xff\n")
    assert [r["round"] for r in table.rows()] == ["1"]
    table.cut_back(1)
    table.append([row(2)])
    assert [r["round"] for r in table.rows()] == ["1", "2"]


def test_damage_in_the_middle_is_an_error_with_the_line(tmp_path: Path) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1), row(2), row(3)])
    lines = table.path.read_text().splitlines()
    table.path.write_text("\n".join([*lines[:2], "2,oops", lines[3]]) + "\n")
    with pytest.raises(DataError, match="line 3"):
        list(table.rows())


def test_cut_back_drops_later_rows(tmp_path: Path) -> None:
    table = Table(tmp_path / "clients.csv", first=("round", "client_id"))
    table.append([{"round": r, "client_id": c} for r in (1, 2, 3) for c in (0, 1)])
    table.cut_back(2)
    assert [r["round"] for r in table.rows()] == ["1", "1", "2", "2"]
    table.cut_back(0)
    assert list(table.rows()) == []


def test_cut_back_then_go_on_gives_the_uninterrupted_file(tmp_path: Path) -> None:
    rows = [row(i, **({"pass_rate": i / 7} if i > 3 else {})) for i in range(1, 8)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole, killed = rounds_table(tmp_path / "a"), rounds_table(tmp_path / "b")
    for item in rows:
        whole.append([item])
    for item in rows[:5]:
        killed.append([item])
    killed.cut_back(2)
    assert "pass_rate" not in killed.columns()
    for item in rows[2:]:
        rounds_table(tmp_path / "b").append([item])
    assert killed.path.read_bytes() == whole.path.read_bytes()


def test_cut_back_without_a_file_does_nothing(tmp_path: Path) -> None:
    rounds_table(tmp_path).cut_back(3)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_rename_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rounds_table(tmp_path)
    table.append([row(1), row(2)])
    before = table.path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        table.cut_back(1)
    with pytest.raises(OSError, match="disk full"):
        table.append([row(3, new=1.0)])
    assert table.path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rounds.csv"]


def test_a_row_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="integer round"):
        rounds_table(tmp_path).append([{"sampled": 3}])


def test_rounds_hash_ignores_clock_times_only(tmp_path: Path) -> None:
    tables = []
    for name, seconds, loss in (("a", 1.0, 0.5), ("b", 2.0, 0.5), ("c", 1.0, 0.25)):
        (tmp_path / name).mkdir()
        table = rounds_table(tmp_path / name)
        table.append([row(1, seconds_train=seconds, loss_labeled=loss)])
        tables.append(rounds_hash(table.path))
    assert tables[0] == tables[1] != tables[2]


def test_files_are_plain_csv(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv")
    table.append([{"round": 1, "error": 'a,"b"'}])
    with table.path.open(newline="") as file:
        assert list(csv.reader(file)) == [["round", "error"], ["1", 'a,"b"']]
