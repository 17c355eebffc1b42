"""Run one job: ``python -m engines JOB.json``, with the folder above this one on the path."""

import importlib
import json
import sys
from pathlib import Path

from engines.work import Job


def main() -> None:
    values = json.loads(Path(sys.argv[1]).read_text())
    paths = {key: Path(values[key]) for key in ("folder", "scratch")}
    job = Job(**{**values, **paths})
    importlib.import_module(f"engines.{job.engine.partition('-')[0]}").run(job)


if __name__ == "__main__":
    main()
