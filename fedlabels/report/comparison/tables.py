"""The tables of a comparison, as text that is not yet Markdown, LaTeX or a page."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fedlabels.report.comparison.cells import Cell, Levels, number, show
from fedlabels.report.comparison.compare import Comparison, Difference
from fedlabels.report.comparison.format import (
    Entry,
    Place,
    Table,
    plain,
    seed_text,
    smallest_text,
)
from fedlabels.report.comparison.statistics import EXACT_PAIRS
from fedlabels.report.numbers import MISSING, plural

_WIDEST = 6  # settings beside each other
_DARKEST = 40  # percent of a heat map's color

Line = TypeVar("Line", bound=Cell | Difference)


def tables(comparison: Comparison) -> list[Table]:
    """Make all tables of a comparison that have something to say.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    list of Table
        Cells, overview with ranks, differences, the way to the target, and heat maps.
    """
    listings = [_cells(comparison)]
    if len(comparison.cells) > 1:
        listings += _overviews(comparison)
    if comparison.differences:
        listings.append(_differences(comparison))
    if comparison.question.target is not None:
        listings.append(_target(comparison, comparison.question.target))
    return [*listings, *pivots(comparison)]


def pivots(comparison: Comparison) -> list[Table]:
    """Make a heat map for every contender, if just two numeric settings vary beside it.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    """
    levels = [text for row in comparison.rows for text in row]
    if len(comparison.design.settings) != 2 or any(number(text) is None for text in levels):
        return []
    return [_pivot(comparison, *pair) for pair in enumerate(comparison.contenders, start=1)]


def _cells(comparison: Comparison) -> Table:
    """List every cell with its mean, its best round and its time."""
    question, scale = comparison.question, comparison.question.scale

    def seconds(cell: Cell) -> str:
        return plain(sum(run.total_seconds for run in cell.runs.values()) / len(cell.runs))

    last = "last round" if question.last == 1 else f"last {question.last}"
    columns: dict[str, Callable[[Cell], Entry | str]] = {
        "n": lambda cell: str(len(cell.runs)),
        "seeds": lambda cell: seed_text(cell.seeds),
        f"{scale.head}, {last}": lambda cell: _mean(comparison, cell),
        "best round": lambda cell: scale.mean(*comparison.best(cell)),
        "seconds": seconds,
    }
    lead = (
        f"Mean ± sample standard deviation over n runs, {question.when}; the best"
        " mean of every setting is bold. Best round: the same over each run's best evaluated"
        " round, chosen by the values that it reports, so it is too good. Seconds: a whole run,"
        " mean."
    )
    return _listing(comparison, "cells", "Cells", lead, comparison.cells, columns)


def _differences(comparison: Comparison) -> Table:
    """List the paired differences from the baseline."""
    scale, baseline = comparison.question.scale, show(comparison.baseline)

    def interval(one: Difference) -> str:
        result = one.result
        ends = [scale.difference(end, result.mean) for end in (result.low, result.high)]
        return MISSING if MISSING in ends else f"[{', '.join(ends)}]"

    def p_value(one: Difference) -> str:
        return MISSING if math.isnan(one.result.p_value) else f"{one.result.p_value:.3g}"

    columns: dict[str, Callable[[Difference], Entry | str]] = {
        "pairs": lambda one: str(one.result.pairs),
        "difference": lambda one: scale.difference(one.result.mean, one.result.mean),
        "95 % interval": interval,
        "p": p_value,
        "remark": lambda one: one.doubt if one.pairs else "no common seed",
    }
    lead = (
        f"Against {baseline}, {comparison.question.when}, in {scale.points}, over"
        " pairs with the same seed and setting. Interval: Student's t of the paired differences,"
        " which takes them for normal. p: two-sided sign-flip permutation test, exact up to"
        f" {EXACT_PAIRS} pairs, not corrected for the number of comparisons."
        f" {smallest_text(one.result.pairs for one in comparison.differences)}"
    )
    title = f"Differences from {baseline}"
    return _listing(comparison, "differences", title, lead, comparison.differences, columns)


def _target(comparison: Comparison, target: float) -> Table:
    """List what it took to reach the target."""
    scale = comparison.question.scale
    columns: dict[str, Callable[[Cell], Entry | str]] = {
        "reached": lambda cell: f"{comparison.reach(cell).reached} of {len(cell.runs)}",
        "not reached": lambda cell: str(len(cell.runs) - comparison.reach(cell).reached),
        "rounds": lambda cell: plain(comparison.reach(cell).rounds),
        "MB": lambda cell: plain(comparison.reach(cell).bytes_moved / 1e6),
        "seconds": lambda cell: plain(comparison.reach(cell).seconds),
    }
    limit = "at most" if comparison.question.lower_is_better else "at least"
    goal = f"{100 * target:.4g} %" if scale.share else f"{target:.6g}"
    lead = (
        "First evaluated round that reaches it, bytes up and down of all clients until then"
        " (MB = 1,000,000 bytes), and wall-clock seconds with evaluations. Medians over the runs"
        " that reached it: where some did not, they are too good."
    )
    title = f"The way to {scale.metric} {limit} {goal}"
    return _listing(comparison, "target", title, lead, comparison.cells, columns)


def _listing(
    comparison: Comparison,
    anchor: str,
    title: str,
    lead: str,
    lines: Sequence[Line],
    columns: Mapping[str, Callable[[Line], Entry | str]],
) -> Table:
    """Make a table with a row a cell or difference, after its setting and contender."""
    design = comparison.design
    places = [*(design.names[key] for key in design.settings), design.noun]
    rows = []
    for line in lines:
        # a difference over all settings has no row
        levels = ["all", *[""] * (len(design.settings) - 1)]
        levels = levels if line.row is None else [show(text) for text in line.row]
        fields = [*levels, show(line.contender), *(field(line) for field in columns.values())]
        rows.append([Entry(one) if isinstance(one, str) else one for one in fields])
    return Table(
        anchor=anchor,
        title=title,
        lead=lead,
        header=[(text,) for text in (*places, *columns)],
        rows=rows,
        texts=len(places),
        places=[(line.row, line.contender) for line in lines],
    )


def _overviews(comparison: Comparison) -> list[Table]:
    """Set what is compared against the settings, with average ranks; wide ones are cut."""
    rows = comparison.rows
    parts = [rows[start : start + _WIDEST] for start in range(0, len(rows), _WIDEST)]
    ranked = len(comparison.contenders) > 1
    return [
        _overview(comparison, part, index, ranked=ranked and index == len(parts))
        for index, part in enumerate(parts, start=1)
    ]


def _overview(comparison: Comparison, rows: list[Levels], part: int, *, ranked: bool) -> Table:
    scale, ranking = comparison.question.scale, comparison.ranking
    first, *others = (comparison.design.names[key] for key in comparison.design.keys)
    header = [tuple(others) or (first,)]
    header += [tuple(map(show, row)) if others else (scale.head,) for row in rows]
    header += [("mean rank", *[""] * (len(others) - 1))] if ranked else []
    best = min(ranking.mean.values(), default=math.nan)
    lines = []
    for name in comparison.contenders:
        line = [Entry(show(name)), *(_mean(comparison, comparison.cell(row, name)) for row in rows)]
        if ranked:
            rank = ranking.mean.get(name, math.nan)
            line.append(Entry(MISSING if math.isnan(rank) else f"{rank:.2f}", bold=rank == best))
        lines.append(line)
    lead = f"{scale.head}, mean ± sample standard deviation; the best of a column is bold."
    if ranked:
        lead += (
            f" Mean rank: 1 is best, ties share a rank, over"
            f" {len(ranking.rows)} of {plural(len(comparison.rows), 'setting')}, those where every"
            " one has a common seed, and over common seeds alone."
        )
    title = f"{first.capitalize()} by {', '.join(others)}" if others else "Overview"
    if len(comparison.rows) > _WIDEST:
        title += f", part {part}"
    places: list[Place] = [(None, name) for name in comparison.contenders]
    return Table(_numbered("overview", part), title, lead, header, lines, texts=1, places=places)


def _pivot(comparison: Comparison, part: int, contender: str) -> Table:
    (first, down, across), names = comparison.design.keys, comparison.design.names
    means = {(cell.row, cell.contender): comparison.last(cell)[0] for cell in comparison.cells}
    low, high = min(means.values()), max(means.values())
    columns = comparison.levels(1)

    def entry(*row: str) -> Entry:
        if (row, contender) not in means:
            return Entry(MISSING)
        share = (means[row, contender] - low) / (high - low) if high > low else 0.0
        return _mean(comparison, comparison.cell(row, contender), round(_DARKEST * share))

    head = comparison.question.scale.head
    lead = f"{head} by {down} (rows) and {across} (columns), mean ± sample standard deviation"
    if len(comparison.contenders) > 1:
        lead += f"; bold where it is the best {names[first]}"
    return Table(
        anchor=_numbered("pivot", part),
        title=f"{show(contender)}: {names[down]} by {names[across]}",
        lead=f"{lead}. Shades, where there are any, go from the lowest to the highest mean of"
        " these tables.",
        header=[(f"{names[down]} \\ {names[across]}",), *((show(text),) for text in columns)],
        rows=[
            [Entry(show(line)), *(entry(line, column) for column in columns)]
            for line in comparison.levels(0)
        ],
        texts=1,
    )


def _mean(comparison: Comparison, cell: Cell | None, heat: int | None = None) -> Entry:
    """Write a cell's mean, bold where it is the best of several at its setting."""
    if cell is None:
        return Entry(MISSING)
    text = comparison.question.scale.mean(*comparison.last(cell))
    sign = 1 if comparison.question.lower_is_better else -1
    rivals = [other for other in comparison.cells if other.row == cell.row]
    means = [float(f"{sign * comparison.last(other)[0]:.12g}") for other in rivals]
    best = len(rivals) > 1 and means[rivals.index(cell)] == min(means)
    return Entry(text, bold=best, heat=heat)


def _numbered(anchor: str, part: int) -> str:
    return anchor if part == 1 else f"{anchor}-{part}"
