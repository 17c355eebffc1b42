"""Presets go with every method they name, and commands that are printed can be given."""

import re
import shlex

import pytest

from fedlabels.run.main import NEXT
from tests.end_to_end.harness import REPO, config_of

METHODS = sorted(path.stem for path in (REPO / "configs" / "method").glob("*.yaml"))
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
TEXTS = [NEXT, *(re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8")) for page in PAGES)]
PROGRAM = r"(?:python run_sim\.py|fedlabels (?:run|sweep|preview))"
COMMANDS = sorted(
    {
        shlex.join(shlex.split(line, comments=True))
        for text in TEXTS
        for line in re.findall(rf"{PROGRAM} ([^`\n]*preset=(?:fashion|quickstart)[^`\n]*)", text)
    }
)


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_train_alike_on_fashion(method: str) -> None:
    training = config_of("preset=fashion", f"method={method}")["training"]
    assert (training["steps"], training["batch_size"], training["clip"]) == (10, 64, 5.0)


@pytest.mark.parametrize("method", ["fedlabel_stable", "fixmatch", "labeled_only"])
def test_methods_train_alike_on_the_first_data(method: str) -> None:
    training = config_of("preset=quickstart", f"method={method}")["training"]
    assert (training["steps"], training["batch_size"], training["clip"]) == (10, 16, 5.0)
    assert training.get("batch_unlabeled") in (None, 32)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_with_a_preset_can_be_given(command: str) -> None:
    words = shlex.split(command)
    config_of(*(word.partition(",")[0] for word in words if "=" in word))  # a sweep: its first cell


def test_a_run_names_a_next_one() -> None:
    assert NEXT.partition("python run_sim.py ")[2] in COMMANDS
