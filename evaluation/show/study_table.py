"""The study's combined table of a grid of results folders."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from evaluation.results.cells import (
    BASELINES,
    LESION_METRICS,
    METRICS,
    SAMPLER_LABELS,
    CellResults,
    MethodName,
    describe_measurement,
    label,
    method_label,
)
from evaluation.show.intervals import mean_interval
from evaluation.show.markup import (
    MISSING,
    Column,
    Text,
    latex,
    markdown,
    mean_std,
    number,
    write_csv,
)
from operators.create import fields_of, is_known

LABELS = ("Data", "Measurement", "Sampling", "Metric")
UNFINISHED = "fewer slices than others of the row have; not compared with them"

Row = list[CellResults]  # the cells of one measurement of one data set


def study_table(
    cells: Sequence[CellResults], style: str, *, metrics: Sequence[str], spread: str = "std"
) -> str:
    """The study's combined table as text.

    Rows are data, measurement and metric; columns are baselines, then the priors of each sampler by
    size. The best mean of a row is bold, as are all that equal it in the digits shown. A cell
    without a finished slice is a dash; one that lacks slices of others in its row is marked and
    never bold.

    Args:
        cells: cells of a grid; those of a lambda sweep are left out.
        style: "markdown", "latex" (booktabs) or "csv" (one line per cell and metric).
        metrics: columns of the results.
        spread: "std" over slices, "ci" for the 95 % interval of the mean by volume, or "both".

    Raises:
        ValueError: a cell does not have one of the metrics.
    """
    cells = [cell for cell in cells if cell.method.weight is None]
    if style == "csv":
        return _study_csv(cells, metrics)
    methods = sorted({cell.method for cell in cells}, key=_method_order)
    columns = [Column(name, number=False) for name in LABELS]
    columns += [_column(method, grouped=style == "latex") for method in methods]
    lines = [
        [*map(Text, [*row_labels(row), METRICS[m].title]), *_entries(row, methods, m, spread)]
        for row in rows_of(cells)
        for m in metrics
    ]
    note = UNFINISHED if any(item.noted for line in lines for item in line) else ""
    if style == "markdown":
        return markdown(columns, lines, note)
    return latex(columns, lines, note, blocks=True)


def rows_of(cells: Iterable[CellResults]) -> list[Row]:
    """Cells grouped by data and measurement, in the order of the cells."""
    rows: dict[Path, Row] = {}
    for cell in cells:
        rows.setdefault(cell.folder.parent, []).append(cell)
    return list(rows.values())


def row_labels(row: Row) -> tuple[str, str, str]:
    """Labels of a row: data, measurement, and its sampling (acceleration, or the views of CT)."""
    described = [describe_measurement(cell.config, cell.info) for cell in row]
    samplings = dict.fromkeys(a if a != "-" else m for m, a in described)
    return label(row[0].data), label(row[0].measurement), ", ".join(samplings)


def is_finished(cell: CellResults, row: Row, metric: str) -> bool:
    """Whether a cell has the metric for every slice of the other cells in its row.

    Of lesions, for every slice with a lesion.
    """
    has = _with(cell, metric)
    if metric in LESION_METRICS:
        return all(_with(other, metric) <= has for other in row)
    return all(other.rows.keys() <= has for other in row)


def _with(cell: CellResults, metric: str) -> set[str]:
    return {key for key, values in cell.rows.items() if metric in values}


def _method_order(method: MethodName) -> tuple:
    """Sort key: baselines in the study's order, then samplers, their priors, their sizes."""

    def place(name: str, known: Iterable[str]) -> tuple[int, str]:
        known = list(known)
        return (known.index(name), "") if name in known else (len(known), name)

    samplers = BASELINES if not method.prior else SAMPLER_LABELS
    return bool(method.prior), place(method.sampler, samplers), method.prior, method.size


def _column(method: MethodName, *, grouped: bool) -> Column:
    if not method.prior:
        return Column(label(method.sampler), "Baselines" if grouped else "")
    if not grouped:
        return Column(method_label(method))
    return Column(label(method.size), f"{label(method.sampler)}, {label(method.prior)} prior")


def _entries(row: Row, methods: Sequence[MethodName], name: str, spread: str) -> list[Text]:
    metric = METRICS[name]
    found = {cell.method: cell for cell in row if cell.rows}
    means = {
        method: f"{mean_std(list(cell.values(name).values()))[0]:.{metric.digits}f}"
        for method, cell in found.items()
    }
    finished = {method for method, cell in found.items() if is_finished(cell, row, name)}
    eligible = {means[method] for method in finished} - {"nan"}
    best = metric.better(eligible, key=float, default=None)
    entries = []
    for method in methods:
        cell = found.get(method)
        if cell is None:
            entries.append(Text(MISSING))
            continue
        text = number(cell.values(name), metric, spread, cell.unit)
        bold = method in finished and means[method] == best
        entries.append(Text(text, bold=bold, noted=method not in finished))
    return entries


def _study_csv(cells: Sequence[CellResults], metrics: Sequence[str]) -> str:
    lines = [
        (
            *("data", "measurement", "nominal", "effective", "method", "prior", "size", "sampler"),
            *("slices", "finished", "metric", "mean", "std", "ci_low", "ci_high"),
        )
    ]
    for row in rows_of(cells):
        for cell in sorted(row, key=lambda cell: _method_order(cell.method)):
            operator = cell.config["operator"]
            name = operator["name"]
            has_nominal = is_known(name) and "acceleration" in fields_of(name)
            nominal = operator["acceleration"] if has_nominal else ""
            effective = cell.info.get("effective_acceleration", "")
            method = cell.method
            names = (cell.folder.name, method.prior, method.size, method.sampler)
            for metric in metrics if cell.rows else ():
                values = cell.values(metric)
                lines.append(
                    (
                        *(cell.data, cell.measurement, nominal, effective, *names),
                        *(len(values), is_finished(cell, row, metric), metric),
                        *(
                            *mean_std(list(values.values())),
                            *mean_interval(values, unit=cell.unit)[1:],
                        ),
                    )
                )
    return write_csv(lines)
