"""Prints the rooms of the project, who imports whom and what goes in circles, and draws them.

    python docs/_rooms.py                    # and writes docs/pictures/rooms.svg
    python docs/_rooms.py --root ../older    # of another checkout

A room is a package below ``fedlabels`` or a module beside them; a command that lies in a room and
stands above it is one of its own. All of it is read from the sources, nothing is imported.
tests/test_layers.py judges by the same functions.
"""

import argparse
import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

SCRIPTS = ("run_sim",)
# Every room may import these; they are drawn as the ground that all stand on.
GROUND = frozenset(
    f"fedlabels{name}"
    for name in (
        "",
        ".answers",
        ".effect",
        ".errors",
        ".machine",
        ".plugins",
        ".program",
        ".renamed",
        ".requirements",
        ".seeds",
        ".telemetry",
        ".version",
    )
)
COMMANDS = ("fedlabels.settings.reference",)  # each in a room that it stands above
# When an import is made: with its module, when a function is called, or by type checkers alone.
LOADED, CALLED, TYPED = "as they are loaded", "inside a function", "under TYPE_CHECKING"

Graph = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Import:
    """One import: ``from source import name``, or ``import source`` with an empty name."""

    source: str
    name: str
    when: str


def imports(node: ast.AST, when: str = LOADED) -> Iterator[Import]:
    """Yield every import in a tree."""
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, "", when) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        yield from (Import(node.module or "", alias.name, when) for alias in node.names)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        yield from (i for child in node.body for i in imports(child, TYPED))
        yield from (i for child in node.orelse for i in imports(child, when))
    else:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and when == LOADED:
            when = CALLED
        for child in ast.iter_child_nodes(node):
            yield from imports(child, when)


def room_of(module: str) -> str:
    """Return the room of a module: the package below fedlabels."""
    if module in COMMANDS:
        return module
    return ".".join(module.split(".")[:2])


class Project:
    """The modules of a checkout and their imports of each other.

    Parameters
    ----------
    root : Path
        The checkout.
    """

    def __init__(self, root: Path) -> None:
        paths = [*sorted((root / "fedlabels").rglob("*.py"))]
        paths += [root / f"{script}.py" for script in SCRIPTS]
        self.root = root
        self.files = {name_of(path.relative_to(root)): path for path in paths}

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax tree of every module."""
        return {m: ast.parse(path.read_text("utf-8"), path) for m, path in self.files.items()}

    def target(self, found: Import) -> str | None:
        """Return the module that an import means, if it is one of the project."""
        full = f"{found.source}.{found.name}"
        return next((name for name in (full, found.source) if name in self.files), None)

    def modules(self, when: str) -> dict[str, set[str]]:
        """Return the modules that each module imports at such a time.

        Who imports ``a.b.c`` waits for ``a`` and ``a.b``, too, unless it lies in them itself.
        """
        graph = {module: set[str]() for module in self.files}
        for module, tree in self.trees.items():
            found = (self.target(i) for i in imports(tree) if i.when == when)
            for target in {name for name in found if name}:
                names = target.split(".")
                packages = {".".join(names[:n]) for n in range(1, len(names))} & self.files.keys()
                outside = {p for p in packages if not f"{module}.".startswith(f"{p}.")}
                graph[module] |= {target, *outside} - {module}
        return graph

    def arrows(self, tree: ast.AST) -> set[str]:
        """Return the rooms that a tree imports, at any time."""
        return {room_of(name) for name in map(self.target, imports(tree)) if name}

    @cached_property
    def rooms(self) -> dict[str, set[str]]:
        """The rooms, each with the others that it imports."""
        graph: dict[str, set[str]] = {}
        for module, tree in self.trees.items():
            room = room_of(module)
            graph.setdefault(room, set()).update(self.arrows(tree) - {room})
        return graph


def name_of(path: Path) -> str:
    """Return the dotted name of a file relative to the root."""
    return ".".join(name for name in path.with_suffix("").parts if name != "__init__")


# ---- graphs


def reached(graph: Graph, start: str) -> set[str]:
    """Return what arrows lead to from a node; the node itself if it is on a circle."""
    found, new = set[str](), set(graph[start])
    while new:
        found |= new
        new = {target for node in new for target in graph[node]} - found
    return found


def way(graph: Graph, start: str, end: str) -> list[str]:
    """Return the shortest way that begins with an arrow and ends at a node; empty if none does."""
    ways, seen = [[start]], set[str]()
    for known in ways:  # grows
        for target in sorted(graph[known[-1]]):
            if target == end:
                return [*known, end]
            if target not in seen:
                seen.add(target)
                ways.append([*known, target])
    return []


def circles(graph: Graph) -> list[str]:
    """Return every set of nodes that lead to each other, as a shortest way round among them."""
    reach = {node: reached(graph, node) for node in graph}
    left = {node for node in graph if node in reach[node]}
    found = []
    while left:
        together = {n for n in left if n in reach[min(left)] and min(left) in reach[n]}
        left -= together
        shortest = min((way(graph, node, node) for node in sorted(together)), key=len)
        found.append(f"{_round(shortest)}, among {', '.join(map(_short, sorted(together)))}")
    return found


def closed_by(graph: Graph, more: Graph) -> list[str]:
    """Return the ways round that arrows close which come in addition to a graph."""
    both = {node: {*graph[node], *more[node]} for node in graph}
    new = [(node, t) for node in sorted(graph) for t in sorted(set(more[node]) - set(graph[node]))]
    return [_round([n, *back]) for n, target in new if (back := way(both, target, n))]


def _round(names: list[str]) -> str:
    return " -> ".join(map(_short, names))


def layers(graph: Graph) -> dict[str, int]:
    """Return the height of every node: above all that it leads to, close below who leads to it."""
    reach = {node: reached(graph, node) for node in graph}
    below = {n: {m for m in reach[n] if n not in reach[m]} for n in graph}
    above = {n: {m for m in graph if n in below[m]} for n in graph}
    height: dict[str, int] = {}
    for node in sorted(graph, key=lambda n: len(below[n])):
        height[node] = 1 + max((height[m] for m in below[node]), default=-1)
    top = max(height.values())
    for node in sorted(graph, key=lambda n: len(above[n])):
        height[node] = min((height[m] for m in above[node]), default=top + 1) - 1
    return height


def reduced(graph: Graph) -> dict[str, set[str]]:
    """Return the arrows that others do not imply; those within circles are all kept."""
    reach = {node: reached(graph, node) for node in graph}

    def implied(node: str, target: str) -> bool:
        below = {m for m in graph[node] if node not in reach[m] and m not in reach[target]}
        return any(target in reach[m] for m in below - {target})

    return {n: {t for t in targets if not implied(n, t)} for n, targets in graph.items()}


# ---- the picture

WIDE, HIGH, GAP, SIDE = 140, 34, 92, 1040
STYLE = 'font-family="sans-serif" font-size="14" text-anchor="middle"'


def ordered(rows: list[list[str]], near: Graph) -> list[list[str]]:
    """Order each row so that few arrows cross: by the mean place of what a node is near to."""
    best, fewest = rows, float("inf")
    for turn in range(24):
        rows = [list(row) for row in rows]
        place = {node: (i + 0.5) / len(row) for row in rows for i, node in enumerate(row)}
        for row in rows if turn % 2 else rows[::-1]:
            means = {n: sum(place[m] for m in near[n]) / max(1, len(near[n])) for n in row}
            row.sort(key=lambda n: (means[n] or place[n], n))
            place.update({node: (i + 0.5) / len(row) for i, node in enumerate(row)})
        length = sum(abs(place[n] - place[m]) for n in place for m in near[n])
        if length < fewest - 1e-9:
            best, fewest = rows, length
    return best


def picture(project: Project) -> str:
    """Return the rooms as an SVG: those that are imported below those that import them.

    Arrows that others imply are left out of the drawing; its description has them all.
    """
    rooms = {r: targets - GROUND for r, targets in project.rooms.items() if r not in GROUND}
    height, drawn = layers(rooms), reduced(rooms)
    rows: list[list[str]] = [[] for _ in range(1 + max(height.values()))]
    for room in sorted(rooms):
        rows[height[room]].append(room)
    chains = []  # an arrow over several rows goes through a place of its own in each between
    near: dict[str, set[str]] = {room: set() for room in rooms}
    for room in sorted(drawn):
        for target in sorted(drawn[room]):
            between = [f"{room} {target} {h}" for h in range(height[room] - 1, height[target], -1)]
            for node in between:
                rows[int(node.rpartition(" ")[2])].append(node)
            chains.append(chain := [room, *between, target])
            for one, other in pairwise(chain):
                near.setdefault(one, set()).add(other)
                near.setdefault(other, set()).add(one)
    rows = ordered(rows, near)
    at = {
        node: (round(SIDE * (i + 0.5) / len(row)), 30 + GAP * (len(rows) - 1 - h))
        for h, row in enumerate(rows)
        for i, node in enumerate(row)
    }
    bottom = 30 + GAP * len(rows) - 24
    ground = " · ".join(sorted(_short(room) for room in GROUND - {"fedlabels"}))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {bottom + 50}" {STYLE}>',
        "<title>The rooms of fedlabels: arrows lead from a room to those that it imports</title>",
        "<desc>",
        *(f"{room}: {', '.join(sorted(targets))}" for room, targets in sorted(rooms.items())),
        "</desc>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 1 L9 5 L0 9" fill="none" stroke="#667" '
        'stroke-width="1.5"/></marker></defs>',
        f'<rect width="{SIDE}" height="{bottom + 50}" fill="#fff"/>',
        *(_arrow([at[node] for node in chain], chain) for chain in sorted(chains)),
    ]
    for room in sorted(rooms):
        x, y = at[room]
        fill = "#e8eaf6" if any(room in targets for targets in rooms.values()) else "#fff3e0"
        lines.append(
            f'<rect x="{x - WIDE // 2}" y="{y - HIGH // 2}" width="{WIDE}" height="{HIGH}" rx="6" '
            f'fill="{fill}" stroke="#556"/><text x="{x}" y="{y + 5}">{_short(room)}</text>'
        )
    lines += [
        f'<rect x="20" y="{bottom}" width="{SIDE - 40}" height="{HIGH}" rx="6" fill="#eee"/>',
        f'<text x="{SIDE // 2}" y="{bottom + 22}">for all of them: {ground}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _arrow(points: list[tuple[int, int]], names: list[str]) -> str:
    """Return an arrow from under the first box to the top of the last; red in a circle."""
    (x, y), *middle, (end_x, end_y) = points
    color, tops = ("#667", -HIGH // 2) if end_y > y else ("#c00", HIGH // 2)
    path = f"M{x} {y + HIGH // 2}"
    y += HIGH // 2
    for to_x, to_y in (*middle, (end_x, end_y + tops)):
        half = (y + to_y) // 2 if end_y + tops > y else y + GAP // 2
        path += f" C{x} {half} {to_x} {half} {to_x} {to_y}"
        x, y = to_x, to_y
    title = f"{_short(names[0])} imports {_short(names[-1])}"
    return (
        f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.3" marker-end="url(#head)">'
        f"<title>{title}</title></path>"
    )


def _short(room: str) -> str:
    return room.removeprefix("fedlabels.")


# ---- the command


def report(project: Project) -> Iterator[str]:
    """Yield the lines that the command prints."""
    size = {module: len(p.read_text("utf-8").splitlines()) for module, p in project.files.items()}
    yield f"{'room':<20} {'files':>5} {'lines':>6}  imports from (beside the ground, marked *)"
    for room, targets in sorted(project.rooms.items()):
        inside = [module for module in size if room_of(module) == room]
        name = _short(room) + "*" * (room in GROUND)
        others = ", ".join(sorted(_short(target) for target in targets - GROUND)) or "-"
        yield f"{name:<20} {len(inside):>5} {sum(size[m] for m in inside):>6}  {others}"
    yield f"{len(project.rooms)} rooms, {len(size)} files, {sum(size.values())} lines"
    rooms = {r: targets - GROUND for r, targets in project.rooms.items() if r not in GROUND}
    drawn = reduced(rooms)
    count = sum(map(len, rooms.values()))
    yield f"\n{count} arrows between rooms; beside those that these imply:"
    height = layers(rooms)
    for room in sorted(rooms, key=lambda r: (-height[r], r)):
        if drawn[room]:
            yield f"  {_short(room)} -> {', '.join(sorted(map(_short, drawn[room])))}"
    loaded = project.modules(LOADED)
    found = {"between rooms": circles(project.rooms), f"between modules, {LOADED}": circles(loaded)}
    for when in (CALLED, TYPED):
        found[f"that imports {when} close"] = closed_by(loaded, project.modules(when))
    for where, ways in found.items():
        yield f"\ncircles {where}: {len(ways) or 'none'}"
        yield from (f"  {line}" for line in ways)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--out", type=Path, help="by default docs/pictures/rooms.svg of the root")
    given = parser.parse_args()
    project = Project(given.root)
    print("\n".join(report(project)))
    out = given.out or given.root / "docs" / "pictures" / "rooms.svg"
    out.write_text(picture(project), encoding="utf-8")


if __name__ == "__main__":
    main()
