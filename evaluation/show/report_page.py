"""The report's page: the viewer of a gallery, with what stands before and after it."""

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb

from evaluation.results.cells import METRICS
from evaluation.show.gallery import Gallery
from evaluation.show.panels import ERROR_COLORS
from evaluation.show.pixels import LEVELS
from evaluation.show.report_slices import Store, all_slices, find_scales
from evaluation.show.slice_data import embed
from evaluation.show.undecided import IN_WORDS, OPEN, ORANGE

HERE = Path(__file__).parent / "report"
SCRIPTS = ("pixels.js", "viewer.js", "window.js", "gestures.js", "page.js")  # in this order
SIGNED_COLORS = "RdBu_r"  # neutral where there is no error
INLINE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
EMBEDDED_POLICY = f"{INLINE}; img-src data:"
FILES_POLICY = f"{INLINE} 'self' file:; img-src data: 'self' file:"
SPREAD = (
    "Standard deviation and width of the interval from 5 to 95 % are over posterior samples; "
    f"orange, {OPEN}: {IN_WORDS}."
)


class Around(NamedTuple):
    """HTML around the viewer.

    Attributes:
        intro: before it; a table in an element `summary` has a row for each image from the second
            on, in their order.
        sections: after it.
        footer: text of what is shown and how exactly; plain, not HTML.
    """

    intro: str
    sections: str
    footer: str


def make_page(
    gallery: Gallery,
    around: Around,
    *,
    title: str,
    folders: Sequence[Path],
    store: Store | None = None,
) -> str:
    """HTML text of a report.

    Args:
        gallery: what the viewer shows.
        around: what stands before and after it.
        title: title of the page.
        folders: folders that the images are of.
        store: writes the images of a slice into a file of its own, see `all_slices`; None to have
            all in the page.
    """
    scales = find_scales(gallery)
    slices, embedded = all_slices(gallery, scales, store)
    data = {
        "titles": [one.title for one in gallery.shown],
        "direct": [i for i, one in enumerate(gallery.shown) if one.is_direct],
        "metrics": [(*METRICS[name][:2], METRICS[name].better is max) for name in gallery.metrics],
        "unit": gallery.unit,
        "windows": scales.windows,
        "full": scales.full,
        "colors": colors(),
        "slices": slices,
        "start": {name: getattr(gallery, name) for name in ("lead", "left", "right", "map")},
    }
    height, width = gallery.shown[0].image(gallery.keys[0]).shape
    footer = f"{around.footer} {SPREAD}" if "undecided" in scales.full else around.footer
    return _fill(
        TITLE=escape(title),
        POLICY=FILES_POLICY if store else EMBEDDED_POLICY,
        FOLDERS=escape(", ".join(str(folder) for folder in folders)),
        INTRO=around.intro,
        SECTIONS=around.sections,
        ASPECT=f"{width} / {height}",
        FOOTER=escape(footer),
        DATA=embed(data),
        SLICES=embedded,
    )


def _fill(**parts: str) -> str:
    """The template with style, scripts and `parts`, each in place of ``@NAME@``.

    It is one pass, so that parts are not expanded.
    """
    parts["STYLE"] = (HERE / "style.css").read_text()
    parts["SCRIPTS"] = "\n".join((HERE / name).read_text() for name in SCRIPTS)
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], (HERE / "page.html").read_text())


def colors() -> dict:
    """Colours of maps: 256 RGB triples each in base64, and the colour of what is undecided."""
    places = np.arange(256)
    found = {"signed": SIGNED_COLORS, "size": ERROR_COLORS}
    tables = {
        name: base64.b64encode(matplotlib.colormaps[colors](places, bytes=True)[:, :3].tobytes())
        for name, colors in found.items()
    }
    orange = [round(255 * part) for part in to_rgb(ORANGE)]
    return {name: text.decode() for name, text in tables.items()} | {"undecided": orange}


def how_exactly(values: str) -> str:
    """Sentence on the values of the images, for the footer.

    Args:
        values: their unit, such as "in Hounsfield units".
    """
    return (
        f"Images are magnitudes (real ones keep their sign), {values}; they are stored in steps of "
        f"1/{LEVELS} of the range of the slice and shown in 256 grey levels of the window."
    )


def sheet(name: str, title: str, content: str) -> str:
    """A table or plot that may be wider than the screen, with a heading above it.

    Args:
        name: id of the element.
        title: plain text of the heading.
        content: HTML.
    """
    title = escape(title)
    return (
        f'<h2>{title}</h2>\n<div class="sheet wide" id="{name}" tabindex="0" role="region" '
        f'aria-label="{title}">{content}</div>'
    )


def wide(title: str, content: str) -> str:
    """A table that may be wider than what it is in.

    Args:
        title: what screen readers call it; plain text.
        content: HTML.
    """
    title = escape(title)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{title}">{content}</div>'


def folded(title: str, content: str, *, level: int = 2) -> str:
    """A section that opens when its heading is clicked.

    Args:
        title: plain text of the heading.
        content: HTML.
        level: of the heading, 1 for that of the page.
    """
    heading = f"<summary><h{level}>{escape(title)}</h{level}></summary>"
    return f'<details class="sheet">{heading}\n{content}\n</details>'


def note(text: str) -> str:
    """A paragraph of small print; plain text."""
    return f'<p class="note">{escape(text)}</p>'
