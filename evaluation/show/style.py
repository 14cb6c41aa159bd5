"""Style of figures: sizes for print, colours that colour-blind readers can distinguish."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from configs.base import SIZES
from datasets.files import write_atomically

WIDTH = 7.0  # width of a page in inches; a column has half of it
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "axes.grid.axis": "y",
    "grid.alpha": 0.3,
    "pdf.fonttype": 42,  # keep text as text
    "svg.fonttype": "none",
    "svg.hashsalt": "",  # reproducible ids
}
# Okabe and Ito's palette
NATURAL = "#D55E00"
COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")
LIGHTEST = 0.3  # fraction of the full colour for the smallest network
PNG_DPI = 300


def prior_colors(priors: Sequence[str]) -> dict[str, str]:
    """Colour of each prior; the natural-image prior has the same one in all figures."""
    others = [prior for prior in dict.fromkeys(priors) if prior != "natural"]
    colors = {prior: COLORS[i % len(COLORS)] for i, prior in enumerate(others)}
    return colors | ({"natural": NATURAL} if "natural" in priors else {})


def shade(color: str, size: str) -> np.ndarray:
    """RGB of `color` mixed with white: the less deep the network, the lighter."""
    sizes = list(SIZES)
    if size not in sizes:  # a control such as 1_large, or a nested network such as structured_2
        size = next(part for part in size.split("_") if part in sizes)
    part = LIGHTEST + (1 - LIGHTEST) * sizes.index(size) / (len(sizes) - 1)
    return part * np.array(to_rgb(color)) + (1 - part)


@rc_context(STYLE)
def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.pdf`` and ``name.png``, reproducibly (without dates); returns their paths."""
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    write_figure(figure, paths[0], metadata={"CreationDate": None})
    write_figure(figure, paths[1], dpi=PNG_DPI)
    return paths


def write_figure(
    figure: Figure, path: Path, *, dpi: int | None = None, metadata: dict | None = None
) -> None:
    """Draw a figure and write it atomically, in the format of the path's suffix."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=dpi or "figure", metadata=metadata)
    write_atomically(path, content.getvalue())


def plain(name: str) -> str:
    """A name escaped so that matplotlib shows it literally.

    ``$`` would start mathematics; line breaks and other unprintable characters become visible.
    """
    shown = name.encode("utf-8", "backslashreplace").decode()  # bytes that are not UTF-8
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown.replace("$", r"\$")
