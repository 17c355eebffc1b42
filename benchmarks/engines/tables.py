"""The results as Markdown: one table a cell, and one over all."""

from collections.abc import Iterable
from statistics import median
from typing import Any


def cell(facts: dict[str, Any]) -> str:
    """Return all rows of a cell."""
    timed = f"{facts['rounds']} timed rounds" if facts["rounds"] else "the first round"
    lines = [
        f"\n{facts['text']}; {timed}, up to {facts['passes']} passes\n",
        "| engine | workers | s a round | fastest - slowest | x bare | range | s above bare"
        " | ms a client | first | after imports | moved |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(line(row) for row in facts["rows"]),
        "",
    ]
    return "\n".join(lines)


def line(row: dict[str, Any]) -> str:
    """Return an engine's line."""
    if "skipped" in row:
        cut = row["skipped"][:90].replace("|", "/")
        return f"| {row['engine']} | {row['workers']} | {cut} |" + " |" * 8
    low, high = row.get("ratio_range", (None, None))
    moved = f"{median(row['moved']):.4f}{' UNEQUAL' if row['equal_work'] is False else ''}"
    entries = [
        row["engine"],
        str(row["workers"]),
        shown(row["seconds"], ".4g"),
        f"{row['fastest']:.4g} - {row['slowest']:.4g}",
        shown(row.get("ratio"), ".2f"),
        f"{low:.2f} - {high:.2f}" if low is not None else "",
        shown(row.get("above"), ".4f"),
        shown(row.get("ms_a_client"), ".3g"),
        shown(row["first"], ".1f"),
        shown(row["after_imports"], ".1f"),
        moved,
    ]
    return f"| {' | '.join(entries)} |"


def shown(value: float | None, form: str) -> str:
    """Return a number in a format, nothing for none."""
    return "" if value is None else format(value, form)


def overview(cells: dict[str, Any]) -> str:
    """Return engines by cells, and below it why engines are missing."""
    names = list(dict.fromkeys(row["engine"] for one in cells.values() for row in one["rows"]))
    heads = [f"{name}, {one['unit']}" for name, one in cells.items()]
    lines = [f"\n| engine | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for name in names:
        rows = [find(one["rows"], name) for one in cells.values()]
        if any("seconds" in row for row in rows):
            values = [entry(row, one) for row, one in zip(rows, cells.values(), strict=True)]
            lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join([*lines, "", *reasons(cells.values()), ""])


def find(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the row of an engine, empty when there is none."""
    return next((row for row in rows if row["engine"] == name), {})


def entry(row: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return the number of a cell that its unit asks for."""
    if "seconds" not in row:
        return ""
    if facts["unit"] == "ms a client":
        return f"{row['ms_a_client']:.3g}"
    if facts["unit"] == "x bare" and "ratio" in row:
        return f"{row['ratio']:.2f} ({row['seconds']:.3g} s)"
    return f"{row['seconds']:.3g}"


def reasons(cells: Iterable[dict[str, Any]]) -> list[str]:
    """Return one line for each engine that was left out, with why."""
    skipped = {row["engine"]: row.get("skipped") for one in cells for row in one["rows"]}
    return [f"- {name} was left out: {why}" for name, why in skipped.items() if why]
