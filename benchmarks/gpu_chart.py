"""The results of gpu.py as one SVG; needs nothing but Python."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, LABEL, RIGHT, LINE, HEAD, PLOT = 760, 190, 140, 20, 34, 220
COLORS = {"graphed": "#2f6fb3", "stacked": "#3b8f5a", "looped": "#8a8f98"}
TITLES = {
    "pfl": "CNN, 50 of 1,000 clients x 50 samples: ms a round",
    "blazefl": "LeNet, 100 clients x 500 samples x 5 epochs: ms a round",
    "fedlabel": "50 clients x 100 samples: ms a round",
}
Row = dict[str, Any]


def draw(facts: dict[str, Any]) -> str:
    """Draw all parts below each other."""
    where = facts["hardware"].get("gpu", facts["hardware"]["device"])
    note = f"{where}, {facts['dtype']}" + (", TF32" if facts["tf32"] else "")
    if facts["tiny"]:
        note += " - a tiny run: these times mean nothing"
    parts, top = [text(10, 18, note, bold=True)], 30
    for name, rows in facts["parts"].items():
        good = [row for row in rows if "error" not in row]
        drawn, height = (lines if name == "cohorts" else bars)(name, good, top)
        parts += drawn
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}"'
        ' font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{top + 10}" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def bars(name: str, rows: Sequence[Row], top: int) -> tuple[list[str], int]:
    """Draw a bar for the round of every row, from 0."""
    parts = [text(10, top + 18, TITLES[name], bold=True)]
    longest = max((row["round"] for row in rows), default=1.0)
    least: dict[str, float] = {}
    for k, row in enumerate(rows):
        y = top + HEAD + k * LINE
        width = row["round"] / longest * (WIDTH - LABEL - RIGHT)
        label = " ".join(filter(None, [row.get("client"), row["execution"]]))
        shown = f"{1000 * row['round']:.3g}"
        way = row["execution"]
        if row.get("client") == "FedAvg":
            least[way] = row["round"]
        elif way in least:
            shown += f" ({row['round'] / least[way]:.2f} x FedAvg)"
        color = COLORS[way]
        parts += [
            text(LABEL - 8, y + 13, label, anchor="end"),
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{LINE - 4}" fill="{color}"/>',
            text(LABEL + width + 6, y + 13, shown),
        ]
    return parts, HEAD + len(rows) * LINE + 10


def lines(name: str, rows: Sequence[Row], top: int) -> tuple[list[str], int]:
    """Draw the cost of a client over the cohort, both axes logarithmic."""
    parts = [text(10, top + 18, "CNN: ms a client by clients a round", bold=True)]
    points = [(row["cohort"], 1000 * row["round"] / row["cohort"]) for row in rows]
    if len({x for x, _ in points}) < 2:
        return parts, HEAD
    low = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high = 10 ** math.ceil(math.log10(max(y for _, y in points)) + 1e-9)
    first, last = min(x for x, _ in points), max(x for x, _ in points)

    def across(x: float) -> float:
        return 70 + math.log(x / first) / math.log(last / first) * (WIDTH - RIGHT - 80)

    def up(y: float) -> float:
        return top + HEAD + PLOT - math.log(y / low) / math.log(high / low) * PLOT

    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = up(10**power)
        parts.append(f'<path d="M70 {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(62, y + 4, f"{10**power:g}", anchor="end"))
    for x in sorted({x for x, _ in points}):
        parts.append(text(across(x), top + HEAD + PLOT + 16, f"{x:,}", anchor="middle"))
    for k, way in enumerate(dict.fromkeys(row["execution"] for row in rows)):
        own = [p for p, row in zip(points, rows, strict=True) if row["execution"] == way]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in sorted(own))
        color = COLORS[way]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = top + HEAD + 14 + k * LINE
        parts.append(f'<path d="M{WIDTH - RIGHT + 10} {y - 4}h20" stroke="{color}"/>')
        parts.append(text(WIDTH - RIGHT + 36, y, way))
    return parts, HEAD + PLOT + 34


def text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    """Write words."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
