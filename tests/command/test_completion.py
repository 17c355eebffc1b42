"""``fedlabels completion``: the scripts know commands, settings and options."""

import shutil
import subprocess

import pytest

from fedlabels.command import COMMANDS, main
from fedlabels.command.completion import keys, options
from fedlabels.settings.presets import presets


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")

    def write(shell, text):
        path = folder / shell
        path.write_text(text)
        return path

    return write


def completed(path, line):
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    listed = " ".join(f"'{word}'" for word in words)
    asked = (
        f"source {path}; COMP_LINE='{line}' COMP_POINT={len(line)} COMP_CWORD={len(words) - 1};"
        f' COMP_WORDS=({listed}); _fedlabels; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    ended = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    return ended.stdout.split()


def test_bash_completes_commands_settings_and_options(script, capsys):
    assert main(["completion", "bash"]) == 0
    path = script("bash", capsys.readouterr().out)
    assert completed(path, "fedlabels re") == ["resume", "report"]
    assert completed(path, "fedlabels run labels.fr") == ["labels.fraction="]
    assert "training.lr=" in completed(path, "fedlabels run seed=1 training.l")
    assert completed(path, "fedlabels run method=fedp") == ["fedprox", "fedproto"][::-1]
    assert completed(path, "fedlabels sweep method=fedavg,uda") == ["uda"]
    assert completed(path, "fedlabels preview partition=ii") == ["iid"]
    assert completed(path, "fedlabels report met") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_the_same_names(shell, script, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*COMMANDS, *presets("method"), *keys()))
    if shutil.which(shell):
        path = script(shell, text)
        subprocess.run([shell, "-n", path], check=True)


def test_groups_have_their_options(capsys):
    found = options()
    assert set(found) >= {
        "method", "dataset", "model", "partition", "labels", "backend", "preset", "sweep"
    }  # fmt: skip
    assert found["backend"] == ["processes", "ray", "serial"]
    assert main(["completion", "tcsh"]) == 2
    assert "bash|zsh|fish" in capsys.readouterr().err
