"""All slices of a report: their common unit, windows and scales; images in the page or not."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from configs.progress import progress_bar
from evaluation.results.cells import CellResults
from evaluation.show.report_page import embed
from evaluation.show.slice_data import Shown, data_uri, maps, slice_data, thumbnail
from evaluation.show.windows import HU, RANGE, Window, full_scale, windows

SCALE_SLICES = 12  # evenly spaced slices that set the scales of maps and the windows
# direct images that are also baselines
DIRECT = {"zero-filled": "zero_filled", "gridded": "gridded", "FBP": "fbp"}
PERCENTILES = 1, 99  # of the target's values, from black to white where there is no unit
Store = Callable[[str, str | bytes], str]  # (end of a name, content) -> name of the written file


class Scales(NamedTuple):
    """What all slices share: unit, windows, and full scales of the maps in this unit."""

    unit: str
    windows: list
    full: dict[str, float]


def is_direct(cell: CellResults) -> bool:
    """Whether a cell holds direct images, without prior or regularisation."""
    return cell.config["sampler"]["name"] in DIRECT.values()


def find_scales(keys: Sequence[str], shown: Sequence[Shown]) -> Scales:
    """Unit, windows and full scales, from evenly spaced slices.

    Args:
        keys: keys of all slices.
        shown: images beside the target.
    """
    first = shown[0].source
    # direct images have errors an order larger
    methods = [one for one in shown if not (one.is_direct or is_direct(one.source.cell))] or shown
    places = np.linspace(0, len(keys) - 1, min(len(keys), SCALE_SLICES))
    found: dict[str, list[np.ndarray]] = {"error": []}
    unit, low, high = RANGE, math.inf, -math.inf
    for key in dict.fromkeys(keys[round(place)] for place in places):
        target, known = first.target(key), first.hounsfield(key)
        factor, offset = known or (1.0, 0.0)
        unit = HU if known else RANGE
        low = min(low, factor * float(target.min()) + offset)
        high = max(high, factor * float(target.max()) + offset)
        for one in methods:
            image = one.image(key)
            found["error"].append(factor * np.abs(image - target))
            for name, values in maps(one, key, image).items():
                found.setdefault(name, []).append(factor * values)
    full = {name: full_scale(values) for name, values in found.items()}
    if "undecided" in full:
        full["undecided"] = 1.0
    return Scales(unit, windows(unit, low, high), full)


def _first_window(scales: Scales, target: np.ndarray) -> Window:
    """The window in which the page first shows a slice."""
    if scales.unit == HU:
        return scales.windows[0]
    low, high = np.percentile(target, PERCENTILES)
    return Window("", float(low + high) / 2, float(high - low) or 1.0)


def all_slices(
    keys: Sequence[str], shown: Sequence[Shown], scales: Scales, store: Store | None
) -> tuple[list[dict], str]:
    """What the page knows of each slice from the start, and HTML elements with the images.

    Args:
        keys: keys of the slices.
        shown: images beside the target.
        scales: result of `find_scales`.
        store: writes a file (see `Store`) with the images of a slice, of which the page then knows
            the name; None for an element in the page. Small pictures likewise.
    """
    first = shown[0].source
    slices, embedded = [], []
    with progress_bar(len(keys), "slice") as progress:
        for number, key in enumerate(keys):
            target = first.target(key)
            factor, offset = first.hounsfield(key) or (1.0, 0.0)
            content, metrics = slice_data(key, target, shown)
            small = thumbnail(factor * target + offset, _first_window(scales, target))
            entry = {"key": key, "values": [factor, offset], "metrics": [None, *metrics]}
            if store:
                entry["thumbnail"] = store(".webp", small)
                entry["file"] = store(".js", f"receive({number}, {embed(content)});\n")
            else:
                entry["thumbnail"] = data_uri(small)
                embedded.append(
                    f'<script type="application/json" id="slice-{number}">{embed(content)}</script>'
                )
            slices.append(entry)
            progress.update()
    return slices, "\n".join(embedded)
