"""The files of a comparison: a page, two CSV tables, a Markdown and a LaTeX text."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedlabels.errors import DataError, writing
from fedlabels.machine.files import write_atomic
from fedlabels.report.comparison.cells import METHOD, Cell, show
from fedlabels.report.comparison.compare import Comparison, Difference
from fedlabels.report.comparison.notes import fixed
from fedlabels.report.comparison.page import render_comparison
from fedlabels.report.comparison.runs import Run
from fedlabels.report.comparison.text import latex, markdown

PAGE = "comparison.html"
Row = Mapping[str, Any]


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write a comparison's files; those of an earlier one are replaced.

    Parameters
    ----------
    comparison : Comparison
        What was compared.
    folder : Path
        Made when it does not exist.

    Returns
    -------
    list of Path
        ``comparison.html``, ``comparison.csv`` (a row a cell), ``runs.csv`` (a row a run, also
        those that were left out), ``comparison.md``, ``comparison.tex``.

    Raises
    ------
    DataError
        If `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: give a folder for the comparison's files")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    texts = {
        PAGE: render_comparison(comparison),
        "comparison.csv": csv_text(cell_rows(comparison)),
        "runs.csv": csv_text(run_rows(comparison)),
        "comparison.md": markdown(comparison),
        "comparison.tex": latex(comparison),
    }
    return [write_atomic(folder / name, text) for name, text in texts.items()]


def cell_rows(comparison: Comparison) -> list[Row]:
    """Make the rows of ``comparison.csv``, one a cell.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    list of mapping
        Column -> value; metrics in their own unit, an accuracy in [0, 1].
    """
    keys = comparison.design.keys
    against = {(one.row, one.contender): one for one in comparison.differences}
    return [
        {
            **_question(comparison),
            **{k: show(v) for k, v in zip(keys, (cell.contender, *cell.row), strict=True)},
            "n": len(cell.runs),
            "seeds": " ".join(map(str, cell.seeds)),
            **_values(comparison, cell),
            **_against(comparison, against.get((cell.row, cell.contender))),
            "held_fixed": "; ".join(fixed(comparison)),
        }
        for cell in comparison.cells
    ]


def run_rows(comparison: Comparison) -> list[Row]:
    """Make the rows of ``runs.csv``, one a run folder.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    list of mapping
        Column -> value; runs that were left out have a reason and no values.
    """
    rows: dict[str, Row] = {run.label: _run_row(comparison, run) for run in comparison.runs}
    blank = dict.fromkeys(next(iter(rows.values())))
    for one in comparison.left_out:
        rows[one.label] = {**blank, "run": one.label, "left_out": one.reason}
    shared = {**_question(comparison), "held_fixed": "; ".join(fixed(comparison))}
    return [{**rows[label], **shared} for label in sorted(rows)]


def csv_text(rows: Iterable[Row]) -> str:
    """Write rows as CSV.

    Parameters
    ----------
    rows : iterable of mapping
        Column -> value; NaN and what a row does not have stay blank.

    Returns
    -------
    str
        With one header line; floats read back to the same bits.
    """
    lines = list(rows)
    names = list(dict.fromkeys(name for row in lines for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_text(row.get(name)) for name in names] for row in lines)
    return buffer.getvalue()


def _question(comparison: Comparison) -> Row:
    return {"metric": comparison.question.metric, "evaluations": comparison.question.last}


def _values(comparison: Comparison, cell: Cell) -> Row:
    (mean, deviation), (best, best_deviation) = comparison.last(cell), comparison.best(cell)
    seconds = [run.total_seconds for run in cell.runs.values()]
    values: dict[str, Any] = {
        "last_mean": mean,
        "last_std": deviation,
        "best_mean": best,
        "best_std": best_deviation,
        "seconds_mean": math.fsum(seconds) / len(seconds),
    }
    if comparison.question.target is not None:
        reach = comparison.reach(cell)
        values |= {
            "target": comparison.question.target,
            "reached": reach.reached,
            "not_reached": len(cell.runs) - reach.reached,
            "target_rounds_median": reach.rounds,
            "target_megabytes_median": reach.bytes_moved / 1e6,
            "target_seconds_median": reach.seconds,
        }
    return values


def _against(comparison: Comparison, one: Difference | None) -> Row:
    names = ("pairs", "difference", "interval_low", "interval_high", "p", "remark")
    if one is None:
        values: tuple[Any, ...] = (None,) * len(names)
    else:
        result = one.result
        numbers = (result.pairs, result.mean, result.low, result.high, result.p_value)
        values = (*numbers, one.doubt)
    return {"baseline": show(comparison.baseline), **dict(zip(names, values, strict=True))}


def _run_row(comparison: Comparison, run: Run) -> Row:
    lower, target = comparison.question.lower_is_better, comparison.question.target
    levels = comparison.design.levels[run.label]
    keys = dict.fromkeys((METHOD, *comparison.design.keys, *comparison.design.inside))
    values: dict[str, Any] = {
        "run": run.label,
        "left_out": None,
        **{key: show(levels[key]) for key in keys},
        "seed": run.seed,
        "last_round": int(run.rounds[-1]),
        "stopped_early": run.stopped_early or None,
        "last": run.last,
        "best": run.best(lower_is_better=lower),
        "seconds": run.total_seconds,
        "bytes": run.total_bytes,
        "federation_hash": run.manifest.get("federation_hash"),
        "config_hash": run.manifest.get("config_hash"),
    }
    if target is not None:
        reach = run.reached(target, lower_is_better=lower) or (None, None, None)
        names = ("target_rounds", "target_bytes", "target_seconds")
        values |= {"target": target, **dict(zip(names, reach, strict=True))}
    return values


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)
