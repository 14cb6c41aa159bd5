"""Tables of plain text as escaped Markdown, HTML, LaTeX (booktabs) or CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape as escape_html
from itertools import groupby
from typing import NamedTuple

import numpy as np

from evaluation.results.cells import Metric
from evaluation.results.volumes import volume_of
from evaluation.show.intervals import Unit, mean_interval

MISSING = "\N{EN DASH}"
SPREADS = ("std", "ci", "both")
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "°": r"$^{\circ}$",
    "λ": r"$\lambda$",
}
MARKDOWN = {"|": r"\|", "*": r"\*"}


class Text(NamedTuple):
    """Entry of a table: plain text, optionally bold, optionally with an asterisk for a note."""

    text: str
    bold: bool = False
    noted: bool = False


class Column(NamedTuple):
    """Column of a table: title, group title above neighbouring columns, and if it holds numbers."""

    title: str
    group: str = ""
    number: bool = True


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1 degrees of freedom; NaN for a single value)."""
    array = np.asarray(values, dtype=float)
    with np.errstate(invalid="ignore"):  # an infinite PSNR has no spread
        return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def number(values: Mapping[str, float], metric: Metric, spread: str, unit: Unit = volume_of) -> str:
    """Text of mean and spread, such as "30.12 ± 1.20" or "30.12 [29.80, 30.41]".

    Args:
        values: at least one value, by key of the slice.
        metric: gives the number of digits.
        spread: "std" (over slices), "ci" (95 % interval by volume) or "both".
        unit: function that maps a key to its statistical unit.
    """
    mean, std = mean_std(list(values.values()))
    text = f"{mean:.{metric.digits}f}"
    if spread != "ci" and not np.isnan(std):
        text += f" ± {std:.{metric.digits}f}"
    interval = mean_interval(values, unit=unit) if spread != "std" else None
    if interval and not np.isnan(interval.low):
        text += f" [{interval.low:.{metric.digits}f}, {interval.high:.{metric.digits}f}]"
    return text


def escape(text: str, replacements: Mapping[str, str]) -> str:
    """`text` with the special characters of a markup language replaced."""
    return "".join(replacements.get(character, character) for character in text)


def markdown(columns: Sequence[Column], rows: Sequence[Sequence[Text]], note: str = "") -> str:
    """Markdown table; the group of a column becomes part of its title.

    Args:
        columns: columns of the table.
        rows: rows with one `Text` per column.
        note: meaning of the asterisk; "" if there is none.
    """

    def cell(item: Text) -> str:
        text = escape(item.text, MARKDOWN)
        return (f"**{text}**" if item.bold else text) + (r" \*" if item.noted else "")

    titles = [Text(" ".join(filter(None, [c.group, c.title]))) for c in columns]
    rule = ["---:" if column.number else "---" for column in columns]
    lines = [[cell(t) for t in titles], rule, *([cell(item) for item in row] for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + (f"\n\\* {note}\n" if note else "")


def html(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> str:
    """HTML table without column groups; the first entry of a row is its heading."""

    def cell(column: Column, item: Text, tag: str) -> str:
        kind = ' class="number"' if column.number else ""
        return f"<{tag}{kind}>{escape_html(item.text)}</{tag.partition(' ')[0]}>"

    def line(cells: Sequence[Text], first: str, others: str) -> str:
        tags = [first, *[others] * (len(columns) - 1)]
        items = [cell(*group) for group in zip(columns, cells, tags, strict=True)]
        return f"<tr>{''.join(items)}</tr>\n"

    column = 'th scope="col"'
    head = line([Text(c.title) for c in columns], column, column)
    body = "".join(line(row, 'th scope="row"', "td") for row in rows)
    return f"<table>\n<thead>\n{head}</thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def latex(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Text]],
    note: str = "",
    *,
    blocks: bool = False,
) -> str:
    """LaTeX `tabular` for the package booktabs, with a line for the groups of columns.

    Args:
        columns: columns of the table.
        rows: rows with one `Text` per column.
        note: meaning of the asterisk; "" if there is none.
        blocks: whether to omit labels that repeat those of the row above, and draw a rule where the
            first label changes.
    """

    def cell(item: Text) -> str:
        text = escape(item.text, LATEX)
        return (f"\\textbf{{{text}}}" if item.bold else text) + ("$^{*}$" if item.noted else "")

    def line(cells: Sequence[str]) -> str:
        # LaTeX would take a leading bracket or star as an argument of the previous line's end
        guard = "{}" if cells[0].startswith(("[", "*")) else ""
        return f"  {guard}{' & '.join(cells)} \\\\\n"

    body, above = "", None
    for row in rows:
        repeated = _repeated(columns, above, row) if blocks and above else 0
        if blocks and above and not repeated:
            body += "  \\midrule\n"
        body += line(["" if i < repeated else cell(item) for i, item in enumerate(row)])
        above = row
    kinds = "".join("r" if column.number else "l" for column in columns)
    footer = f"  \\multicolumn{{{len(columns)}}}{{l}}{{$^{{*}}$ {escape(note, LATEX)}}} \\\\\n"
    return (
        f"\\begin{{tabular}}{{{kinds}}}\n  \\toprule\n{_group_line(columns)}"
        + line([escape(column.title, LATEX) for column in columns])
        + f"  \\midrule\n{body}  \\bottomrule\n{footer if note else ''}\\end{{tabular}}\n"
    )


def write_csv(lines: Iterable[Sequence]) -> str:
    """CSV text of lines of values; NaN becomes empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(["" if value != value else value for value in line] for line in lines)
    return text.getvalue()


def _repeated(columns: Sequence[Column], above: Sequence[Text], row: Sequence[Text]) -> int:
    """Number of leading labels of a row that equal those of the row above."""
    for i, column in enumerate(columns):
        if column.number or row[i] != above[i]:
            return i
    return len(columns)


def _group_line(columns: Sequence[Column]) -> str:
    """LaTeX line with underlined group titles over their columns; "" if there are none."""
    cells, rules, first = [], "", 1
    for group, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        if group:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group, LATEX)}}}")
            rules += f" \\cmidrule(lr){{{first}-{first + width - 1}}}"
        else:
            cells += [""] * width
        first += width
    return f"  {' & '.join(cells)} \\\\\n {rules}\n" if rules else ""
