"""Run golden entries: adapters compute, outputs are compared, one line per entry."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.golden.registry import Adapter, adapters
from tests.golden.values import Difference, Tolerance, compare, decode, normalize


@dataclass(frozen=True)
class Verdict:
    """Outcome of one entry; ``problem`` is empty when it passed."""

    file: str
    kind: str
    name: str
    problem: str = ""

    def __str__(self) -> str:
        words = ["FAIL" if self.problem else "PASS", self.file, self.kind, self.name]
        return " ".join(words) + (f" - {self.problem}" if self.problem else "")


def load_entries(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a golden file."""
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["entries"]
    return entries


def check_entry(entry: Mapping[str, Any], table: Mapping[str, Adapter]) -> str:
    """Compute and compare one entry; return what is wrong, or nothing."""
    function = table.get(entry["kind"])
    if function is None:
        return "no adapter for this kind"
    try:
        results = function(decode(entry["inputs"]))
        return "; ".join(str(wrong) for wrong in differences(entry, results))
    except Exception as error:  # whatever an implementation raises is a failed entry
        return f"raised {type(error).__name__}: {error}"


def differences(entry: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[Difference]:
    """Compare every expected output; further results are ignored."""
    limits = entry["tolerance"]
    for key, value in entry["outputs"].items():
        if key not in results:
            yield Difference(key, "missing")
            continue
        limit = limits.get("per_output", {}).get(key, limits)
        tolerance = Tolerance(float(limit["rtol"]), float(limit["atol"]))
        wrong = compare(key, normalize(results[key]), decode(value), tolerance)
        if wrong is not None:
            yield wrong


def run_file(path: Path, table: Mapping[str, Adapter], prefix: str = "") -> Iterator[Verdict]:
    """Run the entries of one file whose kind starts with a prefix."""
    try:
        entries = load_entries(path)
    except (OSError, ValueError, KeyError) as error:
        yield Verdict(path.name, "-", "-", f"cannot be read: {error}")
        return
    for entry in entries:
        if entry["kind"].startswith(prefix):
            yield Verdict(path.name, entry["kind"], entry["name"], check_entry(entry, table))


def main(
    arguments: Sequence[str] | None = None, write: Callable[[str], object] = sys.stdout.write
) -> int:
    """Run golden files, write a line per entry and the closing line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--kinds", default="", metavar="PREFIX", help="only kinds that start so")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table, passed, failed = adapters(), 0, 0
    for path in options.files:
        for verdict in run_file(path, table, options.kinds):
            failed += bool(verdict.problem)
            passed += not verdict.problem
            write(f"{verdict}\n")
    write(f"{passed} passed, {failed} failed\n")
    return 1 if failed else 0
