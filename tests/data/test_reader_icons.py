import os
import subprocess
import sys

import numpy as np
import pytest

from fedlabels.data import load
from fedlabels.data.icons.__main__ import main
from fedlabels.data.icons.build import build
from fedlabels.data.icons.reader import CLASSES, FILE, THEMES, is_test
from fedlabels.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")
FOLDERS = {
    "oxygen": "oxygen/base/{s}x{s}/{c}",
    "tango": "Tango/{s}x{s}/{c}",
    "gnome": "gnome/{s}x{s}/{c}",
    "faenza": "Faenza/{c}/{s}",
    "elementary-xfce": "elementary-xfce/{c}/{s}",
}
NAMES = tuple(f"icon-{i}" for i in range(8))


def place(themes, theme, kind, size, name):
    if theme == "elementary-xfce" and kind == "mimetypes":
        kind = "mimes"
    return themes / FOLDERS[theme].format(s=size, c=kind) / f"{name}.png"


def icon(path, side, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def themes(tmp_path):
    """Install the themes: in each class of each theme the same names; 48 pixels in gnome only."""
    folder = tmp_path / "icons-of-the-system"
    seed = 0
    for theme in THEMES:
        for kind in CLASSES:
            for name in NAMES:
                for size in (32, 48) if theme == "gnome" else (32,):
                    seed += 1
                    icon(place(folder, theme, kind, size, name), size, seed)
    return folder


def test_build_and_read(themes, tmp_path, monkeypatch):
    counts = build(tmp_path / "built", themes=themes)
    each = len(NAMES) * len(CLASSES)
    assert counts == {name: each * (2 if name == "gnome" else 1) for name in THEMES}
    source = load("icons", root=str(tmp_path / "built"))
    assert source.train.shape == (3, 32, 32)
    assert source.train.class_names == CLASSES
    assert source.test.domain_names == THEMES
    assert source.train.owner is None
    share = sum(map(is_test, NAMES)) / len(NAMES)
    for theme in range(len(THEMES)):
        count = counts[THEMES[theme]]
        assert (source.test.domain == theme).sum() == count * share
        assert (source.train.domain == theme).sum() == count * (1 - share)
    assert np.bincount(source.test.y).min() == np.bincount(source.test.y).max() > 0


def test_names_decide_the_split_whatever_the_order_of_files(themes, tmp_path):
    build(tmp_path, themes=themes)
    source = load("icons", root=str(tmp_path / FILE))
    with np.load(tmp_path / FILE) as archive:
        arrays = dict(archive)
    test = np.array([is_test(name) for name in arrays["icon"].tolist()])
    np.testing.assert_array_equal(source.test.x, arrays["x"][test])
    order = np.random.default_rng(0).permutation(len(test))
    np.savez(tmp_path / FILE, **{key: value[order] for key, value in arrays.items()})
    again = load("icons", root=str(tmp_path / FILE))
    assert {x.tobytes() for x in again.test.x} == {x.tobytes() for x in source.test.x}


def test_the_split_is_the_same_on_every_machine():
    # Fixed by SHA-256 of the name; Python's own hash differs from process to process.
    names = ("edit-copy", "folder", "go-next", "help", "mail", "zoom", "user-trash", "printer")
    assert [name for name in names if is_test(name)] == ["help", "user-trash", "printer"]
    assert 700 < sum(is_test(f"name {i}") for i in range(4000)) < 900


def test_equal_files_count_once_and_links_not_at_all(themes, tmp_path):
    before = sum(build(tmp_path / "a", themes=themes).values())
    first = place(themes, "oxygen", "apps", 32, NAMES[0])
    first.with_name("zz-copy.png").write_bytes(first.read_bytes())
    first.with_name("zz-link.png").symlink_to(first)
    place(themes, "faenza", "apps", 32, "zz-copy").write_bytes(first.read_bytes())
    assert sum(build(tmp_path / "b", themes=themes).values()) == before


def test_what_is_transparent_is_white(themes, tmp_path):
    path = place(themes, "oxygen", "actions", 32, "aaa")
    Image.fromarray(np.zeros((32, 32, 4), np.uint8)).save(path)
    build(tmp_path, themes=themes)
    with np.load(tmp_path / FILE) as archive:
        assert archive["x"][archive["icon"] == "aaa"].min() == 255


def test_missing_theme_is_named(themes, tmp_path, capsys):
    (themes / "Tango").rename(themes / "Mango")
    with pytest.raises(DataError, match=r"'tango' has no icons.*install tango-icon-theme"):
        build(tmp_path / "built", themes=themes)
    assert main([str(tmp_path / "built"), "--themes", str(themes)]) == 1
    assert "tango-icon-theme" in capsys.readouterr().err
    assert not (tmp_path / "built").exists()


def test_command_writes_where_the_reader_looks(themes, tmp_path, monkeypatch, capsys):
    assert main(["--themes", str(themes)]) == 0
    assert f"{tmp_path}/cache/icons/{FILE}: 288 icons (oxygen 48, " in capsys.readouterr().out
    assert len(load("icons").train)
    monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
    assert main(["--themes", str(themes)]) == 0
    assert (tmp_path / "shared" / "icons" / FILE).is_file()


def test_module_runs_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fedlabels.data.icons", "--themes", str(tmp_path)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("theme 'oxygen' has no icons")


def test_missing_file_lists_paths_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLABELS_DATA", str(tmp_path / "shared"))
    with pytest.raises(DataError) as caught:
        load("icons")
    for part in ("shared/icons/icons.npz", "system/icons/", "cache/icons/", "make data-icons"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="own/icons") as caught:
        load("icons", root=str(tmp_path / "own"))
    assert "cache" not in str(caught.value)


def test_damage_is_named(tmp_path):
    with pytest.raises(ConfigError, match="test_every must be a whole number >= 2"):
        load("icons", root=str(tmp_path), test_every=1)
    (tmp_path / FILE).write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"icons\.npz cannot be read"):
        load("icons", root=str(tmp_path))
    x = np.zeros((3, 3, 16, 16), np.uint8)
    numbers = np.zeros(3, int)
    np.savez(tmp_path / FILE, x=x, y=numbers, theme=numbers, icon=np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match="holds no icons of 32 pixels"):
        load("icons", root=str(tmp_path))
