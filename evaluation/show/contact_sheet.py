"""Many images in one picture: grey ones side by side, complex ones as magnitude and phase."""

import io

import numpy as np
from matplotlib.colors import hsv_to_rgb
from PIL import Image
from torch import Tensor

GAP = 2  # pixels between images


def contact_sheet(images: Tensor, columns: int) -> np.ndarray:
    """Images in rows from left to right, separated by white lines.

    Args:
        images: ``(B, 1, H, W)``, real, or complex, which show their magnitude, and below all
            magnitudes their phase: the hue is the angle (red 0, cyan pi), black where there is no
            signal. Intensities from 0 to 1 are black to white; others are clipped.
        columns: images in a row.

    Returns:
        uint8 ``(H', W')``, for complex images ``(H', W', 3)``.
    """
    values = images[:, 0].detach().cpu().numpy()
    magnitude = np.clip(np.abs(values) if images.is_complex() else values, 0, 1)
    sheet = _tiled(magnitude, columns)
    if not images.is_complex():
        return sheet
    hue = np.angle(values) / (2 * np.pi) % 1
    phase = hsv_to_rgb(np.stack([hue, np.ones_like(hue), magnitude], axis=-1))  # (B, H, W, 3)
    line = np.full((GAP, sheet.shape[1], 3), 255, dtype=np.uint8)
    return np.concatenate([np.repeat(sheet[..., None], 3, axis=-1), line, _tiled(phase, columns)])


def _tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Images ``(B, H, W, ...)`` in [0, 1] as one, uint8; empty places are white."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    step = (height + GAP, width + GAP)
    size = (rows * step[0] - GAP, columns * step[1] - GAP, *images.shape[3:])
    sheet = np.full(size, 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = step[0] * (i // columns), step[1] * (i % columns)
        sheet[top : top + height, left : left + width] = np.round(255 * image)
    return sheet


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a uint8 picture, grey or RGB."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="png", optimize=True)
    return content.getvalue()
