"""Reading the report's images without its script."""

import base64
import json
import re
import zlib

import numpy as np


def decode(encoded, shape):
    """Image ``(H, W)`` of `evaluation.show.pixels.encode`, number by number."""
    height, width = shape
    planes = np.frombuffer(zlib.decompress(base64.b64decode(encoded["data"])), np.uint8)
    folded = planes[: height * width].astype(int) + 256 * planes[height * width :].astype(int)
    levels = np.zeros((height + 1, width + 1), int)  # with a border of zeros above and to the left
    for i, number in enumerate(folded):
        row, column = divmod(i, width)
        a, b, c = levels[row + 1, column], levels[row, column + 1], levels[row, column]
        guess = min(a, b) if c >= max(a, b) else max(a, b) if c <= min(a, b) else a + b - c
        levels[row + 1, column + 1] = guess + (-(number + 1) // 2 if number % 2 else number // 2)
    return encoded["step"] * levels[1:, 1:]


def data_of(text):
    """What the page knows from the start."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def slice_of(text, number):
    """Images and maps of a slice that is in the page."""
    found = re.search(rf'<script type="application/json" id="slice-{number}">(.*?)</script>', text)
    return json.loads(found[1])
