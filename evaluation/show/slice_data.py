"""Data of a slice for the report's script: images, maps of its posterior samples, metrics."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from evaluation.metrics import all_metrics
from evaluation.results.cells import IMAGE_METRICS
from evaluation.show.cell_images import CellImages
from evaluation.show.pixels import LEVELS, MOST, encode
from evaluation.show.undecided import undecided
from evaluation.show.windows import Window

THUMBNAIL = 112  # pixels of the longer side
QUALITY = 70  # of thumbnails, which are WebP
UNDECIDED_LEVELS = 255


class Shown(NamedTuple):
    """An image that every slice has.

    Attributes:
        title: its name.
        source: results folder that it is from.
        is_direct: whether it is the direct reconstruction of the folder's measurement.
    """

    title: str
    source: CellImages
    is_direct: bool = False

    def image(self, key: str) -> np.ndarray:
        """The image of a slice, ``(H, W)``."""
        return self.source.direct(key) if self.is_direct else self.source.reconstruction(key)

    def metrics(self, key: str, image: np.ndarray, target: np.ndarray) -> Mapping[str, float]:
        """Metrics of the image of a slice; those of the folder, if it has them."""
        return all_metrics(target, image) if self.is_direct else self.source.cell.rows[key]


def maps(shown: Shown, key: str, image: np.ndarray) -> dict[str, np.ndarray]:
    """How posterior samples differ, ``(H, W)`` each: std, width from 5 to 95 %, undecided part.

    Empty if there was one sample; without the width in folders that have no quantiles.
    """
    spread = {} if shown.is_direct else shown.source.spread(key)
    if "std" not in spread:
        return {}
    found = {"std": spread["std"]}
    if {"quantile_05", "quantile_95"} <= spread.keys():
        found["width"] = spread["quantile_95"] - spread["quantile_05"]
    return found | {"undecided": undecided(image, spread["std"])}


def slice_data(
    key: str, target: np.ndarray, shown: Sequence[Shown]
) -> tuple[dict, list[list[float | None]]]:
    """Encoded images of a slice, and the metrics of `shown`.

    Args:
        key: key of the slice.
        target: its target, ``(H, W)``.
        shown: images beside the target.

    Returns:
        ``{"shape": [H, W], "images": [...], "maps": [{name: ...}, ...]}`` with the target first,
        each encoded by `pixels.encode`; and for each of `shown` its metrics.
    """
    images = [image.image(key) for image in shown]
    numbers = [
        _numbers(one.metrics(key, image, target)) for one, image in zip(shown, images, strict=True)
    ]
    encoded = [
        {
            name: encode(values, _step(name, values))
            for name, values in maps(one, key, image).items()
        }
        for one, image in zip(shown, images, strict=True)
    ]
    content = {
        "shape": list(target.shape),
        "images": [encode(image, _image_step(image)) for image in (target, *images)],
        "maps": [{}, *encoded],
    }
    return content, numbers


def thumbnail(image: np.ndarray, window: Window) -> bytes:
    """Small WebP picture of an image ``(H, W)``, seen through a window in the image's unit."""
    low = window.level - window.width / 2
    grey = np.round(255 * np.clip((image - low) / window.width, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY)
    return content.getvalue()


def data_uri(content: bytes) -> str:
    """A WebP picture as a URI."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _image_step(image: np.ndarray) -> float:
    """A step of the range, or of what an image reaches that is far beyond it."""
    return max(1 / LEVELS, float(np.abs(image[np.isfinite(image)]).max(initial=0.0)) / MOST)


def _step(name: str, values: np.ndarray) -> float:
    if name == "undecided":
        return 1 / UNDECIDED_LEVELS
    return (float(values.max()) or 1.0) / LEVELS


def _numbers(row: Mapping[str, float]) -> list[float | None]:
    """Metrics of an image; None for missing or infinite ones, which JSON cannot hold."""
    values = [row.get(name, math.nan) for name in IMAGE_METRICS]
    return [value if math.isfinite(value) else None for value in values]
