"""Which code made a run: the package's version, and the commit of a checkout."""

import contextlib
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedlabels import __version__, clients, plugins, strategies

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 5.0  # for git, which answers in some milliseconds
_SUFFIXES = (".py", ".yaml")
_FOLDER = "fedlabels"  # where a new file is found by itself


@cache
def code_version(root: Path = ROOT) -> dict[str, str]:
    """Return what the code is.

    Parameters
    ----------
    root : Path
        Folder that holds the package.

    Returns
    -------
    dict of str to str
        ``version``; for a checkout that git knows ``commit``, and, where files differ from it or
        are new, ``changes``, a hash of the differences. A package that is installed, also inside
        somebody else's repository, has a version only.
    """
    found = {"version": __version__}
    if not (root / ".git").exists():
        return found
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        found["commit"] = commit.decode().strip()
        changes = _git(root, "diff", "HEAD", "--", *(f"*{suffix}" for suffix in _SUFFIXES))
        changes += _new(root)
        if changes:
            found["changes"] = hashlib.sha256(changes).hexdigest()[:12]
    return found


def code_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the code of a run is: `code_version`, and the plugins on which it depends.

    Parameters
    ----------
    config : mapping
        Resolved settings.
    """
    client, strategy = (config[group]["name"] for group in ("client", "strategy"))
    used = plugins.used(clients.find(client), strategies.find(strategy))
    return {**code_version(), **({"plugins": used} if used else {})}


def _new(root: Path) -> bytes:
    """Return names and hashes of files that git does not know yet, such as an own client."""
    within = [f"{_FOLDER}/*{suffix}" for suffix in _SUFFIXES]
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *within)
    found = b""
    for name in sorted(name for name in names.split(b"\0") if name):
        with contextlib.suppress(OSError):  # gone meanwhile, or not for us to read
            content = (root / os.fsdecode(name)).read_bytes()
            found += b"%s %s\0" % (hashlib.sha256(content).hexdigest().encode(), name)
    return found


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run's figures depend on."""
    found = {"python": platform.python_version()}
    for name in ("fedlabels", "flwr", "torch", "ray", "numpy", "hydra-core"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(root: Path, *arguments: str) -> bytes:
    """Ask git; nothing is answered where it is missing, or will not read this checkout."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == 0 else b""


def described(code: Mapping[str, Any]) -> str:
    """Return a version for messages."""
    commit = code.get("commit")
    text = f"version {code.get('version', '(unknown)')}"
    text += f", commit {str(commit)[:12]}" if commit else ""
    text += "".join(f", {name} {digest}" for name, digest in code.get("plugins", {}).items())
    return text + (" with changes" if code.get("changes") else "")


def is_other(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Say whether two codes are known to differ in version, commit or plugins."""
    both = set(saved) & set(now) & {"version", "commit", "plugins"}
    return any(saved[key] != now[key] for key in both)
