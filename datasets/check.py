"""Inspect a data set before training on it.

    python -m datasets.check --config=configs/fastmri_knee.py --config.data.root=PATH

prints the content of each split (counts, shapes, value ranges) and all problems found, and writes
the first images as a contact sheet. Bad files and slices are listed and do not stop it.
"""

import io
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

import configs
from configs.ranges import check_numbers
from datasets import create_dataset
from datasets.files import write_atomically
from datasets.identity import check_outside
from datasets.parallel import map_items, read_items
from datasets.sample import DataError, Sample
from datasets.splits import SPLITS

TILE, COLUMNS, CAPTION = 160, 8, 14  # side in pixels, images per row, height in pixels
MOST_LISTED = 20  # largest number of problems listed


@dataclass
class Report:
    """Findings on a split; `images` are thumbnails with their keys."""

    files: int = 0
    items: int = 0
    read: int = 0
    shapes: Counter = field(default_factory=Counter)
    low: float = float("inf")
    high: float = float("-inf")
    extras: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    images: list[tuple[str, Image.Image]] = field(default_factory=list)


def inspect_split(data: dict[str, Any], split: str, most: int) -> Report:
    """Report on a split, from reading `most` evenly spaced items (0: all)."""
    report = Report()
    try:
        dataset = create_dataset(data | {"skip_bad": True}, split)
    except DataError as error:
        report.problems.append(str(error))
        return report
    report.files, report.items = len(dataset.files), len(dataset)
    report.problems += dataset.skipped
    report.problems += _repeated_keys(dataset.keys)
    number = min(most or len(dataset), len(dataset))
    chosen = [i * len(dataset) // number for i in range(number)]
    for facts in map_items(partial(_facts, dataset, chosen), number, label=split):
        for fact in facts:
            _add(report, fact)
    for sample in read_items(dataset, range(min(COLUMNS, len(dataset)))):
        if isinstance(sample, Sample):
            report.images.append((sample.key, _tile(sample)))
    return report


def _facts(dataset: Dataset, chosen: Sequence[int], positions: Sequence[int]) -> list:
    """(shape, dtype, scale, extras) of some items; for unreadable ones the error message."""
    return [
        str(sample)
        if isinstance(sample, DataError)
        else (
            tuple(sample.image.shape[1:]),
            str(sample.image.dtype).removeprefix("torch."),
            sample.scale,
            [f"{name} {tuple(value.shape)}" for name, value in sample.extras.items()],
        )
        for sample in read_items(dataset, [chosen[p] for p in positions])
    ]


def _add(report: Report, fact: str | tuple) -> None:
    report.read += 1
    if isinstance(fact, str):
        report.problems.append(fact)
        return
    shape, dtype, (low, high), extras = fact
    report.shapes[f"{shape[0]} x {shape[1]} {dtype}"] += 1
    report.low, report.high = min(report.low, low), max(report.high, high)
    report.extras |= set(extras)


def _repeated_keys(keys: Sequence[str]) -> list[str]:
    return [f"the key {key} occurs {n} times" for key, n in Counter(keys).items() if n > 1]


def _tile(sample: Sample) -> Image.Image:
    pixels = (255 * sample.image[0].abs().clamp(0, 1)).numpy().astype(np.uint8)  # (H, W)
    picture = Image.fromarray(pixels)
    picture.thumbnail((TILE, TILE), Image.Resampling.BOX)
    return picture


def contact_sheet(reports: dict[str, Report]) -> Image.Image:
    """Contact sheet with one row per split, of its first images."""
    rows = [(split, report.images) for split, report in reports.items() if report.images]
    height = TILE + 2 * CAPTION
    sheet = Image.new("L", (COLUMNS * TILE, max(1, len(rows)) * height), 40)
    draw = ImageDraw.Draw(sheet)
    for row, (split, images) in enumerate(rows):
        draw.text((2, row * height), split, fill=255)
        for column, (key, picture) in enumerate(images):
            corner = (column * TILE, row * height + CAPTION)
            sheet.paste(picture, corner)
            draw.text((corner[0] + 2, corner[1] + TILE), _shown(key)[-24:], fill=200)
    return sheet


def describe(split: str, report: Report) -> str:
    """The report as text."""
    lines = [f"{split}: {report.items} images in {report.files} files"]
    if report.read:
        shapes = ", ".join(f"{shape} ({n})" for shape, n in report.shapes.most_common(5))
        lines.append(f"  read {report.read}: {shapes or 'none usable'}")
    if report.shapes:
        lines.append(f"  values in the files' unit: {report.low:.6g} to {report.high:.6g}")
    if report.extras:
        lines.append(f"  extras: {', '.join(sorted(report.extras))}")
    lines.append(f"  problems: {len(report.problems) or 'none'}")
    lines += [f"    {problem}" for problem in report.problems[:MOST_LISTED]]
    if len(report.problems) > MOST_LISTED:
        lines.append(f"    and {len(report.problems) - MOST_LISTED} more")
    return _shown("\n".join(lines))


def _shown(text: str) -> str:
    """`text` with invalid Unicode escaped, such as in file names of old archives."""
    return text.encode("utf-8", "backslashreplace").decode()


def inspect(config: ConfigDict, sheet: Path, most: int) -> dict[str, Report]:
    """Print a report on every split and write the contact sheet.

    Args:
        config: config with the section `data`.
        sheet: file of the contact sheet.
        most: number of items to read of each split; 0 for all.

    Returns:
        The reports by split.

    Raises:
        DataError: no split has a usable image.
    """
    check_numbers(config.data, "data.")
    data = config.data.to_dict()
    check_outside(sheet, data, "--sheet")
    print(f"{data['name']} {data.get('subset') or ''} {data.get('root') or '(embedded)'}")
    reports = {}
    for split in SPLITS:
        reports[split] = inspect_split(data, split, most)
        print(describe(split, reports[split]))
    if not any(report.shapes for report in reports.values()):
        raise DataError("no split has a usable image; see the problems above")
    content = io.BytesIO()
    known = Image.registered_extensions()
    contact_sheet(reports).save(content, known.get(sheet.suffix.lower(), "PNG"))
    write_atomically(sheet.resolve(), content.getvalue())
    print(f"first images: {sheet}")
    return reports


def main(_) -> None:
    """Run the command line."""
    logging.getLogger("datasets").setLevel(logging.ERROR)  # the report has the problems
    with configs.clear_errors():
        inspect(flags.FLAGS.config, Path(flags.FLAGS.sheet), flags.FLAGS.items)


if __name__ == "__main__":
    flags.DEFINE_string("sheet", "contact_sheet.png", "where the first images are written")
    flags.DEFINE_integer("items", 200, "images to read of each split; 0: all", lower_bound=0)
    configs.define_flags(None, reads="data.name")
    configs.run(main)
