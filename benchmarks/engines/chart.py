"""The results as one SVG: a panel a cell, a bar an engine, each panel with an axis of its own."""

import math
from html import escape
from typing import Any

WIDTH, LABEL, RIGHT, LINE, HEAD = 760, 200, 90, 20, 30
COLORS = {"bare": "#8a8f98", "actors": "#8a8f98", "fedlabels": "#2f6fb3"}
OTHER = "#c98a2b"
UNITS = {
    "x bare": "time of a round as a multiple of the bare loop",
    "ms a client": "ms of a round for each client's message",
    "s": "seconds",
}


def values(row: dict[str, Any], unit: str) -> tuple[float, float, float] | None:
    """Return what is drawn of a row, and between what it lay; None leaves the row out."""
    if unit == "x bare":
        return (row["ratio"], *row["ratio_range"]) if "ratio" in row else None
    if "seconds" not in row:
        return None
    factor = row["ms_a_client"] / row["seconds"] if unit == "ms a client" else 1.0
    return factor * row["seconds"], factor * row["fastest"], factor * row["slowest"]


def position(value: float, low: float, high: float) -> float:
    """Return where a value lies on the logarithmic axis from low to high."""
    share = math.log(value / low) / math.log(high / low)
    return LABEL + min(max(share, 0.0), 1.0) * (WIDTH - LABEL - RIGHT)


def draw(cells: dict[str, Any]) -> str:
    """Draw all cells below each other."""
    parts, top = list[str](), 10
    for facts in cells.values():
        drawn, height = panel(facts, top)
        parts += drawn
        top += height
    note = "Axes are logarithmic and begin at 0.7 of the smallest value; thin lines: spread"
    parts.append(f'<text x="10" y="{top + 12}" fill="#555">{note}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 24}"'
        ' font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{top + 24}" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def panel(facts: dict[str, Any], top: int) -> tuple[list[str], int]:
    """Draw a cell; return with it how high it is."""
    unit = facts["unit"]
    found = [(row["engine"], values(row, unit)) for row in facts["rows"]]
    rows = [(name, each) for name, each in found if each is not None]
    title = f'<tspan font-weight="bold">{escape(facts["text"])}</tspan>: {UNITS[unit]}'
    parts = [f'<text x="10" y="{top + 16}">{title}</text>']
    if not rows:
        return parts, HEAD
    low = 0.7 * min(each[1] for _, each in rows)
    high = max(each[2] for _, each in rows)
    for index, (name, each) in enumerate(rows):
        places = [position(value, low, high) for value in each]
        parts.append(bar(name, each[0], places, top + HEAD + index * LINE))
    return parts, HEAD + LINE * len(rows) + 14


def bar(name: str, value: float, places: list[float], top: int) -> str:
    """Draw an engine: bar, spread over the passes, number."""
    color = COLORS.get(name.partition("-")[0], OTHER)
    right, least, most = places
    middle = top + LINE / 2
    return (
        f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LABEL}" y="{top + 3}" width="{right - LABEL:.1f}" height="{LINE - 6}"'
        f' fill="{color}"/>'
        f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}" stroke="#000"/>'
        f'<text x="{max(right, most) + 6:.1f}" y="{middle + 4}">{value:.3g}</text>'
    )
