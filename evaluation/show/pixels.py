"""Images as text that the report's script decodes: rounded, predicted, deflated, in base64.

An image is a grid of whole numbers times a step. Each number is predicted from its neighbours to
the left (a), above (b) and above left (c), outside of the image 0, by the median edge detector of
JPEG-LS (M. J. Weinberger et al., IEEE Trans. Image Process. 9, 2000, equation 1),

    min(a, b) if c >= max(a, b),  max(a, b) if c <= min(a, b),  a + b - c otherwise;

of the differences d, 2 d or -2 d - 1, first all low bytes, then all high ones are deflated (zlib).
A browser decodes them without its colour management, and to more than the 8 bits of its pictures.
"""

import base64
import zlib

import numpy as np

LEVELS = 4096  # of the range of images, or of a map's full scale
MOST = 2**14 - 1  # size of the largest number: differences then fit 16 bits


def encode(image: np.ndarray, step: float) -> dict:
    """JSON-able ``{"step", "data"}`` of an image.

    Args:
        image: real ``(H, W)``; numbers that are not finite become 0, and those beyond `MOST` steps
            are clipped.
        step: distance of neighbouring values, positive.
    """
    finite = np.nan_to_num(np.asarray(image, np.float64), nan=0, posinf=0, neginf=0)
    levels = np.clip(np.round(finite / step), -MOST, MOST).astype(np.int32)
    difference = levels - _predicted(levels)
    folded = np.where(difference >= 0, 2 * difference, -2 * difference - 1)
    planes = np.stack([folded & 255, folded >> 8]).astype(np.uint8)
    return {"step": step, "data": base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()}


def _predicted(levels: np.ndarray) -> np.ndarray:
    around = np.pad(levels, ((1, 0), (1, 0)))
    left, above, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    least, most = np.minimum(left, above), np.maximum(left, above)
    plane = left + above - corner
    return np.where(corner >= most, least, np.where(corner <= least, most, plane))
