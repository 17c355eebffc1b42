"""A comparison as Markdown and as LaTeX."""

import re
import textwrap
from collections.abc import Sequence

from fedlabels.report.comparison.compare import Comparison
from fedlabels.report.comparison.format import Entry, Table
from fedlabels.report.comparison.notes import fixed, methods, notes, summary
from fedlabels.report.comparison.tables import tables
from fedlabels.report.numbers import plural

_WIDTH = 100
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "±": r"$\pm$", "–": "--", "−": r"$-$", "×": r"$\times$", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))
_PREAMBLE = r"""% Needs \usepackage{booktabs}. To shade the heat maps:
% \usepackage[table]{xcolor} and \newcommand{\heat}[2]{\cellcolor{blue!#1}#2} before this file.
\providecommand{\heat}[2]{#2}
"""


def markdown(comparison: Comparison) -> str:
    """Write a comparison as Markdown.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    str
        Ends with a line break.
    """
    parts = [f"# Comparison of {plural(len(comparison.runs), 'run')}", _wrap(summary(comparison))]
    limits, own = notes(comparison), methods(comparison)
    if limits:
        parts += ["## Read this first", _items(limits)]
    for table in tables(comparison):
        parts += [f"## {_plain(table.title)}", _wrap(table.lead), _markdown_table(table)]
    if comparison.left_out:
        left = [f"{one.label}: {one.reason}" for one in comparison.left_out]
        parts += ["## Left out", _items(left)]
    if len(own) > 1:
        parts += ["## What the methods are", _items([f"{name}: {text}" for name, text in own])]
    shared = ", ".join(fixed(comparison)) or "nothing"
    parts += ["## Held fixed", _wrap(f"{shared}.")]
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    r"""Write a comparison's tables as LaTeX with booktabs.

    Parameters
    ----------
    comparison : Comparison
        What was compared.

    Returns
    -------
    str
        To be read with ``\input``; ends with a line break.
    """
    task = ", ".join(fixed(comparison, core=True))
    remark = f"{summary(comparison)} Held fixed: {task or 'see the comments above'}."
    remarks = [
        *notes(comparison),
        *(f"Left out: {one.label}: {one.reason}" for one in comparison.left_out),
        *(f"{name}: {text}" for name, text in methods(comparison)),
        f"Held fixed: {', '.join(fixed(comparison))}.",
    ]
    parts = ["".join(map(_comment, remarks)) + _PREAMBLE]
    parts += [_latex_table(table, remark) for table in tables(comparison)]
    return "\n".join(parts)


def escape(text: str) -> str:
    r"""Escape a text for LaTeX.

    Parameters
    ----------
    text : str
        Plain text of one line or more.

    Returns
    -------
    str
        One line that LaTeX sets as `text`.

    Examples
    --------
    >>> escape("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return _SPECIAL.sub(lambda match: _LATEX[match[0]], " ".join(text.split("\n")))


def _markdown_table(table: Table) -> str:
    heads = [" / ".join(_plain(line) for line in lines if line) for lines in table.header]
    body = [[_field(entry) for entry in row] for row in table.rows]
    widths = [max(3, *map(len, column)) for column in zip(heads, *body, strict=True)]
    rule = ["-" * (w if i < table.texts else w - 1) for i, w in enumerate(widths)]
    rule = [text if i < table.texts else f"{text}:" for i, text in enumerate(rule)]
    lines = [
        [text.ljust(w) if i < table.texts else text.rjust(w) for i, (text, w) in enumerate(pairs)]
        for pairs in (list(zip(row, widths, strict=True)) for row in (heads, rule, *body))
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _field(entry: Entry) -> str:
    return f"**{_plain(entry.text)}**" if entry.bold else _plain(entry.text)


def _plain(text: str) -> str:
    """Keep a text from ending a field or a line, or being taken for markup."""
    for sign in "\\|*<":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split("\n"))


def _items(texts: Sequence[str]) -> str:
    return "\n".join(_wrap(_plain(text), first="- ", rest="  ") for text in texts)


def _wrap(text: str, *, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _latex_table(table: Table, remark: str) -> str:
    columns = "".join("l" if i < table.texts else "r" for i in range(len(table.header)))
    heads = [[escape(text) for text in line] for line in zip(*table.header, strict=True)]
    body = [[_set(entry) for entry in row] for row in table.rows]
    caption = f"{escape(table.title)}. {escape(table.lead)} {escape(remark)}"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:comparison-{table.anchor}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *(_line(row) for row in heads),
            r"\midrule",
            *(_line(row) for row in body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _line(fields: Sequence[str]) -> str:
    # after the \\ of the line above, LaTeX takes [ and * for options
    text = " & ".join(f"{{{f}}}" if f.startswith(("[", "*")) else f for f in fields)
    return rf"{text} \\"


def _set(entry: Entry) -> str:
    text = escape(entry.text)
    shown = rf"\textbf{{{text}}}" if entry.bold else text
    return shown if entry.heat is None else rf"\heat{{{entry.heat}}}{{{shown}}}"


def _comment(text: str) -> str:
    return _wrap(" ".join(text.split()), first="% ", rest="%   ") + "\n"
