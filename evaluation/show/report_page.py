"""Parts of the report's page: style and scripts, table, box plots, sampling, colours."""

import base64
import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from evaluation.results.cells import CellResults, describe_measurement
from evaluation.show.boxes import draw_summary
from evaluation.show.cell_images import CellImages
from evaluation.show.markup import Column, Text, html
from evaluation.show.panels import ERROR_COLORS
from evaluation.show.pixels import LEVELS
from evaluation.show.sampling_picture import sampling_picture
from evaluation.show.style import STYLE
from evaluation.show.undecided import IN_WORDS, OPEN, ORANGE
from evaluation.show.windows import HU

HERE = Path(__file__).parent / "report"
SCRIPTS = ("pixels.js", "viewer.js", "window.js", "gestures.js", "page.js")  # in this order
SIGNED_COLORS = "RdBu_r"  # neutral where there is no error
INLINE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
EMBEDDED_POLICY = f"{INLINE}; img-src data:"
FILES_POLICY = f"{INLINE} 'self' file:; img-src data: 'self' file:"


def fill(**parts: str) -> str:
    """The template with style, scripts and `parts`, each in place of ``@NAME@``.

    It is one pass, so that parts are not expanded.
    """
    parts["STYLE"] = (HERE / "style.css").read_text()
    parts["SCRIPTS"] = "\n".join((HERE / name).read_text() for name in SCRIPTS)
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], (HERE / "page.html").read_text())


def embed(data: dict) -> str:
    """JSON that is safe inside an HTML script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def table(names: Sequence[str], columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> str:
    """The table of `evaluation.tables` as HTML, with the names of its rows before them."""
    columns = [Column("name", number=False), *columns]
    rows = [
        [
            _breakable(item) if column.number else item
            for column, item in zip(columns, row, strict=True)
        ]
        for row in ([Text(name), *row] for name, row in zip(names, rows, strict=True))
    ]
    return html(columns, rows)


def _breakable(item: Text) -> Text:
    """The text with line breaks allowed before an interval and nowhere else."""
    text = item.text.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}[", " [")
    return item._replace(text=text)


def plots(cells: Sequence[CellResults], names: Sequence[str]) -> str:
    """Box plots as an SVG element in the page's colours."""
    element = _svg(draw_summary(cells, names))
    for ours, theirs in (("#000000", "currentColor"), ("#ffffff", "none")):
        element = element.replace(f": {ours}", f": {theirs}")
    return element


@rc_context(STYLE)
def _svg(figure: Figure) -> str:
    """The figure as an HTML element, without date, links or document type."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = re.sub("<metadata>.*</metadata>", "", element[element.index("<svg") :], flags=re.S)
    label = "distribution of the metrics over slices, a row a method"
    return element.replace("<svg", f'<svg class="plots" role="img" aria-label="{label}"', 1)


def sampling(opened: Sequence[CellImages], key: str) -> str:
    """Each measurement of the folders in words, and its sampling of one slice as a picture."""
    parts = {}
    for source in opened:
        cell = source.cell
        fields = json.dumps([cell.config["operator"], cell.config["seed"]], sort_keys=True)
        if fields in parts:
            continue
        what, acceleration = describe_measurement(cell.config, cell.info)
        words = what if acceleration == "-" else f"{what}, {acceleration}"
        try:
            picture = sampling_picture(source.operator(key))
        except ValueError:  # an operator of someone else's checkout
            picture = ""
        parts[fields] = f"<h3>{escape(words)}</h3>\n{picture or '<p>No picture of it.</p>'}"
    return "\n".join(parts.values())


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


def footer(count: int, left_out: str, unit: str, has_samples: bool) -> str:
    """What is shown, and how exactly."""
    values = (
        "in Hounsfield units, by the range of the slice in its file"
        if unit == HU
        else "in parts of the range (largest magnitude) of the slice, 0 to 1"
    )
    text = (
        f"{count} slices that all folders have{left_out}. Images are magnitudes (real ones keep "
        f"their sign), {values}; they are stored in steps of 1/{LEVELS} of that range and shown "
        "in 256 grey levels of the window. Errors are image minus target. Metrics are computed "
        "from the results themselves and over the whole range, whatever the window."
    )
    if has_samples:
        text += (
            " Standard deviation and width of the interval from 5 to 95 % are over posterior "
            f"samples; orange, {OPEN}: {IN_WORDS}."
        )
    return escape(text)
