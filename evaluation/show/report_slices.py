"""All slices of a report: their common windows and scales; images in the page or not."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from configs.progress import progress_bar
from evaluation.show.gallery import Gallery
from evaluation.show.slice_data import data_uri, embed, slice_data, thumbnail
from evaluation.show.windows import HU, Window, full_scale, windows

SCALE_SLICES = 12  # evenly spaced slices that set the scales of maps and the windows
PERCENTILES = 1, 99  # of the leading image's values, from black to white where there is no unit
Store = Callable[[str, str | bytes], str]  # (end of a name, content) -> name of the written file


class Scales(NamedTuple):
    """What all slices share: windows, and full scales of the maps, in the gallery's unit."""

    windows: list[Window]
    full: dict[str, float]


def find_scales(gallery: Gallery) -> Scales:
    """Windows and full scales, from evenly spaced slices.

    Args:
        gallery: what is shown.
    """
    keys, (reference, *others) = gallery.keys, gallery.shown
    compared = [one for one in others if not one.is_direct] or others
    places = np.linspace(0, len(keys) - 1, min(len(keys), SCALE_SLICES))
    found: dict[str, list[np.ndarray]] = {"error": []}
    low, high = math.inf, -math.inf
    for key in dict.fromkeys(keys[round(place)] for place in places):
        first, lead = reference.image(key), gallery.shown[gallery.lead].image(key)
        factor, offset = gallery.values(key)
        low = min(low, factor * float(lead.min()) + offset)
        high = max(high, factor * float(lead.max()) + offset)
        for one in compared:
            image = one.image(key)
            found["error"].append(factor * np.abs(image - first))
            for name, values in one.maps(key, image).items():
                found.setdefault(name, []).append(factor * values)
    full = {name: full_scale(values) for name, values in found.items()}
    if "undecided" in full:
        full["undecided"] = 1.0
    return Scales(windows(gallery.unit, low, high), full)


def _first_window(gallery: Gallery, scales: Scales, image: np.ndarray) -> Window:
    """The window in which the page first shows a slice."""
    if gallery.unit == HU:
        return scales.windows[0]
    low, high = np.percentile(image, PERCENTILES)
    return Window("", float(low + high) / 2, float(high - low) or 1.0)


def all_slices(gallery: Gallery, scales: Scales, store: Store | None) -> tuple[list[dict], str]:
    """What the page knows of each slice from the start, and HTML elements with the images.

    Args:
        gallery: what is shown.
        scales: result of `find_scales`.
        store: writes a file (see `Store`) with the images of a slice, of which the page then knows
            the name; None for an element in the page. Small pictures likewise.
    """
    slices, embedded = [], []
    with progress_bar(len(gallery.keys), "slice") as progress:
        for number, key in enumerate(gallery.keys):
            images = [one.image(key) for one in gallery.shown]
            factor, offset = gallery.values(key)
            content, metrics = slice_data(key, images, gallery)
            lead = factor * images[gallery.lead] + offset
            small = thumbnail(lead, _first_window(gallery, scales, lead))
            entry = {"key": key, "values": [factor, offset], "metrics": metrics}
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
