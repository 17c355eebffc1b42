"""``fedlabels completion SHELL``: a script that completes commands, settings and their options.

The script holds all names: no Python starts when a key is pressed. Write it anew after an update.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from string import Template

from fedlabels import clients, strategies
from fedlabels.command import COMMANDS
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.settings.presets import CONFIGS, preset_files
from fedlabels.settings.reference import sections

USAGE = """usage: fedlabels completion bash|zsh|fish

Prints a script that completes commands, settings (KEY=) and the options of groups (method=...).
  bash   fedlabels completion bash > ~/.local/share/bash-completion/completions/fedlabels
  zsh    fedlabels completion zsh > ~/.zfunc/_fedlabels      (with ~/.zfunc in fpath)
  fish   fedlabels completion fish > ~/.config/fish/completions/fedlabels.fish
It holds the names of this version and of the plugins that are installed: write it anew after an
update.
"""
_SETTINGS = ("run", "sweep", "resume", "preview")
_BASH = Template("""# fedlabels completion bash
_fedlabels() {
    local line="$${COMP_LINE:0:COMP_POINT}" first="$${COMP_WORDS[1]}" options= cur
    cur="$${line##* }"
    COMPREPLY=()
    if [ "$$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($$(compgen -W "$commands" -- "$$cur"))
        return
    fi
    case "$$first" in $settings) ;; *) return ;; esac
    case "$$cur" in
$cases
        *=*) return ;;
        *) COMPREPLY=($$(compgen -W "$keys" -- "$$cur")); compopt -o nospace 2>/dev/null; return ;;
    esac
    COMPREPLY=($$(compgen -W "$$options" -- "$${cur##*[=,]}"))
}
complete -o default -F _fedlabels fedlabels
""")
_ZSH = Template("""#compdef fedlabels
_fedlabels() {
    local cur=$$words[CURRENT]
    if (( CURRENT == 2 )); then compadd -- $commands; return; fi
    case $$words[2] in $settings) ;; *) _files; return ;; esac
    case $$cur in
$cases
        *=*) compset -P '*='; _files ;;
        *) compadd -S '' -- $keys; _files ;;
    esac
}
compdef _fedlabels fedlabels
""")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    shells = {"bash": bash, "zsh": zsh, "fish": fish}
    if len(arguments) == 1 and arguments[0] in shells:
        sys.stdout.write(shells[arguments[0]](keys(), options()))
        return 0
    asked = bool({"-h", "--help"} & set(arguments))
    (sys.stdout if asked else sys.stderr).write(USAGE)
    return 0 if asked else 2


def keys() -> list[str]:
    """Return all settings as they begin on a command line, ``KEY=``, and the groups."""
    found = {row.key for section in sections() for row in section.every()}
    return sorted(f"{key}=" for key in {*found, *options()})


def options() -> dict[str, list[str]]:
    """Return the options of every group, by its name."""
    groups = {path.name: preset_files(path.name) for path in CONFIGS.iterdir() if path.is_dir()}
    found = {group: [file.stem for file in files] for group, files in groups.items() if files}
    found.pop("preset_client", None)  # the presets choose these
    return dict(
        sorted(
            {
                **found,
                "partition": sorted(PARTITIONS),
                "labels": sorted(POLICIES),
                "client": list(clients.names()),
                "strategy": list(strategies.names()),
            }.items()
        )
    )


def bash(keys: Iterable[str], options: Mapping[str, Sequence[str]]) -> str:
    """Return the script for bash, which takes ``=`` for the end of a word."""
    cases = [f'        {key}=*) options="{" ".join(names)}" ;;' for key, names in options.items()]
    return _BASH.substitute(_words(keys, cases))


def zsh(keys: Iterable[str], options: Mapping[str, Sequence[str]]) -> str:
    """Return the script for zsh."""
    cases = [
        f"        {key}=*) compset -P '*[=,]'; compadd -- {' '.join(names)} ;;"
        for key, names in options.items()
    ]
    return _ZSH.substitute(_words(keys, cases))


def _words(keys: Iterable[str], cases: Sequence[str]) -> dict[str, str]:
    return {
        "commands": " ".join(COMMANDS),
        "settings": "|".join(_SETTINGS),
        "cases": "\n".join(cases),
        "keys": " ".join(keys),
    }


def fish(keys: Iterable[str], options: Mapping[str, Sequence[str]]) -> str:
    """Return the script for fish."""
    lines = ["# fedlabels completion fish"]
    for name, command in COMMANDS.items():
        summary = command.summary.replace("'", "\\'")
        lines.append(f"complete -c fedlabels -f -n __fish_use_subcommand -a {name} -d '{summary}'")
    within = f"'__fish_seen_subcommand_from {' '.join(_SETTINGS)}'"
    pairs = [f"{key}={name}" for key, names in options.items() for name in names]
    lines.append(f"complete -c fedlabels -n {within} -a '{' '.join([*keys, *pairs])}'")
    return "\n".join([*lines, ""])
