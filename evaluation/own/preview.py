"""Picture of a few slices of a reconstruction."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evaluation.show.style import plain, write_figure
from evaluation.show.undecided import OPEN, draw_undecided

PANEL = 2.6  # inches from image to image
BAND = 0.3  # inches for the titles
CHARACTERS = 40  # of the note a panel
MARGIN = 0.24  # inches a panel that the slices' names take


def preview(
    path: Path,
    rows: list[tuple[str, list[tuple[str, np.ndarray]]]],
    *,
    note: str = "",
    unit: str = "",
) -> None:
    """Write a PNG with a row of images for each slice.

    All images of a row are shown in grey with the range of the reconstruction, so that they can be
    compared; those with titles ending in "std" in colour, from 0 to their largest value; the one
    titled `OPEN` in orange over the reconstruction.

    Args:
        path: path of the PNG.
        rows: (name of the slice, list of (title, real image ``(H, W)``)); every row has the same
            titles, one of which is "reconstruction".
        note: text below the images.
        unit: unit of the images, as words below them.
    """
    titles = [title for title, _ in rows[0][1]]
    height, width = rows[0][1][0][1].shape
    figure = Figure(
        figsize=(PANEL * len(titles), len(rows) * (PANEL - MARGIN) * height / width + BAND),
        layout="constrained",
    )
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for number, (axes, (name, images)) in enumerate(zip(grid, rows, strict=True)):
        shown = dict(images)["reconstruction"]
        for axis, (title, image) in zip(axes, images, strict=True):
            low, high = float(shown.min()), float(shown.max())
            axis.set_xticks([])
            axis.set_yticks([])
            if number == 0:
                axis.set_title(title, fontsize=10)
            if title == OPEN:
                draw_undecided(axis, shown, image, low, high)
                continue
            is_std = title.endswith("std")
            drawn = axis.imshow(
                image,
                cmap="inferno" if is_std else "gray",
                vmin=0 if is_std else low,
                vmax=float(image.max()) or 1.0 if is_std else high,
                interpolation="nearest",
            )
            if is_std:
                figure.colorbar(drawn, ax=axis, fraction=0.046, format="%.3g")
        axes[0].set_ylabel(f"{plain(name)}\nblack {low:.3g}, white {high:.3g}", fontsize=8)
    note = "; ".join(filter(None, [unit and f"unit of the images: {unit}", note]))
    if note:
        figure.supxlabel(textwrap.fill(note, int(CHARACTERS * len(titles))), fontsize=8)
    write_figure(figure, path, dpi=110)
