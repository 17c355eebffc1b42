"""Write the report of a run, or compare several: ``fedlabels report RUN [RUN ...]``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedlabels.errors import ConfigError, FedLabelsError
from fedlabels.report.blocks import figures_of
from fedlabels.report.comparison.compare import DEFAULT_METRIC, Question, compare
from fedlabels.report.comparison.files import write_comparison
from fedlabels.report.comparison.page import sections
from fedlabels.report.comparison.runs import find_runs, is_run
from fedlabels.report.comparison.text import markdown
from fedlabels.report.figure_files import FORMATS, write_figures
from fedlabels.report.single.page import run_sections, write_report
from fedlabels.report.single.source import read_run

_COMPARES = ("by", "metric", "baseline", "last", "target", "out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line; write one run's report, or compare several runs.

    Parameters
    ----------
    arguments : sequence of str or None
        The command line; None reads the process's own.

    Raises
    ------
    SystemExit
        Always: with 0 and the report's path or the comparison, with 2 and what went wrong, or with
        130 after Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        message = _compared(options) if _several(options.folders) else _reported(options)
    except (FedLabelsError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped\n")
    parser.exit(message=message)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedlabels report", description="Write the report of a run, or compare several runs."
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="what a run wrote; several, or a folder above several runs, are compared",
    )
    many = parser.add_argument_group("comparison of several runs")
    many.add_argument("--by", metavar="KEY[,KEY]", help="settings that make the cells")
    many.add_argument("--metric", metavar="COLUMN", help="of rounds.csv; test_accuracy otherwise")
    many.add_argument("--baseline", metavar="METHOD", help="compared with; the first otherwise")
    many.add_argument(
        "--last", type=int, metavar="N", help="a run's result is the mean of its last N evaluations"
    )
    many.add_argument("--target", type=float, metavar="VALUE", help="what the costs of are wanted")
    many.add_argument(
        "--out", type=Path, metavar="FOLDER", help="also write HTML, CSV, Markdown, LaTeX"
    )
    parser.add_argument(
        "--figures",
        metavar="FORMAT[,FORMAT]",
        help=f"also write every chart as a file: {', '.join(FORMATS)}",
    )
    return parser


def _several(folders: Sequence[Path]) -> bool:
    if len(folders) > 1:
        return True
    only = folders[0]
    return only.is_dir() and not is_run(only) and len(find_runs(folders, empty=True)) > 1


def _reported(options: argparse.Namespace) -> str:
    for name in _COMPARES:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is for a comparison: give more than one run folder")
    folder = options.folders[0]
    written = [write_report(folder)]
    if options.figures is not None:
        figures = figures_of(run_sections(read_run(folder)))
        written += write_figures(figures, folder / "figures", _formats(options))
    return "".join(f"{path}\n" for path in written)


def _compared(options: argparse.Namespace) -> str:
    by = None if options.by is None else tuple(key.strip() for key in options.by.split(","))
    question = Question(
        metric=options.metric or DEFAULT_METRIC,
        target=options.target,
        by=by,
        baseline=options.baseline,
        last=1 if options.last is None else options.last,
    )
    if options.figures is not None and options.out is None:
        raise ConfigError("--figures of a comparison needs --out FOLDER, where they are written")
    comparison = compare(options.folders, question)
    if options.out is None:
        return markdown(comparison)
    written = write_comparison(comparison, options.out)
    if options.figures is not None:
        figures = figures_of(sections(comparison))
        written += write_figures(figures, options.out / "figures", _formats(options))
    return "".join([markdown(comparison), "\n", *(f"{path}\n" for path in written)])


def _formats(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.figures.split(",")]


if __name__ == "__main__":
    main()
