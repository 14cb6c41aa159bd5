"""Box plots of values by slice, and points where there are too few for a box."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.results.cells import IMAGE_METRICS, METRICS, CellResults
from evaluation.show.style import COLORS, STYLE, WIDTH, plain, shade

FEWEST_FOR_A_BOX = 8  # slices: a box of fewer would make up quartiles; each is a point instead
BOXES = {
    "boxprops": {"linewidth": 0.5},
    "whiskerprops": {"linewidth": 0.5},
    "capprops": {"linewidth": 0.5},
    "medianprops": {"color": "black", "linewidth": 1},
    "flierprops": {"marker": ".", "markersize": 2},
}


def box_or_points(
    axis: Axes,
    values: Sequence[float],
    place: float,
    width: float,
    color: str | np.ndarray,
    *,
    horizontal: bool = False,
) -> None:
    """Draw a box plot, or of fewer than `FEWEST_FOR_A_BOX` values points and a line at the median.

    Args:
        axis: where to draw.
        values: values of one box; those that are not finite are left out of points.
        place: where the box is on the axis of categories.
        width: its width there.
        color: of the box, or of the points.
        horizontal: whether values run from left to right.
    """
    if len(values) >= FEWEST_FOR_A_BOX:
        drawn = axis.boxplot(
            [values],
            positions=[place],
            widths=width,
            orientation="horizontal" if horizontal else "vertical",
            patch_artist=True,
            manage_ticks=False,
            **BOXES,
        )
        drawn["boxes"][0].set_facecolor(color)
        return
    finite = [value for value in values if np.isfinite(value)]
    places = [place] * len(finite)
    axis.scatter(
        *((finite, places) if horizontal else (places, finite)),
        s=9,
        facecolor=color,
        edgecolor="black",
        linewidth=0.4,
        zorder=3,
    )
    if finite:
        draw = axis.vlines if horizontal else axis.hlines
        ends = place - width / 2, place + width / 2
        draw(np.median(finite), *ends, color="black", linewidth=1)


@rc_context(STYLE)
def draw_summary(cells: Sequence[CellResults], names: Sequence[str]) -> Figure:
    """Box plots over the slices of each folder, one below the other, with one axis per metric.

    Of fewer than `FEWEST_FOR_A_BOX` slices each is a point, with a line at the median.

    Args:
        cells: cells with at least one slice.
        names: names of the cells.
    """
    figure = Figure(figsize=(WIDTH, 0.7 + 0.25 * len(cells)), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    axes = figure.subplots(1, len(IMAGE_METRICS), sharey=True)
    for axis, metric in zip(axes, IMAGE_METRICS, strict=True):
        for i, cell in enumerate(cells):
            values = list(cell.values(metric).values())
            box_or_points(axis, values, i + 1, 0.6, shade(COLORS[0], "2"), horizontal=True)
        axis.set_xlabel(METRICS[metric].title)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="x")
    axes[0].set_yticks(range(1, len(cells) + 1), [plain(name) for name in names])
    axes[0].set_ylim(len(cells) + 0.6, 0.4)
    return figure
