"""The report on results folders of `evaluation.evaluate`: metrics, errors, what was measured."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.baselines.direct import DIRECT
from evaluation.metrics import all_metrics
from evaluation.results.cells import IMAGE_METRICS, CellResults, label, titles
from evaluation.show.cell_images import CellImages, common_keys
from evaluation.show.cell_sections import plots, sampling, short, table
from evaluation.show.gallery import Gallery, Shown
from evaluation.show.markup import Column, Text
from evaluation.show.report_page import Around, folded, how_exactly, make_page, note, sheet
from evaluation.show.report_slices import Store
from evaluation.show.run_settings import settings_html
from evaluation.show.windows import HU, RANGE
from operators.create import is_known, operator_class

INTERVALS = (
    "Mean ± standard deviation over slices [95 % interval of the mean, by volume or person; none "
    "where all slices are of one]. Best mean PSNR first; a column's title sorts by it, the images "
    "below as well."
)
BOXES = (
    "Boxes from quartile to quartile with the median, whiskers to the last value within 1.5 times "
    "their length; of fewer than 8 slices each is a point, and a line the median."
)


def cell_report(
    cells: Sequence[CellResults],
    summary: tuple[Sequence[Column], Sequence[Sequence[Text]]],
    *,
    folders: Sequence[Path],
    limit: int,
    title: str,
    store: Store | None,
) -> str:
    """HTML text of the report.

    Args:
        cells: cells of results folders, best first (`ranked`); the slices that they have in common
            are shown.
        summary: columns and rows of the table, a row a cell.
        folders: the folders as the page names them.
        limit: number of slices, from the first; 0 for all.
        title: title of the page.
        store: see `make_page`.

    Raises:
        ValueError: a folder has no results, or the folders have no slice in common.
    """
    names, opened = titles(cells), [CellImages(cell) for cell in cells]
    keys = common_keys(opened)
    gallery = _gallery(opened, names, keys[: limit or None])
    left_out = len(keys) - len(gallery.keys)
    more = f"; {left_out} more are left out" if left_out else ""
    settings = settings_html(
        names, [cell.config for cell in cells], [short(cell.info) for cell in cells]
    )
    sections = [
        sheet("plots", "Distribution over slices", plots(cells, names)),
        note(BOXES),
        folded("What is measured", f'<div id="sampling">{sampling(opened, keys[0])}</div>'),
        folded("Settings and versions", settings),
    ]
    values = f"in {gallery.unit}, 0 to 1"
    if gallery.unit == HU:
        values = "in Hounsfield units, by the range of the slice in its file"
    around = Around(
        intro=f"{sheet('summary', 'Summary', table(names, *summary))}\n{note(INTERVALS)}",
        sections="\n".join(sections),
        footer=f"{len(gallery.keys)} slices that all folders have{more}. "
        f"{how_exactly(values)} Errors are image minus target. Metrics are computed from the "
        "results themselves and over the whole range, whatever the window.",
    )
    return make_page(gallery, around, title=title, folders=folders, store=store)


def ranked(cells: Sequence[CellResults]) -> list[CellResults]:
    """Cells by their mean PSNR over the slices that all have, best first.

    Raises:
        ValueError: they have no slice in common.
    """
    keys = common_keys([CellImages(cell) for cell in cells])

    def worse(cell: CellResults) -> float:
        mean = np.mean([cell.rows[key].get("psnr", math.nan) for key in keys])
        return math.inf if math.isnan(mean) else -mean

    return sorted(cells, key=worse)


def count_pixels(cells: Sequence[CellResults], limit: int) -> int:
    """About how many pixels all images have.

    Args:
        cells: cells of results folders.
        limit: number of slices, 0 for all.
    """
    opened = [CellImages(cell) for cell in cells]
    keys = common_keys(opened)
    first = [source.reconstruction(keys[0]).size for source in opened]
    each = sum(
        size * (1 + len(source.spread(keys[0]))) for size, source in zip(first, opened, strict=True)
    )
    return (each + 2 * first[0]) * min(len(keys), limit or len(keys))  # target, direct image


def _gallery(opened: Sequence[CellImages], names: Sequence[str], keys: Sequence[str]) -> Gallery:
    """Target, methods, and direct reconstructions that are not among them."""
    first, cells = opened[0], [source.cell for source in opened]
    shown = [Shown("target", first.target)]
    shown += [_method(name, source) for name, source in zip(names, opened, strict=True)]
    directs = _directs(cells, names)
    shown += [_direct(name, opened[i]) for name, i in directs.items()]
    own = next((i for i, one in enumerate(shown) if one.is_direct), 0)
    left = 1 + len(cells) if directs else own
    return Gallery(
        keys=keys,
        shown=shown,
        unit=RANGE if first.hounsfield(keys[0]) is None else HU,
        values=lambda key: first.hounsfield(key) or (1.0, 0.0),
        metrics=IMAGE_METRICS,
        left=left,
        right=next((1 + i for i in range(len(cells)) if 1 + i != left), 0),
    )


def _method(name: str, source: CellImages) -> Shown:
    return Shown(
        name,
        source.reconstruction,
        spread=source.spread,
        metrics=lambda key, image, target: source.cell.rows[key],
        is_direct=source.cell.config["sampler"]["name"] in DIRECT.values(),
    )


def _direct(name: str, source: CellImages) -> Shown:
    return Shown(
        name,
        source.direct,
        metrics=lambda key, image, target: all_metrics(target, image),
        is_direct=True,
    )


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
