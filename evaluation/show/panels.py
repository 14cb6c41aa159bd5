"""Figures of reconstructions side by side, with an enlarged detail and error maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import uniform_filter

from evaluation.show.style import STYLE, WIDTH, plain, write_figure
from evaluation.show.windows import full_scale

ERROR_RANGE = 0.2  # full scale of the error maps of single slices, for images in [0, 1]
ERROR_COLORS = "inferno"  # brighter means larger, also when printed in grey
ERROR_RANGES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # full scales to choose from
TYPICAL_LARGE = 99.5  # percentile of the errors that the scale should cover
MOST_COLUMNS = 5  # largest number of images side by side
INSET_PART = 0.2  # side of the enlarged square as a fraction of the shorter side of the image
STRONG_EDGE = 75  # percentile of the nonzero gradient magnitudes at which they are clipped
INSET_SIZE = 0.42  # side of the enlargement as a fraction of the image
GAP, TITLE, CAPTION = 0.05, 0.32, 0.24  # inches: gap of images, two title lines, one caption
INSET_COLOR = "#F0E442"


class Values(NamedTuple):
    """Unit of images: a value v of theirs is factor * v + offset in it."""

    factor: float = 1.0
    offset: float = 0.0
    unit: str = "part of the range"


class Inset(NamedTuple):
    """Square of an image: first row, first column and side in pixels."""

    row: int
    column: int
    side: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The part of an image inside the square."""
        return image[self.row : self.row + self.side, self.column : self.column + self.side]


def find_inset(image: np.ndarray) -> Inset:
    """Square with the most edges in bright tissue; its side is a fifth of the image's.

    Gradient magnitudes are summed, clipped so that many edges count more than a single strong one,
    and weighted by the mean of the square, so that the background is not chosen.

    Args:
        image: ``(H, W)``.
    """
    side = max(2, round(INSET_PART * min(image.shape)))
    detail = _detail(image)
    strong = np.percentile(detail[detail > 0], STRONG_EDGE) if detail.any() else 0.0
    sums = uniform_filter(np.minimum(detail, strong), side)
    sums *= uniform_filter(image.astype(np.float64), side)
    # the window of `side` pixels that uniform_filter centres on i starts at i - side // 2
    inside = sums[tuple(slice(side // 2, n - side + side // 2 + 1) for n in image.shape)]
    row, column = np.unravel_index(np.argmax(inside), inside.shape)
    return Inset(int(row), int(column), side)


def quiet_corner(image: np.ndarray, inset: Inset) -> tuple[float, float]:
    """Place where the enlargement hides least: its lower left corner as fractions of the sides."""
    height, width = (round(INSET_SIZE * n) for n in image.shape)
    detail = _detail(image)
    cut = inset.cut(detail)
    cut += detail.sum() + 1  # never hide the square that is enlarged
    corners = {
        (0.0, 1 - INSET_SIZE): detail[:height, :width],
        (1 - INSET_SIZE, 1 - INSET_SIZE): detail[:height, -width:],
        (0.0, 0.0): detail[-height:, :width],
        (1 - INSET_SIZE, 0.0): detail[-height:, -width:],
    }
    return min(corners, key=lambda corner: corners[corner].sum())


def error_range(errors: Sequence[np.ndarray]) -> float:
    """Full scale for error maps: the smallest of `ERROR_RANGES` that half of the maps fit into."""
    needed = np.median([np.percentile(error, TYPICAL_LARGE) for error in errors])
    return next((full for full in ERROR_RANGES if full >= needed), ERROR_RANGES[-1])


@rc_context(STYLE)
def draw_panels(
    target: np.ndarray,
    images: Mapping[str, np.ndarray],
    captions: Mapping[str, str],
    *,
    inset: Inset | None = None,
    values: Values | None = None,
    window: tuple[float, float] | None = None,
) -> Figure:
    """Figure of a target and several reconstructions of a slice, with error maps below.

    Colour bars say what is black and white and the scale of the errors, in the unit.

    Args:
        target: ``(H, W)`` in [0, 1].
        images: title -> reconstruction of the same shape.
        captions: title -> text below the error map.
        inset: detail to enlarge; None for `find_inset` of the target.
        values: unit of the images; None for parts of their range.
        window: level and width of the grey levels in this unit; None to show 0 to 1.

    Raises:
        ValueError: an image of another shape, an inset that is not inside the image, or a window
            without a positive width.
    """
    for title, image in images.items():
        if image.shape != target.shape:
            raise ValueError(f"{title}: expected an image of {target.shape}, got {image.shape}")
    inset = inset or find_inset(target)
    if inset.cut(target).shape != (inset.side, inset.side) or min(inset) < 0:
        raise ValueError(f"expected an inset inside of {target.shape} pixels, got {tuple(inset)}")
    values = values or Values()
    low, high = values.offset, values.offset + values.factor
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    if not low < high:
        raise ValueError(f"expected a window of LEVEL,WIDTH with a positive width, got {window}")
    look = {"vmin": (low - values.offset) / values.factor}
    look |= {"vmax": (high - values.offset) / values.factor}
    corner = quiet_corner(target, inset)
    errors = {title: np.abs(image - target) for title, image in images.items()}
    if values.factor == 1:
        full = error_range(list(errors.values()))
    else:
        full = full_scale([values.factor * error for error in errors.values()]) / values.factor

    columns = min(MOST_COLUMNS, len(images) + 1)
    lines = -(-len(images) // (columns - 1))
    figure, axes = _axes(lines, columns, target.shape[0] / target.shape[1])
    _show(axes[0, 0], target, "target", inset, corner, look)
    for i, (title, image) in enumerate(images.items()):
        line, column = i // (columns - 1), 1 + i % (columns - 1)
        _show(axes[2 * line, column], image, title, inset, corner, look)
        below = axes[2 * line + 1, column]
        below.imshow(errors[title], cmap=ERROR_COLORS, vmin=0, vmax=full, interpolation="nearest")
        below.add_patch(_frame(inset))
        below.text(0.5, -0.03, captions[title], ha="center", va="top", transform=below.transAxes)
    _scale(axes[1, 0], 0.72, (low, high), "gray", f"images ({values.unit})", "both")
    errors_in = (0, values.factor * full)
    text = f"|reconstruction $-$ target|\n({values.unit})"
    _scale(axes[1, 0], 0.28, errors_in, ERROR_COLORS, text, "max")
    return figure


def _axes(lines: int, columns: int, aspect: float) -> tuple[Figure, np.ndarray]:
    """Frameless, adjacent axes ``(2 * lines, columns)``: rows of images and errors in turn."""
    width = (WIDTH - GAP * (columns - 1)) / columns
    picture = width * aspect
    line = TITLE + 2 * picture + GAP + CAPTION
    figure = Figure(figsize=(WIDTH, lines * line))
    axes = np.empty((2 * lines, columns), dtype=object)
    for (row, column), _ in np.ndenumerate(axes):
        top = row // 2 * line + TITLE + row % 2 * (picture + GAP)
        left, bottom = column * (width + GAP), lines * line - top - picture
        parts = np.array([left, bottom, width, picture]) / np.tile((WIDTH, lines * line), 2)
        axes[row, column] = figure.add_axes(parts)
        axes[row, column].set_axis_off()
    return figure, axes


def _show(
    axis: Axes, image: np.ndarray, title: str, inset: Inset, corner: tuple, look: dict
) -> None:
    look = {"cmap": "gray", "interpolation": "nearest", **look}
    axis.imshow(image, **look)
    axis.add_patch(_frame(inset))
    axis.set_title("\n".join(map(plain, title.split("\n"))), pad=3)
    enlarged = axis.inset_axes([*corner, INSET_SIZE, INSET_SIZE])
    enlarged.imshow(inset.cut(image), **look)
    enlarged.set_xticks([])
    enlarged.set_yticks([])
    for side in enlarged.spines.values():
        side.set_color(INSET_COLOR)
        side.set_linewidth(1)


def _frame(inset: Inset) -> Rectangle:
    return Rectangle(
        (inset.column - 0.5, inset.row - 0.5),
        *(inset.side, inset.side),
        fill=False,
        edgecolor=INSET_COLOR,
        linewidth=0.8,
    )


def _scale(
    axis: Axes, height: float, ends: tuple[float, float], colors: str, text: str, extend: str
) -> None:
    """Draw a horizontal colour bar in the free space below the target."""
    bar = axis.inset_axes([0.08, height, 0.84, 0.07])
    scale = ScalarMappable(Normalize(*ends), colors)
    drawn = axis.figure.colorbar(
        scale, cax=bar, orientation="horizontal", extend=extend, ticks=list(ends)
    )
    drawn.ax.set_xticklabels([f"{end:.4g}".replace("-", "\N{MINUS SIGN}") for end in ends])
    bar.set_title(text, fontsize=STYLE["xtick.labelsize"], pad=4)


def _detail(image: np.ndarray) -> np.ndarray:
    """Gradient magnitude per pixel."""
    return np.hypot(*np.gradient(image.astype(np.float64)))


def panel(
    path: Path,
    *,
    target: np.ndarray,
    baseline: np.ndarray,
    image: np.ndarray,
    captions: tuple[str, str, str],
    title: str,
) -> None:
    """Write a PNG of target, baseline, reconstruction and its error side by side.

    Magnitudes are shown from 0 to 1, which the figure says.

    Args:
        path: the file to write.
        target: ``(H, W)`` in [0, 1].
        baseline: ``(H, W)``, such as a zero-filled image.
        image: ``(H, W)`` reconstruction.
        captions: texts below the three images.
        title: text above the images.
    """
    picture = 3.0  # inches
    height = picture * target.shape[0] / target.shape[1]
    figure = Figure(figsize=(4 * picture + 0.8, height + 0.5), layout="constrained")
    axes = figure.subplots(1, 4)
    shown = [np.abs(target), np.abs(baseline), np.abs(image)]
    for axis, picture, caption in zip(axes[:3], shown, captions, strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xlabel(caption)
    error = np.abs(shown[2] - shown[0])
    look = {"cmap": ERROR_COLORS, "vmin": 0, "vmax": ERROR_RANGE, "interpolation": "nearest"}
    drawn = axes[3].imshow(error, **look)
    axes[3].set_xlabel("|reconstruction $-$ target|")
    figure.colorbar(drawn, ax=axes[3], fraction=0.046, pad=0.02, extend="max", label=Values().unit)
    axes[0].set_ylabel(f"black 0, white 1 ({Values().unit})")
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(plain(title))
    write_figure(figure, path, dpi=110)
