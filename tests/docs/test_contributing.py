"""What CONTRIBUTING.md and AGENTS.md say: their commands and files are there."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedlabels.renamed import RENAMED
from tests.end_to_end.harness import config_of

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("AGENTS.md", "CONTRIBUTING.md")
}
PLACES = (
    ".ci/", "benchmarks/", "clients/", "configs/", "docs/", "fedlabels/", "strategies/", "tests/"
)  # fmt: skip
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
TARGETS = {t for line in re.findall(r"^([\w./ -]+):(?!=)", MAKEFILE, re.M) for t in line.split()}


def commands(page):
    """Return the lines of the command blocks as words, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGES[page], re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words]


CASES = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"), CASES, ids=lambda v: v if isinstance(v, str) else " ".join(v)
)
def test_commands_can_be_given(page, words):
    program, *arguments = words
    if program == "make":
        assert set(arguments) <= TARGETS
        return
    if program == ".":
        assert arguments == [".venv/bin/activate"]
        return
    assert program == ("python" if page == "CONTRIBUTING.md" else ".venv/bin/python")
    module = arguments[1] if arguments[0] == "-m" else None
    rest = arguments[2:] if module else arguments[1:]
    assert find_spec(module) if module else (ROOT / arguments[0]).is_file()
    if module == "pytest":
        assert [path for path in rest if not (ROOT / path).exists()] == []
    settings = [word for word in rest if "=" in word and not word.startswith("picture=")]
    if settings:
        config_of(*settings)  # refuses what no run would take
    assert [w for w in rest if w.startswith(PLACES) and not (ROOT / w).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page):
    named = re.findall(r"`([^`\s]+)`", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    files = {name for name in named if name.startswith(PLACES) and "NAME" not in name}
    assert len(files) > 10
    assert [name for name in files if not (ROOT / name).exists()] == []
    folders = {name.rpartition("/")[0] for name in named if "NAME" in name and "/" in name}
    assert [name for name in folders if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("page", PAGES)
def test_targets_that_are_named_are_there(page):
    named = set(re.findall(r"`make ([\w./-]+)`", PAGES[page]))
    assert named <= TARGETS


def test_every_setting_that_was_renamed_is_in_the_changelog():
    unreleased = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert [old for old in RENAMED if f"`{old}`" not in unreleased] == []


def test_every_room_is_on_the_tour():
    tour = PAGES["CONTRIBUTING.md"].split("## Add a method")[0]
    rooms = {path.parent.name for path in (ROOT / "fedlabels").glob("*/__init__.py")} - {"machine"}
    assert [room for room in sorted(rooms) if f"`fedlabels/{room}`" not in tour] == []
