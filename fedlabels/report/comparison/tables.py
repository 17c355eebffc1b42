"""The tables of a comparison, as text that is not yet Markdown or LaTeX."""

import math

from fedlabels.report.comparison.cells import Cell, Levels, number, short_names, show
from fedlabels.report.comparison.compare import Comparison, Difference
from fedlabels.report.comparison.format import (
    Entry,
    Place,
    Scale,
    Table,
    plain,
    seed_text,
    smallest_text,
)
from fedlabels.report.comparison.statistics import EXACT_PAIRS
from fedlabels.report.numbers import MISSING, plural

_WIDEST = 6  # settings beside each other
_DARKEST = 40  # percent of a heat map's color


def scale_of(found: Comparison) -> Scale:
    """Return how a comparison's metric is written.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    return Scale(found.question.metric, found.question.is_share)


def tables(found: Comparison) -> list[Table]:
    """Make all tables of a comparison that have something to say.

    Parameters
    ----------
    found : Comparison
        What was found.

    Returns
    -------
    list of Table
        Cells, overview with ranks, differences, the way to the target, and heat maps.
    """
    made = [cell_table(found)]
    if len(found.cells) > 1:
        made += overview(found)
    if found.differences:
        made.append(difference_table(found))
    if found.question.target is not None:
        made.append(target_table(found))
    return [*made, *pivots(found)]


def cell_table(found: Comparison) -> Table:
    """List every cell with its mean, its best round and its time.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    scale, rows = scale_of(found), []
    for cell in found.cells:
        seconds = [run.total_seconds for run in cell.runs.values()]
        rows.append(
            [
                *_place(found, cell.row, cell.contender),
                Entry(str(len(cell.runs))),
                Entry(seed_text(cell.seeds)),
                Entry(scale.mean(*found.last(cell)), bold=_is_best(found, cell)),
                Entry(scale.mean(*found.best(cell))),
                Entry(plain(sum(seconds) / len(seconds))),
            ]
        )
    number = found.question.last
    value = f"{scale.head}, {'last round' if number == 1 else f'last {number}'}"
    head = [*_heads(found), "n", "seeds", value, "best round", "seconds"]
    return Table(
        anchor="cells",
        title="Cells",
        lead=f"Mean ± sample standard deviation over n runs, {found.question.when}; the best"
        " mean of every setting is bold. Best round: the same over each run's best evaluated"
        " round, chosen by the values that it reports, so it is too good. Seconds: a whole run,"
        " mean.",
        header=[(text,) for text in head],
        rows=rows,
        texts=len(_heads(found)),
        places=[(cell.row, cell.contender) for cell in found.cells],
    )


def overview(found: Comparison) -> list[Table]:
    """Set what is compared against the settings, with average ranks; wide ones are cut.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    rows = found.rows
    parts = [rows[start : start + _WIDEST] for start in range(0, len(rows), _WIDEST)]
    return [
        _overview(found, part, index, ranked=part is parts[-1]) for index, part in enumerate(parts)
    ]


def difference_table(found: Comparison) -> Table:
    """List the paired differences from the baseline.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    scale = scale_of(found)
    rows = [_difference_row(found, scale, one) for one in found.differences]
    head = [*_heads(found), "pairs", "difference", "95 % interval", "p", "remark"]
    return Table(
        anchor="differences",
        title=f"Differences from {show(found.baseline)}",
        lead=f"Against {show(found.baseline)}, {found.question.when}, in {scale.points}, over"
        " pairs with the same seed and setting. Interval: Student's t of the paired differences,"
        " which takes them for normal. p: two-sided sign-flip permutation test, exact up to"
        f" {EXACT_PAIRS} pairs, not corrected for the number of comparisons."
        f" {smallest_text(one.result.pairs for one in found.differences)}",
        header=[(text,) for text in head],
        rows=rows,
        texts=len(_heads(found)),
        places=[(one.row, one.contender) for one in found.differences],
    )


def target_table(found: Comparison) -> Table:
    """List what it took to reach the target.

    Parameters
    ----------
    found : Comparison
        What was found; its question has a target.
    """
    target = found.question.target
    assert target is not None
    scale, rows = scale_of(found), []
    for cell in found.cells:
        reach, total = found.reach(cell), len(cell.runs)
        rows.append(
            [
                *_place(found, cell.row, cell.contender),
                Entry(f"{reach.reached} of {total}"),
                Entry(str(total - reach.reached)),
                Entry(plain(reach.rounds)),
                Entry(plain(reach.bytes_moved / 1e6)),
                Entry(plain(reach.seconds)),
            ]
        )
    what = "at most" if found.question.lower_is_better else "at least"
    unit = " %" if scale.share else ""
    head = [*_heads(found), "reached", "not reached", "rounds", "MB", "seconds"]
    return Table(
        anchor="target",
        title=f"The way to {scale.metric} {what} {_target(target, scale)}{unit}",
        lead="First evaluated round that reaches it, bytes up and down of all clients until then"
        " (MB = 1,000,000 bytes), and wall-clock seconds with evaluations. Medians over the runs"
        " that reached it: where some did not, they are too good.",
        header=[(text,) for text in head],
        rows=rows,
        texts=len(_heads(found)),
        places=[(cell.row, cell.contender) for cell in found.cells],
    )


def pivots(found: Comparison) -> list[Table]:
    """Make a heat map for every contender, if just two numeric settings vary beside it.

    Parameters
    ----------
    found : Comparison
        What was found.
    """
    keys = found.design.keys[1:]
    if len(keys) != 2 or any(number(text) is None for row in found.rows for text in row):
        return []
    names = short_names(found.design.keys)
    return [_pivot(found, name, names) for name in found.contenders]


def row_text(found: Comparison, row: Levels) -> str:
    """Write a setting, as in alpha=0.3, fraction=0.01.

    Parameters
    ----------
    found : Comparison
        What was found.
    row : tuple of str
        One of its settings.
    """
    names = short_names(found.design.keys)
    keys = found.design.keys[1:]
    return ", ".join(f"{names[k]}={show(text)}" for k, text in zip(keys, row, strict=True))


def _heads(found: Comparison) -> list[str]:
    names = short_names(found.design.keys)
    first, *others = found.design.keys
    return [*(names[key] for key in others), names[first]]


def _place(found: Comparison, row: Levels | None, contender: str) -> list[Entry]:
    levels = [show(text) for text in row] if row is not None else _all(found)
    return [*(Entry(text) for text in levels), Entry(show(contender))]


def _all(found: Comparison) -> list[str]:
    return ["all", *[""] * (len(found.design.keys) - 2)]


def _is_best(found: Comparison, cell: Cell) -> bool:
    there = [other for other in found.cells if other.row == cell.row]
    if len(there) < 2:
        return False
    sign = 1 if found.question.lower_is_better else -1
    means = [float(f"{sign * found.last(other)[0]:.12g}") for other in there]
    return means[there.index(cell)] == min(means)


def _overview(found: Comparison, rows: list[Levels], index: int, *, ranked: bool) -> Table:
    scale, names, ranking = scale_of(found), short_names(found.design.keys), found.ranking
    ranked = ranked and len(found.contenders) > 1
    first, *others = (names[key] for key in found.design.keys)
    lines = max(len(others), 1)
    header = [tuple(others) or (first,), *(row or (scale.head,) for row in rows)]
    header = [header[0], *(tuple(map(show, h)) if others else h for h in header[1:])]
    header += [("mean rank", *[""] * (lines - 1))] if ranked else []
    best = min(ranking.mean.values(), default=math.nan)
    made = []
    for name in found.contenders:
        line = [Entry(show(name))]
        for row in rows:
            cell = found.cell(row, name)
            text = scale.mean(*found.last(cell)) if cell else MISSING
            line.append(Entry(text, bold=cell is not None and _is_best(found, cell)))
        if ranked:
            rank = ranking.mean.get(name, math.nan)
            text = MISSING if math.isnan(rank) else f"{rank:.2f}"
            line.append(Entry(text, bold=rank == best))
        made.append(line)
    lead = f"{scale.head}, mean ± sample standard deviation; the best of a column is bold."
    if ranked:
        lead += (
            f" Mean rank: 1 is best, ties share a rank, over"
            f" {len(ranking.rows)} of {plural(len(found.rows), 'setting')}, those where every"
            " one has a common seed, and over common seeds alone."
        )
    title = f"{first.capitalize()} by {', '.join(others)}" if others else "Overview"
    if len(found.rows) > _WIDEST:
        title += f", part {index + 1}"
    anchor = "overview" if not index else f"overview-{index + 1}"
    places: list[Place] = [(None, name) for name in found.contenders]
    return Table(anchor, title, lead, header, made, texts=1, places=places)


def _difference_row(found: Comparison, scale: Scale, one: Difference) -> list[Entry]:
    result = one.result
    texts = [scale.difference(v, result.mean) for v in (result.mean, result.low, result.high)]
    interval = MISSING if MISSING in texts[1:] else f"[{texts[1]}, {texts[2]}]"
    p_value = MISSING if math.isnan(result.p_value) else f"{result.p_value:.3g}"
    remark = one.doubt if one.pairs else "no common seed"
    return [
        *_place(found, one.row, one.contender),
        *(Entry(text) for text in (str(result.pairs), texts[0], interval, p_value, remark)),
    ]


def _target(target: float, scale: Scale) -> str:
    return f"{100 * target:.4g}" if scale.share else f"{target:.6g}"


def _pivot(found: Comparison, contender: str, names: dict[str, str]) -> Table:
    first, down, across = found.design.keys
    scale = scale_of(found)
    means = {(c.row, c.contender): found.last(c)[0] for c in found.cells}
    low, high = min(means.values()), max(means.values())
    lines = sorted({row[0] for row in found.rows}, key=float)
    columns = sorted({row[1] for row in found.rows}, key=float)
    rows = []
    for line in lines:
        entries = [Entry(show(line))]
        for column in columns:
            cell = found.cell((line, column), contender)
            if cell is None:
                entries.append(Entry(MISSING))
                continue
            share = (means[cell.row, contender] - low) / (high - low) if high > low else 0.0
            text = scale.mean(*found.last(cell))
            entries.append(Entry(text, _is_best(found, cell), heat=round(_DARKEST * share)))
        rows.append(entries)
    corner = f"{names[down]} \\ {names[across]}"
    lead = f"{scale.head} by {down} (rows) and {across} (columns), mean ± sample standard deviation"
    if len(found.contenders) > 1:
        lead += f"; bold where it is the best {names[first]}"
    position = found.contenders.index(contender)
    return Table(
        anchor="pivot" if not position else f"pivot-{position + 1}",
        title=f"{show(contender)}: {names[down]} by {names[across]}",
        lead=f"{lead}. Shades, where there are any, go from the lowest to the highest mean of"
        " these tables.",
        header=[(corner,), *((show(column),) for column in columns)],
        rows=rows,
        texts=1,
    )
