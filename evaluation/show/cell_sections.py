"""Sections of the report on results folders of `evaluation.evaluate`: table, plots, sampling."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape

from matplotlib import rc_context
from matplotlib.figure import Figure

from evaluation.results.cells import CellResults, describe_measurement
from evaluation.show.boxes import draw_summary
from evaluation.show.cell_images import CellImages
from evaluation.show.markup import Column, Text, html
from evaluation.show.sampling_picture import figure, sampling_picture
from evaluation.show.style import STYLE

LEFT_OUT = ("people", "skipped")  # of info.json: long, and of single slices


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
            picture = None
        shown = figure(picture) if picture else "<p>No picture of it.</p>"
        parts[fields] = f"<h3>{escape(words)}</h3>\n{shown}"
    return "\n".join(parts.values())


def short(info: Mapping) -> dict:
    """Content of ``info.json`` without lists over slices, of which the lengths stay."""
    return {
        name: f"{len(value)} entries" if name in LEFT_OUT and value else value
        for name, value in info.items()
    }
