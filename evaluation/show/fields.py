"""Figure of effective receptive fields."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from evaluation.run.receptive_field import SHARES, Field
from evaluation.show.style import STYLE, WIDTH, plain

DECADES = 1e-8  # of the largest energy: the smallest that is shown
STUDY_CUT, STUDY_FLOOR = 0.1, 1e-7  # of the study's two pictures
LINES = ("-", "--", ":")
ZOOM, SMALLEST = 1.6, 6.0  # window over the largest radius, in pixels at least SMALLEST


class Row(NamedTuple):
    """A prior: its name, theoretical field (None: unlimited), fields by level, and the study's."""

    name: str
    theoretical: int | None
    fields: Sequence[Field]
    study: np.ndarray | None


@rc_context(STYLE)
def draw_fields(rows: Sequence[Row]) -> Figure:
    """Energy by offset, logarithmic, with the radii of 50, 80 and 95 %; one row a prior.

    The window is `ZOOM` times the largest radius; white squares are theoretical fields that fit.
    Where the study's recipe was run, its two pictures follow: linear up to 0.1, and logarithmic.

    Args:
        rows: the priors.
    """
    columns = max(len(row.fields) + 2 * (row.study is not None) for row in rows)
    figure = Figure(figsize=(WIDTH, WIDTH / columns * len(rows) * 1.15 + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    reach = max([SMALLEST, *(field.radii[-1] for row in rows for field in row.fields)])
    for row, line in zip(rows, axes, strict=True):
        for field, axis in zip(row.fields, line, strict=False):
            _field(axis, field, row.theoretical, ZOOM * reach)
        if row.study is not None:
            _study(line[len(row.fields) : len(row.fields) + 2], row.study)
        known = "all" if row.theoretical is None else f"{row.theoretical} pixels"
        line[0].text(
            *(-0.05, 0.5),
            f"{plain(row.name)}\nin theory {known}",
            rotation=90,
            transform=line[0].transAxes,
            ha="right",
            va="center",
        )
    names = ", ".join(f"{100 * share:g}" for share in SHARES)
    figure.suptitle(f"energy of a denoised pixel's gradient; discs with {names} % of it")
    return figure


def _field(axis: Axes, field: Field, theoretical: int | None, half: float) -> None:
    """Draw one field up to offsets of `half` pixels."""
    height, width = (n // 2 for n in field.energy.shape)
    largest = field.energy.max()
    shown = np.maximum(field.energy / largest, DECADES)
    extent = (-width - 0.5, width + 0.5, height + 0.5, -height - 0.5)
    axis.imshow(shown, norm=LogNorm(DECADES, 1), extent=extent, cmap="viridis")
    for radius, look in zip(field.radii, LINES, strict=True):
        axis.add_patch(Circle((0, 0), radius, fill=False, color="C1", lw=0.8, linestyle=look))
    if theoretical is not None:
        corner = (-theoretical / 2, -theoretical / 2)
        axis.add_patch(
            Rectangle(corner, theoretical, theoretical, fill=False, color="white", lw=0.6)
        )
    axis.set_xlim(-min(half, width), min(half, width))
    axis.set_ylim(min(half, height), -min(half, height))
    radii = ", ".join(f"{radius:.1f}" for radius in field.radii)
    axis.set_title(f"sigma {field.sigma:g}\n{radii}")


def _study(axes: Sequence[Axes], field: np.ndarray) -> None:
    axes[0].imshow(field, vmin=0, vmax=STUDY_CUT, cmap="viridis")
    axes[0].set_title("study's recipe\nlinear to 0.1")
    axes[1].imshow(np.log(field + STUDY_FLOOR), cmap="viridis")
    axes[1].set_title("\nlogarithm")
