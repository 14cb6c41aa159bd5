"""Data of a slice for the report's script: images, maps of its posterior samples, metrics."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from evaluation.show.gallery import Gallery
from evaluation.show.pixels import LEVELS, MOST, encode
from evaluation.show.windows import Window

THUMBNAIL = 112  # pixels of the longer side
QUALITY = 70  # of thumbnails, which are WebP
UNDECIDED_LEVELS = 255


def slice_data(
    key: str, images: Sequence[np.ndarray], gallery: Gallery
) -> tuple[dict, list[list[float | None] | None]]:
    """Encoded images of a slice, and their metrics.

    Args:
        key: key of the slice.
        images: its images, ``(H, W)`` each, in the order of ``gallery.shown``.
        gallery: what is shown.

    Returns:
        ``{"shape": [H, W], "images": [...], "maps": [{name: ...}, ...]}``, each image and map
        encoded by `pixels.encode`; and for each image its metrics, None for the first.
    """
    reference = images[0]
    numbers = [
        _numbers(one.metrics(key, image, reference), gallery.metrics)
        for one, image in zip(gallery.shown[1:], images[1:], strict=True)
    ]
    encoded = [
        {name: encode(values, _step(name, values)) for name, values in one.maps(key, image).items()}
        for one, image in zip(gallery.shown, images, strict=True)
    ]
    content = {
        "shape": list(reference.shape),
        "images": [encode(image, _image_step(image)) for image in images],
        "maps": encoded,
    }
    return content, [None, *numbers]


def embed(data: dict) -> str:
    """JSON that is safe inside an HTML script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


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


def _numbers(row: Mapping[str, float], names: Sequence[str]) -> list[float | None]:
    """Metrics of an image; None for missing or infinite ones, which JSON cannot hold."""
    values = [row.get(name, math.nan) for name in names]
    return [value if math.isfinite(value) else None for value in values]
