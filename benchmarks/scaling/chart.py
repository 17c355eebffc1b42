"""The results as one SVG of four panels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedlabels.report.markup import Markup, el
from scaling import tables
from scaling.axes import Scale, nice_range, ticks

Facts = dict[str, Any]
Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 420, 280  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 58, 44
COLORS = ("#2f6fb3", "#c98a2b", "#3b8f5a", "#9a4f96")
GRAY, LIGHT = "#555", "#ddd"
SHORT = {"serial": "one process", "ray-1": "Ray, 1", "ray-2": "Ray, 2", "ray-2-nodes": "2 nodes"}


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    label: str
    points: Points
    color: str
    dashed: bool = False


def draw(parts: dict[str, Facts]) -> str:
    """Draw the parts that were measured."""
    makers: dict[str, Callable[[list[Facts]], Markup | None]] = {
        "clients": clients, "cohorts": cohorts, "cluster": cluster, "soak": soak,
    }  # fmt: skip
    panels = []
    for name, facts in parts.items():
        made = makers[name]([row for row in facts["rows"] if "error" not in row])
        panels += [made] if made is not None else []
    placed = [
        el("g", panel, transform=f"translate({k % 2 * WIDTH} {k // 2 * HEIGHT})")
        for k, panel in enumerate(panels)
    ]
    width, height = 2 * WIDTH, max(1, -(-len(panels) // 2)) * HEIGHT
    return el(
        "svg", el("rect", width=width, height=height, fill="#fff"), placed,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}",
        font_family="sans-serif", font_size=12,
    ) + "\n"  # fmt: skip


# ---- panels


def clients(rows: list[Facts]) -> Markup | None:
    """Draw the seconds of a round of 100 over the number of clients, and those before it."""
    places = [p for p in SHORT if any(row["place"] == p for row in rows)]
    lines = [
        Line(f"{SHORT[place]}: {what}", of(rows, "clients", key, place=place), COLORS[k], dashed)
        for k, place in enumerate(places)
        for what, key, dashed in (("a round", "round", False), ("before round 1", "setup", True))
    ]  # fmt: skip
    return logarithmic("100 of so many clients a round", "seconds", "clients", lines)


def cohorts(rows: list[Facts]) -> Markup | None:
    """Draw milliseconds a client over the cohort."""
    lines = []
    for k, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
        for place in ("serial", "ray-2"):
            found = of(rows, "cohort", "round", place=place, model=model)
            each = [(cohort, 1000 * seconds / cohort) for cohort, seconds in found]
            lines.append(Line(f"{model}, {SHORT[place]}", each, COLORS[k], place != "serial"))
    return logarithmic("Cost of a client by cohort", "ms a client", "clients a round", lines)


def cluster(rows: list[Facts]) -> Markup | None:
    """Draw a bar for every place: a round, its training dark, all else light."""
    if not rows:
        return None
    across = Scale(0.0, max(row["round"] for row in rows), 130.0, float(WIDTH - 60))
    step = (HEIGHT - TOP - 16) / len(rows)
    parts = [heading("Round of 100 clients, ms (dark: training, light: all else)")]
    for k, row in enumerate(rows):
        top, end = TOP - 14 + k * step, across(row["round"])
        start = across(min(max(row["round"] - row["outside"], 0.0), row["round"]))
        middle, label = top + step / 2 + 4, f"{row['model']}, {SHORT[row['place']]}"
        parts += [
            el("text", label, x=122, y=middle, text_anchor="end"),
            bar(130.0, start, top, step, COLORS[0]),
            bar(start, end, top, step, "#a9c6e6"),
            el("text", f"{1000 * row['round']:.0f}", x=end + 6, y=middle),
        ]
    return el("g", parts)


def bar(start: float, end: float, top: float, step: float, color: str) -> Markup:
    """Draw a lying bar."""
    return el("rect", x=start, y=top + 3, width=end - start, height=step - 6, fill=color)


def soak(rows: list[Facts]) -> Markup | None:
    """Draw what memory grew since the settled rounds."""
    lines = []
    for row in rows:
        keys = (("driver", "driver"), ("workers", "workers")) if row["place"] != "serial" else (
            ("driver", "process"),
        )  # fmt: skip
        for key, name in keys:
            looks = [look for look in row["samples"] if look["round"] >= tables.SETTLED]
            points = [(s["round"], (s[key] - looks[0][key]) / tables.MIB) for s in looks]
            lines.append(
                Line(f"{SHORT[row['place']]}: {name}", points, COLORS[len(lines) % len(COLORS)])
            )
    known = [point for line in lines for point in line.points]
    if len(known) < 2:
        return None
    values = [y for _, y in known]
    low, high = nice_range([min(-1.0, *values), max(1.0, *values)])
    rounds = [x for x, _ in known]
    x = Scale(min(rounds), max(rounds), LEFT, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    grid = [rule(y(v), f"{v:g}") for v in ticks(low, high)]
    grid += [below(x(v), f"{v:g}") for v in ticks(x.low, x.high, whole=True)]
    title = f"Memory since round {tables.SETTLED}"
    return el("g", grid, names(title, "MiB", "round"), drawn(lines, x, y))


# ---- parts of a panel


def of(rows: list[Facts], across: str, up: str, **chosen: Any) -> Points:
    """Return the points of the rows that have some values."""
    found = [row for row in rows if all(row[key] == value for key, value in chosen.items())]
    return sorted((row[across], row[up]) for row in found)


def logarithmic(title: str, up: str, across: str, lines: Sequence[Line]) -> Markup | None:
    """Draw lines with both axes logarithmic."""
    known = [point for line in lines for point in line.points]
    if len({x for x, _ in known}) < 2:
        return None
    shown = [Line(o.label, [tuple(map(math.log10, p)) for p in o.points], o.color, o.dashed)
             for o in lines]  # fmt: skip
    xs, ys = zip(*(point for line in shown for point in line.points), strict=True)
    low, high = math.floor(min(ys) * 3) / 3, math.ceil(max(ys) * 3 + 1e-9) / 3
    x = Scale(min(xs), max(xs), LEFT + 6, WIDTH - RIGHT - 10)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    grid = [rule(y(v), number(v)) for v in marks(low, high)]
    grid += [below(x(math.log10(v)), f"{v:,.0f}") for v in sorted({v for v, _ in known})]
    return el("g", grid, names(title, up, across), drawn(shown, x, y))


def marks(low: float, high: float) -> list[float]:
    """Return logarithms of 1, 2, 5, 10 ... inside a range; of powers of ten if there are many."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [power + math.log10(step) for power in powers for step in steps]
    return [value for value in found if low - 1e-9 <= value <= high + 1e-9]


def number(logarithm: float) -> str:
    """Write a number of which the logarithm is known."""
    return f"{10**logarithm:.3g}"


def drawn(lines: Sequence[Line], x: Scale, y: Scale) -> list[Markup]:
    """Draw lines, their points and the legend."""
    parts = []
    for k, line in enumerate(lines):
        dash = "5 4" if line.dashed else None
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
        style: dict[str, Any] = {"stroke": line.color, "stroke_width": 2, "stroke_dasharray": dash}
        parts.append(el("polyline", points=path, fill="none", **style))
        if len(line.points) < 10:
            parts += [el("circle", cx=x(a), cy=y(b), r=3, fill=line.color) for a, b in line.points]
        left, top = LEFT + k % 2 * 180, 30 + k // 2 * 14
        parts.append(el("line", x1=left, x2=left + 22, y1=top - 4, y2=top - 4, **style))
        parts.append(el("text", line.label, x=left + 28, y=top, font_size=11))
    return parts


def heading(title: str) -> Markup:
    """Write the title of a panel."""
    return el("text", title, x=10, y=16, font_weight="bold")


def names(title: str, up: str, across: str) -> list[Markup]:
    """Write the title and the names of the axes."""
    right, low = WIDTH - RIGHT, HEIGHT - 8
    return [
        heading(title),
        el("text", up, x=10, y=TOP - 6, fill=GRAY, font_size=11),
        el("text", across, x=right, y=low, fill=GRAY, font_size=11, text_anchor="end"),
    ]


def rule(at: float, text: str) -> Markup:
    """Draw a line across with its number."""
    return el(
        "g",
        el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, stroke=LIGHT),
        el("text", text, x=LEFT - 6, y=at + 4, text_anchor="end", font_size=11),
    )


def below(at: float, text: str) -> Markup:
    """Write a number under the panel."""
    return el("text", text, x=at, y=HEIGHT - BOTTOM + 16, text_anchor="middle", font_size=11)
