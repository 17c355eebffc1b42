"""The version: pyproject.toml says it, the installed package has it from there."""

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
UNKNOWN = "unknown"


@cache
def version() -> str:
    """Return the version of this code, `UNKNOWN` for sources that were copied without it.

    In a checkout, and where Flower unpacked it, pyproject.toml lies beside the package: it is asked
    before what was installed, which may be of another day.
    """
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "fedlabels":
            return str(project["version"])
    try:
        return metadata.version("fedlabels")
    except metadata.PackageNotFoundError:
        return UNKNOWN
