"""Plots of the metrics of a grid: boxes by mask and size, means by depth, means by lambda."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from configs.base import SIZES
from evaluation.results.cells import METRICS, SAMPLER_LABELS, CellResults
from evaluation.results.cells import label as in_words
from evaluation.show.boxes import box_or_points
from evaluation.show.intervals import mean_interval
from evaluation.show.style import LINES, MARKERS, STYLE, WIDTH, plain, prior_colors, shade

ROW = 2.1  # height of a row of axes in inches
FEWEST_BOXES = 8  # smallest number of boxes per measurement that sets the width of a box
MOST_COLUMNS = 5  # largest number of axes side by side
DODGE = 0.16  # shift between the lines of two priors, in units of the distance of two depths
SIZE_TICKS = {"4_attention": "4a"}


@rc_context(STYLE)
def draw_boxplots(cells: Sequence[CellResults], metric: str) -> Figure:
    """Box plots over the slices for each prior and size, by measurement; one row per sampler.

    Boxes extend from quartile to quartile with a line at the median, whiskers to the last value
    within 1.5 times the length of the box; dots are slices beyond. Of fewer than `FEWEST_FOR_A_BOX`
    slices each is a point, with a line at the median.

    Args:
        cells: cells of one data set that have a prior.
        metric: a column of the results.
    """
    measurements, samplers = _names(cells, "measurement"), _samplers(cells)
    priors = sorted({cell.method.prior for cell in cells})
    colors = prior_colors(priors)
    known = {cell.method.size for cell in cells}
    sizes = [*SIZES, *sorted(known - {*SIZES})]
    kinds = [(p, s) for p in priors for s in sizes if any(_is(cell, p, s) for cell in cells)]
    step = 0.9 / max(len(kinds), FEWEST_BOXES)
    figure = Figure(figsize=(WIDTH, ROW * len(samplers) + 0.4), layout="constrained")
    axes = figure.subplots(len(samplers), 1, sharex=True, squeeze=False)[:, 0]
    for axis, sampler in zip(axes, samplers, strict=True):
        for cell in cells:
            if cell.method.sampler != sampler:
                continue
            kind = kinds.index((cell.method.prior, cell.method.size)) - (len(kinds) - 1) / 2
            place = measurements.index(cell.measurement) + step * kind
            _box(axis, cell, metric, place, 0.85 * step, colors)
        axis.set_title(f"{label(cells[0].data)}, {label(sampler)}", loc="left")
        axis.set_ylabel(METRICS[metric].title)
        axis.set_xticks(range(len(measurements)), [label(name) for name in measurements])
        axis.set_xlim(-0.5, len(measurements) - 0.5)
        axis.xaxis.set_minor_locator(FixedLocator(np.arange(0.5, len(measurements) - 1)))
        axis.grid(axis="x", which="minor", linewidth=0.8)
        axis.grid(axis="y")
        axis.tick_params(axis="x", which="both", length=0)
    # sorted by size, then prior, so that each row of the legend is one prior
    patches = [
        Patch(
            facecolor=shade(colors[p], s), edgecolor="black", lw=0.6, label=f"{label(p)} {label(s)}"
        )
        for p, s in sorted(kinds, key=lambda kind: kind[1])
    ]
    columns = len({s for _, s in kinds})
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def label(name: str) -> str:
    """Name of a folder or method in words, escaped for matplotlib."""
    return plain(in_words(name))


def _box(
    axis: Axes, cell: CellResults, metric: str, place: float, width: float, colors: dict
) -> None:
    color = shade(colors[cell.method.prior], cell.method.size)
    box_or_points(axis, list(cell.values(metric).values()), place, width, color)


@rc_context(STYLE)
def draw_depth(cells: Sequence[CellResults], metric: str) -> Figure:
    """Mean and 95 % interval by depth, with one line per prior.

    Rows of axes are samplers, columns are measurements. If there are two priors, the gap between
    them is shaded.

    Args:
        cells: cells of one data set that have a prior.
        metric: a column of the results.
    """
    samplers = _samplers(cells)
    colors = prior_colors(sorted({cell.method.prior for cell in cells}))
    figure, grid = _grid(cells, len(samplers))
    for (row, measurement), axis in grid.items():
        here = [c for c in cells if _in(c, measurement, samplers[row])]
        lines = {}
        for number, prior in enumerate(colors):
            sizes = {c.method.size: c for c in here if c.method.prior == prior}
            intervals = {
                i: mean_interval(sizes[size].values(metric), unit=sizes[size].unit)
                for i, size in enumerate(SIZES)
                if size in sizes
            }
            lines[prior] = {i: interval.mean for i, interval in intervals.items()}
            # shifted, so that one interval does not hide the other
            aside = DODGE * (number - (len(colors) - 1) / 2)
            places = {i + aside: interval for i, interval in intervals.items()}
            _line(axis, places, colors[prior], label(prior))
        if len(lines) == 2:
            _shade_gap(axis, *lines.values())
        axis.set_xticks(range(len(SIZES)), [SIZE_TICKS.get(size, size) for size in SIZES])
        axis.set_xlim(-0.4, len(SIZES) - 0.6)
        if row == 0:
            axis.set_title(label(measurement))
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(f"{label(samplers[row])}: {METRICS[metric].title}")
    _finish(figure, grid, "depth (4a: with attention)")
    return figure


def _line(axis: Axes, intervals: dict, color: str, name: str, **look) -> None:
    """Draw means, with error bars if an interval is known."""
    low = [max(0, i.mean - i.low) if i.low == i.low else 0 for i in intervals.values()]
    high = [max(0, i.high - i.mean) if i.high == i.high else 0 for i in intervals.values()]
    means = [i.mean for i in intervals.values()]
    look = {"marker": "o", "markersize": 3, "elinewidth": 0.6} | look
    axis.errorbar(list(intervals), means, [low, high], color=color, label=name, **look)


def _shade_gap(axis: Axes, first: dict[int, float], second: dict[int, float]) -> None:
    places = sorted(first.keys() & second.keys())
    between = [[line[i] for i in places] for line in (first, second)]
    axis.fill_between(places, *between, color="0.5", alpha=0.25, linewidth=0)


@rc_context(STYLE)
def draw_lambda(cells: Sequence[CellResults], metric: str) -> Figure:
    """Mean and 95 % interval by lambda, with one line per prior and size.

    Columns of axes are measurements. The axis of lambda is logarithmic, with lambda = 0 left of a
    break.

    Args:
        cells: cells of a lambda sweep of one data set.
        metric: a column of the results.
    """
    colors = prior_colors(sorted({cell.method.prior for cell in cells}))
    weights = sorted({cell.method.weight for cell in cells} - {0.0})
    zero = weights[0] / 4 if weights else 1.0
    figure, grid = _grid(cells, 1)
    for (_, measurement), axis in grid.items():
        here = [cell for cell in cells if cell.measurement == measurement]
        for prior, size in sorted({(c.method.prior, c.method.size) for c in here}):
            sweep = sorted((c for c in here if _is(c, prior, size)), key=lambda c: c.method.weight)
            intervals = {
                c.method.weight: mean_interval(c.values(metric), unit=c.unit) for c in sweep
            }
            place, name = list(SIZES).index(size), f"{label(prior)} {label(size)}"
            look = {"marker": MARKERS[place], "linestyle": LINES[place]}
            positive = {w: interval for w, interval in intervals.items() if w > 0}
            _line(axis, positive, colors[prior], name, **look)
            if 0.0 in intervals:  # not joined to the line, as a logarithmic axis has no zero
                look["linestyle"] = "none"
                _line(axis, {zero: intervals[0.0]}, colors[prior], "_", **look)
        _lambda_axis(axis, zero, weights)
        axis.set_title(label(measurement))
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(METRICS[metric].title)
    _finish(figure, grid, "λ of the data consistency")
    return figure


def _lambda_axis(axis: Axes, zero: float, weights: Sequence[float]) -> None:
    """Make an axis logarithmic, with a place for 0, a break next to it, and decades as ticks."""
    axis.set_xscale("log")
    last = weights[-1] if weights else zero
    axis.set_xlim(zero / 1.6, last * 1.6)
    first = weights[0] if weights else zero
    decades = 10.0 ** np.arange(np.ceil(np.log10(first)), np.floor(np.log10(last)) + 1)
    axis.xaxis.set_major_locator(FixedLocator([zero, *decades]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels(["0", *(f"{decade:g}" for decade in decades)])
    across = axis.get_xaxis_transform()  # x in data, y from 0 to 1
    for shift in (0.93, 1.07):
        place = np.sqrt(zero * first) * shift
        ends = [place / 1.05, place * 1.05]
        axis.plot(ends, [-0.03, 0.03], color="black", lw=0.6, transform=across, clip_on=False)


def _names(cells: Sequence[CellResults], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(cell, field) for cell in cells))


def _samplers(cells: Sequence[CellResults]) -> list[str]:
    """Samplers of the cells, in the order of `SAMPLER_LABELS`."""
    found = sorted({cell.method.sampler for cell in cells})
    order = list(SAMPLER_LABELS)
    return sorted(found, key=lambda name: name not in order or order.index(name))


def _is(cell: CellResults, prior: str, size: str) -> bool:
    return (cell.method.prior, cell.method.size) == (prior, size)


def _in(cell: CellResults, measurement: str, sampler: str) -> bool:
    return (cell.measurement, cell.method.sampler) == (measurement, sampler)


def _grid(cells: Sequence[CellResults], rows: int) -> tuple[Figure, dict[tuple[int, str], Axes]]:
    """Figure with axes by row and measurement, with several lines of measurements if needed."""
    measurements = _names(cells, "measurement")
    columns = min(MOST_COLUMNS, len(measurements))
    lines = -(-len(measurements) // columns)
    width = WIDTH if columns > 2 else WIDTH * (columns + 1) / 4
    figure = Figure(figsize=(width, ROW * 0.8 * rows * lines + 0.7), layout="constrained")
    axes = figure.subplots(rows * lines, columns, squeeze=False)
    grid = {}
    for i, measurement in enumerate(measurements):
        for row in range(rows):
            grid[row, measurement] = axes[i // columns * rows + row, i % columns]
    for axis in set(axes.flat) - set(grid.values()):
        axis.set_axis_off()
    return figure, grid


def _finish(figure: Figure, grid: dict, xlabel: str) -> None:
    """Add grid lines, the shared label below, and one legend."""
    handles = {}
    for axis in grid.values():
        axis.grid(axis="y")
        handles |= {
            name: handle for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
        }
    figure.supxlabel(xlabel, fontsize=STYLE["axes.labelsize"])
    columns = min(5, len(handles))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=columns, frameon=False
    )
