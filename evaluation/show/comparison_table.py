"""Paired comparison of two methods over a grid of results folders."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from evaluation.results.cells import METRICS, CellResults, Metric, method_label, parse_method
from evaluation.show.intervals import Comparison, Interval, compare, holm
from evaluation.show.markup import MISSING, Column, Text, latex, markdown, write_csv
from evaluation.show.study_table import LABELS, row_labels, rows_of

MINUS = "\N{MINUS SIGN}"
log = logging.getLogger(__name__)

SMALLEST_P = 0.001  # smaller p values are shown as "< 0.001"
CSV_HEADER = (
    *("data", "measurement", "sampling", "metric", "slices", "volumes", "first", "second"),
    *("difference", "ci_low", "ci_high", "p_permutation_holm", "p_wilcoxon_holm"),
)


class Line(NamedTuple):
    """Line of the table: labels, name of the metric, comparison, p values adjusted by Holm."""

    labels: tuple[str, str, str]
    metric: str
    found: Comparison
    p_values: tuple[float, float]


def comparison_table(
    cells: Sequence[CellResults], first: str, second: str, style: str, *, metrics: Sequence[str]
) -> str:
    """Table of paired differences first - second for each measurement of each data set.

    Intervals are 95 % intervals by volume. p values are two-sided, by volume, and adjusted by Holm
    for the number of lines.

    Args:
        cells: cells of a grid.
        first: folder name of the first method.
        second: folder name of the second method.
        style: "markdown", "latex" or "csv".
        metrics: columns of the results.

    Raises:
        ValueError: no measurement has both methods, both have no slice in common, or a value is not
            finite.
    """
    lines = _lines(cells, first, second, metrics)
    if style == "csv":
        rows = (
            [*n.labels, n.metric, *n.found[:4], *n.found.difference, *n.p_values] for n in lines
        )
        return write_csv([CSV_HEADER, *rows])
    titles = ["slices", "volumes", *(method_label(parse_method(name)) for name in (first, second))]
    titles += ["difference", "95 % interval", "p (permutation)", "p (Wilcoxon)"]
    columns = [Column(name, number=False) for name in LABELS] + [Column(t) for t in titles]
    rows = [[Text(text) for text in _texts(line)] for line in lines]
    return markdown(columns, rows) if style == "markdown" else latex(columns, rows, blocks=True)


def _lines(
    cells: Sequence[CellResults], first: str, second: str, metrics: Sequence[str]
) -> list[Line]:
    methods = [parse_method(name) for name in (first, second)]
    labelled = []
    for row in rows_of(cells):
        found = {cell.method: cell for cell in row if cell.rows}
        if found.keys() >= set(methods):
            _warn(*(found[method] for method in methods))
            for metric in metrics:
                values = [found[method].values(metric) for method in methods]
                labelled.append((row_labels(row), metric, compare(*values, unit=row[0].unit)))
    if not labelled:
        known = ", ".join(sorted({cell.folder.name for cell in cells if cell.rows}))
        raise ValueError(f"no measurement has both {first} and {second}; there are: {known}")
    permutation = holm([comparison.p_permutation for *_, comparison in labelled])
    wilcoxon = holm([comparison.p_wilcoxon for *_, comparison in labelled])
    p_values = zip(permutation, wilcoxon, strict=True)
    return [Line(*found, p) for found, p in zip(labelled, p_values, strict=True)]


def _warn(first: CellResults, second: CellResults) -> None:
    """Log a warning if the two methods reconstructed different measurements of a slice."""
    keys = sorted(first.measured.keys() & second.measured.keys())
    pairs = {key: (first.measured[key], second.measured[key]) for key in keys}
    differing = [key for key, (a, b) in pairs.items() if a and b and a != b]
    if differing:
        log.warning(
            "%s and %s: %d slices were not measured alike, such as %s",
            *(first.folder, second.folder.name, len(differing), differing[0]),
        )


def _texts(line: Line) -> list[str]:
    metric, found = METRICS[line.metric], line.found
    return [
        *line.labels,
        metric.title,
        *(str(found.slices), str(found.volumes)),
        *(f"{value:.{metric.digits}f}" for value in (found.first, found.second)),
        *texts_of_difference(found.difference, metric),
        *(f"< {SMALLEST_P}" if p < SMALLEST_P else f"{p:.3f}" for p in line.p_values),
    ]


def texts_of_difference(difference: Interval, metric: Metric) -> list[str]:
    """Mean and interval as text with signs; a dash if there is no interval."""
    mean, low, high = (f"{value:+.{metric.digits}f}".replace("-", MINUS) for value in difference)
    return [mean, MISSING if low == "+nan" else f"[{low}, {high}]"]
