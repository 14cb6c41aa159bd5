"""Report on results folders of the same slices, as one self-contained HTML file.

    python -m evaluation.report results/mri/pd/gaussian1d_4x/* --out=report.html

It has a table with intervals, box plots over the slices, and for each slice its images with a
slider between any two, an error overlay, and an order by PSNR; of posterior samples also a map of
what is not decided by the data.
"""

import argparse
import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from configs import clear_errors, quiet_pipe
from configs.progress import progress_bar
from datasets.files import write_atomically
from evaluation.metrics import all_metrics
from evaluation.results.cells import IMAGE_METRICS, METRICS, CellResults, label, read_cell, titles
from evaluation.show.cell_images import CellImages, common_keys
from evaluation.show.markup import Column, Text, html
from evaluation.show.panels import ERROR_COLORS, error_range
from evaluation.show.plots import draw_summary
from evaluation.show.style import STYLE
from evaluation.show.undecided import IN_WORDS, OPEN, over_grey, undecided
from evaluation.tables import flat_table
from operators.create import is_known, operator_class

TEMPLATE = Path(__file__).parent / "show" / "report_template.html"
QUALITY = 85  # of WebP images, for viewing only; metrics use the original images
SCALE_SLICES = 20  # number of slices that set the full scale of the error overlay
DIRECT = {"zero-filled": "zero_filled", "FBP": "fbp"}  # direct images that are also baselines


def make_report(folders: Sequence[Path], *, limit: int = 0, title: str = "Reconstructions") -> str:
    """HTML text of the report.

    Args:
        folders: results folders; the slices that they have in common are shown.
        limit: number of slices, from the first; 0 for all.
        title: title of the page.

    Raises:
        ValueError: a folder has no results, or the folders have no slice in common.
    """
    cells = [read_cell(folder) for folder in folders]
    names = titles(cells)
    opened = [CellImages(cell) for cell in cells]
    keys = common_keys(opened)
    shown = keys[: limit or None]
    directs = _directs(cells, names)
    sampled = [i for i, source in enumerate(opened) if source.std(keys[0]) is not None]
    maps = [f"{names[i]}: {OPEN}" for i in sampled]
    errors = [
        np.abs(source.reconstruction(key) - opened[0].target(key))
        for key in shown[:SCALE_SLICES]
        for source in opened
    ]
    full = error_range(errors)
    slices = []
    with progress_bar(len(shown), "slice") as progress:
        for key in shown:
            slices.append(_slice(key, opened, directs, full, sampled))
            progress.update()
    data = {
        "names": ["target", *directs, *names, *maps],
        "metrics": [METRICS[name][:2] for name in IMAGE_METRICS],  # title and digits
        "slices": slices,
        "start": _start(cells, len(directs)),
    }
    height, width = opened[0].target(shown[0]).shape
    columns, rows = flat_table(cells, "both")
    columns = [Column("", number=False), *columns]
    rows = [
        [
            _breakable(item) if column.number else item
            for column, item in zip(columns, row, strict=True)
        ]
        for row in ([Text(name), *row] for name, row in zip(names, rows, strict=True))
    ]
    left_out = f"; {len(keys) - len(shown)} more are left out" if len(shown) < len(keys) else ""
    return _fill(
        TITLE=escape(title),
        FOLDERS=escape(", ".join(str(folder) for folder in folders)),
        TABLE=html(columns, rows),
        PLOTS=_svg(draw_summary(cells, names)),
        GRADIENT=_gradient(),
        ASPECT=f"{width} / {height}",
        ERROR=f"{full:g}",
        FOOTER=f"{len(shown)} slices that all folders have{left_out}. Images are magnitudes shown "
        f"from 0 to 1, errors are |image - target|; both are compressed (WebP, quality {QUALITY}), "
        "numbers are not computed from that." + (f" Orange, {OPEN}: {IN_WORDS}." if maps else ""),
        DATA=embed(data),
    )


def embed(data: dict) -> str:
    """JSON that is safe inside an HTML script element."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _directs(cells: Sequence[CellResults], names: Sequence[str]) -> dict[str, int]:
    """Direct reconstructions to add, one per measurement: title -> index of a cell that has it.

    A measurement whose direct reconstruction is among the cells gets none.
    """
    measured: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        fields = [cell.config[name] for name in ("operator", "seed", "protocol")]
        measured.setdefault(json.dumps(fields, sort_keys=True), []).append(i)
    directs = {}
    for members in measured.values():
        first = cells[members[0]]
        operator = first.config["operator"]["name"]
        if not is_known(operator):  # its measurement cannot be made again
            continue
        name = operator_class(operator).direct_name
        baseline = DIRECT.get(name)
        if all(cells[i].config["sampler"]["name"] != baseline for i in members):
            where = f" ({label(first.measurement)})" if len(measured) > 1 else ""
            directs[name + where] = members[0]
    return {name: i for name, i in directs.items() if name not in names}


def _start(cells: Sequence[CellResults], directs: int) -> dict[str, int]:
    """Images shown at first: on the left a direct one or the target, on the right a method's."""
    of_cells = range(1 + directs, 1 + directs + len(cells))
    is_direct = [cell.config["sampler"]["name"] in DIRECT.values() for cell in cells]
    left = next((i for i, direct in zip(of_cells, is_direct, strict=True) if direct), 0)
    left = 1 if directs else left
    return {"left": left, "right": next((i for i in of_cells if i != left), 0)}


def _breakable(item: Text) -> Text:
    """The text with line breaks allowed before an interval and nowhere else."""
    text = item.text.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}[", " [")
    return item._replace(text=text)


def _slice(
    key: str,
    opened: Sequence[CellImages],
    directs: dict[str, int],
    full: float,
    sampled: Sequence[int],
) -> dict:
    """Images, errors and metrics of one slice, each in the order of the names.

    Behind them are maps of what is not decided by the data, of the cells `sampled`.
    """
    target = opened[0].target(key)
    images = [opened[i].direct(key) for i in directs.values()]
    measured = [all_metrics(target, image) for image in images]
    images += [source.reconstruction(key) for source in opened]
    measured += [source.cell.rows[key] for source in opened]
    none = [None] * len(sampled)
    return {
        "key": key,
        "images": [
            *(_uri(_grey(image)) for image in (target, *images)),
            *(_uri(_open_map(opened[i], key)) for i in sampled),
        ],
        "errors": [
            None,
            *(_uri(_colored(np.abs(image - target) / full)) for image in images),
            *none,
        ],
        "metrics": [None, *map(_numbers, measured), *none],
    }


def _open_map(source: CellImages, key: str) -> np.ndarray:
    """RGB bytes ``(H, W, 3)``: a reconstruction, in orange what is not decided by the data."""
    image, std = source.reconstruction(key), source.std(key)
    return over_grey(image, undecided(image, np.zeros_like(image) if std is None else std))


def _numbers(row: Mapping[str, float]) -> list[float | None]:
    """Metrics of an image; None for missing or infinite ones, which JSON cannot hold."""
    values = [row.get(name, math.nan) for name in IMAGE_METRICS]
    return [value if math.isfinite(value) else None for value in values]


def _grey(image: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _colored(error: np.ndarray) -> np.ndarray:
    """Error map ``(H, W)`` in [0, 1] as RGB bytes ``(H, W, 3)``."""
    return matplotlib.colormaps[ERROR_COLORS](error, bytes=True)[..., :3]


def _uri(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


@rc_context(STYLE)
def _svg(figure: Figure) -> str:
    """The figure as an HTML element, without date, links or document type."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = re.sub("<metadata>.*</metadata>", "", element[element.index("<svg") :], flags=re.S)
    return element.replace("<svg", '<svg role="img" aria-label="box plots of the table"', 1)


def _gradient() -> str:
    colors = matplotlib.colormaps[ERROR_COLORS](np.linspace(0, 1, 9))
    return f"linear-gradient(to right, {', '.join(map(to_hex, colors))})"


def _fill(**parts: str) -> str:
    """The template with each ``@NAME@`` replaced, in one pass, so that parts are not expanded."""
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], TEMPLATE.read_text())


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    parser.add_argument("--limit", type=int, default=200, help="slices, 0: all (default 200)")
    parser.add_argument("--title", default="Reconstructions")
    arguments = parser.parse_args(argv)
    if arguments.limit < 0:
        parser.error(f"expected --limit of 0 (all) or more, got {arguments.limit}")
    with clear_errors():
        text = make_report(arguments.folders, limit=arguments.limit, title=arguments.title)
        write_atomically(arguments.out.resolve(), text.encode("utf-8", "replace"))
    print(f"report: {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    with quiet_pipe():
        main()
