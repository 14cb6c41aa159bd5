"""Report on results folders of the same slices, as an HTML page that needs no network.

    python -m evaluation.report results/mri/pd/gaussian1d_4x/* --out=report.html

It has a table with intervals, best method first; of each slice all images side by side, with zoom,
window and level, and maps of the signed or absolute error or of how posterior samples differ; the
sampling, all settings and versions. Large reports keep their images in OUT_files beside the page,
which loads them slice by slice; the page and this folder belong together.
"""

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from configs import clear_errors, quiet_pipe
from datasets.files import naming, write_atomically
from evaluation.results.cells import IMAGE_METRICS, METRICS, CellResults, label, read_cell, titles
from evaluation.show.cell_images import CellImages, common_keys
from evaluation.show.report_page import (
    EMBEDDED_POLICY,
    FILES_POLICY,
    colors,
    embed,
    fill,
    footer,
    plots,
    sampling,
    table,
)
from evaluation.show.report_slices import DIRECT, Store, all_slices, find_scales, is_direct
from evaluation.show.run_settings import settings_html
from evaluation.show.slice_data import Shown
from evaluation.tables import flat_table
from operators.create import is_known, operator_class

MOST_EMBEDDED = 40e6  # pixels of all images up to which they are in the page: about as many bytes

UNFINISHED = ".part"
FILES = (".js", ".webp", UNFINISHED)  # of the folder of images


def make_report(
    folders: Sequence[Path],
    *,
    limit: int = 0,
    title: str = "Reconstructions",
    store: Store | None = None,
) -> str:
    """HTML text of the report.

    Args:
        folders: results folders; the slices that they have in common are shown.
        limit: number of slices, from the first; 0 for all.
        title: title of the page.
        store: writes the images of a slice into a file of its own, which the page loads when the
            slice is looked at; None to have all in the page.

    Raises:
        ValueError: a folder has no results, or the folders have no slice in common.
    """
    cells, names, keys = _ranked([read_cell(folder) for folder in folders])
    opened = [CellImages(cell) for cell in cells]
    chosen = keys[: limit or None]
    shown = [Shown(name, source) for name, source in zip(names, opened, strict=True)]
    directs = _directs(cells, names)
    shown += [Shown(name, opened[i], is_direct=True) for name, i in directs.items()]
    scales = find_scales(chosen, shown)
    slices, embedded = all_slices(chosen, shown, scales, store)
    data = {
        "titles": ["target", *(one.title for one in shown)],
        "metrics": [(*METRICS[name][:2], METRICS[name].better is max) for name in IMAGE_METRICS],
        "unit": scales.unit,
        "windows": scales.windows,
        "full": scales.full,
        "colors": colors(),
        "slices": slices,
        "start": _start(cells, len(directs)),
    }
    height, width = opened[0].target(chosen[0]).shape
    left_out = f"; {len(keys) - len(chosen)} more are left out" if len(chosen) < len(keys) else ""
    return fill(
        TITLE=escape(title),
        POLICY=FILES_POLICY if store else EMBEDDED_POLICY,
        FOLDERS=escape(", ".join(str(folder) for folder in folders)),
        TABLE=table(names, *flat_table(cells, "both")),
        PLOTS=plots(cells, names),
        SAMPLING=sampling(opened, chosen[0]),
        SETTINGS=settings_html(cells, names),
        ASPECT=f"{width} / {height}",
        FOOTER=footer(len(chosen), left_out, scales.unit, "undecided" in scales.full),
        DATA=embed(data),
        SLICES=embedded,
    )


def write_report(
    folders: Sequence[Path], out: Path, *, limit: int, title: str, files: str = "auto"
) -> list[Path]:
    """Write the report, and where its images are too many for the page, OUT_files beside it.

    The page is written last, and only then are files removed that an earlier one used.

    Args:
        folders: results folders.
        out: path of the page.
        limit: number of slices, 0 for all.
        title: title of the page.
        files: "yes" for a folder of images beside the page, "no" to have them in it, "auto" to
            decide by their size.

    Returns:
        The paths that were written: the page, and the folder if there is one.
    """
    folder = out.with_name(f"{out.stem}_files")
    written: set[str] = set()

    def store(end: str, content: str | bytes) -> str:
        raw = content.encode() if isinstance(content, str) else content
        name = f"{hashlib.blake2b(raw, digest_size=8).hexdigest()}{end}"
        _write_quickly(folder / name, raw)
        written.add(name)
        return f"{folder.name}/{name}"

    beside = files == "yes" or (files == "auto" and _pixels(folders, limit) > MOST_EMBEDDED)
    text = make_report(folders, limit=limit, title=title, store=store if beside else None)
    write_atomically(out, text.encode("utf-8", "replace"))
    for suffix in FILES:
        for old in folder.glob(f"{'[0-9a-f]' * 16}{suffix}"):
            if old.name not in written:
                old.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return [out, folder] if beside else [out]


def _write_quickly(path: Path, content: bytes) -> None:
    """Write a file whose name says what is in it; unlike a result it need not survive a power cut.

    The file is there as a whole or not at all; one that is there is kept.
    """
    if path.is_file() and path.stat().st_size == len(content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(UNFINISHED)
    with naming(path):
        unfinished.write_bytes(content)
        unfinished.replace(path)


def _pixels(folders: Sequence[Path], limit: int) -> int:
    """About how many pixels all images have."""
    opened = [CellImages(read_cell(folder)) for folder in folders]
    keys = common_keys(opened)
    first = [source.reconstruction(keys[0]).size for source in opened]
    each = sum(
        size * (1 + len(source.spread(keys[0]))) for size, source in zip(first, opened, strict=True)
    )
    return (each + 2 * first[0]) * min(len(keys), limit or len(keys))  # target, direct image


def _ranked(
    cells: Sequence[CellResults],
) -> tuple[list[CellResults], list[str], list[str]]:
    """Cells by their mean PSNR over the slices that all have, best first; their names; the keys."""
    keys = common_keys([CellImages(cell) for cell in cells])

    def worse(item: tuple[CellResults, str]) -> float:
        mean = np.mean([item[0].rows[key].get("psnr", math.nan) for key in keys])
        return math.inf if math.isnan(mean) else -mean

    ranked = sorted(zip(cells, titles(cells), strict=True), key=worse)
    return [cell for cell, _ in ranked], [name for _, name in ranked], keys


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
    """Images of the slider at first: a direct one or the target, and the best method."""
    direct_ones = [is_direct(cell) for cell in cells]
    own = next((1 + i for i, direct in enumerate(direct_ones) if direct), 0)
    left = 1 + len(cells) if directs else own
    return {"left": left, "right": next((1 + i for i in range(len(cells)) if 1 + i != left), 0)}


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
    parser.add_argument(
        "--files",
        choices=("auto", "yes", "no"),
        default="auto",
        help="images in OUT_files beside the page: auto, from about 40 MB on (default)",
    )
    arguments = parser.parse_args(argv)
    if arguments.limit < 0:
        parser.error(f"expected --limit of 0 (all) or more, got {arguments.limit}")
    with clear_errors():
        paths = write_report(
            arguments.folders,
            arguments.out.absolute(),
            limit=arguments.limit,
            title=arguments.title,
            files=arguments.files,
        )
        size = sum(p.stat().st_size for path in paths for p in (path, *path.glob("*")))
    beside = f" and {paths[1].name}" if len(paths) > 1 else ""
    print(f"report: {arguments.out}{beside} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    with quiet_pipe():
        main()
