"""Environments of other simulators: below the user's cache, with the torch of this one."""

import os
import platform
import re
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fedlabels"
_PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"
# Engine -> distribution, extras, version.
PEERS = {
    "pfl": ("pfl", "", "0.6.0"),
    "fluke": ("fluke-fl", "", "0.8.1"),
    "blazefl": ("blazefl", "[contrib,reproducibility]", "3.0.0"),
}


@cache
def environment(name: str) -> tuple[Path, str | None]:
    """Return the peer's python, made on first use; with it the reason when there is none."""
    distribution, extras, wanted = PEERS[name]
    folder = FOLDER / f"peers-{name}"
    python = folder / _PYTHON
    try:
        _make(folder, python)
        if _installed(python, distribution) != wanted:
            sys.stdout.write(f"installing {distribution} {wanted} into {folder}\n")
            sys.stdout.flush()
            _install(folder, python, f"{distribution}{extras}=={wanted}")
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace") or str(error)
        return python, f"{distribution} {wanted} does not install: {reason(said, wanted)}"[:300]
    except OSError as error:
        return python, f"{distribution} {wanted} does not install: {error}"[:300]
    return python, None


def reason(said: str, wanted: str) -> str:
    """Return what matters of pip's complaint."""
    needs = re.search(rf"[ ;]{re.escape(wanted)} Requires-Python ([^;\n]+)", said)
    if needs:
        return f"it needs Python {needs[1].strip()}, this is {platform.python_version()}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ([line for line in lines if line.startswith("ERROR")] or lines)[-1]


def _make(folder: Path, python: Path) -> None:
    """Make an environment of this Python that sees the packages of this one after its own."""
    facts = folder / "pyvenv.cfg"
    same = facts.exists() and f"version = {platform.python_version()}\n" in facts.read_text()
    if not (same and python.exists()):
        command = [sys.executable, "-m", "venv", "--clear", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", code], capture_output=True, check=True, text=True)
    own = Path(found.stdout.strip())
    # written each time: this environment may have moved; torch is too large for a copy a peer
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")


def _install(folder: Path, python: Path, requirement: str) -> None:
    pins = folder / "pins.txt"
    pins.write_text("".join(f"{name}=={version(name)}\n" for name in ("torch", "numpy")))
    command = [python, "-m", "pip", "install", "-q", requirement, "-c", pins]
    subprocess.run(command, check=True, capture_output=True)


def _installed(python: Path, distribution: str) -> str | None:
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    made = subprocess.run([python, "-c", code], capture_output=True, check=False, text=True)
    return made.stdout.strip() if made.returncode == 0 else None


def versions() -> dict[str, str]:
    """Return the versions of the peers that were made."""
    found = {}
    for name, (distribution, *_) in PEERS.items():
        python = FOLDER / f"peers-{name}" / _PYTHON
        number = _installed(python, distribution) if python.exists() else None
        found |= {distribution: number} if number else {}
    return found
